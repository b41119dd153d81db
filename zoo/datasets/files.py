"""Images that stay in their files: of any size and number, decoded when a batch is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invariscope.base.files import sha256_file
from invariscope.zoo.datasets.decoding import decode_one, in_threads


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The images of a data set as files; ``files[rows]`` are some of them, :meth:`decoded` decodes.

    Attributes:
        files: one per image.
        channels: 1 where all are grey, else 3.
        name: the data set, for the errors.
        rows: number of each image in the data set, for the errors.
        white: the largest value of a pixel: 65535 for images of 16 bits.
    """

    files: tuple[Path, ...]
    channels: int
    name: str
    rows: tuple[int, ...] = ()
    white: int = 255

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", self.rows or tuple(range(len(self.files))))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice | Tensor | np.ndarray) -> ImageFiles:
        wanted = range(len(self))[rows] if isinstance(rows, slice) else np.arange(len(self))[np.asarray(rows)].tolist()
        chosen = tuple(self.files[row] for row in wanted)
        return ImageFiles(chosen, self.channels, self.name, tuple(self.rows[row] for row in wanted), self.white)

    def decoded(self, change: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """What ``change`` makes of each image, ``(C, H, W)`` uint8 or int32; decoded and changed in threads.

        Raises:
            DataError: an image that cannot be decoded.
        """

        def read(row: int) -> Tensor:
            pixels = decode_one(self.files[row], f"{self.name}: image {self.rows[row]}", colour=self.channels == 3)
            planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            return change(torch.from_numpy(np.array(planes, order="C")))

        return in_threads(read, len(self))

    def border_median(self) -> np.ndarray:
        """Median of the pixels on all images' borders: ``(C,)``."""
        borders = self.decoded(_border)
        median: np.ndarray = np.median(torch.cat(borders, 1).numpy(), axis=1)
        return median

    def digest(self) -> Iterator[bytes]:
        """What a fingerprint holds of the images: the hash of each file."""
        yield repr((len(self), self.channels, *([self.white] if self.white != 255 else []))).encode()
        for digest in in_threads(lambda row: sha256_file(self.files[row]), len(self)):
            yield digest.encode()


def _border(image: Tensor) -> Tensor:
    """The pixels on an image's border, each once: ``(C, n)``."""
    inside = torch.zeros(image.shape[-2:], dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    return image[:, ~inside]
