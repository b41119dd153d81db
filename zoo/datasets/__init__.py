"""Named data sets: a specification such as ``digits`` or ``parquet:cifar10/test.parquet`` gives an ``ImageSet``.

Importing this package does not import torch; loading a data set does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import DataError
from invariscope.base.registry import Registry

if TYPE_CHECKING:
    from invariscope.zoo.datasets.imageset import ImageSet
    from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages

__all__ = ["DATASETS", "ImageSet", "InputSpec", "PreparedImages", "load_dataset"]

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
)
"""Loaders by name. Each is called as ``loader(path, split=, limit=, size=)`` and returns an ``ImageSet``."""

_LAZY = {
    "ImageSet": "invariscope.zoo.datasets.imageset",
    "InputSpec": "invariscope.zoo.datasets.inputs",
    "PreparedImages": "invariscope.zoo.datasets.inputs",
}


def load_dataset(spec: str, *, split: str = "test", limit: int | None = None, size: int | None = None) -> ImageSet:
    """Load a data set by its specification ``NAME`` or ``NAME:PATH``.

    Args:
        spec: ``digits``, ``shapes``, ``parquet:PATH``, ``imagefolder:PATH``, ``cifar10:PATH`` or
            ``fashion_mnist:PATH``.
        split: ``train``, ``test``, or another one that the data set has.
        limit: take the first ``limit`` images only.
        size: side in pixels. Generated data sets are made at this size; others are resized (shorter side) and cropped
            at the centre, which images of different sizes need.

    Returns:
        An ``ImageSet``: uint8 images ``(N, C, H, W)``, int64 labels ``(N,)``, masks where there are any.

    Raises:
        DataError: for an unknown name, a missing path or file, or contents that cannot be used.
    """
    name, separator, path = spec.partition(":")
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}: take at least one image")
    if size is not None and size < 1:
        raise DataError(f"size is {size}: give a whole number of pixels, at least 1")
    loader = DATASETS[name]
    return loader(path if separator else None, split=split, limit=limit, size=size)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
