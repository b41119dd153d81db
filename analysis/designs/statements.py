"""The statements of a study with assigned MSB, one row per number, with what each allows to be said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.designs.assigned import BLOCK, FAMILY, POPULATION, Settings, admitted
from invariscope.analysis.designs.population import (
    MSB_TERM,
    SQUARE,
    EqualFit,
    fit_equal,
    freedman_lane_p,
    mediated,
    shares,
    total_association,
)
from invariscope.analysis.designs.rotations import BOUND, rotation_effect
from invariscope.analysis.stats.permutation import holm
from invariscope.analysis.stats.pooled import Pooled, equivalence_p
from invariscope.analysis.stats.resampling import NOMINAL
from invariscope.analysis.tables.plans import PLAN
from invariscope.base.errors import TableError

POOLED = "pooled"
LEVEL = 0.05
CAUSE_LEVEL = 0.01
"""Of the rivals of MSB, after Holm's correction over selectivity and equivariance error under all primary plans."""

PRIMARY_KINDS = ("circular", "zero")
PRIMARY_FILLS = ("", "background")
SEE, SELECTIVITY_TERM = "see", "sqrt_selectivity"

BELOW, ABOVE, NOTHING, OPEN, NO_NUMBER = (
    "below zero",
    "above zero",
    "no effect of a size that matters",
    "open",
    "no number",
)
COLUMNS = [
    *("statement", "quantity", *PLAN, "cell", "estimate", "se", "low", "high", "p", "p_holm", "p_equivalent"),
    *("n", "n_units", "role", "verdict", "note"),
]


def statements(frame: pd.DataFrame, settings: Settings | None = None, *, brief: bool = False) -> pd.DataFrame:
    """Every number of statements 1 to 4, with the columns :data:`COLUMNS`; docs/analysis-plan.md says what each is.

    ``role`` is ``primary`` for the pooled rows of statements 1 and 2 under circular shifts and under zero shifts with
    the data set's background, at the smallest of the largest shifts; ``p_holm`` is Holm's over them. ``brief``: the
    pooled numbers alone that verdict and cause rest on.

    Raises:
        TableError: the frame lacks a column.
    """
    settings = settings or Settings()
    rows, _ = admitted(frame, settings)
    records: list[dict[str, Any]] = []
    for labels, members in rows.groupby(PLAN, sort=True):
        about = dict(zip(PLAN, labels, strict=True))
        found = _Plan(members, settings, brief).rows()
        records += [{**about, **record} for record in found]
    table = pd.DataFrame.from_records(records, columns=[name for name in COLUMNS if name not in ("p_holm", "verdict")])
    return _judged(table)


@dataclass(frozen=True)
class _Plan:
    """The rows of one shift plan."""

    members: pd.DataFrame
    settings: Settings
    brief: bool

    def rows(self) -> Iterator[dict[str, Any]]:
        kinds = self.members[POPULATION].astype(str)
        for name in sorted(kinds.unique()):
            if BLOCK in self.members.columns and self.members.loc[kinds == name, BLOCK].notna().all():
                yield from self._rotations(self.members[kinds == name], "1" if name == "R" else f"1 ({name})")
        drawn = self.members[kinds == "P"]
        if len(drawn):
            yield from self._total(drawn)
            yield from self._equal(drawn)

    def _rotations(self, rows: pd.DataFrame, statement: str) -> Iterator[dict[str, Any]]:
        # Orders of nine ranks are drawn at random, so that the plain slope is that from the average other rank.
        spreads = (False,) if statement != "1" else (True,) if self.brief else (True, False)
        for spread in spreads:
            quantity = "slope within blocks" + ("" if spread else ", plain")
            about = {"statement": statement, "quantity": quantity}
            try:
                found = rotation_effect(rows, self.settings, spread=spread, each=not self.brief)
            except TableError as problem:
                yield {**about, "cell": POOLED, "note": str(problem)}
                continue
            cells = found.cells[found.cells["in_pool"]]
            counts = {"n": int(cells["n"].sum()), "n_units": int(cells["n_blocks"].sum())}
            yield {**about, **counts, **_pooled(found.pooled), "p": found.p}
            for cell in [] if self.brief else found.cells.to_dict("records"):
                note = f"blocks that lack a network: {cell['n_incomplete']}" if cell["n_incomplete"] else ""
                kept = {name: cell[name] for name in ("cell", "se", "low", "high", "p", "n")}
                yield {**about, **kept, "estimate": cell["slope"], "n_units": cell["n_blocks"], "note": note}

    def _total(self, rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
        shared = rows[rows[FAMILY] == "channelranks"] if FAMILY in rows.columns else rows.iloc[:0]
        wanted = [("msb_corrected", rows, True), ("msb_corrected", rows, False), ("msb_jacobian", rows, True)]
        wanted += [("msb", shared, True), ("selectivity", rows, True), (SEE, rows, True)]
        for reading, members, ranked in wanted[:1] if self.brief else wanted:
            name = f"{'Spearman' if ranked else 'Pearson'} of {reading}"
            about = {"statement": "2", "quantity": name, "cell": POOLED}
            if reading not in members.columns or not np.isfinite(members[reading].astype(float)).any():
                yield {**about, "note": f"{reading} was not measured"}
                continue
            try:
                found = total_association(members, reading, self.settings, ranked=ranked)
            except TableError as problem:
                yield {**about, "note": str(problem)}
                continue
            kept = {key: getattr(found, key) for key in ("se", "low", "high", "p", "n", "n_units")}
            yield {**about, **kept, "estimate": found.r, "note": "se is of Fisher's z"}

    def _equal(self, rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
        try:
            equal = fit_equal(rows)
        except TableError as problem:
            yield {"statement": "3", "quantity": "slope of msb", "cell": POOLED, "note": str(problem)}
            return
        yield from self._slopes(equal, "3")
        yield from self._mechanism(rows, SEE)
        if not self.brief:
            yield from self._shares(equal, "3")
            yield from self._mechanism(rows, "operator_equivariance_error")
            yield from self._given_accuracy(rows)

    def _slopes(self, equal: EqualFit, statement: str, given: str = "") -> Iterator[dict[str, Any]]:
        terms = [MSB_TERM, SELECTIVITY_TERM, given] if self.brief else equal.terms()
        for term in terms:
            if term not in equal.terms():
                continue
            about = {"statement": statement, "quantity": f"slope of {term}" + (f", with {given}" if given else "")}
            pooled = equal.pooled(term)
            n = sum(len(cell.y) for cell in equal.cells)
            p = float(2 * _tail(pooled.estimate / pooled.se, equal.n_units - len(equal.terms()) - 1))
            if term == MSB_TERM and not given and not self.brief:
                p = freedman_lane_p(equal, term, self.settings)
            yield {**about, **_pooled(pooled), "p": p, "n": n, "n_units": equal.n_units}
            for cell in [] if self.brief else equal.cells:
                if term in cell.names:
                    yield {**about, **_of_cell(cell.fit, cell.at(term), cell.name, len(cell.y), len(cell.names))}

    def _mechanism(self, rows: pd.DataFrame, mediator: str) -> Iterator[dict[str, Any]]:
        about = {"statement": "4", "quantity": f"indirect effect of msb by way of {mediator}"}
        if mediator not in rows.columns or not np.isfinite(rows[mediator].astype(float)).any():
            yield {**about, "cell": POOLED, "note": f"{mediator} was not measured"}
            return
        try:
            equal = fit_equal(rows, [mediator])
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

    def _shares(self, equal: EqualFit, statement: str, given: str = "") -> Iterator[dict[str, Any]]:
        ending = f", with {given}" if given else ""
        table = shares(equal, [given] if given else [])
        for row in table.to_dict("records"):
            quantity = f"share of {row['player']}{ending}"
            yield {"statement": statement, "quantity": quantity, "cell": row["cell"], "estimate": row["share"]}
        for cell, whole in table.groupby("cell")["r_squared"].first().items():
            yield {"statement": statement, "quantity": f"R² of all{ending}", "cell": cell, "estimate": whole}
        for cell in equal.cells:
            alone = [(MSB_TERM, [MSB_TERM, SQUARE])] + ([(given, [given])] if given else [])
            for name, terms in alone:
                columns = cell.design[:, [0, *(cell.at(term) for term in terms if term in cell.names)]]
                fitted = columns @ np.linalg.lstsq(columns, cell.y, rcond=None)[0]
                explained = 1 - float(((cell.y - fitted) ** 2).sum() / ((cell.y - cell.y.mean()) ** 2).sum())
                about = {"statement": statement, "quantity": f"R² of {name} alone", "cell": cell.name}
                yield {**about, "estimate": explained, "n": len(cell.y)}

    def _given_accuracy(self, rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
        equal = fit_equal(rows, ["accuracy"])
        if MSB_TERM in equal.terms():
            pooled = equal.pooled(MSB_TERM)
            note = "accuracy is a result of the operator: not an effect of MSB"
            quantity = "slope of msb, at equal accuracy"
            yield {"statement": "3", "quantity": quantity, **_pooled(pooled), "n_units": equal.n_units, "note": note}


def _pooled(found: Pooled) -> dict[str, Any]:
    note = ""
    if found.df:
        note = (
            f"Q = {found.q:.2f} on {found.df} df, p = {found.p_heterogeneity:.3f}; random effects "
            f"{found.random:.3f} ({found.random_low:.3f} to {found.random_high:.3f})"
        )
    kept = {name: getattr(found, name) for name in ("estimate", "se", "low", "high")}
    return {"cell": POOLED, **kept, "note": note}


def _of_cell(fit: Any, index: int, name: str, n: int, k: int) -> dict[str, Any]:
    from scipy import stats

    estimate, se = float(fit.params[index]), float(fit.errors[index])
    half = float(stats.t.ppf((1 + NOMINAL) / 2, n - k)) * se
    p = 2 * _tail(estimate / se, n - k) if se > 0 else np.nan
    return {
        "cell": name,
        "estimate": estimate,
        "se": se,
        "low": estimate - half,
        "high": estimate + half,
        "p": p,
        "n": n,
    }


def _tail(t: float, df: float) -> float:
    from scipy import stats

    return float(stats.t.sf(abs(t), max(df, 1)))


def _judged(table: pd.DataFrame) -> pd.DataFrame:
    """The table with roles, Holm's p, equivalence of pooled slopes of MSB, and verdicts."""
    slopes = table["quantity"].isin(["slope within blocks", f"slope of {MSB_TERM}"]) & (table["cell"] == POOLED)
    equivalent = [
        equivalence_p(estimate, se, BOUND) if taken else np.nan
        for estimate, se, taken in zip(table["estimate"].astype(float), table["se"].astype(float), slopes, strict=True)
    ]
    primary = is_primary_plan(table) & (table["cell"] == POOLED)
    primary &= table["quantity"].isin(["slope within blocks", "Spearman of msb_corrected"])
    primary &= table["statement"].isin(["1", "2"])
    table = table.assign(p_equivalent=equivalent, role=np.where(primary, "primary", "secondary"))
    table["p_holm"] = holm(table["p"].astype(float).where(primary))
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table[COLUMNS]


def is_primary_plan(table: pd.DataFrame) -> pd.Series:
    """Whether a row is of circular shifts, or of zero shifts with the data set's background, 9 of them sampled per
    image, and the smallest of the largest shifts.
    """
    found = table["shift_kind"].isin(PRIMARY_KINDS) & table["fill"].isin(PRIMARY_FILLS)
    found &= (table["plan"] == "sampled") & (table["n_shifts"] == 9)
    smallest = table["max_shift"].where(found).groupby(table["shift_kind"]).transform("min")
    return found & (table["max_shift"] == smallest)


def _verdict(row: dict[str, Any]) -> str:
    """``below zero`` and ``above zero`` by the interval, of primary rows by Holm's p too."""
    estimate, low, high = (float(row[name]) for name in ("estimate", "low", "high"))
    if not np.isfinite(estimate):
        return NO_NUMBER
    if not np.isfinite([low, high]).all():
        return ""
    p = row["p_holm"] if row["role"] == "primary" else 0.0
    clear = p <= LEVEL and low * high > 0
    small = row["p_equivalent"] <= LEVEL
    if clear:
        return (BELOW if estimate < 0 else ABOVE) + (", smaller than matters" if small else "")
    return NOTHING if small else OPEN


def causes(table: pd.DataFrame) -> pd.DataFrame:
    """What the statements name as cause, for each primary plan: a row per shift kind, ``msb``, ``selectivity`` and
    ``aliasing`` true or false, ``mediated`` where MSB acts by way of the equivariance error, and ``named`` in words.

    * MSB: statement 1 has p ≤ 0.05 after Holm's correction over the primary rows, and an interval without zero;
    * aliasing: the pooled slope of ``see`` in statement 4 has p ≤ 0.01 after Holm's correction over the two rivals under
      all primary plans; without ``see`` it cannot be named;
    * selectivity: likewise its slope, in statement 4 where the p of ``see`` is below 0.01 by the number of these tests,
      else in statement 3;
    * mediated: MSB and aliasing are named, and MSB's slope with ``see`` in the model has an interval that holds zero.
    """
    primary = table[is_primary_plan(table) & (table["cell"] == POOLED)]
    kinds = sorted(primary["shift_kind"].unique())
    count = 2 * len(kinds)
    p = primary.assign(p=primary["p"].astype(float)).pivot_table(index="shift_kind", columns="quantity", values="p")
    p = p.reindex(index=kinds)
    none = pd.Series(np.nan, index=kinds)
    see = p.get(f"slope of {SEE}, with {SEE}", none)
    given = p.get(f"slope of {SELECTIVITY_TERM}, with {SEE}", none)
    alone = p.get(f"slope of {SELECTIVITY_TERM}", none)
    selectivity = given.where(see <= CAUSE_LEVEL / count, alone)
    clear = holm(pd.concat([see, selectivity], keys=["aliasing", "selectivity"])) <= CAUSE_LEVEL
    records = []
    for kind in kinds:
        members = primary[primary["shift_kind"] == kind]
        one = members[(members["statement"] == "1") & (members["role"] == "primary")]
        found = {
            "msb": bool(one["verdict"].str.startswith((BELOW, ABOVE)).any()),
            "selectivity": bool(clear["selectivity", kind]),
            "aliasing": bool(clear["aliasing", kind]),
        }
        slope = members[members["quantity"] == f"slope of {MSB_TERM}, with {SEE}"]
        holds_zero = bool(((slope["low"] < 0) & (slope["high"] > 0)).any())
        named = " and ".join(name for name, yes in found.items() if yes) or "nothing"
        mediated_by = found["msb"] and found["aliasing"] and holds_zero
        records.append({"shift_kind": kind, **found, "mediated": mediated_by, "named": named})
    return pd.DataFrame(records, columns=["shift_kind", "msb", "selectivity", "aliasing", "mediated", "named"])
