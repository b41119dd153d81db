"""What the page shows of single images: the least stable ones of some networks, their classes, networks in pairs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.designs.compared import compare
from invariscope.analysis.designs.drilldown import WHICH, class_stability, image_flips
from invariscope.analysis.figures.style import operator_order
from invariscope.analysis.report.explorer import plan_labels
from invariscope.analysis.report.packed import data_url, number
from invariscope.analysis.tables.checkpoints import operators_named
from invariscope.analysis.tables.load import load_table, scan
from invariscope.base.errors import TableError
from invariscope.base.names import unknown
from invariscope.base.words import counted

MAX_DRILLED = 8
"""Networks whose images the page shows where nobody names them: one per operator."""

MAX_NAMED = 12
"""Networks that can be named; every pair of them is compared."""

LEAST_STABLE = 16
"""Images per network and plan."""

SIDE = 48
"""Pixels of a thumbnail's longer side at most: of larger images every so many pixels are kept."""

_PLAN = [name for name in WHICH if name != "checkpoint"]
_IMAGE = ("clean_prediction", "flip_rate", "consistency", "nearest_flip", "lowest_probability", "n_shifts_flipped")
_CLASS = ("label", "n_images", "accuracy", "consistency", "low", "high", "share_stable", "flips_to")
_PAIR = ("score", "value_a", "value_b", "difference", "low", "high", "p", "only_a", "only_b", "n_images", "reason")


@dataclass(frozen=True)
class Drilled:
    """``payload`` for the page's script (None where there is nothing to show), ``frames`` for its tables by title, and
    ``note``: which networks these are, or why there are none.
    """

    note: str
    payload: dict[str, Any] | None = None
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)


def drilled(
    source: pd.DataFrame | Path | str | None,
    joined: pd.DataFrame,
    networks: Sequence[str] | None = None,
    thumbnails: Mapping[str, np.ndarray] | None = None,
) -> Drilled:
    """The least stable images of ``networks``, their classes, and every pair of networks side by side.

    Args:
        source: table ``predictions``, or the folder that holds it; None where there is none.
        joined: :func:`invariscope.analysis.join`'s frame: other measurements are left out.
        networks: names; by default one network per operator, :data:`MAX_DRILLED` at most.
        thumbnails: per data set (column ``data``), its images, uint8 ``(N, H, W)`` or ``(N, C, H, W)``.

    Raises:
        TableError: networks or thumbnails asked for that are not there.
    """
    rows = _predictions(source, joined, networks)
    if rows.empty:
        if networks or thumbnails:
            raise TableError("table predictions is empty: collect `predictions` to see single images in a report")
        return Drilled("Table predictions is empty: collect `predictions` to see which images flip, and where.")
    names, note = chosen(rows, joined, networks)
    rows = rows[rows["checkpoint"].isin(names)]
    images = image_flips(rows)
    least = images.groupby(WHICH, sort=False, dropna=False).head(LEAST_STABLE)
    labelled = bool((rows["label"] >= 0).any())
    classes = class_stability(rows) if labelled else pd.DataFrame(columns=[*WHICH, *_CLASS])
    pairs = _pairs(rows, names)
    plans = images[_PLAN].drop_duplicates(ignore_index=True)
    payload = {
        "networks": names,
        "plans": plan_labels(plans),
        "views": [_view(plan, names, rows, images, least, classes, pairs) for _, plan in plans.iterrows()],
        "thumbnails": _thumbnails(plans, least, thumbnails),
    }
    hidden = ["data_fingerprint", "plan_hash"]
    frames = {"Least stable images": least.drop(columns=hidden)}
    if labelled:
        frames["Stability of classes"] = classes.drop(columns=hidden)
    if len(pairs):
        frames["Networks in pairs"] = pairs
    return Drilled(note, payload, frames)


def _predictions(source: Any, joined: pd.DataFrame, networks: Collection[str] | None) -> pd.DataFrame:
    """The rows of table ``predictions`` that the joined frame speaks of: no older measurements, no other networks."""
    if source is None:
        return pd.DataFrame()
    known = joined[["checkpoint", "data_fingerprint", "plan_hash"]].drop_duplicates()
    if isinstance(source, pd.DataFrame):
        rows = source
    else:
        found = {name for part in scan(source, "predictions", columns=["checkpoint"]) for name in part["checkpoint"]}
        wanted = sorted(found & set(known["checkpoint"]))
        if not wanted:
            return pd.DataFrame()
        if networks is None:
            wanted = _one_per_operator(wanted, joined)
        rows = load_table(source, "predictions", where={"checkpoint": wanted})
    if rows.empty:
        return rows
    keys = pd.MultiIndex.from_frame(rows[list(known.columns)])
    return rows[keys.isin(pd.MultiIndex.from_frame(known))]


def _one_per_operator(names: Collection[str], joined: pd.DataFrame) -> list[str]:
    """The first network by name of each operator, of the architecture and padding that most of them have."""
    rows = operators_named(joined[joined["checkpoint"].isin(names) & joined["final"]]).drop_duplicates("checkpoint")
    common = rows.sort_values("checkpoint").assign(same=0)
    for factor in ("architecture", "padding_mode"):
        if len(most := common[factor].mode()):
            common["same"] += common[factor] == most.iloc[0]
    first = common.sort_values(["same", "checkpoint"], ascending=[False, True]).drop_duplicates("operator")
    by = dict(zip(first["operator"].astype(str), first["checkpoint"], strict=True))
    return [by[operator] for operator in operator_order(by)]


def chosen(rows: pd.DataFrame, joined: pd.DataFrame, networks: Sequence[str] | None) -> tuple[list[str], str]:
    """The networks to look into, and in words which they are.

    Raises:
        TableError: a name that has no predictions, or more than :data:`MAX_NAMED`.
    """
    there = sorted(set(rows["checkpoint"]))
    if networks:
        for name in networks:
            if name not in there:
                raise TableError(unknown("checkpoint of table predictions", name, there))
        if len(networks) > MAX_NAMED:
            raise TableError(f"{len(networks)} networks are named: a report looks into {MAX_NAMED} at most")
        return list(dict.fromkeys(networks)), "The networks that were asked for."
    names = _one_per_operator(there, joined)
    kept = names[:MAX_DRILLED]
    if len(kept) == len(joined["checkpoint"].unique()):
        return kept, "All networks."
    rest = "`invariscope report --networks NAME,NAME` shows others, `analysis.image_flips` all"
    count = counted(len(joined["checkpoint"].unique()), "network")
    return kept, f"{len(kept)} of {count}: the first by name of each operator; {rest}."


def _pairs(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """:func:`compare` of every pair; networks without images in common have no rows."""
    by_name = dict(list(rows.groupby("checkpoint")))
    found = []
    for a, b in combinations(names, 2):
        try:
            found.append(compare(pd.concat([by_name[a], by_name[b]]), a, b))
        except TableError:
            continue
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _of(frame: pd.DataFrame, plan: pd.Series) -> pd.DataFrame:
    """The rows of one plan on one data set; those of :func:`compare` do not name its hash."""
    same = pd.Series(True, index=frame.index)
    for name in _PLAN:
        if name in frame:
            same &= frame[name].fillna("").astype(str) == ("" if pd.isna(plan[name]) else str(plan[name]))
    return frame[same]


def _view(
    plan: pd.Series,
    names: Sequence[str],
    rows: pd.DataFrame,
    images: pd.DataFrame,
    least: pd.DataFrame,
    classes: pd.DataFrame,
    pairs: pd.DataFrame,
) -> dict[str, Any]:
    """One plan on one data set: its images with their shifts, and what each network says of them."""
    worst = _of(least, plan)
    shown = sorted(set(worst["image"]))
    mine = _of(rows, plan)
    mine = mine[mine["image"].isin(shown)]
    once = mine.drop_duplicates("image").set_index("image").loc[shown]
    told = _of(images, plan)
    told = told[told["image"].isin(shown)]
    by_network = {}
    for place, name in enumerate(names):
        said = mine[mine["checkpoint"] == name].set_index("image").reindex(shown)
        facts = told[told["checkpoint"] == name].set_index("image").reindex(shown)
        if facts["flip_rate"].isna().all():
            continue
        by_network[place] = {
            "prediction": [np.asarray(one).tolist() if isinstance(one, Sequence | np.ndarray) else None
                           for one in said["prediction"]],
            **{name: [number(value) for value in facts[name]] for name in _IMAGE},
            "least": [shown.index(image) for image in worst.loc[worst["checkpoint"] == name, "image"]],
        }  # fmt: skip
    of_classes = _of(classes, plan)
    found = _of(pairs, plan) if len(pairs) else pairs
    return {
        "data": str(plan["data"]),
        "reach": int(plan["max_shift"]),
        "images": shown,
        "labels": [int(label) for label in once["label"]],
        "dy": [np.asarray(one).tolist() for one in once["dy"]],
        "dx": [np.asarray(one).tolist() for one in once["dx"]],
        "of": by_network,
        "classes": {
            place: _records(of_classes[of_classes["checkpoint"] == name], _CLASS)
            for place, name in enumerate(names)
            if (of_classes["checkpoint"] == name).any()
        },
        "pairs": {
            f"{names.index(a)},{names.index(b)}": _records(part, _PAIR)
            for (a, b), part in (found.groupby(["a", "b"], sort=False) if len(found) else ())
        },
    }


def _records(frame: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {name: row[name] if isinstance(row[name], str) else number(row[name]) for name in columns}
        for row in frame[list(columns)].to_dict("records")
    ]


def _thumbnails(
    plans: pd.DataFrame, least: pd.DataFrame, thumbnails: Mapping[str, np.ndarray] | None
) -> dict[str, dict[str, str]]:
    """Per data set and image, a small PNG as a data URL."""
    found: dict[str, dict[str, str]] = {}
    for data, given in (thumbnails or {}).items():
        if data not in set(plans["data"]):
            raise TableError(unknown("data set of the predictions", data, sorted(set(plans["data"]))))
        wanted = sorted(set(least.loc[least["data"] == data, "image"]))
        images = np.asarray(given)
        if wanted and wanted[-1] >= len(images):
            raise TableError(f"thumbnails of {data}: {len(images)} images, and image {wanted[-1]} is asked for")
        found[data] = {str(place): _png(images[place]) for place in wanted}
    return found


def _png(image: np.ndarray) -> str:
    pixels = image if image.ndim == 2 else image[0] if image.shape[0] == 1 else np.moveaxis(image[:3], 0, -1)
    step = -(-max(pixels.shape[:2]) // SIDE)
    return data_url(pixels[::step, ::step], "png", optimize=True)
