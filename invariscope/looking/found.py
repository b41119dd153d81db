"""What looking at one network found: in words, as a frame, as a figure, in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from invariscope.analysis.say.numbers import ranged
from invariscope.base.words import counted

if TYPE_CHECKING:
    from invariscope.analysis.figures.style import CaptionedFigure
    from invariscope.collectors.measure.blame import Blame
    from invariscope.collectors.measure.exactness import Exactness
    from invariscope.collectors.measure.picks import Picks

READINGS = ("msb_corrected", "selectivity", "see")
"""What is said of every site beside the drift that it adds."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One image under every shift of a grid.

    Attributes:
        row: its index.
        pixels: ``(H, W)`` or ``(H, W, 3)``, 0 to 1.
        label, prediction, probability: its label, and what the network says of it unshifted.
        kind: the shift kind.
        steps: ``(S,)`` displacements along either axis, in pixels.
        predictions, probabilities: ``(S, S)``, rows down and columns right: the top-1 class under each shift, and the
            probability of the class that is predicted without one.
    """

    row: int
    pixels: np.ndarray
    label: int
    prediction: int
    probability: float
    kind: str
    steps: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray

    @property
    def flips(self) -> np.ndarray:
        """``(S, S)``: whether the class is another than without a shift."""
        flips: np.ndarray = self.predictions != self.prediction
        return flips


@dataclass(frozen=True, eq=False)
class Look:
    """What was found of one network; see :func:`invariscope.looking.look.look`.

    Attributes:
        sites: the rows of :func:`measure_msb`.
        scores: the rows of :func:`invariscope.collectors.measure.invariance.score` for every kind.
        blames: a :class:`Blame` per kind.
        shown: one image as it moves; ``picks``: the windows of one site on it, None where there are none.
        swaps: the rows of :func:`measure_swaps`.
        accuracy: on the unshifted images; NaN without labels.
        notes: what was not measured, a line each.
        exactness: which preconditions of exact invariance hold, of a network that chooses its phases; else None.
    """

    name: str
    n_images: int
    n_sites: int
    sites: pd.DataFrame
    scores: pd.DataFrame
    blames: tuple[Blame, ...]
    shown: Shown
    picks: Picks | None
    swaps: pd.DataFrame
    classes: tuple[str, ...]
    accuracy: float
    has_labels: bool
    notes: tuple[str, ...]
    exactness: Exactness | None = None

    def named(self, number: int) -> str:
        """The name of a class."""
        return self.classes[number] if 0 <= number < len(self.classes) else str(number)

    def lines(self) -> list[str]:
        """In words: how stable, and what is to blame, per kind; exactness; then what was not measured."""
        right = f", accuracy {self.accuracy:.3f}" if self.has_labels else ""
        found = [f"{self.name}: {counted(self.n_sites, 'downsampling site')}, {counted(self.n_images, 'image')}{right}"]
        for blame in self.blames:
            plan = blame.plan
            mine = self.scores[(self.scores["shift_kind"] == plan.kind) & (self.scores["score"] == "consistency")]
            row = mine.iloc[0]
            consistency = ranged(row["value"], row["low"], row["high"], 3)
            found.append(f"{plan.kind} shifts up to {plan.max_shift} px: consistency {consistency}; {blame.line()}")
        found += self.exactness.lines() if self.exactness else []
        return [*found, *(f"note: {note}" for note in self.notes)]

    def frame(self) -> pd.DataFrame:
        """A row per part of the network and shift kind.

        Columns: ``shift_kind``, ``max_shift``; ``cause`` (``before``, ``site``, ``head``, ``border``), ``depth``,
        ``site``, ``site_kind``; ``msb_corrected``, ``selectivity``, ``see`` with ``_se``; ``added`` drift with ``se``,
        ``low``, ``high``, ``greatest`` (:class:`Blame`); ``explained``, and ``reason`` of what is missing. Sites whose
        weights are not known have a row.
        """
        columns = [name for reading in READINGS for name in (reading, f"{reading}_se")]
        facts = self.sites[self.sites["site"].notna()]
        facts = facts[["site", "depth", "site_kind", *columns, "explained", "reason", "not_applicable"]]
        parts = []
        for blame in self.blames:
            rows = blame.rows.drop(columns=["depth", "site_kind"]).merge(
                facts.rename(columns={"reason": "site_reason"}), on="site", how="outer"
            )
            extra = rows["cause"].isna()
            rows["cause"] = rows["cause"].fillna("site")
            rows["site_kind"] = rows["site_kind"].fillna(rows["cause"])
            rows["reason"] = rows["reason"].where(rows["reason"].notna(), rows.pop("site_reason"))
            rows.loc[extra & rows["reason"].isna(), "reason"] = "its maps were not seen under shifts"
            place = rows["cause"].map({"before": -1.0, "head": np.inf, "border": np.inf})
            rows = rows.assign(place=place.fillna(rows["depth"])).sort_values("place", kind="stable")
            parts.append(rows.drop(columns="place").assign(shift_kind=blame.plan.kind, max_shift=blame.plan.max_shift))
        made = pd.concat(parts, ignore_index=True)
        first = ["shift_kind", "max_shift", "cause", "depth", "site", "site_kind", *columns]
        return made[[*first, *(name for name in made.columns if name not in first)]]

    def figure(self) -> CaptionedFigure:
        """The four panels: the image as it moves, the windows of a site, blame, swaps."""
        from invariscope.looking.drawing import draw

        return draw(self)

    def write(self, folder: Path | str) -> list[Path]:
        """Write ``look.png``, its caption ``look.txt``, ``look.html`` and ``look.csv`` into a folder; returns them.

        Raises:
            TableError: the folder cannot be written to.
        """
        from invariscope.analysis.drawing import caption_of
        from invariscope.analysis.figures import render
        from invariscope.base.files import write_whole
        from invariscope.base.spreadsheet import csv_text
        from invariscope.base.terminal import plain
        from invariscope.looking.page import page

        figure = self.figure()
        png = render(figure)
        files = {
            "look.png": png,
            "look.txt": "".join(f"{plain(line)}\n" for line in caption_of(figure).split("\n")).encode(),
            "look.html": page(self, png, whole=True).encode(),
            "look.csv": csv_text(self.frame()).encode(),
        }
        return [write_whole(Path(folder) / name, content) for name, content in files.items()]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        """What a notebook shows: the lines, the figure, the frame folded."""
        from invariscope.analysis.figures import render
        from invariscope.looking.page import page

        return page(self, render(self.figure()))
