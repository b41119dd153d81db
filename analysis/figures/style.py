"""The look of every figure: theme, sizes, one colour and marker per operator, axis labels, shared drawing steps."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from invariscope.analysis.say.vocabulary import PIXELS
from invariscope.analysis.tables.checkpoints import METRIC
from invariscope.base.errors import TableError
from invariscope.base.names import unknown
from invariscope.collectors.schema import MSB_READINGS

if TYPE_CHECKING:
    from invariscope.analysis.figures.fits import Curve

Width = Literal["double", "single"]

WIDTHS = {"double": 7.0, "single": 3.5}
"""Figure width in inches: across a two-column page, and one column of it."""

SMALLEST_FONT = 7.0
"""Points; nothing in a figure is set smaller, so that it is legible when printed at its own size."""

NOTEBOOK_DPI = 110
"""Pixels per inch of what a notebook shows: 770 across, and mostly less than 150 KB."""

BAND = 0.18
"""Opacity of interval bands."""

INK, GUIDE = "#222222", "#8a8a8a"

RAMP = ("#D7E6F1", "#8CC1E3", "#3C8DC5", "#0F5A9C", "#0A2C55")
"""From little to much of one quantity: one hue, darker step by step, which tells in grey too."""

ACCENT = "#D55E00"
"""What lies on top of such points: fits and pooled slopes."""


class Mark(NamedTuple):
    """How an operator is drawn; colour and marker each identify it, so that a grey print still tells them apart."""

    color: str
    marker: str


MARKS = {
    "max": Mark("#D55E00", "o"),
    "avg": Mark("#0072B2", "s"),
    "lp": Mark("#E69F00", "^"),
    "soft": Mark("#CC79A7", "D"),
    "blur": Mark("#56B4E9", "v"),
    "maxblur": Mark("#882255", "P"),
    "ddac": Mark("#009E73", "<"),
    "aps": Mark("#332288", ">"),
    "lps": Mark("#999933", "h"),
    "tips": Mark("#8C510A", "p"),
    "subsample": Mark("#000000", "X"),
    "strided": Mark("#7A7A7A", "*"),
}
"""Okabe-Ito's and Tol's colours; the smallest CIELAB distance between two operators is 13.5 for a reader with
protanopia, deuteranopia or tritanopia and 26 otherwise (``strided``, told by its star, apart). Legend order."""

_OTHER_COLORS = ("#117733", "#DDAA33", "#AA4499", "#5A5A5A", "#4477AA", "#C3423F", "#2AA198")
_OTHER_MARKERS = "d8H*osv^DP<X>ph"
OTHER_MARKS = tuple(
    Mark(_OTHER_COLORS[place % len(_OTHER_COLORS)], _OTHER_MARKERS[place % len(_OTHER_MARKERS)])
    for place in range(len(_OTHER_COLORS) * len(_OTHER_MARKERS))
)
"""For operators that the table above does not know, in the order of their names: neighbours differ in colour and in
marker, and no two of the 105 in both."""

_READING_LABELS = {
    "msb_corrected": "MSB, chance-corrected (1 = always the maximum)",
    "msb": "MSB, literal (share of windows)",
    "msb_all": "MSB, flat windows as hits (share of windows)",
    "msb_weight": "weight on the maximum (share of weight)",
    "msb_top": "maximum at the greatest weight (share of windows)",
}
_SHORT_LABELS = {
    "msb_corrected": "MSB, chance-corrected",
    "msb": "MSB, literal",
    "msb_all": "MSB, all windows",
    "msb_weight": "weight on the maximum",
    "msb_top": "maximum at top weight",
}
_SCORE_UNITS = {
    "accuracy": "share of images",
    "consistency": "share of shift pairs",
    "consistency_to_clean": "share of shifts",
    "fidelity": "share of shift pairs",
    "fidelity_product": "accuracy × consistency",
    "worst_case_accuracy": "share of images",
    "kappa": "1 = perfect, 0 = chance",
    "flip_rate": "share of steps",
    "stability": "share of shift pairs",
    "probability_drift": "change of probability",
    "agreement": "share of images",
}
_RIVAL_LABELS = {
    "selectivity": "selectivity (1 = one pixel)",
    "position": "position (0 = every place alike)",
    "msb_jacobian": "MSB of the derivative",
    "aliasing": "aliasing (share of energy)",
    "see": "site equivariance error",
    "see_padding": "site equivariance error, of the padding",
}
_LABELS = {
    **_READING_LABELS,
    **_RIVAL_LABELS,
    PIXELS.accuracy: PIXELS.accuracy_word,
    PIXELS.score: f"{PIXELS.score_word} (share of pixels)",
    "fidelity_pixel": "per-pixel fidelity (share of pixels)",
}

_TEXT_SIZES: tuple[Any, ...] = ("font.size", "axes.titlesize", "axes.labelsize", "figure.titlesize", "figure.labelsize")
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # names are text: a "$" in one begins no formula
    "legend.fontsize": SMALLEST_FONT,
    "xtick.labelsize": SMALLEST_FONT,
    "ytick.labelsize": SMALLEST_FONT,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handletextpad": 0.4,
    "legend.columnspacing": 1.0,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "invariscope",
}


@contextmanager
def theme(width: Width = "double") -> Iterator[None]:
    """The settings of every figure for the length of a ``with`` block, whatever the process's own settings are."""
    if width not in WIDTHS:
        raise TableError(unknown("figure width", width, WIDTHS))
    import seaborn as sns

    with mpl.rc_context():
        mpl.rcdefaults()
        ticks: dict[Any, Any] = dict(sns.axes_style("ticks"))
        mpl.rcParams.update(ticks)
        text = 8.0 if width == "double" else SMALLEST_FONT
        mpl.rcParams.update(_SETTINGS)
        mpl.rcParams.update(dict.fromkeys(_TEXT_SIZES, text))
        yield


class CaptionedFigure(Figure):
    """A figure with ``caption``: what is drawn, from how many checkpoints and clusters, with what interval.

    As the last line of a notebook's cell it is shown, at :data:`NOTEBOOK_DPI`, where files have 300.
    """

    caption: str = ""

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """The picture, and the caption where there are no pictures; once pyplot is imported, its picture is shown."""
        buffer = io.BytesIO()
        with theme():
            self.savefig(buffer, format="png", dpi=NOTEBOOK_DPI, metadata={"Software": None})
        return {"image/png": b64encode(buffer.getvalue()).decode(), "text/plain": self.caption or repr(self)}


def new_figure(width: Width, height: float) -> CaptionedFigure:
    """An empty figure of a named width and ``height`` inches with constrained layout, unknown to pyplot."""
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.04, hspace=0.04)
    return CaptionedFigure(figsize=(WIDTHS[width], height), layout=engine)


def lay_out(figure: Figure) -> None:
    """Put the axes where they will be drawn, so that names can be placed by what is there; nothing is drawn."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)


MOST_ROWS = 40
"""Operators of a figure that has a row for each: more are no figure that a page holds."""


def some_rows(order: Sequence[str], what: str = "operators") -> tuple[list[str], list[str]]:
    """The names to draw, in their order: all, or :data:`MOST_ROWS` evenly spaced among them with the first and the
    last; and the sentence that says so, where it is to be said.
    """
    if len(order) <= MOST_ROWS:
        return list(order), []
    places = np.linspace(0, len(order) - 1, MOST_ROWS).round().astype(int)
    said = f"{MOST_ROWS} of {len(order):,} {what} are drawn, evenly spaced in their order; the tables hold all."
    return [order[place] for place in places], [said]


def label(column: str, *, lines: int = 1, short: bool = False) -> str:
    """The axis label of a score or an MSB reading with its unit; ``lines=2`` puts the unit on a line of its own."""
    if short and column in _SHORT_LABELS:
        return _SHORT_LABELS[column]
    if column in _LABELS:
        text = _LABELS[column]
    else:
        name = column.removeprefix(METRIC)
        text = f"{name.replace('_', ' ')} ({_SCORE_UNITS[name]})" if column in _SCORE_UNITS else name
    return text.replace(" (", "\n(") if lines == 2 else text


def word(column: str) -> str:
    """A reading, score or metric in a title: ``MSB``, ``fidelity product``."""
    return "MSB" if column in MSB_READINGS else column.removeprefix(METRIC).replace("_", " ")


def operator_order(operators: Iterable[Any]) -> list[str]:
    """The distinct operators in legend order: the known ones first, then the others by name."""
    present = {str(operator) for operator in operators}
    return [name for name in MARKS if name in present] + sorted(present - MARKS.keys())


def marks(operators: Iterable[Any], *, in_order: bool = False) -> dict[str, Mark]:
    """The mark of each operator present; a known operator looks the same in every figure. ``in_order``: distinct names
    that are in the legend's order already.
    """
    order = list(map(str, operators)) if in_order else operator_order(operators)
    others = [name for name in order if name not in MARKS]
    extra = {name: OTHER_MARKS[index % len(OTHER_MARKS)] for index, name in enumerate(others)}
    return {name: MARKS.get(name) or extra[name] for name in order}


LISTED = 40
"""Up to so many operators a legend names each; of more, those that have no mark of their own are one entry."""


def looks(operators: Iterable[Any]) -> dict[str, Mark]:
    """The mark of each operator as the legend of a figure of all these has it (:func:`operator_handles`)."""
    known = marks(operators)
    others = [name for name in known if name not in MARKS] if len(known) > LISTED else []
    return known | (dict.fromkeys(others, known[others[0]]) if others else {})


def together(operators: Iterable[Any]) -> dict[str, tuple[Mark, list[str]]]:
    """The operators that are drawn together, by label: each alone, or with those of its mark where they are many."""
    known = marks(operators)
    if len(known) <= LISTED:
        return {name: (mark, [name]) for name, mark in known.items()}
    found: dict[str, tuple[Mark, list[str]]] = {}
    for name, mark in known.items():
        found.setdefault(name if name in MARKS else f"further operators ({mark.marker})", (mark, []))[1].append(name)
    return found


def scatter_operators(ax: Axes, frame: pd.DataFrame, x: str, y: str, *, size: float = 13.0) -> None:
    """One scatter collection per operator (its name is the collection's label); subsampling on top and a bit larger.

    Of more than :data:`LISTED` operators those that share a mark are one collection.
    """
    for name, (mark, names) in together(frame["operator"]).items():
        rows = frame[frame["operator"].isin(names)]
        emphasis = name == "subsample"
        ax.scatter(
            rows[x],
            rows[y],
            s=size * (1.7 if emphasis else 1.0),
            color=mark.color,
            marker=mark.marker,
            alpha=0.85 if emphasis else 0.6,
            linewidths=0.3,
            edgecolors="white",
            label=name,
            zorder=3.2 if emphasis else 3.0,
        )


def scatter_elsewhere(ax: Axes, frame: pd.DataFrame, x: str, y: str) -> None:
    """Networks from elsewhere: the marks of their operators, hollow and larger, over everything else."""
    for name, mark in marks(frame["operator"]).items() if len(frame) else ():
        rows = frame[frame["operator"] == name]
        ax.scatter(
            rows[x],
            rows[y],
            s=34,
            facecolors="none",
            edgecolors=mark.color,
            marker=mark.marker,
            linewidths=1.0,
            label=f"{name} (elsewhere)",
            zorder=3.4,
        )


def elsewhere_handles(frame: pd.DataFrame) -> list[Artist]:
    """The legend's handle of networks from elsewhere; none where there are none."""
    if frame.empty:
        return []
    mark = marks(frame["operator"])[operator_order(frame["operator"])[0]]
    return [
        Line2D(
            [],
            [],
            color=GUIDE,
            marker=mark.marker,
            markerfacecolor="none",
            markersize=6.0,
            linestyle="",
            label="hollow: from elsewhere",
        )
    ]


def operator_handles(operators: Iterable[Any]) -> list[Artist]:
    """Legend handles, one per operator present; one for all without a mark of their own where they are many."""
    known = marks(operators)
    if len(known) > LISTED:
        others = [name for name in known if name not in MARKS]
        own = {name: mark for name, mark in known.items() if name in MARKS}
        known = own | ({f"{len(others)} further operators": known[others[0]]} if others else {})
    return [
        Line2D([], [], color=mark.color, marker=mark.marker, linestyle="", markersize=4.5, label=name)
        for name, mark in known.items()
    ]


def legend_below(figure: Figure, handles: Sequence[Artist], width: Width, *, columns: int | None = None) -> None:
    """One legend for the whole figure, under the panels and thus never over data."""
    columns = columns or (7 if width == "double" else 4)
    length = 2.0 if width == "double" else 1.6
    figure.legend(
        handles=list(handles), loc="outside lower center", ncols=min(columns, len(handles)), handlelength=length
    )


def draw_curve(ax: Axes, curve: Curve | None, *, apart: bool = False) -> None:
    """A fit with its band; the fit without plain subsampling (``apart``) is dashed and has no band."""
    if curve is None:
        return
    ax.plot(
        curve.x,
        curve.y,
        color=INK,
        linestyle="--" if apart else "-",
        zorder=4,
        label="without subsample" if apart else "fit",
    )
    if not apart:
        ax.fill_between(curve.x, curve.low, curve.high, color=INK, alpha=BAND, linewidth=0, zorder=2, label="band")


def spaced(places: Iterable[float], low: float, high: float, gap: float) -> list[float]:
    """Those of ``places`` between ``low`` and ``high`` that stand ``gap`` of the axis apart; the first ones win."""
    kept: list[float] = []
    for place in places:
        if low <= place <= high and all(abs(place - other) >= gap * (high - low) for other in kept):
            kept.append(float(place))
    return sorted(kept)


def fit_handles(name: str, apart: bool, width: Width) -> list[Artist]:
    """Legend handles of a fit, its band and, where drawn, the fit without plain subsampling."""
    band = Patch(color=INK, alpha=BAND, linewidth=0, label="95 % band")
    handles: list[Artist] = [Line2D([], [], color=INK, label=name), band]
    if apart:
        text = "without subsample" if width == "double" else "no subsample (r*)"
        handles.append(Line2D([], [], color=INK, linestyle="--", label=text))
    return handles
