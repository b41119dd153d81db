"""The name that this project had until version 0.1, under which its older tables and weights are still read."""

from __future__ import annotations

FORMER_NAME = "shiftscope"
"""The metadata key of older weights, and the beginning of older tables' column of the package's version."""
