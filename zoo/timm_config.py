"""The input of a configuration as timm writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from invariscope.zoo.datasets.inputs import INTERPOLATIONS, InputSpec


def config_input(config: Mapping[str, Any]) -> InputSpec | None:
    """The input of a configuration as timm writes it: ``input_size (C, H, W)``, ``mean``, ``std``.

    With ``crop_pct`` images are resized first, to ``floor(size / crop_pct)`` on the shorter side (``crop_mode`` centre)
    or on both (``squash``), by ``interpolation``. None for what cannot be had: another crop, ``random`` interpolation.
    """
    size, mean, std = (config.get(name) for name in ("input_size", "mean", "std"))
    if not size or not mean or not std or len(size) != 3 or size[1] != size[2]:
        return None
    side, normalisation = int(size[1]), (tuple(map(float, mean)), tuple(map(float, std)))
    if not config.get("crop_pct"):
        return InputSpec(side, *normalisation)
    mode, interpolation = config.get("crop_mode") or "center", config.get("interpolation") or "bilinear"
    if mode not in ("center", "squash") or interpolation not in INTERPOLATIONS:
        return None
    scaled = max(math.floor(side / config["crop_pct"]), side)
    return InputSpec(side, *normalisation, (scaled, scaled) if mode == "squash" else scaled, interpolation)
