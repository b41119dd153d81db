"""Regressions of a bounded score on MSB: models and intervals for few clusters, mixed effects, sites, influence,
comparison.
"""

from analysis.regression.comparison import compare
from analysis.regression.influence import leave_one_out
from analysis.regression.mixed import MixedEffects, fit_mixed
from analysis.regression.model import FractionalLogit, LogitOLS, Model
from analysis.regression.sites import site_slopes
from analysis.regression.slopes import MIN_SPREAD, fit, group_slopes, split, within_between

__all__ = [
    "MIN_SPREAD",
    "FractionalLogit",
    "LogitOLS",
    "MixedEffects",
    "Model",
    "compare",
    "fit",
    "fit_mixed",
    "group_slopes",
    "leave_one_out",
    "site_slopes",
    "split",
    "within_between",
]
