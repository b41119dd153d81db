"""The panels of the figure, one each."""
