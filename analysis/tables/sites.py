"""The rows of table ``layers`` as sites of networks: which are their own, and whose mean stands for a network."""

from __future__ import annotations

import pandas as pd

from invariscope.base.explained import UNEXPLAINED, is_aside
from invariscope.collectors.schema import MSB_READINGS, OTHER_READINGS


def own_sites(layers: pd.DataFrame) -> pd.DataFrame:
    """The rows without side branches, which are none of a network's sites; a network without a site keeps its row."""
    return layers[~layers["reason"].map(is_aside).astype(bool)]


def network_readings(layers: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """A row per network: every reading and its ``_se`` as the unweighted mean over the network's measured sites.

    A reading that does not apply to some of them (``not_applicable``) is the mean over the others.
    Beside them ``n_sites``, ``n_sites_unmeasured`` and ``n_sites_unexplained``. A network with a shrink that is not
    explained has no readings: a mean over the others would be of another network. ``keys`` tell networks apart.
    """
    names = (*MSB_READINGS, "flat_fraction", *OTHER_READINGS)
    values = [column for name in names for column in (name, f"{name}_se") if column in layers]
    sites = own_sites(layers)
    unknown = (sites["explained"] == UNEXPLAINED).astype(int)
    groups = sites.assign(unknown=unknown).groupby(keys, as_index=False)
    rows = groups[values].mean()
    counts = groups.agg(
        n_sites=("n_sites", "max"), measured=("msb_weight", "count"), n_sites_unexplained=("unknown", "sum")
    )
    rows = rows.merge(counts, on=keys)
    rows.loc[rows["n_sites_unexplained"] > 0, values] = float("nan")
    rows["n_sites_unmeasured"] = rows["n_sites"] - rows.pop("measured")
    return rows
