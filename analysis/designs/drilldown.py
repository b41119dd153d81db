"""Which images a network is unsteady on, at which shift they flip, and how stable each class is.

Everything is made from table ``predictions``, and is a frame. Two networks on the same images:
:func:`invariscope.analysis.compare`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.designs.compared import agreement
from invariscope.analysis.tables.load import load_table, scan
from invariscope.analysis.tables.plans import PLAN, filled
from invariscope.base.errors import TableError
from invariscope.base.names import unknown

WHICH = ["checkpoint", "data", "data_fingerprint", *PLAN, "plan_hash"]
"""What tells apart the measurements of table ``predictions``: network, images, shifts."""

IMAGE_COLUMNS = [
    *(*WHICH, "image", "label", "clean_prediction", "clean_probability", "n_shifts_flipped", "flip_rate"),
    *("consistency", "lowest_probability", "nearest_flip", "nearest_dy", "nearest_dx", "flips_to"),
]
SHIFT_COLUMNS = [
    *(*WHICH, "image", "label", "clean_prediction", "dy", "dx", "prediction", "probability", "flipped"),
]
CLASS_COLUMNS = [
    *(*WHICH, "label", "n_images", "accuracy", "consistency", "se", "low", "high", "share_stable", "flips_to"),
    "reason",
]

_READ = [
    *(*WHICH, "image", "label", "clean_prediction", "clean_probability", "dy", "dx", "prediction"),
    *("probability", "drift_probability"),
]


def image_flips(tables: Any, checkpoints: Collection[str] | None = None) -> pd.DataFrame:
    """Every image of every network under every plan, the least stable ones of each first.

    Of the ``K`` shifts of an image, ``n_shifts_flipped`` are those under which another class than that of the unshifted
    image is predicted, ``flip_rate = n_shifts_flipped / K``, ``flips_to`` the class that most of them go to (the lower
    number among equals). ``consistency`` is the share of the pairs of shifts that agree; it is missing where ``K = 1``.
    ``nearest_flip`` is the smallest ``max(|dy|, |dx|)`` at which the class changes, in the units of the plan (input
    pixels; 1/16 pixels of kind ``fractional``), and ``nearest_dy``, ``nearest_dx`` that shift; they are missing where
    no shift changes it. ``lowest_probability`` is the least that the class of the unshifted image falls to.

    Args:
        tables: the folder of tables, or table ``predictions`` as a frame.
        checkpoints: names; all networks by default.

    Returns:
        A row per network, plan and image; within each, by flip rate (greatest first), lowest probability, image.

    Raises:
        TableError: no predictions, an unknown name, or a network measured twice.
    """
    parts = [_images(rows) for rows in _batches(tables, checkpoints)]
    frame = _once(pd.concat(parts, ignore_index=True), IMAGE_COLUMNS)
    order = [*WHICH, "flip_rate", "lowest_probability", "image"]
    rising = [name != "flip_rate" for name in order]
    return frame.sort_values(order, ascending=rising, ignore_index=True, kind="stable")


def shift_flips(tables: Any, checkpoints: Collection[str] | None = None) -> pd.DataFrame:
    """Every image under every shift: ``dy, dx``, the class and its probability, and whether it is another class than
    that of the unshifted image.

    Args:
        tables, checkpoints: as for :func:`image_flips`.

    Raises:
        TableError: as :func:`image_flips`.
    """
    parts = [_shifts(rows) for rows in _batches(tables, checkpoints)]
    return _once(pd.concat(parts, ignore_index=True), SHIFT_COLUMNS)


def class_stability(tables: Any, checkpoints: Collection[str] | None = None, *, level: float = 0.95) -> pd.DataFrame:
    """How stable each class (of the labels) is: mean consistency of its images, with ``se = s / sqrt(N)`` and the
    interval of Student's t with ``N - 1`` degrees of freedom, cut at 0 and 1; where all ``N`` images are alike at 0 or
    1, the rule of three bounds it (``3 / N``).

    ``accuracy`` is of the unshifted images, ``share_stable`` the share of images whose class no shift changes,
    ``flips_to`` the class that the greatest number of flipped shifts goes to. A class of one image has no interval,
    and ``reason`` says so.

    Args:
        tables, checkpoints: as for :func:`image_flips`.
        level: of the interval.

    Returns:
        A row per network, plan and class; images without labels have no class, and no row.

    Raises:
        TableError: as :func:`image_flips`; no image with a label.
    """
    images = image_flips(tables, checkpoints)
    images = images[images["label"] >= 0]
    if images.empty:
        raise TableError("table predictions holds no image with a label: there are no classes to tell apart")
    records = []
    for keys, rows in images.groupby([*WHICH, "label"], sort=True, dropna=False):
        about = dict(zip([*WHICH, "label"], keys, strict=True))
        flipped = rows.groupby("flips_to")["n_shifts_flipped"].sum()
        records.append(
            {
                **about,
                "n_images": len(rows),
                "accuracy": float((rows["clean_prediction"] == rows["label"]).mean()),
                **_interval(rows["consistency"].to_numpy(dtype=float), level),
                "share_stable": float((rows["n_shifts_flipped"] == 0).mean()),
                "flips_to": flipped.idxmax() if len(flipped) else pd.NA,
            }
        )
    return pd.DataFrame(records, columns=CLASS_COLUMNS).astype({"flips_to": "Int64"})


def _batches(tables: Any, checkpoints: Collection[str] | None) -> Iterator[pd.DataFrame]:
    """The rows of table ``predictions``, a piece at a time where they come from a folder."""
    where = None if checkpoints is None else {"checkpoint": list(checkpoints)}
    if isinstance(tables, pd.DataFrame):
        lacking = [name for name in _READ if name not in tables.columns]
        if lacking:
            raise TableError(f"the frame lacks the columns {', '.join(lacking)}: give table `predictions`")
        found = iter([tables if where is None else tables[tables["checkpoint"].isin(where["checkpoint"])]])
    else:
        found = scan(tables, "predictions", columns=_READ, where=where, batch_rows=1 << 14)
    seen: set[str] = set()
    for rows in found:
        if len(rows):
            seen.update(rows["checkpoint"])
            # Lists of one length are one array; plans differ in theirs.
            for _, part in filled(rows).groupby(rows["prediction"].map(len), sort=False):
                yield part
    missing = sorted(set(checkpoints or ()) - seen)
    if missing:
        raise TableError(unknown("checkpoint of table predictions", missing[0], _names(tables)))
    if not seen:
        raise TableError("table predictions is empty: collect `predictions` first")


def _names(tables: Any) -> list[str]:
    rows = tables if isinstance(tables, pd.DataFrame) else load_table(tables, "predictions")
    return sorted(set(rows["checkpoint"]))


def _once(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The frame with these columns; refuses an image that was measured twice under one plan."""
    images = frame.groupby([*WHICH, "image"], sort=False, dropna=False)
    many = images.size() if "dy" not in frame else images.size() / images["n_shifts"].first()
    if (many > 1).any():
        name = many.index[many.to_numpy() > 1][0][0]
        raise TableError(f"table predictions holds {name} twice: collect each setting into a folder of its own")
    return frame[columns]


def _arrays(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    names = ("dy", "dx", "prediction", "probability", "drift_probability")
    found = {name: np.stack(rows[name].to_list()) for name in names}
    found["flipped"] = found["prediction"] != rows["clean_prediction"].to_numpy()[:, None]
    return found


def _images(rows: pd.DataFrame) -> pd.DataFrame:
    of = _arrays(rows)
    flipped, k = of["flipped"], of["flipped"].shape[1]
    distance = np.maximum(np.abs(of["dy"]), np.abs(of["dx"])).astype(float)
    far = np.where(flipped, distance, np.inf)
    nearest, any_flip = far.argmin(1), flipped.any(1)
    at = np.arange(len(rows))
    missing = np.where(any_flip, 1.0, np.nan)
    return rows[[*WHICH, "image", "label", "clean_prediction", "clean_probability"]].assign(
        n_shifts_flipped=flipped.sum(1),
        flip_rate=flipped.mean(1),
        consistency=agreement(of["prediction"]) if k > 1 else np.nan,
        lowest_probability=of["drift_probability"].min(1),
        nearest_flip=far.min(1) * missing if k else np.nan,
        nearest_dy=of["dy"][at, nearest] * missing,
        nearest_dx=of["dx"][at, nearest] * missing,
        flips_to=pd.array(_most(of["prediction"], flipped), dtype="Int64"),
    )


def _most(classes: np.ndarray, counted: np.ndarray) -> list[Any]:
    """Of each row, the class that stands at the greatest number of ``counted`` places; missing where there are none."""
    found: list[Any] = []
    for row, mask in zip(classes, counted, strict=True):
        found.append(int(np.bincount(row[mask]).argmax()) if mask.any() else pd.NA)
    return found


def _shifts(rows: pd.DataFrame) -> pd.DataFrame:
    of = _arrays(rows)
    k = of["flipped"].shape[1]
    about = [*WHICH, "image", "label", "clean_prediction"]
    frame = rows[about].iloc[np.repeat(np.arange(len(rows)), k)].reset_index(drop=True)
    names = ("dy", "dx", "prediction", "probability", "flipped")
    return frame.assign(**{name: of[name].reshape(-1) for name in names})


def _interval(values: np.ndarray, level: float) -> dict[str, Any]:
    n, mean = len(values), float(values.mean())
    if np.isnan(mean):
        return {"consistency": np.nan, "reason": "one shift per image has no pairs"}
    if n < 2:
        return {"consistency": mean, "reason": "one image has no interval"}
    se = float(values.std(ddof=1) / np.sqrt(n))
    found = {"consistency": mean, "se": se, "reason": ""}
    if np.ptp(values) == 0:
        share = min(1.0, 3.0 / n)
        return {**found, "low": mean - share * mean, "high": mean + share * (1 - mean)}
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * se
    return {**found, "low": max(mean - half, 0.0), "high": min(mean + half, 1.0)}
