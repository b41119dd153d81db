"""The figures, by name: each is one module and one line here, and is drawn from tables alone.

A figure is a function from one or more frames to a matplotlib Figure. Others add theirs with :func:`register_figure`,
or as an entry point of the group ``invariscope.figures``: a function of the joined frame, or a :class:`FigureEntry`
that names its frames.
"""

from __future__ import annotations

import importlib
import inspect
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import TableError
from invariscope.base.names import unknown
from invariscope.base.registry import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from invariscope.analysis.figures.style import Width
    from invariscope.analysis.tables.frames import Frames
    from invariscope.analysis.tables.load import Tables


@dataclass(frozen=True)
class FigureEntry:
    """A figure's, or a paper table's, function (``module:function`` or the function itself) and the frames it takes in
    order: names of :data:`FRAMES`.
    """

    function: str | Callable[..., Any]
    frames: tuple[str, ...] = ("joined",)

    @classmethod
    def of(cls, found: Any) -> FigureEntry:
        """An entry as it is; a function as one that takes the joined frame."""
        return found if isinstance(found, FigureEntry) else cls(found)

    def __call__(self, *frames: Any, **options: Any) -> Any:
        """What the function makes of the frames."""
        return self.load()(*frames, **options)

    def load(self) -> Callable[..., Any]:
        """The function."""
        if not isinstance(self.function, str):
            return self.function
        module, _, attribute = self.function.partition(":")
        made: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return made


def check_entry(kind: str) -> Callable[[str, Any], None]:
    """What a registry of figures or tables asks of an entry from outside: a file's name, a function, known frames."""

    def check(name: str, found: Any) -> None:
        from invariscope.analysis.tables.frames import FRAMES  # pandas, which names alone do not need

        entry = FigureEntry.of(found)
        if not re.fullmatch(r"\w[\w-]*", name):
            raise TableError(f"{kind} {name!r} cannot name a file: use letters, digits, _ and -")
        named = isinstance(entry.function, str) and ":" in entry.function
        if not named and not callable(entry.function):
            raise TableError(f"{kind} {name!r} is no function: give one that takes frames, or a FigureEntry of one")
        for frame in entry.frames:
            if frame not in FRAMES:
                raise TableError(f"{kind} {name!r}: {unknown('frame', frame, FRAMES)}")

    return check


def _ours(name: str, *frames: str) -> FigureEntry:
    """A figure of this package: the function of its module's name."""
    return FigureEntry(f"invariscope.analysis.figures.{name}:{name}", frames or ("joined",))


FIGURES = Registry(
    "figure",
    {
        "msb_invariance": _ours("msb_invariance"),
        "msb_by_operator": _ours("msb_by_operator", "joined", "sites"),
        "shift_surface": _ours("shift_surface", "surface"),
        "confounding": _ours("confounding"),
        "dose_response": _ours("dose_response"),
        "influence": _ours("influence"),
        "within_between": _ours("within_between"),
        "msb_by_depth": _ours("msb_by_depth", "sites"),
        "robustness": _ours("robustness", "robustness"),
        "clean_accuracy": _ours("clean_accuracy", "robustness"),
        "segmentation": _ours("segmentation", "segmentation"),
        "cost": _ours("cost", "cost"),
        "swap": _ours("swap", "swaps"),
        "drawn": _ours("drawn"),
        "population": _ours("population"),
        "rotations": _ours("rotations"),
        "mechanism": _ours("mechanism"),
        "importance": _ours("importance"),
        "heldout": _ours("heldout"),
        "published_operators": _ours("published_operators"),
        "chain": _ours("chain", "joined", "drift"),
    },
    TableError,
    group="invariscope.figures",
    check=check_entry("figure"),
)
"""Every figure by name: :class:`FigureEntry`, or a function of the joined frame."""

FORMATS = ("png", "pdf", "svg")
# Dates and version strings left out, so that equal tables give equal bytes.
_NO_STAMPS = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Producer": None}, "svg": {"Date": None}}


def register_figure(name: str, function: Callable[..., Figure], frames: Iterable[str] = ("joined",)) -> None:
    """Make a figure known by name for this process: drawn with the others, and by :func:`draw`.

    ``function`` takes the ``frames`` (names of :data:`FRAMES`) in order and returns a matplotlib Figure, whose
    attribute ``caption``, where it has one, is written beside it. Where it names them, it is given ``width``
    (``double`` or ``single``) and ``data`` (a data set's name, or None) by keyword. A :class:`TableError` that it
    raises is told as the reason why there is no figure.

    Raises:
        TableError: the name is taken or cannot name a file, this is no function, or a frame is not known.
    """
    FIGURES.add(name, FigureEntry(function, tuple(frames)))


def draw(name: str, tables: Tables | Frames, *, width: Width = "double", **options: Any) -> Figure:
    """The figure ``name`` from ``tables``; its ``caption`` says what it shows. Options go to the figure's function.

    Raises:
        TableError: no such figure, or nothing in the tables that it could show.
    """
    from invariscope.analysis.tables.frames import Frames

    return draw_from(Frames.of(tables), name, {"width": width}, **options)


def render(figure: Figure, kind: str = "png", *, width: Width = "double") -> bytes:
    """The bytes of a figure's file, the same for the same figure."""
    from invariscope.analysis.figures.style import theme

    buffer = io.BytesIO()
    with theme(width):
        figure.savefig(buffer, format=kind, metadata=_NO_STAMPS[kind])
    return buffer.getvalue()


def draw_from(frames: Frames, name: str, offered: dict[str, Any], **options: Any) -> Figure:
    """As :func:`draw`, from frames; of the options ``offered`` a figure is given those that it names."""
    from matplotlib.figure import Figure

    figure: Figure = make(FIGURES, name, frames, Figure, offered, **options)
    return figure


def make(registry: Registry, name: str, frames: Frames, expected: type, offered: dict[str, Any], **options: Any) -> Any:
    """What the function of an entry returns: ``options`` as they are, of those ``offered`` the ones that it names.

    Raises:
        TableError: no such name; nothing to show; code from outside that fails, or returns another type than
            ``expected``.
    """
    entry = FigureEntry.of(registry[name])
    function, given = entry.load(), [frames[frame] for frame in entry.frames]
    offered = {key: value for key, value in offered.items() if key in inspect.signature(function).parameters}
    if name in registry.own:
        return function(*given, **offered, **options)
    try:
        found = function(*given, **offered, **options)
    except TableError:
        raise
    except Exception as problem:  # foreign code
        raise TableError(
            f"{registry.kind} {name!r} failed ({type(problem).__name__}: {problem}): mend its function"
        ) from problem
    if not isinstance(found, expected):
        raise TableError(
            f"{registry.kind} {name!r} returned {type(found).__name__}: its function has to return {expected.__name__}"
        )
    return found


def known_formats(formats: Iterable[str]) -> list[str]:
    """The formats as a list; raises :class:`TableError` where one is unknown."""
    kinds = list(formats)
    for kind in kinds:
        if kind not in FORMATS:
            raise TableError(unknown("figure format", kind, FORMATS))
    return kinds
