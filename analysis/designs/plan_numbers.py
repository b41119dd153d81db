"""Every number of the statements under one shift plan, as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.designs.assigned import (
    BLOCK,
    DRAWN,
    FAMILY,
    HELD_OUT,
    LOGIT,
    POPULATION,
    ROTATED,
    Settings,
    cells_of,
)
from invariscope.analysis.designs.heldout import predict_held_out
from invariscope.analysis.designs.paired import paired_differences
from invariscope.analysis.designs.population import (
    MSB_TERM,
    SQUARE,
    CellFit,
    EqualFit,
    alone,
    fit_equal,
    freedman_lane_p,
    mediated,
    shares,
    total_association,
)
from invariscope.analysis.designs.rotations import rotation_effect
from invariscope.analysis.designs.verdicts import MSB_SLOPE, POOLED, WITHIN
from invariscope.analysis.stats.pooled import Pooled
from invariscope.analysis.stats.ranks import LEAST_UNITS
from invariscope.analysis.stats.resampling import NOMINAL, Array
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import OPERATOR_ERROR

Record = dict[str, Any]

SEE, SELECTIVITY_TERM = "see", "sqrt_selectivity"


@dataclass(frozen=True)
class PlanNumbers:
    """The admitted rows of one shift plan, and what is said of them.

    ``brief``: the pooled numbers alone that verdict and cause rest on.
    """

    members: pd.DataFrame
    settings: Settings
    brief: bool = False

    def records(self) -> Iterator[Record]:
        """Statements 1 to 6, one record per number; what cannot be computed has a ``note`` in its place."""
        kinds = self.members[POPULATION].astype(object).where(self.members[POPULATION].notna(), "")
        for name in sorted(kinds.unique()):
            if BLOCK in self.members.columns and self.members.loc[kinds == name, BLOCK].notna().all():
                yield from self._rotations(self.members[kinds == name], "1" if name == ROTATED else f"1 ({name})")
        drawn = self.members[kinds == DRAWN]
        if len(drawn):
            yield from self._total(drawn)
            yield from self._equal(drawn)
        if not self.brief:
            if (kinds == HELD_OUT).any():
                yield from self._held_out()
            yield from self._pairs()

    def _rotations(self, rows: pd.DataFrame, statement: str) -> Iterator[Record]:
        # Orders of nine ranks are drawn at random, so that the plain slope is that from the average other rank.
        spreads = (False,) if statement != "1" else (True,) if self.brief else (True, False)
        for spread in spreads:
            quantity = WITHIN if spread or statement != "1" else f"{WITHIN}, plain"
            about = {"statement": statement, "quantity": quantity}
            try:
                found = rotation_effect(rows, self.settings, spread=spread, each=not self.brief)
            except TableError as problem:
                yield {**about, "cell": POOLED, "note": str(problem)}
                continue
            cells = found.cells[found.cells["in_pool"]]
            counts = {"n": int(cells["n"].sum()), "n_units": int(cells["n_blocks"].sum())}
            apart = [*found.left_out, *found.cells.loc[~found.cells["in_pool"], "cell"]]
            pooled = _pooled(found.pooled, apart)
            per_logit = points_per_logit(cells["mean"].to_numpy(), cells["se"].to_numpy())
            yield {**about, **counts, **pooled, "p": found.p, **_in_points(pooled, per_logit)}
            for cell in [] if self.brief else found.cells.to_dict("records"):
                note = f"blocks that lack a network: {cell['n_incomplete']}" if cell["n_incomplete"] else ""
                kept = {name: cell[name] for name in ("cell", "se", "low", "high", "p", "n")}
                kept["estimate"] = cell["slope"]
                points = _in_points(kept, points_per_logit([cell["mean"]], [cell["se"]]))
                yield {**about, **kept, **points, "n_units": cell["n_blocks"], "note": note}

    def _total(self, rows: pd.DataFrame) -> Iterator[Record]:
        shared = rows[rows[FAMILY] == "channelranks"] if FAMILY in rows.columns else rows.iloc[:0]
        wanted = [("msb_corrected", rows, True), ("msb_corrected", rows, False), ("msb_jacobian", rows, True)]
        wanted += [("msb", shared, True), ("selectivity", rows, True), (SEE, rows, True)]
        for reading, members, ranked in wanted[:1] if self.brief else wanted:
            name = f"{'Spearman' if ranked else 'Pearson'} of {reading}"
            about = {"statement": "2", "quantity": name}
            if reading not in members.columns or not np.isfinite(members[reading].astype(float)).any():
                yield {**about, "cell": POOLED, "note": f"{reading} was not measured"}
                continue
            for cell, part in [(POOLED, members), *([] if self.brief else cells_of(members))]:
                try:
                    found = total_association(part, reading, self.settings, ranked=ranked)
                except TableError as problem:
                    yield {**about, "cell": cell, "note": str(problem)}
                    continue
                kept = {key: getattr(found, key) for key in ("se", "low", "high", "p", "n", "n_units")}
                out = len(part) - found.n
                few = f"; without {counted(out, 'network')} of conditions with fewer than {LEAST_UNITS}" if out else ""
                yield {**about, "cell": cell, **kept, "estimate": found.r, "note": f"se is of Fisher's z{few}"}

    def _equal(self, rows: pd.DataFrame) -> Iterator[Record]:
        try:
            equal = fit_equal(rows, score=self.settings.score)
        except TableError as problem:
            yield {"statement": "3", "quantity": MSB_SLOPE, "cell": POOLED, "note": str(problem)}
            return
        yield from self._slopes(equal, "3")
        yield from self._mechanism(rows, SEE)
        if not self.brief:
            yield from self._shares(equal, "3")
            yield from self._mechanism(rows, OPERATOR_ERROR)
            yield from self._otherwise(rows)

    def _slopes(self, equal: EqualFit, statement: str, given: str = "") -> Iterator[Record]:
        terms = [MSB_TERM, SELECTIVITY_TERM, given] if self.brief else equal.terms()
        for term in terms:
            if term not in equal.terms():
                continue
            about = {"statement": statement, "quantity": f"slope of {term}" + (f", with {given}" if given else "")}
            pooled = equal.pooled(term)
            n = sum(len(cell.y) for cell in equal.cells)
            t = pooled.estimate / pooled.se if pooled.se > 0 else np.nan
            p = float(2 * _tail(t, equal.n_units - len(equal.terms()) - 1))
            if term == MSB_TERM and not given and not self.brief:
                p = freedman_lane_p(equal, term, self.settings)
            told = _pooled(pooled, equal.left_out)
            points = _pooled_points(told, equal, term) if term == MSB_TERM else {}
            yield {**about, **told, **points, "p": p, "n": n, "n_units": equal.n_units}
            for cell in [] if self.brief else equal.cells:
                if term in cell.names:
                    yield {**about, **_of_cell(cell, term)}

    def _mechanism(self, rows: pd.DataFrame, mediator: str) -> Iterator[Record]:
        about = {"statement": "4", "quantity": f"indirect effect of msb by way of {mediator}"}
        if mediator not in rows.columns or not np.isfinite(rows[mediator].astype(float)).any():
            yield {**about, "cell": POOLED, "note": f"{mediator} was not measured"}
            return
        try:
            equal = fit_equal(rows, [mediator], score=self.settings.score)
        except TableError as problem:
            yield {**about, "cell": POOLED, "note": str(problem)}
            return
        yield from self._slopes(equal, "4", given=mediator)
        if self.brief or mediator not in equal.terms():
            return
        found = mediated(equal, mediator, self.settings)
        kept = {name: getattr(found, name) for name in ("estimate", "se", "low", "high", "p")}
        yield {**about, **kept, "cell": POOLED, "n_units": equal.n_units, "note": "statistical, not causal"}
        for cell in found.cells.to_dict("records"):
            yield {**about, **{name: cell[name] for name in ("cell", "estimate", "se", "low", "high")}}
        yield from self._shares(equal, "4", mediator)

    def _shares(self, equal: EqualFit, statement: str, given: str = "") -> Iterator[Record]:
        ending = f", with {given}" if given else ""
        table = shares(equal, [given] if given else [])
        for row in table.to_dict("records"):
            quantity = f"share of {row['player']}{ending}"
            yield {"statement": statement, "quantity": quantity, "cell": row["cell"], "estimate": row["share"]}
        for cell, whole in table.groupby("cell")["r_squared"].first().items():
            yield {"statement": statement, "quantity": f"R² of all{ending}", "cell": cell, "estimate": whole}
        for cell in equal.cells:
            rivals = [(MSB_TERM, [MSB_TERM, SQUARE])] + ([(given, [given])] if given else [])
            for name, terms in rivals:
                about = {"statement": statement, "quantity": f"R² of {name} alone", "cell": cell.name}
                yield {**about, "estimate": alone(cell, terms)[1], "n": len(cell.y)}

    def _otherwise(self, rows: pd.DataFrame) -> Iterator[Record]:
        """The slope of statement 3 at equal accuracy, and as a fractional logit."""
        note = "accuracy is a result of the operator: not an effect of MSB"
        for readings, outcome, ending in (
            (["accuracy"], LOGIT, "at equal accuracy"),
            ([], self.settings.score, "fractional logit"),
        ):
            about = {"statement": "3", "quantity": f"{MSB_SLOPE}, {ending}", "cell": POOLED}
            try:
                equal = fit_equal(rows, readings, outcome=outcome, score=self.settings.score)
            except TableError as problem:
                yield {**about, "note": str(problem)}
                continue
            if MSB_TERM in equal.terms():
                found = _pooled(equal.pooled(MSB_TERM), equal.left_out)
                words = f"{note}; {found['note']}" if readings else found["note"]
                points = _pooled_points(found, equal, MSB_TERM)
                yield {**about, **found, **points, "n_units": equal.n_units, "note": words}

    def _held_out(self) -> Iterator[Record]:
        try:
            found = predict_held_out(self.members, self.settings)
        except TableError as problem:
            yield {
                "statement": "5",
                "quantity": "prediction of held-out operators",
                "cell": POOLED,
                "note": str(problem),
            }
            return
        apart = sorted(found.networks.loc[found.networks["by_construction"], "operator"].unique())
        note = f"apart, consistent by construction: {', '.join(apart)}" if apart else ""
        for cell, summary in {POOLED: found.summary, **found.cells}.items():
            for row in summary.to_dict("records"):
                kept = {name: row[name] for name in ("estimate", "low", "high", "n", "n_units")}
                quantity = f"{row['measure']}, by {row['model']}"
                yield {"statement": "5", "quantity": quantity, "cell": cell, **kept, "note": note}

    def _pairs(self) -> Iterator[Record]:
        for row in paired_differences(self.members, self.settings).to_dict("records"):
            kept = {name: row[name] for name in ("estimate", "se", "low", "high", "p", "n", "note")}
            yield {"statement": "6", "quantity": row["comparison"], "cell": POOLED, **kept, "n_units": row["n"]}


def _pooled(found: Pooled, left_out: Sequence[str]) -> Record:
    notes = [f"without {', '.join(left_out)}"] if left_out else []
    kept = {name: getattr(found, name) for name in ("estimate", "se", "low", "high")}
    if found.df:
        kept |= {name: getattr(found, name) for name in ("random", "random_low", "random_high")}
        kept["p_cells"] = found.p_heterogeneity
        notes.append(
            f"Q = {found.q:.2f} on {found.df} df, p = {found.p_heterogeneity:.3f}; random effects "
            f"{found.random:.3f} ({found.random_low:.3f} to {found.random_high:.3f})"
        )
    return {"cell": POOLED, **kept, "n_cells": found.df + 1, "note": "; ".join(notes)}


def _of_cell(cell: CellFit, term: str) -> Record:
    fit, index = cell.fit, cell.at(term)
    estimate, se = float(fit.params[index]), float(fit.errors[index])
    half = float(stats.t.ppf((1 + NOMINAL) / 2, cell.df)) * se
    p = 2 * _tail(estimate / se, cell.df) if se > 0 else np.nan
    found = {"cell": cell.name, "estimate": estimate, "se": se, "low": estimate - half, "high": estimate + half}
    points = _in_points(found, points_per_logit([cell.mean], [se])) if term == MSB_TERM else {}
    return {**found, **points, "p": p, "n": len(cell.y)}


def points_per_logit(means: Sequence[float] | Array, errors: Sequence[float] | Array) -> float:
    """Percentage points of a score per logit, at the cells' mean scores ``c``: the mean of ``100 c (1 - c)``, the
    derivative of the score by its logit, with the weights ``1 / se²`` that the cells' slopes are pooled with.

    A slope in logits times this number is its size in points; its interval is scaled alike, so that both exclude zero
    or neither does. A cell of mean 0 or 1 has no derivative other than 0: its slope is 0 points.
    """
    c, widths = np.asarray(means, dtype=float), np.asarray(errors, dtype=float)
    # One cell has weight 1, also where its error is 0.
    shares = np.ones(1) if len(c) == 1 else widths**-2 / (widths**-2).sum()
    return float(shares @ (100 * c * (1 - c)))


def _in_points(found: Record, per_logit: float) -> Record:
    named = {"points": "estimate", "points_low": "low", "points_high": "high"}
    return {name: per_logit * found[of] for name, of in named.items()}


def _pooled_points(found: Record, equal: EqualFit, term: str) -> Record:
    cells = equal.having(term)
    errors = [float(cell.fit.errors[cell.at(term)]) for cell in cells]
    return _in_points(found, points_per_logit([cell.mean for cell in cells], errors))


def _tail(t: float, df: float) -> float:
    return float(stats.t.sf(abs(t), max(df, 1)))
