"""What an analysis found, and writing it to a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from invariscope.analysis.say.opening import FIGURE_FILE, Fold, Opening, summary_text
from invariscope.base.errors import TableError
from invariscope.base.files import write_together
from invariscope.base.flushing import make_folder
from invariscope.base.spreadsheet import csv_text

_CSV = ("correlations", "regressions", "influence", "comparisons", "sites", "designs")


@dataclass(frozen=True)
class Results:
    """What an analysis found.

    ``correlations``, ``regressions``: every number, one row each. ``influence``: the primary slopes with one operator,
    data set or architecture left out. ``comparisons``: what MSB adds to accuracy, architecture and data set, in sample
    and for what took no part in the fit. ``sites``: slopes of early and late sites. ``designs``: doses and swaps
    (module ``designs``). ``primary``: the statements fixed in advance, (a) Spearman over operator means, (b) the
    fractional logit's slope given accuracy, (c) the slope within operators, with their verdicts, ``p`` (where they can
    be tested) and ``p_holm`` over the primary ones. ``statements``: what version 2 of the plan says of drawn operators,
    without a row where there are none; ``metrics``: correlations with the metrics of the manifest, likewise. In words:
    ``opening``, the verdict, the primary statements and what limits them;
    ``folds``, everything else; ``further_lines``, what a terminal shows after the opening.
    """

    correlations: pd.DataFrame
    regressions: pd.DataFrame
    influence: pd.DataFrame
    comparisons: pd.DataFrame
    sites: pd.DataFrame
    designs: pd.DataFrame
    primary: pd.DataFrame
    opening: Opening
    folds: tuple[Fold, ...]
    further_lines: tuple[str, ...]
    statements: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def summary(self) -> str:
        """All of it in words, as Markdown: the verdict first, everything else folded behind it."""
        return summary_text(self.opening, self.folds)

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """What a notebook shows: the verdict, the primary statements and what limits them."""
        return {"text/markdown": summary_text(self.opening, ()), "text/plain": "\n".join(self.headline)}

    @property
    def headline(self) -> list[str]:
        """Lines for a terminal, the verdict first."""
        return [*self.opening.lines(), *self.further_lines]


def write_results(
    results: Results, folder: Path | str, power: pd.DataFrame | None = None, *, figure: bytes | None = None
) -> list[Path]:
    """Write a CSV file per table (``correlations``, ``regressions``, ``influence``, ``comparisons``, ``sites``,
    ``designs``), ``statements`` where operators were drawn, ``metrics`` where the manifest has some, ``summary.md``,
    ``power.csv`` where there is a table of :func:`power`, and ``headline.png`` where the ``figure`` is given, which the
    summary then shows; all of them appear, each whole, or none.

    Raises:
        TableError: the folder cannot be written to.
    """
    root = Path(folder)
    files = {f"{name}.csv": _csv(getattr(results, name)) for name in _CSV}
    for name in ("statements", "metrics"):
        if len(table := getattr(results, name)):
            files[f"{name}.csv"] = _csv(table)
    shown = FIGURE_FILE if figure is not None else None
    files["summary.md"] = summary_text(results.opening, results.folds, shown).encode()
    if figure is not None:
        files[FIGURE_FILE] = figure
    if power is not None:
        files["power.csv"] = _csv(power)
    try:
        make_folder(root)
        write_together({root / name: content for name, content in files.items()})
    except OSError as error:
        raise TableError(f"{root}: cannot write results here ({error.strerror}); name another folder") from error
    return [root / name for name in files]


def _csv(table: pd.DataFrame) -> bytes:
    return csv_text(table).encode()
