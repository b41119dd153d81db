"""A folder of images, one subfolder per class."""

from __future__ import annotations

from itertools import chain, zip_longest
from pathlib import Path

import torch

from invariscope.base.errors import DataError
from invariscope.zoo.datasets.decoding import decode_images
from invariscope.zoo.datasets.imageset import ImageSet

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def load_imagefolder(path: str | None, *, split: str, limit: int | None, size: int | None) -> ImageSet:
    """Read ``PATH/SPLIT/CLASS/*.png`` (``.jpg``, ``.webp``, ...), or ``PATH/CLASS/...`` where there is no such split.

    Classes are numbered in the order of their names. The classes take turns, so that the first ``limit`` images hold
    each of them; subfolders of a class are included.

    Raises:
        DataError: for a missing folder, no class folders, a class without images, or an image that cannot be used.
    """
    if not path:
        raise DataError("imagefolder needs a path: write imagefolder:PATH of a folder with one subfolder per class")
    place = Path(path).expanduser()
    root = place / split if (place / split).is_dir() else place
    if not root.is_dir():
        raise DataError(f"there is no folder {place}: put one subfolder of images per class there")
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if not folders:
        raise DataError(f"{root} has no subfolders: put one subfolder of images per class there")
    per_class = []
    for number, folder in enumerate(folders):
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise DataError(f"{folder} has no images ({', '.join(SUFFIXES)}): put some there or remove the folder")
        per_class.append([(file, number) for file in files])
    turns = [item for item in chain.from_iterable(zip_longest(*per_class)) if item is not None][:limit]
    name = f"{place.resolve().name}/{split}" if root != place else place.resolve().name
    return ImageSet(
        name=name,
        images=decode_images([file for file, _ in turns], name, size),
        labels=torch.tensor([number for _, number in turns]),
        classes=tuple(folder.name for folder in folders),
    )
