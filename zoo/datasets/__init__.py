"""Named data sets: a specification such as ``digits`` or ``parquet:cifar10/test.parquet`` gives an ``ImageSet``.

Importing this package does not import torch; loading a data set does.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import DataError, InputError
from invariscope.base.processes import is_asked_for
from invariscope.base.registry import Registry
from invariscope.zoo.datasets.inputs import LARGEST_SIDE
from invariscope.zoo.user_code import ENDS, find_code, load_user_object, no_code, of_code, remedy, said, where

if TYPE_CHECKING:
    from invariscope.zoo.datasets.imageset import ImageSet
    from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages

__all__ = ["DATASETS", "ImageSet", "InputSpec", "PreparedImages", "load_dataset", "register_dataset"]

USER_CODE = "python"
"""In the place of a data set's name: ``python:FILE.py:LOADER[:PATH]`` is loaded by a function of the user's."""

_CALL = "loader(path, split=..., limit=..., size=...)"
_USER_LOADER = re.compile(rf"{USER_CODE}:(.+?\.py|[\w.]+):(\w+)(?::(.*))?")


def _check_loader(name: str, loader: Any) -> None:
    """Refuse what is no loader, or has a name that no specification can give.

    Raises:
        DataError: naming it.
    """
    if not re.fullmatch(r"[\w.-]+", name) or name == USER_CODE:
        raise DataError(f"a data set cannot be named {name!r}: take letters, digits, '_', '-' or '.'")
    if not callable(loader):
        raise DataError(f"data set {name!r}: the loader is a {type(loader).__name__}: give a function, {_CALL}")
    try:
        inspect.signature(loader).bind(None, split="test", limit=None, size=None)
    except (TypeError, ValueError) as problem:
        raise DataError(f"data set {name!r} cannot be loaded as {_CALL} ({problem}): give it these arguments") from None


DATASETS = Registry(
    "data set",
    {
        "digits": "invariscope.zoo.datasets.digits:load_digits",
        "shapes": "invariscope.zoo.datasets.shapes:load_shapes",
        "parquet": "invariscope.zoo.datasets.parquet:load_parquet",
        "imagefolder": "invariscope.zoo.datasets.imagefolder:load_imagefolder",
        "cifar10": "invariscope.zoo.datasets.native:load_cifar10",
        "fashion_mnist": "invariscope.zoo.datasets.native:load_fashion_mnist",
    },
    DataError,
    group="invariscope.datasets",
    check=_check_loader,
)
"""Loaders by name. Each is called as ``loader(path, split=, limit=, size=)`` and returns an ``ImageSet``."""

_LAZY = {
    "ImageSet": "invariscope.zoo.datasets.imageset",
    "InputSpec": "invariscope.zoo.datasets.inputs",
    "PreparedImages": "invariscope.zoo.datasets.inputs",
}


def register_dataset(name: str, loader: Callable[..., ImageSet]) -> None:
    """Make a data set known by a name for this process: ``NAME[:PATH]`` is then loaded by ``loader``.

    Args:
        name: letters, digits, ``_``, ``-`` and ``.``.
        loader: called as ``loader(path, split=, limit=, size=)`` with the text after the colon or None, the split's
            name, the number of images to take from the start (None: all), and the side to which images are brought
            (None: as they are); returns an ``ImageSet``, and raises ``DataError`` for a split that it does not have.

    Raises:
        DataError: for a name that is taken or cannot be given, or a loader that cannot be called like that.
    """
    _check_loader(name, loader)
    DATASETS.add(name, loader)


def is_own(spec: str) -> bool:
    """Whether a specification names a data set of this package, whose loader reads its path and nothing else."""
    return spec.partition(":")[0] in DATASETS.own


def load_dataset(
    spec: str, *, split: str = "test", limit: int | None = None, size: int | None = None, allow_code: bool = False
) -> ImageSet:
    """Load a data set by its specification ``NAME`` or ``NAME:PATH``.

    Args:
        spec: ``digits``, ``shapes``, ``parquet:PATH``, ``imagefolder:PATH``, ``cifar10:PATH`` or
            ``fashion_mnist:PATH``; one that an installed package brings or :func:`register_dataset` added; or
            ``python:FILE.py:LOADER`` or ``python:FILE.py:LOADER:PATH``, whose loader is called as those are.
        split: ``train``, ``test``, or another one that the data set has.
        limit: take the first ``limit`` images only.
        size: side in pixels. Generated data sets are made at this size; others are resized (shorter side) and cropped
            at the centre, which images of different sizes need.
        allow_code: run the file of a ``python:`` data set, which is refused without.

    Returns:
        An ``ImageSet``: uint8 images ``(N, C, H, W)``, int64 labels ``(N,)``, masks where there are any.

    Raises:
        DataError: for an unknown name, a missing path or file, contents that cannot be used, or a loader of somebody
            else's that fails or gives something else.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}: take at least one image")
    if size is not None and size < 1:
        raise DataError(f"size is {size}: give a whole number of pixels, at least 1")
    if size is not None and size > LARGEST_SIDE:
        raise DataError(f"size is {size}: give at most {LARGEST_SIDE} pixels")
    name, separator, path = spec.partition(":")
    arguments = {"split": split, "limit": limit, "size": size}
    if name == USER_CODE:
        return _foreign(*_user_loader(spec, allow_code), spec, arguments)
    if is_own(spec):
        images: ImageSet = DATASETS[name](path if separator else None, **arguments)
        return images
    return _foreign(DATASETS[name], path if separator else None, spec, arguments)


def _user_loader(spec: str, allow_code: bool) -> tuple[Callable[..., Any], str | None]:
    """The loader of a ``python:`` specification, and its path."""
    found = _USER_LOADER.fullmatch(spec)
    if found is None:
        raise DataError(f"data set {spec!r}: write it like python:my_data.py:load or python:my_data.py:load:PATH")
    place, name, path = found.groups()
    file = find_code(place, Path()).expanduser()
    if not allow_code:
        raise DataError(no_code(f"data set {spec!r}", file))
    try:
        loader = load_user_object(file, name, root=Path(), error=DataError)
    except DataError as problem:
        raise DataError(f"data set {spec!r}: {problem}") from problem.__cause__
    _check_loader(name, loader)
    return loader, path


def _foreign(loader: Callable[..., Any], path: str | None, spec: str, arguments: dict[str, Any]) -> ImageSet:
    """What the loader of somebody else gives, of no more images than were asked for."""
    from invariscope.zoo.datasets.imageset import ImageSet

    try:
        with of_code() if spec.startswith(f"{USER_CODE}:") else nullcontext():
            images = loader(path, **arguments)
    except InputError as problem:
        raise DataError(f"data set {spec!r}: {problem}") from problem
    except ENDS as problem:  # foreign code
        if is_asked_for(problem):
            raise
        place = f" at {where(problem)}" if where(problem) else ""
        raise DataError(
            f"data set {spec!r} cannot be loaded ({said(problem)}){place}: {remedy(problem, 'mend its loader')}"
        ) from problem
    if not isinstance(images, ImageSet):
        raise DataError(f"data set {spec!r}: its loader gives a {type(images).__name__}: return an ImageSet")
    limit = arguments["limit"]
    return images if limit is None or len(images) <= limit else images.head(limit)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
