"""One operator, data set, collector, figure and shift kind, as another package would bring them."""
