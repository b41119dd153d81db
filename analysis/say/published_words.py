"""What a zoo of published operators can say of MSB and shift invariance: the verdict in a sentence, or how many
operators it would take.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.say.numbers import ranged
from invariscope.analysis.say.opening import MISSING, Opening, Stated
from invariscope.analysis.say.vocabulary import PIXELS, Vocabulary
from invariscope.analysis.stats.power import BETWEEN, Power, operators_needed
from invariscope.analysis.stats.primary import NO_NUMBER, SIZE, TOO_FEW
from invariscope.base.words import are, counted

MOST_ROWS = 10
"""Of the table on the first page; the others are in the first fold."""

LEAST_ROWS = 3
"""Operator means that a correlation takes."""

_NAMES = {
    "a": "(a) correlation of operator means",
    "b": "(b) slope at equal {accuracy}",
    "c": "(c) slope inside operators",
}
_WHERE = {"b": "at equal {accuracy} and architecture", "c": "inside operators"}
_SIGNS = {"negative": -1, "positive": 1}
_WAYS = {-1: "less", 1: "more"}
Row = dict[Hashable, Any]


def published_opening(
    primary: pd.DataFrame, operators: int, vocabulary: Vocabulary, power: pd.DataFrame | None = None
) -> Opening:
    """The first page of a zoo whose MSB was observed and not assigned. ``operators``: how many it holds; ``power``: the
    table of :func:`invariscope.analysis.stats.power.power`, where it was computed.
    """
    final = primary[primary["snapshots"] == "final"]
    fixed = final[final["role"] == "primary"]
    chosen = fixed if len(fixed) else final
    told = _Told(chosen, operators, vocabulary, power, planned=len(fixed) > 0)
    rows = chosen[chosen["subset"] == "all operators"].to_dict("records")
    return Opening(
        vocabulary.title,
        told.verdict(),
        tuple(_stated(row, vocabulary) for row in rows[:MOST_ROWS]),
        tuple(told.caveats(len(rows) - MOST_ROWS)),
    )


class _Told:
    """The primary statements of all operators, and what they allow to be said."""

    def __init__(
        self, rows: pd.DataFrame, operators: int, vocabulary: Vocabulary, power: pd.DataFrame | None, *, planned: bool
    ) -> None:
        self._vocabulary, self._planned = vocabulary, planned
        self._every = rows
        whole = rows[rows["subset"] == "all operators"].to_dict("records")
        self._means = [row for row in whole if row["statement"] == "a"]
        self._slopes = [row for row in whole if row["statement"] != "a"]
        counts = [int(row["n_clusters"]) for row in self._means if np.isfinite(row["n_clusters"])]
        self._operators = max(counts, default=0) or operators
        self._simulated = _simulated(power, {row["shift_kind"] for row in self._means})
        self._several = len({row["data"] for row in self._means}) > 1

    def verdict(self) -> str:
        """One sentence."""
        lead = "" if self._planned else "None of these measurements is of the plan fixed in advance, and "
        text = self._between() + self._beside()
        return lead + (text if lead and not text.startswith("MSB") else text[0].upper() + text[1:]) + "."

    def _between(self) -> str:
        of_segmentation = " of segmentation" if self._vocabulary is PIXELS else ""
        known = [row for row in self._means if np.isfinite(row["estimate"])]
        clear = [row for row in known if _sign(row)]
        question = f"whether maximum-sampling bias (MSB) lowers shift invariance{of_segmentation}"
        many = counted(self._operators, "operator")
        if not known:
            return f"{many} cannot answer {question}: {self._why()}, and {self._takes()}"
        if not clear and self._operators < self._least:
            return f"{many} cannot answer {question}: they suggest {self._listed(known)}, and {self._takes()}"
        subject = "maximum-sampling bias (MSB)"
        if not clear:
            return (
                f"over {many} {subject} is not found to go with less {self._score}: {self._listed(known)}, where "
                f"{_of_interest()} would be seen four times in five"
            )
        parts = []
        for sign in sorted({_sign(row) for row in clear}):
            found = [row for row in clear if _sign(row) == sign]
            parts.append(f"with {_WAYS[sign]} {self._score}, {self._listed(found)}")
        text = f"over {many} more {subject} goes {', and '.join(parts)}"
        unclear = [row for row in known if not _sign(row)]
        return text + (f"; not told from zero: {self._listed(unclear)}" if unclear else "")

    def _why(self) -> str:
        """Why there is no correlation."""
        if self._operators < LEAST_ROWS:
            return f"a correlation takes {LEAST_ROWS} at least"
        reason = next((str(row["reason"]) for row in self._means if row["reason"]), "nothing was measured")
        return f"there is no correlation ({reason})"

    def _beside(self) -> str:
        """Slopes that are clear of zero."""
        parts = []
        for statement, where in _WHERE.items():
            for sign in (-1, 1):
                rows = [row for row in self._slopes if row["statement"] == statement and _sign(row) == sign]
                if rows:
                    place = where.format(accuracy=self._vocabulary.accuracy_word)
                    told = " and ".join(f"{_effect(row)} under {row['shift_kind']} shifts" for row in rows)
                    parts.append(f"{place} more MSB goes with {_WAYS[sign]} {self._score} ({told})")
        return "".join(f"; {part}" for part in parts)

    @property
    def _score(self) -> str:
        return self._vocabulary.score_word

    @property
    def _least(self) -> float:
        return np.inf if self._simulated == 0 else self._simulated or operators_needed()

    def _takes(self) -> str:
        if self._simulated == 0:
            return f"it takes more operators than were simulated to see {_of_interest()} four times in five"
        return f"it takes about {self._least:.0f} operators to see {_of_interest()} four times in five"

    def _listed(self, rows: list[Row]) -> str:
        """Correlations with their intervals; from where to where, where there are more than two."""
        if len(rows) > 2:
            estimates = [row["estimate"] for row in rows]
            what = "data sets and shift kinds" if self._several else "shift plans"
            return f"Spearman correlations of {min(estimates):.2f} to {max(estimates):.2f} over {len(rows)} {what}"
        on = {id(row): f" on {row['data']}" if self._several else "" for row in rows}
        told = [f"{_number(row)} under {row['shift_kind']} shifts{on[id(row)]}" for row in rows]
        return f"{'a Spearman correlation' if len(rows) == 1 else 'Spearman correlations'} of {' and '.join(told)}"

    def caveats(self, left: int) -> Iterable[str]:
        """Three at most."""
        yield (
            "These are associations: MSB goes with much else from operator to operator, and only operators to which it "
            "is assigned (`invariscope draw`) tell what it does."
        )
        if self._simulated is None:
            yield (
                "How many it takes follows from Fisher's z for Spearman's correlation, two-sided at 5 %. "
                "`--power` simulates it from the variances of these tables."
            )
        else:
            yield "How many it takes is simulated from the variances of these tables (`power.csv`)."
        if left > 0:
            yield f"{counted(left, 'more statement')} {are(left)} in the fold below."
        else:
            yield from self._limits()

    def _limits(self) -> Iterable[str]:
        means = self._every[self._every["statement"] == "a"]
        pooling = means[means["subset"] != "all operators"]
        signs = pooling.merge(
            means[means["subset"] == "all operators"], on=["data", "shift_kind", "max_shift"], suffixes=("", "_all")
        )
        turned = signs[signs["estimate"] * signs["estimate_all"] < 0]
        few = int((self._every["verdict"] == TOO_FEW).sum())
        if len(turned):
            row = turned.iloc[0]
            yield (
                f"Without plain subsampling the sign is another under {row['shift_kind']} shifts on {row['data']}: "
                f"{_number(row)} instead of {row['estimate_all']:.2f}."
            )
        elif few:
            known = int((self._every["verdict"] != NO_NUMBER).sum())
            yield f"{few} of {counted(known, 'statement')} rest on too few operators to be tested."


def _simulated(power: pd.DataFrame | None, kinds: set[Any]) -> int | None:
    """The most operators that a plan takes by the table of power; 0 where what was simulated is too few, None without
    a table, or where it holds no number for these kinds.
    """
    if power is None:
        return None
    rows = power[(power["level"] == BETWEEN) & power["shift_kind"].isin(kinds) & power["power"].notna()]
    if rows.empty:
        return None
    plans = rows.groupby(["data", "shift_kind"])
    needed = [part.loc[part["smallest"].astype(bool), "n_operators"] for _, part in plans]
    return 0 if any(part.empty for part in needed) else int(max(part.max() for part in needed))


def _of_interest() -> str:
    return f"one of {Power.r:g}"


def _sign(row: Row) -> int:
    """-1 or 1 where a statement is told from zero after Holm's correction (by itself, where it is secondary)."""
    sign = _SIGNS.get(row["verdict"], 0)
    return 0 if row["p_holm"] >= SIZE else sign


def _verdict_of(row: Row) -> str:
    named = {NO_NUMBER: NO_NUMBER, TOO_FEW: "too few to test"}
    return named.get(row["verdict"]) or {-1: "below zero", 0: "open", 1: "above zero"}[_sign(row)]


def _stated(row: Row, vocabulary: Vocabulary) -> Stated:
    name = _NAMES[row["statement"]].format(accuracy=vocabulary.accuracy_word)
    on = f", {row['data']}" if row["statement"] == "a" else ""
    counted_units = counted(int(row["n_clusters"]), "operator") if np.isfinite(row["n_clusters"]) else MISSING
    return Stated(
        f"{name}{on}",
        f"{row['shift_kind']} shifts ≤ {str(row['max_shift']).replace('/', ' to ')} px",
        f"Spearman {_number(row)}" if row["statement"] == "a" and np.isfinite(row["estimate"]) else _effect(row),
        f"{row['p_holm']:.2g}" if np.isfinite(row["p_holm"]) else MISSING,
        counted_units,
        _verdict_of(row),
    )


def _number(row: Any) -> str:
    return ranged(row["estimate"], row["low"], row["high"])


def _effect(row: Row) -> str:
    """A slope in percentage points of the score per unit of MSB, at the mean: its interval is scaled alike."""
    if not np.isfinite(row["estimate"]):
        return f"no number ({row['reason']})"
    per_logit = 100 * row["effect"] / row["estimate"] if row["estimate"] else np.nan
    if not np.isfinite(per_logit):
        return f"{_number(row)} logits"
    value, low, high = (per_logit * row[name] for name in ("estimate", "low", "high"))
    number, _, interval = ranged(value, low, high, 1).partition(" (")
    return f"{number} points{f' ({interval}' if interval else ''}"
