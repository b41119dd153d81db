"""The shift kinds by name: what lies outside of the image, how each is drawn and worded; no default branch anywhere.

Imports neither torch nor numpy, so that measuring, analysing and drawing read the same registry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from invariscope.base.errors import ShiftError
from invariscope.base.registry import Registry

UNSHIFTED = "none"
"""Stands in the tables where a kind would, for images as they are."""

FILLS = ("background", "mean", "black")
"""What a kind that takes a fill puts outside of the image: the data set's background (the median of the pixels on the
borders of its first images), 0 after normalisation, or 0 before it. Where images have a plain border, the mean draws a
grey bar into them and is no shift."""


@dataclass(frozen=True)
class ShiftKind:
    """What is seen where a shift shows what lies outside of the image.

    Attributes:
        source: ``source(position, size)``, integers of any shape (numpy or torch) to such of the same shape: which
            pixel of an axis of ``size`` pixels stands at a position, from ``1 - size`` to ``2 * size - 2``. A position
            inside of the image, 0 to ``size - 1``, is that pixel.
        words: what one shift is called in text.
        color, dashes, marker: how the kind is drawn, for matplotlib.
        reversible: the shift by ``-d`` undoes the shift by ``d``: every pixel of the image is in every view.
        takes_fill: outside of the image stands a fill, one of ``FILLS``, instead of the source pixel.
        keeps_size: a view has the size of the image; otherwise it is a window of a larger image, and never leaves it.
        steps: shifts are whole numbers of so many parts of a pixel. Where it is more than one, images are shifted by
            their Fourier series, and the source holds for whole pixels.
        pixel_consistency: what the literature calls the mean per-pixel consistency under these shifts.
    """

    source: Callable[[Any, int], Any]
    words: str
    color: str
    dashes: Any = "-"
    marker: str = "o"
    reversible: bool = False
    takes_fill: bool = False
    keeps_size: bool = True
    steps: int = 1
    pixel_consistency: str | None = None


def wrapped(position: Any, size: int) -> Any:
    """The image again."""
    return position % size


def mirrored(position: Any, size: int) -> Any:
    """The mirrored image, its edge not repeated."""
    return (size - 1) - abs((size - 1) - abs(position))


def edge(position: Any, size: int) -> Any:
    """The pixel of the edge."""
    return position.clip(0, size - 1)


def itself(position: Any, size: int) -> Any:
    """A window never shows what lies outside."""
    return position


def check_shift_kind(name: str, kind: Any) -> None:
    """Refuse what is no shift kind: the source is tried for every shift of small images.

    Raises:
        ShiftError: another object, a source that gives no pixel of the image or moves a pixel inside of it, or a kind
            that says it is reversible and is not, or has parts of a pixel and does not say so.
    """
    import numpy as np

    if not isinstance(kind, ShiftKind):
        raise ShiftError(f"shift kind {name!r} is a {type(kind).__name__}: give a ShiftKind")
    if name == UNSHIFTED or not name.isidentifier():
        raise ShiftError(f"{name!r} cannot name a shift kind: give a Python name, and not {UNSHIFTED!r}")
    if kind.steps < 1 or (kind.steps > 1 and not kind.reversible):
        raise ShiftError(f"shift kind {name!r}: {kind.steps} steps per pixel: give 1, or more to a reversible kind")
    for size in range(1, 6) if kind.keeps_size else ():
        pixels = np.arange(size)
        for shift in range(1 - size, size):
            position = pixels - shift
            found = np.asarray(kind.source(position, size))
            inside = (position >= 0) & (position < size)
            if found.shape != position.shape or found.dtype.kind != "i" or found.min() < 0 or found.max() >= size:
                raise ShiftError(
                    f"shift kind {name!r}: its source at {position.tolist()} is no pixel of 0 to {size - 1}"
                )
            if (found[inside] != position[inside]).any():
                raise ShiftError(f"shift kind {name!r}: its source moves pixels that lie inside of the image")
            if kind.reversible and (found[kind.source(pixels + shift, size)] != pixels).any():
                raise ShiftError(f"shift kind {name!r}: the shift by {-shift} does not undo that by {shift}")


SHIFT_KINDS = Registry(
    "shift kind",
    {
        "circular": ShiftKind(wrapped, "circular shift", "#0072B2", reversible=True, pixel_consistency="mASCC"),
        "zero": ShiftKind(edge, "zero shift", "#D55E00", "--", "s", takes_fill=True, pixel_consistency="mASSC"),
        "reflect": ShiftKind(mirrored, "reflect shift", "#882255", ":", "D"),
        "replicate": ShiftKind(edge, "replicate shift", "#E69F00", (0, (3, 1, 1, 1, 1, 1)), "v"),
        "crop": ShiftKind(itself, "crop shift", "#009E73", "-.", "^", keeps_size=False, pixel_consistency="mASSC"),
        "fractional": ShiftKind(wrapped, "fractional shift", "#CC79A7", (0, (5, 1)), "P", reversible=True, steps=16),
    },
    ShiftError,
    group="invariscope.shift_kinds",
    check=check_shift_kind,
)
"""Name -> :class:`ShiftKind`. A further kind is one line here; one of another package is an entry point."""


def register_shift_kind(name: str, kind: ShiftKind) -> None:
    """Add a shift kind for this process and its workers.

    Raises:
        ShiftError: for a name that is taken, or what :func:`check_shift_kind` refuses.
    """
    SHIFT_KINDS.add(name, kind)
