"""Mean corruption error of checkpoints relative to a named reference checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.base.errors import TableError
from invariscope.base.words import counted

_KEYS = ["checkpoint", "model"]
_CELL = ["condition", "severity"]


@dataclass(frozen=True)
class CorruptionErrors:
    """``rows``: a row per checkpoint with ``mce``, ``mce_low``, ``mce_high`` and ``n_corruptions``; the ``reference``'s
    name; ``notes`` on what was left out.
    """

    rows: pd.DataFrame
    reference: str
    notes: list[str]


def corruption_errors(rows: pd.DataFrame, reference: str | None = None) -> CorruptionErrors:
    """``mCE = mean_c (sum_s E[s, c] / sum_s E_ref[s, c])``, with ``E`` the error at severity ``s`` of corruption ``c``.

    Hendrycks and Dietterich, Benchmarking neural network robustness to common corruptions and perturbations, 2019;
    their reference is AlexNet. ``mce_low`` to ``mce_high`` is the 95 % t interval of a mean over the corruptions: it
    says how far the mean rests on single ones, and is no sampling error over images, which the table cannot give, since
    every corruption is one of the same images.

    Args:
        rows: of the table ``robustness``, one per checkpoint, corruption and severity (others are ignored).
        reference: name of a checkpoint; by default the first, by name, whose operator is ``max``.

    Raises:
        TableError: no corruptions, or no such reference.
    """
    rows = rows[rows["condition_kind"] == "corruption"]
    if rows.empty:
        raise TableError("there are no corruptions in the table: collect `robustness` with corruptions")
    name = _reference(rows, reference)
    errors = rows.assign(error=1 - rows["accuracy"]).pivot_table(index=_KEYS, columns=_CELL, values="error")
    of_reference = errors.xs(name, level="checkpoint").iloc[0].dropna()
    complete = errors[of_reference.index].dropna()
    sums = complete.T.groupby(level="condition").sum().T
    of_reference = of_reference.groupby(level="condition").sum()
    perfect = of_reference.index[of_reference == 0]
    ratios = sums.drop(columns=perfect) / of_reference.drop(perfect)
    notes = []
    if lost := len(errors) - len(complete):
        notes.append(f"No mCE, for want of some of the corruptions of {name}: {counted(lost, 'checkpoint')}.")
    if len(perfect):
        notes.append(f"Left out of mCE, since {name} makes no error under them: {', '.join(map(str, perfect))}.")
    if ratios.shape[1] == 0:
        raise TableError(f"{name} makes no error under any corruption: name another reference for mCE")
    return CorruptionErrors(_means(ratios), name, notes)


def _reference(rows: pd.DataFrame, reference: str | None) -> str:
    if reference is not None:
        if reference not in set(rows["checkpoint"]):
            raise TableError(f"mCE: no checkpoint {reference!r} was measured under corruptions; name one that was")
        return reference
    cells = rows.groupby("checkpoint")["accuracy"].transform("count")
    plain = rows.loc[(rows["operator"] == "max") & (cells == cells.max()), "checkpoint"]
    if plain.empty:
        raise TableError(
            "mCE: no checkpoint with the operator max was measured under all corruptions: name a reference"
        )
    return str(min(plain))


def _means(ratios: pd.DataFrame) -> pd.DataFrame:
    n = ratios.shape[1]
    mean = ratios.mean(axis=1)
    reach = ratios.std(axis=1, ddof=1) / np.sqrt(n) * stats.t.ppf(0.975, n - 1) if n > 1 else mean * np.nan
    found = pd.DataFrame({"mce": mean, "mce_low": mean - reach, "mce_high": mean + reach, "n_corruptions": n})
    return found.reset_index()
