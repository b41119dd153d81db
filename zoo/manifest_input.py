"""The ``input`` of a manifest entry: how its images are resized, cropped and normalised."""

from __future__ import annotations

import math
from typing import Any

from invariscope.base.errors import DataError
from invariscope.base.names import unknown
from invariscope.zoo.datasets.inputs import INTERPOLATIONS, ORDERS, RANGES, InputSpec, Size
from invariscope.zoo.yaml_lines import Located

INPUT_KEYS = ("size", "mean", "std", "resize", "crop", "interpolation", "antialias", "order", "range")
CROPS = ("centre", "center")
"""Where the crop of ``size`` may lie: both spellings."""


def read_input(item: Located, what: str) -> InputSpec:
    """The input of an entry.

    Raises:
        ManifestError: with the line, the key, and what may stand there.
    """
    entry = item.mapping(what, INPUT_KEYS, INPUT_KEYS[:3])
    size = _size(entry["size"], f"{what}.size", "square images")
    mean = _channel_numbers(entry["mean"], f"{what}.mean", -math.inf)
    std = _channel_numbers(entry["std"], f"{what}.std", 0)
    if min(std) == 0:
        raise entry["std"].fail(f"{what}.std is 0, and must be positive: 1 leaves the values as they are")
    if len(mean) != len(std) and 1 not in (len(mean), len(std)):
        raise item.fail(f"{what}: mean has {len(mean)} numbers and std {len(std)}: give one per channel to both")
    more: dict[str, Any] = {}
    if "resize" in entry:
        more["resize"] = _size(entry["resize"], f"{what}.resize", "the shorter side")
    if "crop" in entry:
        _check_crop(entry["crop"], f"{what}.crop", "resize" in entry)
    for key, known in (("interpolation", INTERPOLATIONS), ("order", ORDERS)):
        if key in entry:
            more[key] = entry[key].text(f"{what}.{key}").lower()
            if more[key] not in known:
                raise entry[key].fail(f"{what}: {unknown(key, more[key], known)}")
    if "antialias" in entry:
        more["antialias"] = entry["antialias"].flag(f"{what}.antialias")
    if "range" in entry:
        more["range"] = entry["range"].integer(f"{what}.range", 1)
        if more["range"] not in RANGES:
            raise entry["range"].fail(
                f"{what}.range is {more['range']}: give 1 for a network that takes values from 0 to 1, 255 for "
                "one that takes values from 0 to 255, 65535 for one that takes 16 bits"
            )
    try:
        return InputSpec(size, mean, std, **more)
    except DataError as problem:
        raise item.fail(f"{what}: {problem}") from None


def _check_crop(item: Located, what: str, resized: bool) -> None:
    if item.value not in CROPS:
        raise item.fail(f"{what} is {item.plain()!r}: write centre; how large the crop is, says size")
    if not resized:
        raise item.fail(f"{what}: there is no resize before the crop: add resize, the shorter side or [height, width]")


def _size(item: Located, what: str, one: str) -> Size:
    """One number, which stands for ``one``, or ``[height, width]``."""
    if not isinstance(item.value, list):
        return item.integer(what, 1)
    sides = [side.integer(what, 1) for side in item.items(what)]
    if len(sides) != 2:
        raise item.fail(f"{what} has {len(sides)} numbers: give one for {one}, or [height, width]")
    return sides[0], sides[1]


def _channel_numbers(item: Located, what: str, minimum: float) -> tuple[float, ...]:
    """One number per channel, or a single one for all."""
    if isinstance(item.value, list):
        return tuple(number.number(what, minimum) for number in item.items(what))
    return (item.number(what, minimum),)
