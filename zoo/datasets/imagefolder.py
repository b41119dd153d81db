"""A folder of images: one subfolder per class, or images without labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path

import torch

from invariscope.base.errors import DataError
from invariscope.zoo.datasets.decoding import DEEPEST, decode_images, in_threads, look_at
from invariscope.zoo.datasets.files import ImageFiles
from invariscope.zoo.datasets.imageset import NO_LABEL, ImageSet

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval")
"""Names of folders that are splits rather than classes, where all are such, or one holds folders in its turn."""

IN_MEMORY = 2**30
"""Bytes of decoded images up to which those of one size are kept in memory; all others stay in their files."""


def load_imagefolder(path: str | None, *, split: str, limit: int | None, size: int | None) -> ImageSet:
    """Read ``PATH/SPLIT/CLASS/*.png`` (``.jpg``, ``.webp``, ...), or ``PATH/CLASS/...`` where there are no splits.

    Classes are numbered in the order of their names. The classes take turns, so that the first ``limit`` images hold
    each of them; subfolders of a class are included, links are followed, hidden files and folders and ``__MACOSX`` are
    not. A folder of images without subfolders has no labels. EXIF's orientation is applied. Images of different sizes,
    and those of one size beyond ``IN_MEMORY`` bytes, stay in their files and are decoded when a batch is wanted, in
    threads.

    Raises:
        DataError: for a missing folder, splits without the one that is asked for, a class without images, images beside
            class folders, or an image that cannot be used.
    """
    if not path:
        raise DataError("imagefolder needs a path: write imagefolder:PATH of a folder with one subfolder per class")
    place = Path(path).expanduser()
    root = place / split if (place / split).is_dir() else place
    if not root.is_dir():
        raise DataError(f"there is no folder {place}: put one subfolder of images per class there")
    folders, loose = _inside(root)
    if root == place:
        _refuse_splits(place, folders, split)
    if not folders and not loose:
        raise DataError(f"{root} has no subfolders and no images: put one subfolder of images per class there")
    if folders and loose:
        raise DataError(
            f"{root} has images beside its class folders ({loose[0].name}): put them into a folder, or remove them"
        )
    per_class = []
    for number, folder in enumerate(folders):
        files = sorted(_images_below(folder))
        if not files:
            raise DataError(f"{folder} has no images ({', '.join(SUFFIXES)}): put some there or remove the folder")
        per_class.append([(file, number) for file in files])
    turns = [item for item in chain.from_iterable(zip_longest(*per_class)) if item is not None]
    turns = (turns or [(file, NO_LABEL) for file in loose])[:limit]
    name = f"{place.resolve().name}/{split}" if root != place else place.resolve().name
    return ImageSet(
        name=name,
        images=_images([file for file, _ in turns], name, size),
        labels=torch.tensor([number for _, number in turns]),
        classes=tuple(folder.name for folder in folders),
    )


def _inside(root: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the images of a folder, sorted."""
    shown = sorted(item for item in root.iterdir() if not _is_hidden(item.name))
    return [item for item in shown if item.is_dir()], [item for item in shown if _is_image(item)]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _images_below(folder: Path) -> Iterator[Path]:
    """The images of a folder and of those in it; a link that leads back up is followed once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (file for name in names if not _is_hidden(name) and _is_image(file := Path(place, name)))


def _refuse_splits(place: Path, folders: list[Path], split: str) -> None:
    """Refuse a folder whose subfolders are splits and not classes."""
    splits = [folder for folder in folders if folder.name.lower() in SPLITS]
    if splits and (len(splits) == len(folders) or any(_inside(folder)[0] for folder in splits)):
        names = ", ".join(folder.name for folder in splits)
        raise DataError(f"{place} has the splits {names}, and no {split}: give --split {splits[-1].name}")


def _images(files: list[Path], name: str, size: int | None) -> torch.Tensor | ImageFiles:
    if size is not None:
        return decode_images(files, name, size)
    found = in_threads(lambda row: look_at(files[row], f"{name}: image {row}"), len(files))
    channels = 1 if all(grey for _, _, grey, _ in found) else 3
    height, width, _, deep = found[0]
    if any(looked[3] is not deep for looked in found):
        raise DataError(f"{name} has images of 8 and of 16 bits: convert them to one")
    one_size = all(looked[:2] == (height, width) for looked in found)
    if one_size and len(files) * channels * height * width * (4 if deep else 1) <= IN_MEMORY:
        return decode_images(files, name, None)
    white = DEEPEST if deep else 255
    return ImageFiles(tuple(file.absolute() for file in files), channels, name, white=white)
