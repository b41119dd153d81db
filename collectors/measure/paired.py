"""Changes between two measurements of the same images, with standard errors that use the pairing; numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

from invariscope.collectors.measure.scores import LEVEL, RULE_OF_THREE

_ROUNDING = 1e-12
"""Leave-one-out changes that differ by less are equal: all images then changed alike."""


@dataclass(frozen=True, eq=False)
class Statistic:
    """A measure of ``N`` images and its values without each of them in turn; without a number, the ``reason``.

    Attributes:
        value: the measure; NaN where there is none.
        without: ``(N,)`` the measure without image ``i``.
        floor: the least standard error that it can have.
        reason: why there is no number; empty where there is one.
    """

    value: float
    without: np.ndarray = field(default_factory=lambda: np.empty(0))
    floor: float = 0.0
    reason: str = ""

    @classmethod
    def missing(cls, reason: str) -> Statistic:
        """No number, for a reason."""
        return cls(np.nan, reason=reason)


@dataclass(frozen=True)
class Change:
    """``change = after - before``, its paired standard error, its 95 % interval; ``reason`` where there is none."""

    before: float
    after: float
    change: float = np.nan
    se: float = np.nan
    low: float = np.nan
    high: float = np.nan
    reason: str | None = None


def mean_statistic(values: np.ndarray) -> Statistic:
    """The mean of one value per image; no number where a value is NaN."""
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if np.isnan(values).any():
        return Statistic.missing("it is not defined for these shifts")
    without = (values.sum() - values) / (n - 1) if n > 1 else np.full(n, np.nan)
    return Statistic(float(values.mean()), without)


def average(statistics: Sequence[Statistic]) -> Statistic:
    """The unweighted mean of statistics of the same images; those without a number are left out.

    Leaving an image out leaves it out of all of them, so that their dependence enters the error.
    """
    known = [statistic for statistic in statistics if not statistic.reason]
    if not known:
        return statistics[0] if statistics else Statistic.missing("the network has no downsampling site")
    value = float(np.mean([statistic.value for statistic in known]))
    without = np.mean([statistic.without for statistic in known], axis=0)
    return Statistic(value, without, float(np.mean([statistic.floor for statistic in known])))


def paired_change(before: Statistic, after: Statistic, largest: float | None = 1.0) -> Change:
    """The change from ``before`` to ``after`` with the jackknife over the images that both are of.

    ``se² = (N - 1)/N · sum_i (d_i - mean d)²`` with ``d_i`` the change without image ``i``: of means over images this
    is ``s_d / sqrt(N)``, ``s_d`` the standard deviation of the images' own differences. The interval is ``change ±
    t(N - 1) se``, of no change above ``largest`` in size. Where all images change alike the error is 0, and the
    interval says by the rule of three that a share of at most ``3 / N`` of all images changes otherwise, by as much as
    it can; without a ``largest`` change (measures of many windows per image) it is then the change itself.
    """
    for when, statistic in (("before", before), ("after", after)):
        if statistic.reason:
            return Change(before.value, after.value, reason=f"{when} the change: {statistic.reason}")
    change = after.value - before.value
    deviation = after.without - before.without
    n = len(deviation)
    if np.isnan(deviation).any():
        return Change(before.value, after.value, change)
    floor = max(before.floor, after.floor)
    if np.ptp(deviation) <= _ROUNDING and largest is not None:
        share = min(1.0, RULE_OF_THREE / n)
        ends = change - share * (largest + change), change + share * (largest - change)
        return Change(before.value, after.value, change, floor, *ends)
    se = max(float(np.sqrt((n - 1) / n * np.square(deviation - deviation.mean()).sum())), floor)
    reach = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * se
    bound = np.inf if largest is None else largest
    low, high = (float(np.clip(end, -bound, bound)) for end in (change - reach, change + reach))
    return Change(before.value, after.value, change, se, low, high)
