"""What a study with assigned MSB found: the verdict in a sentence, the primary statements, the causes named."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.designs.assigned import LEAST_BLOCKS
from invariscope.analysis.designs.rotations import BOUND
from invariscope.analysis.designs.verdicts import (
    ABOVE,
    BELOW,
    LEVEL,
    NOTHING,
    OPEN,
    POOLED,
    SEE_SLOPE,
    SELECTIVITY_SLOPE,
    SMALL,
    WITHIN,
    causes,
    is_primary_plan,
)
from invariscope.analysis.say.numbers import ranged
from invariscope.analysis.say.opening import MISSING, Fold, Opening, Stated
from invariscope.analysis.say.plan_words import plan_words
from invariscope.analysis.say.vocabulary import Vocabulary
from invariscope.analysis.stats.pooled import equivalence_p
from invariscope.analysis.stats.power import NEEDED_SPREAD
from invariscope.analysis.stats.resampling import NOMINAL
from invariscope.base.words import counted

_NAMED = {
    "msb": "MSB itself",
    "selectivity": "selectivity (how far single pixels are picked at all)",
    "aliasing": "aliasing (the equivariance error of the sites)",
}
_STATEMENTS = {"1": "(1) MSB moved, all else equal", "2": "(2) correlation over drawn operators"}
_DIFFERS = "differs"
_SAID = {
    BELOW: "maximum-sampling bias (MSB) as such lowers shift invariance under {where}",
    f"{BELOW}{SMALL}": "maximum-sampling bias (MSB) as such lowers shift invariance under {where}, by "
    "less than matters",
    ABOVE: "maximum-sampling bias (MSB) as such raises shift invariance under {where}",
    f"{ABOVE}{SMALL}": "maximum-sampling bias (MSB) as such raises shift invariance under {where}, by "
    "less than matters",
    NOTHING: "maximum-sampling bias (MSB) as such has no effect of a size that matters on shift invariance under "
    "{where}",
    OPEN: "whether maximum-sampling bias (MSB) as such lowers shift invariance is open under {where}",
    _DIFFERS: "what maximum-sampling bias (MSB) as such does to shift invariance differs in sign between the data sets "
    "under {where}",
}
Row = dict[Hashable, Any]


def assigned_opening(table: pd.DataFrame, vocabulary: Vocabulary) -> Opening:
    """The first page: whether MSB as such lowers shift invariance, and what is named as cause, for each shift kind."""
    rows = _primary(table)
    stated = tuple(_stated(row, verdict_told(table, row)) for row in rows)
    return Opening(vocabulary.title, _verdict(table, rows), stated, tuple(_caveats(table, rows)))


def cause_lines(table: pd.DataFrame) -> list[str]:
    """``circular shifts, named by the plan's rule: …``, a line per kind."""
    lines = []
    for row in causes(table).to_dict("records") if len(table) else []:
        named = [words for name, words in _NAMED.items() if row[name]]
        told = " and ".join(named) if named else "nothing, at the levels fixed in advance"
        way = "; with aliasing in the model, MSB's own slope over drawn operators holds zero" if row["mediated"] else ""
        lines.append(f"{row['shift_kind']} shifts, named by the plan's rule: {told}{way}")
    return lines


def assigned_fold(table: pd.DataFrame) -> Fold:
    """The primary statements in logits, cell by cell, and the causes named."""
    cells = table[(table["statement"] == "1") & table["quantity"].isin([WITHIN, f"{WITHIN}, plain"])]
    slopes = [
        f"{row['shift_kind']}, {row['cell']}{', plain' * (row['quantity'] != WITHIN)}: {_logits(row)}. {_count(row)}"
        f"{'' if fixed else f'; {plan_words(row)}, not the plan fixed in advance'}."
        for row, fixed in zip(cells.to_dict("records"), is_primary_plan(cells), strict=True)
    ]
    parts = [
        "The statements fixed in advance are those of docs/analysis-plan.md, version 2. All numbers are in "
        "`statements.csv`.",
        "\n".join(f"* {line}" for line in cause_lines(table)),
        "Statement 1, the slope within blocks of rotations, in logits of consistency per unit of MSB (from the average "
        "to the maximum), for each cell and pooled; *plain*: whatever ranks the weight is taken from:",
        "\n".join(f"* {line}" for line in slopes) or "* There are no rotations.",
    ]
    return Fold("Operators drawn at random, MSB assigned", "\n\n".join(parts))


def _primary(table: pd.DataFrame) -> list[Row]:
    mine = (table["role"] == "primary") & is_primary_plan(table) & (table["cell"] == POOLED)
    return table[mine].to_dict("records")


def _verdict(table: pd.DataFrame, rows: list[Row]) -> str:
    moved = [row for row in rows if row["statement"] == "1" and np.isfinite(row["estimate"])]
    if not moved:
        return _without_rotations(table, rows)
    groups: dict[str, list[Row]] = {}
    for row in moved:
        verdict = _DIFFERS if signs_differ(table, row) else _borne_out(row)
        groups.setdefault(verdict if verdict in _SAID else OPEN, []).append(row)
    clauses = []
    for verdict, found in sorted(groups.items(), key=lambda group: group[0] in (OPEN, _DIFFERS)):
        text = _SAID[verdict].format(where=_listed(_under(table, row) for row in found))
        blocks = max((_blocks_needed(row) for row in found), default=0) if verdict == OPEN else 0
        takes = f"; about {blocks} blocks of rotations are needed to see an effect of {BOUND:g} logits"
        clauses.append(text + (takes if blocks else ""))
    clear = any(verdict.startswith((BELOW, ABOVE)) for verdict in groups)
    clauses += [_named_besides(table), *([] if clear else _correlated(table, rows))]
    first, *rest = clauses
    # Long names stand once.
    rest = [clause.replace("maximum-sampling bias (MSB)", "MSB") for clause in rest]
    told = "; ".join([first[0].upper() + first[1:], *rest]) + "."
    return told.replace(" points,", " points of consistency,", 1)


def _without_rotations(table: pd.DataFrame, rows: list[Row]) -> str:
    every = table[(table["statement"] == "1") & (table["quantity"] == WITHIN) & (table["cell"] == POOLED)]
    numbers = every[np.isfinite(every["estimate"].astype(float))]
    if len(numbers):
        lacking = "The slope over rotations of weights was not measured under the plan fixed in advance, so that"
    else:
        reasons = sorted({str(note) for note in every["note"] if note})
        lacking = f"Without a slope over rotations of weights{f' ({reasons[0]})' if reasons else ''}"
    told = _correlated(table, rows)
    if not told and any(row["statement"] == "2" and np.isfinite(row["estimate"]) for row in rows):
        told = ["no correlation of MSB and consistency over them is told from zero"]
    said = "these drawn operators do not say whether maximum-sampling bias (MSB) as such lowers shift invariance"
    return f"{'; '.join([f'{lacking} {said}', *told])}."


def _named_besides(table: pd.DataFrame) -> str:
    """What else goes with consistency at equal everything else, under which kinds; what was not tested is said."""
    found = causes(table)
    named = {name: list(found.loc[found[name], "shift_kind"]) for name in ("aliasing", "selectivity")}
    told = [f"{_NAMED[name]} under {_listed(kinds)} shifts" for name, kinds in named.items() if kinds]
    tested = {
        "aliasing": bool(np.isfinite(_p(table, SEE_SLOPE)).any()),
        "selectivity": bool(np.isfinite(_p(table, SELECTIVITY_SLOPE)).any()),
    }
    missing = [name for name, known in tested.items() if not known]
    untested = f" ({' and '.join(missing)} {'was' if len(missing) == 1 else 'were'} not tested)" if missing else ""
    if not told:
        nothing = "nothing else tested goes" if found["msb"].any() else "nothing tested goes"
        return f"at equal everything else {nothing} with consistency{untested}"
    return f"at equal everything else consistency goes with {' and '.join(told)}{untested}"


def _p(table: pd.DataFrame, quantity: str) -> pd.Series:
    mine = (table["quantity"] == quantity) & (table["cell"] == POOLED) & is_primary_plan(table)
    return table.loc[mine, "p"].astype(float)


def _correlated(table: pd.DataFrame, rows: list[Row]) -> list[str]:
    """The paper's correlation, where it is clear and MSB as such has no clear effect."""
    clear = [row for row in rows if row["statement"] == "2" and row["verdict"].startswith((BELOW, ABOVE))]
    if not clear:
        return []
    where = _listed(_under(table, row) for row in clear)
    return [f"over the drawn operators MSB and consistency do correlate under {where}"]


def verdict_told(table: pd.DataFrame, row: Row) -> str:
    """The verdict on a row in words; on a pooled slope of MSB whose cells differ, that they do, and in what."""
    if row["statement"] not in ("1", "3") or row["cell"] != POOLED or not row["p_cells"] < LEVEL:
        return str(row["verdict"] or MISSING)
    if signs_differ(table, row):
        return "no general statement: signs differ between data sets"
    return f"{_borne_out(row)}; sizes differ between data sets"


def _borne_out(row: Row) -> str:
    """The plan's verdict; "smaller than matters", which a mean of cells may say that hardly any of them says, only
    where the cells do not differ, or their mean as a sample of cells (random effects) is inside of the bound too.
    """
    verdict = str(row["verdict"])
    if row["p_cells"] < LEVEL:
        se = (row["random_high"] - row["random_low"]) / (2 * stats.norm.ppf((1 + NOMINAL) / 2))
        if not equivalence_p(row["random"], se, BOUND) <= LEVEL:
            return verdict.removesuffix(SMALL) if verdict.endswith(SMALL) else OPEN if verdict == NOTHING else verdict
    return verdict


def signs_differ(table: pd.DataFrame, pooled: Row) -> bool:
    """Whether the cells' slopes differ (Cochran's Q, p < 0.05), and in sign."""
    if not pooled["p_cells"] < LEVEL:
        return False
    slopes = _cells(table, pooled)["estimate"]
    return len(slopes) > 1 and slopes.min() * slopes.max() < 0


def _cells(table: pd.DataFrame, pooled: Row) -> pd.DataFrame:
    """The rows of the cells that a row is pooled over."""
    mine = is_primary_plan(table) & (table["cell"] != POOLED)
    for name in ("statement", "quantity", "shift_kind"):
        mine &= table[name] == pooled[name]
    least = LEAST_BLOCKS if pooled["statement"] == "1" else 0
    return table[mine & ~(table["n_units"] < least) & (table["se"] > 0)]


def _blocks_needed(row: Row) -> int:
    """Blocks with which a slope of the size that matters would be told from zero four times in five, by a normal
    approximation at this row's error; 0 where there are as many, or none are counted.
    """
    if not (np.isfinite(row["n_units"]) and row["se"] > 0):
        return 0
    needed = int(np.ceil(row["n_units"] * (NEEDED_SPREAD * row["se"] / BOUND) ** 2))
    return needed if needed > row["n_units"] else 0


def _caveats(table: pd.DataFrame, rows: list[Row]) -> list[str]:
    moved = [row for row in rows if row["statement"] == "1" and np.isfinite(row["estimate"])]
    found = []
    if moved:
        found.append(
            "Points are percentage points of consistency at its mean, from averaging a window (MSB 0) to sampling its "
            f"maximum (MSB 1), all else equal. An effect matters from {BOUND:g} logits on, which was fixed in advance."
        )
        if any(row["n_cells"] == 1 for row in moved):
            found.append("One cell alone may find an effect, and cannot show that there is none.")
        else:
            found.append(_pooled_over(rows))
    if any(row["statement"] == "2" for row in rows):
        found.append(
            "Only (1) speaks of causes by design. (2) is a correlation, and aliasing was measured, not assigned."
        )
    return found


def _pooled_over(rows: list[Row]) -> str:
    """Over how many cells each statement is pooled, and what (1) is where its cells differ."""
    counts = {
        name: max((int(row["n_cells"]) for row in rows if row["statement"] == name and row["n_cells"] > 0), default=0)
        for name in _STATEMENTS
    }
    first, *rest = (f"({name})" for name, count in counts.items() if count)
    told = f"{first} is pooled over {counted(counts['1'], 'cell')}"
    told += f" and {rest[0]} over {counts['2']}" if rest else ""
    told += ", a data set and an architecture each, by their precision."
    differing = [
        f"{ranged(row['random'], row['random_low'], row['random_high'])} under {row['shift_kind']} shifts"
        for row in rows
        if row["statement"] == "1" and row["p_cells"] < LEVEL
    ]
    if differing:
        told += (
            " Its slopes differ between cells (Cochran's Q); their mean as a sample of cells (random effects), in "
            f"logits, is {_listed(differing)}."
        )
    return told


def _stated(row: Row, verdict: str) -> Stated:
    sizes = sorted({int(row["max_shift"]), int(row["most_shift"])})
    return Stated(
        _STATEMENTS[row["statement"]],
        f"{row['shift_kind']} shifts ≤ {' to '.join(map(str, sizes))} px",
        _effect(row),
        f"{row['p_holm']:.3g}" if np.isfinite(row["p_holm"]) else MISSING,
        _count(row),
        verdict,
    )


def _effect(row: Row) -> str:
    if not np.isfinite(row["estimate"]):
        return f"no number ({row['note']})"
    if row["statement"] == "2":
        return f"Spearman {ranged(row['estimate'], row['low'], row['high'])}"
    if not np.isfinite(row["points"]):
        return f"{_logits(row)} logits"
    number, _, interval = ranged(row["points"], row["points_low"], row["points_high"], 1).partition(" (")
    return f"{number} points{f' ({interval}' if interval else ''}"


def _under(table: pd.DataFrame, row: Row) -> str:
    """``circular shifts (-4.2 points, -6.0 to -2.4)``; where cells differ, with theirs, or theirs alone."""
    told = _effect(row).replace(" (", ", ").removesuffix(")")
    cells = _cells(table, row)
    if row["statement"] == "1" and row["p_cells"] < LEVEL and np.isfinite(cells["points"].astype(float)).all():
        if signs_differ(table, row):
            named = cells["cell"].astype(str).str.partition("/")[0]
            first, *rest = (f"{name} {points:.1f}" for name, points in zip(named, cells["points"], strict=True))
            told = ", ".join([f"{first} points", *rest])
        else:
            ends = cells["points"].min(), cells["points"].max()
            told += f"; by data set {ends[0]:.1f} to {ends[1]:.1f}"
    return f"{row['shift_kind']} shifts ({told})"


def _logits(row: Row) -> str:
    if not np.isfinite(row["estimate"]):
        return f"no number ({row['note']})"
    return ranged(row["estimate"], row["low"], row["high"])


def _count(row: Row) -> str:
    if not np.isfinite(row["n_units"]):
        return MISSING
    return f"{int(row['n'])} networks, {int(row['n_units'])} {'blocks' if row['statement'] == '1' else 'operators'}"


def _listed(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
