"""Regressions of a bounded score on MSB: models and intervals for few clusters, mixed effects, sites, influence,
comparison.
"""

from invariscope.analysis.stats.regression.comparison import compare
from invariscope.analysis.stats.regression.leaving_out import leave_one_out
from invariscope.analysis.stats.regression.mixed import MixedEffects, fit_mixed
from invariscope.analysis.stats.regression.model import FractionalLogit, LogitOLS, Model
from invariscope.analysis.stats.regression.sites import site_slopes
from invariscope.analysis.stats.regression.slopes import MIN_SPREAD, fit, group_slopes, split, within_between

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
