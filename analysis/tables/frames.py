"""Every frame that figures and statistics are made from, by name; each is made once for the tables of one command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from invariscope.analysis.tables.checkpoints import with_checkpoints
from invariscope.analysis.tables.joined import with_own_scores
from invariscope.analysis.tables.load import Tables
from invariscope.analysis.tables.plans import PLAN, filled, shifted
from invariscope.analysis.tables.sites import network_readings, own_sites
from invariscope.base.errors import TableError
from invariscope.base.registry import Registry
from invariscope.collectors.schema import MSB_READINGS


def _check(name: str, target: Any) -> None:
    if not callable(target):
        raise TableError(f"frame {name!r} is no function: give one that takes `Tables` and returns a DataFrame")


FRAMES = Registry(
    "frame",
    {
        "joined": "invariscope.analysis.tables.joined:join",
        "pixels": "invariscope.analysis.tables.joined:join_pixels",
        "sites": "invariscope.analysis.tables.frames:site_frame",
        "surface": "invariscope.analysis.tables.frames:surface_frame",
        "robustness": "invariscope.analysis.tables.frames:robustness_frame",
        "segmentation": "invariscope.analysis.tables.frames:segmentation_frame",
        "cost": "invariscope.analysis.tables.frames:cost_frame",
        "swaps": "invariscope.analysis.tables.swapped:swap_frame",
        "drift": "invariscope.analysis.tables.frames:drift_frame",
    },
    TableError,
    group="invariscope.frames",
    check=_check,
)
"""Functions from :class:`Tables` to a frame, by name."""


def register_frame(name: str, function: Callable[[Tables], pd.DataFrame]) -> None:
    """Make a frame known by name for this process, so that figures can name it.

    Raises:
        TableError: the name is taken, or this is no function.
    """
    FRAMES.add(name, function)


class Frames(Mapping[str, pd.DataFrame]):
    """The frames of ``tables``, by the names of :data:`FRAMES`, each made at its first use and kept.

    A frame that cannot be made raises the same :class:`TableError` at every use.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._made: dict[str, pd.DataFrame | TableError] = {}

    @classmethod
    def of(cls, tables: Tables | Frames) -> Frames:
        """The frames of tables; those that are frames already as they are, with what was made of them."""
        return tables if isinstance(tables, Frames) else cls(tables)

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._made:
            try:
                self._made[name] = _make(name, self.tables)
            except TableError as error:
                self._made[name] = error
        found = self._made[name]
        if isinstance(found, TableError):
            raise found
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(FRAMES)

    def __len__(self) -> int:
        return len(FRAMES)


def _make(name: str, tables: Tables) -> pd.DataFrame:
    function = FRAMES[name]
    try:
        found: pd.DataFrame = function(tables)
    except TableError:
        raise
    except Exception as problem:
        if name in FRAMES.own:
            raise
        raise TableError(f"frame {name!r} failed ({type(problem).__name__}: {problem}): mend its function") from problem
    if not isinstance(found, pd.DataFrame):
        raise TableError(f"frame {name!r} is {type(found).__name__}: its function has to return a DataFrame")
    return found


def surface_frame(tables: Tables) -> pd.DataFrame:
    """Table ``surface`` with the factors of each checkpoint: a row per checkpoint, plan and shift."""
    return with_checkpoints(tables.surface, tables, "surface")


def site_frame(tables: Tables) -> pd.DataFrame:
    """The networks' own sites of table ``layers`` with the factors of each checkpoint: a row per checkpoint, data set
    and site."""
    sites = own_sites(tables.layers)
    return with_checkpoints(sites[sites["site"].notna()], tables, "layers")


def robustness_frame(tables: Tables) -> pd.DataFrame:
    """Table ``robustness`` with the factors of each checkpoint: a row per checkpoint, data set and condition.

    ``seed`` is that of the training run; the condition's own is ``condition_seed``.
    """
    return with_checkpoints(tables.robustness.rename(columns={"seed": "condition_seed"}), tables, "robustness")


def drift_frame(tables: Tables) -> pd.DataFrame:
    """Table ``drift`` with the factors of each checkpoint: a row per checkpoint, plan and site, one for the head."""
    return with_checkpoints(tables.drift, tables, "drift")


def cost_frame(tables: Tables) -> pd.DataFrame:
    """Table ``cost`` with the factors of each checkpoint: a row per checkpoint and quantity."""
    return with_checkpoints(tables.cost, tables, "cost")


def segmentation_frame(tables: Tables) -> pd.DataFrame:
    """Table ``segmentation``, scores as columns, with the factors of each checkpoint and its MSB readings.

    A row per checkpoint, data set and shift plan. Scores that are taken without a shift (``miou``, ``pixel_accuracy``)
    stand in every row of the checkpoint, but for plans whose views have their own (:func:`with_own_scores`); a reading
    is the mean over the checkpoint's sites on the same data set.
    """
    keys = ["sha256", "model", "data"]
    rows = tables.segmentation
    plain, moved = rows[rows["shift_kind"] == "none"], filled(shifted(rows))
    still = sorted(set(plain["score"]))
    wide = _wide(moved[~moved["score"].isin(still)], [*keys, *PLAN])
    images = moved.groupby([*keys, *PLAN], as_index=False)["n_images"].max()
    wide = wide.merge(images, on=[*keys, *PLAN])
    readings = network_readings(tables.layers, keys)[[*keys, *MSB_READINGS]]
    for other in (_wide(plain, keys), readings):
        wide = wide.merge(other, on=keys, how="left")
    wide = filled(with_own_scores(wide, moved, still, [*keys, *PLAN]))
    return with_checkpoints(wide, tables, "segmentation")


def _wide(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    once = rows.drop_duplicates([*keys, "score"])
    values, errors = (once.pivot(index=keys, columns="score", values=name) for name in ("value", "se"))
    return pd.concat([values, errors.add_suffix("_se")], axis=1).reset_index()
