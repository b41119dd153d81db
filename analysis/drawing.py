"""All figures and all tables of the paper in one go: drawn once, then written as files or put into the report."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariscope.analysis.figures import FIGURES, FigureEntry, draw_from, known_formats, make, render
from invariscope.analysis.publication import PAPER_TABLES
from invariscope.analysis.tables.checkpoints import METRIC, describe, metrics_of
from invariscope.analysis.tables.frames import Frames
from invariscope.base.errors import TableError
from invariscope.base.files import write_whole
from invariscope.base.names import unknown
from invariscope.base.progress import each
from invariscope.base.registry import Registry
from invariscope.collectors.schema import MSB_READINGS, OTHER_READINGS, PIXEL_SCORES, SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from invariscope.analysis.figures.style import Width
    from invariscope.analysis.publication.paper import PaperTable
    from invariscope.analysis.say.vocabulary import Vocabulary
    from invariscope.analysis.tables.load import Tables


@dataclass(frozen=True)
class Drawn:
    """Figures by name, as drawn at one width, and the paper's tables; ``reasons`` says why the others are not there,
    ``ignored`` which figures and tables have no place for a choice that was asked for.
    """

    figures: dict[str, Figure]
    tables: dict[str, PaperTable]
    reasons: dict[str, str]
    width: Width = "double"
    ignored: dict[str, list[str]] = field(default_factory=dict)

    def write(self, folder: Path | str, formats: Iterable[str] = ("png",)) -> list[Path]:
        """Write each figure as ``folder/NAME.FORMAT``, its caption as ``NAME.txt`` beside it, and each table as
        ``NAME.csv``, ``.md`` and ``.tex``; returns the files.

        One-column figures are named ``NAME-single``. A file appears whole or not at all; equal figures give equal
        bytes.

        Raises:
            TableError: an unknown format, a folder that cannot be written to, or no figure at all.
        """
        from invariscope.analysis.publication.writers import files

        kinds = known_formats(formats)
        if self.reasons and not self.figures and not self.tables:
            raise TableError(f"no figure could be drawn: {next(iter(self.reasons.values()))}")
        written = []
        for name, figure in each("write", self.figures.items(), "figure"):
            path = Path(folder) / (name if self.width == "double" else f"{name}-{self.width}")
            for kind in kinds:
                written.append(write_whole(path.with_suffix(f".{kind}"), render(figure, kind, width=self.width)))
            if caption := caption_of(figure):
                written.append(write_whole(path.with_suffix(".txt"), f"{caption}\n".encode()))
        for name, table in self.tables.items():
            for kind, content in files(table).items():
                written.append(write_whole(Path(folder) / f"{name}.{kind}", content))
        return written


def caption_of(figure: Figure) -> str:
    """What a figure says of itself; nothing where it has no attribute ``caption``."""
    return str(getattr(figure, "caption", ""))


def draw_figures(
    tables: Tables | Frames,
    only: Iterable[str] | None = None,
    *,
    width: Width = "double",
    data: str | None = None,
    reading: str | None = None,
    score: str | None = None,
    hue: str | None = None,
    facet: str | None = None,
    by: Sequence[str] | None = None,
) -> Drawn:
    """Draw every figure and make every table of the paper (``only`` the named ones); those for which the tables have no
    rows are told with the reason.

    ``data`` names the data set to draw where the tables hold several; ``reading`` what figures of a reading draw in
    the place of MSB, a metric of the manifest too; ``score`` what they draw in the place of consistency: another one,
    or a metric that is a share from 0 to 1. ``hue`` and ``facet`` are the factors of colours and of panels, ``by``
    those that tell the rows of tables apart. Figures and tables without a choice are made as ever; ``ignored`` names
    them.
    Given :class:`Frames` of the tables, what was made of them before is not made again.

    Raises:
        TableError: an unknown figure, width, reading, score or factor, or a name that is a figure's and a table's.
    """
    from invariscope.analysis.figures.style import WIDTHS
    from invariscope.analysis.publication.paper import PaperTable

    names = list([*FIGURES, *PAPER_TABLES] if only is None else only)
    for name in names:
        if name not in FIGURES and name not in PAPER_TABLES:
            raise TableError(unknown("figure or table of the paper", name, [*FIGURES, *PAPER_TABLES]))
        if name in FIGURES and name in PAPER_TABLES:
            raise TableError(f"{name!r} is a figure and a table of the paper: give one of them another name")
    if width not in WIDTHS:
        raise TableError(unknown("figure width", width, WIDTHS))
    frames = Frames.of(tables)
    choices: dict[str, Any] = {"data": data, "reading": reading, "score": score, "hue": hue, "facet": facet, "by": by}
    asked = {name: choice for name, choice in choices.items() if choice is not None}
    _check_choices(frames, asked)
    score = asked.get("score")
    drawn = Drawn({}, {}, {}, width)
    for name in each("draw", names, "figure"):
        registry = PAPER_TABLES if name in PAPER_TABLES else FIGURES
        taken = _taken(registry, name)
        offered: dict[str, Any] = {"width": width, "data": data} | {key: asked[key] for key in asked if key in taken}
        if "score" in asked and "scores" in taken:
            offered["scores"] = (score,)
        for choice in sorted(asked.keys() - taken - ({"score"} if "scores" in taken else set())):
            if choice not in (("hue", "facet", "score") if registry is PAPER_TABLES else ("by",)):
                drawn.ignored.setdefault(choice, []).append(name)
        try:
            if registry is PAPER_TABLES:
                drawn.tables[name] = make(registry, name, frames, PaperTable, offered)
            else:
                drawn.figures[name] = draw_from(frames, name, offered)
        except TableError as error:
            drawn.reasons[name] = str(error)
    return drawn


def _column(frames: Frames, what: str, name: str, known: Sequence[str]) -> str:
    """The column of a reading or a score, or of a metric by its name in the manifest.

    Raises:
        TableError: there is none.
    """
    if name in known:
        return name
    metrics = {column.removeprefix(METRIC): column for column in metrics_of(describe(frames.tables))}
    if name not in metrics and name not in metrics.values():
        raise TableError(unknown(what, name, (*known, *metrics)))
    return metrics.get(name, name)


def _check_share(frames: Frames, score: str) -> None:
    """Refuse a metric that is no share where a score is drawn: its curves are those of shares."""
    values = frames["joined"][score].dropna() if score.startswith(METRIC) else ()
    if len(values) and not 0 <= min(values) <= max(values) <= 1:
        raise TableError(
            f"{score.removeprefix(METRIC)} goes from {min(values):g} to {max(values):g}, and a score is a share from 0 "
            "to 1: draw it across with --x (in Python reading=), or write it as a share into the manifest"
        )


def _taken(registry: Registry, name: str) -> set[str]:
    """The options that the function of a figure or a table takes."""
    return set(inspect.signature(FigureEntry.of(registry[name]).load()).parameters)


def _check_choices(frames: Frames, asked: dict[str, Any]) -> None:
    """Refuse a reading, score or factor that there is not; metrics get the names of their columns."""
    from invariscope.analysis.tables.factors import factor_column

    for choice, known in (("reading", (*MSB_READINGS, *OTHER_READINGS)), ("score", (*SCORES, *PIXEL_SCORES))):
        if choice in asked:
            asked[choice] = _column(frames, choice, asked[choice], known)
    if "score" in asked:
        _check_share(frames, asked["score"])
    factors = [asked[choice] for choice in ("hue", "facet") if choice in asked] + list(asked.get("by", ()))
    if factors:
        described = describe(frames.tables)
        for factor in factors:
            factor_column(described, factor)


HEADLINES = {"invariance": ("population", "rotations", "msb_invariance"), "segmentation": ("segmentation",)}
"""Per table of scores, the figures that can stand beside the verdict; the first one that can be drawn does."""


def draw_headline(
    tables: Tables | Frames, vocabulary: Vocabulary, drawn: Drawn | None = None
) -> tuple[str, Figure] | None:
    """The headline figure and its name; None where none can be drawn. What was ``drawn`` before is not drawn again."""
    frames = Frames.of(tables)
    for name in HEADLINES[vocabulary.table]:
        if drawn is not None:
            if name in drawn.figures:
                return name, drawn.figures[name]
            continue
        try:
            return name, draw_from(frames, name, {})
        except TableError:
            continue
    return None


def save_figures(
    tables: Tables | Frames,
    folder: Path | str,
    only: Iterable[str] | None = None,
    formats: Iterable[str] = ("png",),
    *,
    width: Width = "double",
    data: str | None = None,
    skipped: Callable[[str, str], None] | None = None,
) -> list[Path]:
    """:func:`draw_figures` and :meth:`Drawn.write` in one; returns the files written.

    A figure for which the tables have no rows is passed over and told to ``skipped(name, reason)``, by default a line
    on stderr.

    Raises:
        TableError: an unknown figure, format or width, a folder that cannot be written to, or nothing that could be
            drawn at all.
    """
    kinds = known_formats(formats)
    drawn = draw_figures(tables, only, width=width, data=data)
    for name, reason in drawn.reasons.items():
        (skipped or tell_skipped)(name, reason)
    return drawn.write(folder, kinds)


def tell_skipped(name: str, reason: str) -> None:
    """Say on stderr that a figure or a table was passed over."""
    kind = "figure" if name in FIGURES else "table"
    sys.stderr.write(f"{kind} {name} skipped: {reason}\n")
