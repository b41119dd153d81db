"""Encoded images (PNG, JPEG, WebP, ...) to one uint8 array, with every refusal in one place."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from invariscope.base.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 2**25
"""Images of more pixels are refused before they are decoded: a small file can claim to hold any number of them."""

_GREY = ("1", "L")
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")
"""Pillow's modes of grey images of 16 bits; the last one is 32 bits, and is looked at."""
DEEPEST = 65535
_COLOUR = ("RGB", "P", "RGBA", "LA", "PA", "CMYK", "YCbCr")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)

Source = bytes | Path
Made = TypeVar("Made")

_TURNED = range(5, 9)
"""Values of EXIF's orientation that exchange height and width."""


def decode_images(sources: Sequence[Source], name: str, size: int | None) -> Tensor:
    """Decode images to ``(N, C, H, W)`` uint8: one channel where all are grey, RGB otherwise; 16-bit grey to int32.

    Args:
        sources: the encoded bytes, or the files that hold them.
        name: the data set, for the errors.
        size: bring each image to ``size x size``: shorter side by bilinear resampling, then the centre. ``None``: as
            they are, all of one size.

    Raises:
        DataError: for what is no image, is cut off, too large, or of another size than the first.
    """

    def decode(row: int) -> np.ndarray:
        return _decode(sources[row], f"{name}: image {row}", size)

    return _stacked(in_threads(decode, len(sources)), name)


def arrays_to_images(arrays: Sequence[np.ndarray], name: str, size: int | None) -> Tensor:
    """Pixels ``(H, W)`` or ``(H, W, C)`` uint8, or int32 of 16 bits, as ``(N, C, H, W)``, of any number of channels."""
    made = []
    for row, array in enumerate(arrays):
        planes = [array] if array.ndim == 2 else [array[..., i] for i in range(array.shape[2])]
        what = f"{name}: image {row}"
        if array.dtype != np.uint8:
            made.append(np.stack([_deep(Image.fromarray(plane.astype(np.int32)), what, size) for plane in planes], -1))
            continue
        fitted = [_fit(Image.fromarray(plane), what, size, Image.Resampling.BILINEAR) for plane in planes]
        made.append(np.stack([np.asarray(plane) for plane in fitted], axis=-1))
    _check_sizes(made, name)
    if len({array.shape[2] for array in made}) > 1:
        raise DataError(f"{name} has images of several numbers of channels: give all of them the same")
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).contiguous()


def _stacked(arrays: list[np.ndarray], name: str) -> Tensor:
    _check_sizes(arrays, name)
    if len({array.dtype for array in arrays}) > 1:
        raise DataError(f"{name} has images of 8 and of 16 bits: convert them to one")
    if any(array.ndim == 3 for array in arrays):
        grey = (array.ndim == 2 for array in arrays)
        arrays = [np.repeat(a[:, :, None], 3, axis=2) if g else a for a, g in zip(arrays, grey, strict=True)]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return torch.from_numpy(np.stack(arrays)[:, None])


def decode_masks(sources: Sequence[Source], name: str, size: int | None) -> Tensor:
    """Decode masks of class numbers to ``(N, H, W)`` uint8; a resized one takes the nearest pixel.

    Raises:
        DataError: as :func:`decode_images`, and for a mask of several channels or with a class number past 255.
    """

    def decode(row: int) -> np.ndarray:
        return _decode_mask(sources[row], f"{name}: mask {row}", size)

    arrays = in_threads(decode, len(sources))
    _check_sizes(arrays, name)
    return torch.from_numpy(np.stack(arrays))


def in_threads(decode: Callable[[int], Made], count: int) -> list[Made]:
    """What a function makes of the numbers below ``count``."""
    # Pillow's decoders release the interpreter lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(decode, range(count)))


def _open(source: Source, what: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{what} claims more than {MAX_PIXELS} pixels: make it smaller or leave it out") from error
    except _BROKEN as error:
        known = ", ".join(FORMATS)
        where = "" if isinstance(source, bytes) else f" ({source})"
        raise DataError(f"{what}{where} cannot be read as an image ({known}): replace it or leave it out") from error
    if image.width * image.height > MAX_PIXELS:
        raise DataError(
            f"{what} has {image.width} x {image.height} pixels, more than {MAX_PIXELS}: make it smaller or leave it out"
        )
    return image


def look_at(source: Source, what: str) -> tuple[int, int, bool, bool]:
    """Height and width of an image, whether it is grey, and whether of 16 bits; from its first bytes.

    Raises:
        DataError: as :func:`decode_images`.
    """
    with _open(source, what) as image:
        _check_mode(image, what)
        try:
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
        except (*_BROKEN, KeyError, TypeError):  # as where it is decoded
            turned = False
        height, width = (image.width, image.height) if turned else (image.height, image.width)
        return height, width, image.mode in _GREY + DEEP, image.mode in DEEP


def decode_one(source: Source, what: str, *, colour: bool, size: int | None = None) -> np.ndarray:
    """One image: ``(H, W)``, or ``(H, W, 3)`` with ``colour``; as :func:`decode_images` does it."""
    pixels = _decode(source, what, size)
    return np.repeat(pixels[:, :, None], 3, axis=2) if colour and pixels.ndim == 2 else pixels


def pillow_pixels(image: Image.Image, what: str) -> np.ndarray:
    """Pixels of an image that is open already: ``(H, W)`` of a grey one, else ``(H, W, 3)``, turned as EXIF says.

    Raises:
        DataError: pixels of another type.
    """
    _check_mode(image, what)
    with suppress(*_BROKEN, KeyError, TypeError):
        image = ImageOps.exif_transpose(image)
    if image.mode in DEEP:
        return _deep(image, what, None)
    return np.asarray(image.convert("L" if image.mode in _GREY else "RGB"))


def _check_mode(image: Image.Image, what: str) -> None:
    if image.mode not in _GREY + _COLOUR + DEEP:
        raise DataError(
            f"{what} has pixels of the type {image.mode!r}: convert it to 8-bit grey or RGB, or 16-bit grey"
        )
    if image.mode in _COLOUR and _is_cut(image):
        raise DataError(f"{what} has colours of 16 bits, of which 8 would be read: convert it to 8-bit RGB")


def _is_cut(image: Image.Image) -> bool:
    """Whether Pillow reads 8 of an image's 16 bits, as it does for colours, from how it would decode the file."""
    tiles = getattr(image, "tile", None) or [("", (), 0, ())]
    arguments = tiles[0][3]
    parts = arguments if isinstance(arguments, tuple) else (arguments,)
    return any(";16" in part for part in parts if isinstance(part, str)) or (
        image.format == "PPM" and any(part > 255 for part in parts if isinstance(part, int))
    )


def _decode(source: Source, what: str, size: int | None) -> np.ndarray:
    with _open(source, what) as image:
        _check_mode(image, what)
        try:
            image.load()
            with suppress(*_BROKEN, KeyError, TypeError):  # of damaged EXIF data the image is as it lies
                ImageOps.exif_transpose(image, in_place=True)  # as viewers and the library `datasets` do
            if image.mode in DEEP:
                return _deep(image, what, size)
            pixels = image.convert("L" if image.mode in _GREY else "RGB")
        except _BROKEN as error:
            raise DataError(f"{what} is damaged or cut off: replace it or leave it out") from error
    return np.asarray(_fit(pixels, what, size, Image.Resampling.BILINEAR))


def _deep(image: Image.Image, what: str, size: int | None) -> np.ndarray:
    """A grey image of 16 bits as ``(H, W)`` int32."""
    values = np.asarray(image)
    if values.size and not 0 <= values.min() <= values.max() <= DEEPEST:
        raise DataError(f"{what} has values from {values.min()} to {values.max()}: give 16 bits, from 0 to {DEEPEST}")
    # Pillow resizes 16 bits as floats alone.
    fitted = _fit(Image.fromarray(values.astype(np.float32)), what, size, Image.Resampling.BILINEAR)
    return np.asarray(fitted).round().clip(0, DEEPEST).astype(np.int32)


def _decode_mask(source: Source, what: str, size: int | None) -> np.ndarray:
    with _open(source, what) as image:
        try:
            image.load()
        except _BROKEN as error:
            raise DataError(f"{what} is damaged or cut off: replace it or leave it out") from error
        array = np.asarray(_fit(image, what, size, Image.Resampling.NEAREST))
    if array.ndim != 2 or array.dtype.kind not in "bui":
        found = f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{what} is {found}: give one class number per pixel (grey or palette image)")
    if array.max() > 255 or array.min() < 0:
        raise DataError(f"{what} has class numbers from {array.min()} to {array.max()}: give them from 0 to 255")
    return array.astype(np.uint8)


def _fit(image: Image.Image, what: str, size: int | None, resample: Image.Resampling) -> Image.Image:
    if size is None or image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    if max(width, height) * size > MAX_PIXELS:
        raise DataError(
            f"{what} of {image.width} x {image.height} pixels would grow to {width} x {height}: leave it out"
        )
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), resample).crop((left, top, left + size, top + size))


def _check_sizes(arrays: Sequence[np.ndarray], name: str) -> None:
    first = arrays[0].shape[:2]
    for row, array in enumerate(arrays):
        if array.shape[:2] != first:
            raise DataError(
                f"{name}: image 0 has {first[0]} x {first[1]} pixels and image {row} {array.shape[0]} x "
                f"{array.shape[1]}: give size= to bring them to one size"
            )
