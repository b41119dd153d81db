"""CIFAR-10 and Fashion-MNIST in the files of their authors, read as plain bytes: nothing is unpickled."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch.nn import functional as F

from invariscope.base.errors import DataError
from invariscope.zoo.datasets.imageset import ImageSet

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

_CIFAR10_RECORD = 1 + 3 * 32 * 32
_IDX_IMAGES, _IDX_LABELS = 0x803, 0x801
_IDX_LARGEST = 2**28


def load_cifar10(path: str | None, *, split: str, limit: int | None, size: int | None) -> ImageSet:
    """Read CIFAR-10's binary version: ``test_batch.bin`` or ``data_batch_1.bin`` to ``data_batch_5.bin`` in ``PATH``.

    A record is one label byte and 3 x 32 x 32 pixel bytes, red plane first (Krizhevsky 2009).

    Raises:
        DataError: for missing files, the Python version (pickles, which could run code), or a damaged file.
    """
    folder = _folder(path, "cifar10", "cifar-10-batches-bin")
    _check_split("cifar10", split)
    stems = ["test_batch"] if split == "test" else [f"data_batch_{number}" for number in range(1, 6)]
    parts: list[np.ndarray] = []
    for stem in stems:
        missing = None if limit is None else limit - sum(map(len, parts))
        if missing is not None and missing <= 0:
            break
        parts.append(_read_cifar10(folder, stem, missing))
    records = np.concatenate(parts)
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
    labels = torch.from_numpy(records[:, 0].astype(np.int64))
    return ImageSet(f"cifar10/{split}", _resize(images, size), labels, CIFAR10_CLASSES)


def load_fashion_mnist(path: str | None, *, split: str, limit: int | None, size: int | None) -> ImageSet:
    """Read Fashion-MNIST's IDX files, ``t10k-images-idx3-ubyte`` and its like, as they are or with ``.gz``.

    Raises:
        DataError: for missing files, another magic number, or a damaged or cut-off file.
    """
    folder = _folder(path, "fashion_mnist", "FashionMNIST/raw")
    _check_split("fashion_mnist", split)
    prefix = "t10k" if split == "test" else "train"
    images = _read_idx(folder, f"{prefix}-images-idx3-ubyte", _IDX_IMAGES, limit)
    labels = _read_idx(folder, f"{prefix}-labels-idx1-ubyte", _IDX_LABELS, limit)
    if len(images) != len(labels):
        raise DataError(f"{folder} has {len(images)} images and {len(labels)} labels: replace the files")
    pixels = torch.from_numpy(images)[:, None]
    name = f"fashion_mnist/{split}"
    return ImageSet(name, _resize(pixels, size), torch.from_numpy(labels.astype(np.int64)), FASHION_MNIST_CLASSES)


def _folder(path: str | None, name: str, inner: str) -> Path:
    """The folder of the files: the path itself, or the subfolder that the authors' archive makes."""
    if not path:
        raise DataError(f"{name} needs a path: write {name}:PATH of the folder with its files")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: unpack {name} there")
    return folder / inner if (folder / inner).is_dir() else folder


def _check_split(name: str, split: str) -> None:
    if split not in ("train", "test"):
        raise DataError(f"{name} has the splits train and test, not {split!r}: use one of them")


def _read_cifar10(folder: Path, stem: str, limit: int | None) -> np.ndarray:
    file = folder / f"{stem}.bin"
    if not os.path.isfile(file):
        pickled = folder / "cifar-10-batches-py"
        if os.path.isfile(folder / stem) or pickled.is_dir():
            raise DataError(
                f"{folder} holds CIFAR-10's Python version, whose pickles could run code and are not read: "
                "put the binary version there (data_batch_1.bin, ...)"
            )
        raise DataError(f"there is no file {file}: unpack CIFAR-10's binary version there")
    length = file.stat().st_size
    if length == 0 or length % _CIFAR10_RECORD:
        raise DataError(
            f"{file} has {length} bytes, no multiple of {_CIFAR10_RECORD}: replace it, it is damaged or another format"
        )
    count = -1 if limit is None else limit * _CIFAR10_RECORD
    return np.fromfile(file, dtype=np.uint8, count=count).reshape(-1, _CIFAR10_RECORD)


def _read_idx(folder: Path, stem: str, magic: int, limit: int | None) -> np.ndarray:
    for file in (folder / stem, folder / f"{stem}.gz"):
        if os.path.isfile(file):
            break
    else:
        raise DataError(f"there is no file {folder / stem} or {stem}.gz: put Fashion-MNIST's files there")
    opener = gzip.open if file.suffix == ".gz" else io.open
    try:
        with opener(file, "rb") as stream:
            return _parse_idx(stream, file, magic, limit)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} is damaged or cut off: replace it") from error


def _parse_idx(stream: BinaryIO, file: Path, magic: int, limit: int | None) -> np.ndarray:
    """Header of big-endian 32-bit words (magic number, whose last byte is the number of axes; sizes), then bytes."""
    axes = magic & 0xFF
    header = stream.read(4 * (1 + axes))
    words = np.frombuffer(header, dtype=">u4").tolist() if len(header) == 4 * (1 + axes) else []
    if not words or words[0] != magic:
        raise DataError(f"{file} does not begin with the IDX magic number {magic:#x}: it is another file, replace it")
    shape = [words[1] if limit is None else min(limit, words[1]), *words[2:]]
    length = int(np.prod(shape, dtype=np.float64))
    if length > _IDX_LARGEST:
        raise DataError(f"{file} claims {length} bytes of data, more than {_IDX_LARGEST}: replace it")
    content = stream.read(length)
    if len(content) < length:
        raise DataError(f"{file} is cut off: {len(content)} of {length} bytes of data are there; replace it")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape).copy()


def _resize(images: torch.Tensor, size: int | None) -> torch.Tensor:
    if size is None or images.shape[-2:] == (size, size):
        return images
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)
