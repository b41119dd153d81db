"""The bundled zoos, as folders: of classifiers of digits, and of segmenters of procedural scenes."""

from __future__ import annotations

from pathlib import Path

ZOO = Path(__file__).resolve().parent / "zoo"
SEGMENTATION_ZOO = ZOO.parent / "zoo_segmentation"
