"""Values for the page's script: columns in few bytes, compressed, which no text in them can break out of."""

from __future__ import annotations

import base64
import io
import json
import zlib
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.image import imsave

DIGITS = 4
"""Significant digits of numbers; the CSV files of ``analyze`` hold all."""


def packed(value: Any) -> Markup:
    """A value as JSON, deflated, in base 64: letters, digits, ``+/=`` alone, whatever strings it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(base64.b64encode(zlib.compress(text.encode(), 9)).decode())


def column(values: pd.Series) -> dict[str, Any]:
    """A column: ``{"numbers": [...]}``, null where there is none, or of texts ``{"levels": [...], "codes": [...]}``.

    Truth is yes or no; a missing text is an empty one.
    """
    if is_numeric(values):
        return {"numbers": [number(value) for value in values]}
    codes, levels = pd.factorize(pd.Series([text(value) for value in values], dtype=object))
    return {"levels": [str(level) for level in levels], "codes": codes.tolist()}


def is_numeric(values: pd.Series) -> bool:
    """Whether a column holds numbers, or nothing but missing ones among objects."""
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def number(value: Any, digits: int = DIGITS) -> float | int | None:
    """A number to so many significant digits, whole ones in full; None where it is missing or infinite."""
    if value is None or value is pd.NA or not np.isfinite(value):
        return None
    value = float(value)
    if value.is_integer() and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.{digits}g}")


def text(value: Any) -> str:
    """A value as the page shows it: four significant digits, whole numbers in full, yes/no, nothing where missing."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e15
        return str(int(value)) if whole else f"{value:.{DIGITS}g}"
    return str(value)


def data_url(pixels: np.ndarray, kind: str, **how: Any) -> str:
    """Pixels 0 to 255, ``(H, W)`` or ``(H, W, 3)``, as the data URL of an image; ``how`` goes to Pillow."""
    colours = pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(colours.astype(np.uint8)), format=kind, pil_kwargs=how)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
