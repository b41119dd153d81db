"""Bounds that what users give and what tables hold have in common."""

LARGEST_INTEGER = 10**15
"""What no seed, size or number of epochs is beyond; floating point holds every whole number up to it."""
