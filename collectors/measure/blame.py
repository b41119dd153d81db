"""Blame: which part of a network makes its features depend on the shift of the image, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit
from torch import nn

from invariscope.base.errors import InputError, ModelError
from invariscope.collectors.measure.border import circularly_padded
from invariscope.collectors.measure.drift import LAST, LEAST, LOGITS, DriftSums, Key, sum_drift
from invariscope.collectors.measure.invariance import plan_columns
from invariscope.collectors.measure.jackknife import jackknife_error
from invariscope.collectors.measure.passes import Images, batches
from invariscope.collectors.measure.scores import LEVEL
from invariscope.collectors.measure.shifts import ShiftPlan

Array = npt.NDArray[np.float64]
Terms = tuple[tuple[Key, float, bool], ...]
"""Drifts that are summed: of what, with which sign, and whether of the circular network."""

BEFORE, SITE, HEAD, BORDER = "before", "site", "head", "border"
"""The causes: what lies before the first site, a site, what lies behind the last map, the border."""

RESAMPLES = 2000
SURE = 0.95
"""Share of bootstrap samples in which a part has to be the greatest to be named alone."""

NOTHING = 1e-9
"""Logits that drift by less do not move but for rounding."""


@dataclass(frozen=True, eq=False)
class Blame:
    """What each part of a network adds to the drift of its logits under one plan.

    Attributes:
        plan: the shifts.
        rows: a row per part: ``cause`` (``before`` the first site, ``site``, ``head``, ``border``), ``depth``,
            ``site``, ``site_kind``, ``added`` with ``se``, ``low``, ``high`` (jackknife over images, t), ``greatest``
            (share of bootstrap samples of the images in which it adds most), and the ``reason`` of a missing number.
        total: drift of the logits.
        reason: why the border is not told apart; empty where it is.
    """

    plan: ShiftPlan
    rows: pd.DataFrame
    total: float
    reason: str = ""

    @property
    def culprits(self) -> pd.DataFrame:
        """The parts to blame, the first one most: the fewest that hold the greatest in 95 % of the bootstrap samples.

        No row where the logits do not move, or nothing could be measured.
        """
        known = self.rows[self.rows["greatest"] > 0].sort_values("greatest", ascending=False, kind="stable")
        if not self.total > NOTHING:
            return known.iloc[:0]
        return known.iloc[: int((known["greatest"].cumsum() < SURE).sum()) + 1]

    def line(self) -> str:
        """In words: the part to blame with its interval, or those between which the images do not decide."""
        found = self.culprits
        if found.empty:
            return "the logits do not move" if self.total <= NOTHING else f"nothing to blame: {self._missing()}"
        first = found.iloc[0]
        what = _name(first)
        if len(found) > 1:
            others = ", ".join(f"{_name(row)} ({row['greatest']:.0%})" for _, row in found.iloc[1:].iterrows())
            what = f"{what} ({first['greatest']:.0%} of bootstrap samples) or {others}"
        if self.rows.loc[self.rows["cause"] != HEAD, "added"].isna().any():
            what = f"{what}, of the parts that are known"
        interval = f"{first['low']:.2g} to {first['high']:.2g}" if np.isfinite(first["low"]) else "no interval"
        return f"greatest added drift: {what}, {first['added']:.2g} ({interval}) of {self.total:.2g}"

    def missing(self) -> list[str]:
        """The parts without a number, each with the reason."""
        lacks = self.rows[self.rows["added"].isna()]
        return [f"{_name(row)}: {row['reason']}" for _, row in lacks.iterrows()]

    def _missing(self) -> str:
        reasons = self.rows["reason"].dropna()
        return str(reasons.iloc[0]) if len(reasons) else "no part has a drift"


def _name(row: pd.Series) -> str:
    names = {BEFORE: "what lies before the first site", HEAD: "the head", BORDER: "the border"}
    return names.get(str(row["cause"])) or str(row["site"])


def blame_of(
    sums: DriftSums,
    plan: ShiftPlan,
    circular: DriftSums | None,
    reason: str = "",
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Blame:
    """Share out the drift of the logits among the parts of a network.

    ``drift(logits) = before + sum of sites + head + border``: ``before`` is the drift that goes into the first site,
    a site's part what :meth:`DriftSums.frame` calls its ``blame``, the head's that from the last map to the logits.
    With ``circular``, the drift of the same network with circular padding under circular shifts, these are taken of
    it, and ``border`` is ``drift(logits)`` minus the circular network's. Without it, the border's part stays in the
    others. Sites beside each other on branches, between the same two maps, have one part in common: each has it, and
    they share ``greatest``. Where the last map is not known, what the head adds counts to the last site. What a site
    aliases shows in the means of maps only after the next nonlinearities, so that some of it can count to the sites
    behind it.

    Every resample draws images with replacement; spreads over images are of the images drawn.
    """
    used = circular or sums
    records: list[tuple[dict[str, Any], Terms]] = []
    frame, inside = sums.frame(), circular is not None
    sites = frame[frame["site"].notna()]
    if len(sites):
        first: Key = (str(sites["site"].iloc[0]), "in")
        records.append(({"cause": BEFORE, "depth": -1}, ((first, 1.0, inside),)))
    has_last = np.isfinite(used.drift_of(LAST)[0]) and np.isfinite(sums.drift_of(LAST)[0])
    for row, follows in zip(sites.itertuples(), sums.following(), strict=True):
        follows = LOGITS if follows == LAST and not has_last and len(sites) else follows
        about = {"cause": SITE, "depth": row.depth, "site": row.site, "site_kind": row.site_kind}
        records.append((about, ((follows, 1.0, inside), ((str(row.site), "in"), -1.0, inside))))
    depth = int(frame["depth"].iloc[-1])
    records.append(({"cause": HEAD, "depth": depth}, ((LOGITS, 1.0, inside), (LAST, -1.0, inside))))
    if inside:
        records.append(({"cause": BORDER, "depth": depth + 1}, ((LOGITS, 1.0, False), (LOGITS, -1.0, True))))
    counts = _draws(sums.still.images, resamples, seed)
    resampled = _Resampled(sums, circular, counts)
    drawn = np.column_stack([resampled.of(terms) for _, terms in records])
    known = np.isfinite(drawn).any(0)
    # A resample of one image alone has no spread.
    drawn = drawn[np.isfinite(drawn[:, known]).all(1)]
    greatest = np.zeros(len(records))
    if known.any() and len(drawn):
        # Sites beside each other, between the same two maps, add the same: which of them it is cannot be told.
        most = np.isclose(drawn, drawn[:, known].max(1)[:, None], rtol=1e-9, atol=0) & known
        greatest = (most / most.sum(1, keepdims=True)).mean(0)
    rows = []
    for (about, terms), share in zip(records, greatest, strict=True):
        parts = [(sign, (circular if of_it and circular else sums).drift_of(key)) for key, sign, of_it in terms]
        value = sum(sign * part[0] for sign, part in parts)
        se = jackknife_error(sum((sign * part[1] for sign, part in parts), np.zeros(sums.still.images)))
        half = float(stdtrit(max(sums.still.images - 1, 1), (1 + LEVEL) / 2)) * se
        numbers = {"added": value, "se": se, "low": value - half, "high": value + half, "greatest": share}
        missing = None if np.isfinite(value) else _reason(used, terms)
        if missing and about["cause"] == HEAD and len(sites):
            missing += "; what the head adds counts to the last site"
        rows.append({"site": None, "site_kind": str(about["cause"]), **about, **numbers, "reason": missing})
    return Blame(plan, pd.DataFrame(rows), sums.drift_of(LOGITS)[0], reason)


def _reason(sums: DriftSums, terms: Terms) -> str:
    if sums.still.images < 2:
        return "drift is relative to the spread over images: give two or more"
    if LAST in [key for key, _, _ in terms] and sums.still.watched.is_last_unclear:
        return "which dimension of the last map is that of its channels cannot be told"
    return "a map is not that of one image each, or does not vary over the images"


def _draws(images: int, resamples: int, seed: int) -> Array:
    """How often each image is drawn, ``(resamples, N)``."""
    if resamples < 1:
        raise InputError(f"resamples is {resamples}, and must be at least 1")
    drawn = np.random.default_rng(seed).integers(images, size=(resamples, images))
    return np.stack([np.bincount(row, minlength=images) for row in drawn]).astype(np.float64)


class _Resampled:
    """Drifts in every resample of the images, each computed once."""

    def __init__(self, sums: DriftSums, circular: DriftSums | None, counts: Array) -> None:
        self.sums, self.circular, self.counts = sums, circular, counts
        self._made: dict[tuple[Key, bool], Array] = {}

    def of(self, terms: Terms) -> Array:
        """A sum of drifts, ``(resamples,)``; NaN where one is not known."""
        total: Array = np.zeros(len(self.counts))
        for key, sign, own in terms:
            if (key, own) not in self._made:
                self._made[key, own] = self._drift(key, self.circular if own and self.circular else self.sums)
            total = total + sign * self._made[key, own]
        return total

    def _drift(self, key: Key, sums: DriftSums) -> Array:
        means = sums.still.means.get(key)
        if sums.shifts is None or means is None or key not in sums.sums or np.isnan(means).any():
            return np.full(len(self.counts), np.nan)
        wide = means.astype(np.float64)
        wide = wide - wide.mean(0)
        # sum_n c_n |g_n - mean_c g|^2 = sum_n c_n |g_n|^2 - |sum_n c_n g_n|^2 / N
        spread = self.counts @ np.square(wide).sum(1) - np.square(self.counts @ wide).sum(1) / len(wide)
        errors = self.counts @ (sums.sums[key] / sums.shifts)
        return np.divide(errors, spread, out=np.full(len(spread), np.nan), where=spread > LEAST)


def around(plan: ShiftPlan) -> ShiftPlan:
    """The same shifts as circular ones; those of a kind that loses nothing as they are."""
    kind = plan.kind if plan.rule.reversible else "circular"
    return ShiftPlan(kind, plan.mode, plan.max_shift, None, plan.seed, plan.offsets)


def circular_sums(
    model: nn.Module, images: Images, plan: ShiftPlan, *, batch_size: int = 64
) -> tuple[DriftSums | None, str]:
    """The drift of a network with circular padding under the same shifts as circular ones; or why there is none."""
    try:
        network = circularly_padded(model, next(iter(batches(images, 1, 1))))
    except ModelError as error:
        return None, str(error)
    return sum_drift(network, images, around(plan), batch_size=batch_size), ""


def measure_blame(
    model: nn.Module,
    images: Images,
    plan: ShiftPlan,
    *,
    border: bool = True,
    batch_size: int = 64,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Blame:
    """Which site of a network, or its head, or the border, adds most to the drift under a plan; with its uncertainty.

    :func:`blame_of` the sums of :func:`sum_drift`; with ``border`` the network is run once more, with circular padding
    under circular shifts.

    Args:
        model: any network; run in evaluation mode, and left as it was.
        images: ``(N, C, H, W)`` as the network takes them; two or more.
        plan: the shifts.

    Raises:
        InputError: no resamples; ModelError, DataError, ShiftError: as :func:`measure_drift`.
    """
    sums = sum_drift(model, images, plan, batch_size=batch_size)
    circular, reason = None, "it was not asked for"
    if border:
        circular, reason = circular_sums(model, images, plan, batch_size=batch_size)
    return blame_of(sums, plan, circular, reason, resamples=resamples, seed=seed)


def blame_frame(blames: list[Blame]) -> pd.DataFrame:
    """The rows of several plans, with the columns of each plan."""
    return pd.concat([each.rows.assign(**plan_columns(each.plan)) for each in blames], ignore_index=True)
