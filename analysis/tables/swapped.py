"""The frame of swaps: a row per network, swap and shift plan, the changes side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd

from invariscope.analysis.tables.checkpoints import with_checkpoints
from invariscope.analysis.tables.load import Tables
from invariscope.analysis.tables.plans import PLAN, filled, keeps_size, shifted
from invariscope.base.errors import TableError

EVERY = "every site at once"
"""What column ``sites`` says where all sites were changed."""

NOTHING = "none"
"""Measure of the row of a network at which there was nothing to swap."""

_NETWORK = ["sha256", "model", "data"]
_SWAP = ["depth", "replacement"]
_NUMBERS = ("change", "se", "before", "after")


def swap_frame(tables: Tables) -> pd.DataFrame:
    """One row per network × swap × shift plan: the changes side by side, with the factors of the checkpoint.

    The change of a measure has the measure's name (``consistency``, ``accuracy``, ``msb_corrected`` as the mean over
    sites, ``msb_corrected_site`` of the changed site alone), beside it ``_se``, ``_before`` and ``_after``; ``depth``
    is NaN for all sites at once, ``sites`` says which sites: ``first site``, ``middle sites``, ``last site`` or
    ``every site at once``. ``reason`` is the first that a measure without a number gives. ``cluster`` and ``final`` are
    as in every frame (:mod:`invariscope.analysis.tables.checkpoints`). Empty where no swaps were collected.

    Raises:
        TableError: swaps that were measured twice (with other numbers of images), or of networks not described.
    """
    rows = tables.swaps
    if rows.empty:
        return pd.DataFrame(columns=[*_NETWORK, *_SWAP, *PLAN, "checkpoint", "cluster", "final", "sites"])
    rows = filled(rows[rows["measure"] != NOTHING]).assign(
        name=rows["measure"].where(rows["scope"] == "network", rows["measure"] + "_site"),
        # A missing depth would drop out of a pivot's index.
        depth=rows["depth"].fillna(-1),
    )
    keys = [*_NETWORK, *_SWAP, *PLAN]
    repeated = rows.duplicated([*keys, "name"])
    if repeated.any():
        first = rows[repeated].iloc[0]
        raise TableError(
            f"table swaps holds two measurements of {first['checkpoint']!r} on {first['data']} that differ in their "
            f"settings only (task {first['task']} is one); collect each setting into a folder of its own"
        )
    unshifted = _wide(rows[rows["shift_kind"] == "none"], [*_NETWORK, *_SWAP])
    both = (
        _wide(shifted(rows), keys)
        .reset_index()
        .merge(unshifted.reset_index(), how="left", on=[*_NETWORK, *_SWAP], suffixes=("", "_"))
    )
    if "reason_" in both:
        both["reason"] = both["reason"].where(both["reason"] != "", both.pop("reason_").fillna(""))
    # What the images' accuracy changes by says nothing of views of another scale.
    of_views = ~both["shift_kind"].map(keeps_size).astype(bool)
    for name in [name for name in both.columns if name.startswith("accuracy")]:
        both[name] = both[name].where(~of_views)
    facts = rows.drop_duplicates([*_NETWORK, *_SWAP])[[*_NETWORK, *_SWAP, "n_sites", "site", "site_kind", "n_images"]]
    both = both.merge(facts, on=[*_NETWORK, *_SWAP], how="left", validate="many_to_one")
    both["sites"] = np.select(
        [both["depth"] < 0, both["depth"] == 0, both["depth"] == both["n_sites"] - 1],
        [EVERY, "first site", "last site"],
        "middle sites",
    )
    both["depth"] = both["depth"].where(both["depth"] >= 0).astype(float)
    return with_checkpoints(both, tables, "swaps")


def _wide(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Measures side by side: ``consistency`` (the change), ``consistency_se``, ...; with the first reason."""
    wide = rows.pivot(index=keys, columns="name", values=list(_NUMBERS)).astype(float)
    wide.columns = wide.columns.map(lambda pair: pair[1] if pair[0] == "change" else f"{pair[1]}_{pair[0]}")
    reasons = rows.assign(reason=rows["reason"].astype(object)).groupby(keys)["reason"].first()
    return wide.assign(reason=reasons.reindex(wide.index).fillna(""))
