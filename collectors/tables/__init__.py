"""The tables: what each asks to be measured, and the rows that come of it."""
