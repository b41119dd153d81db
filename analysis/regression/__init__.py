"""Regressions of a bounded score on MSB: models and intervals for few clusters, mixed effects, sites, influence,
comparison.
"""

from analysis.regression.model import FractionalLogit, LogitOLS, Model
from analysis.regression.slopes import MIN_SPREAD, fit, group_slopes, split, within_between

__all__ = [
    "MIN_SPREAD",
    "FractionalLogit",
    "LogitOLS",
    "Model",
    "fit",
    "group_slopes",
    "split",
    "within_between",
]
