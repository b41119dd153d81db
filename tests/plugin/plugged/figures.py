"""A figure of the joined frame, a frame of one's own, and a table of the paper that is made from it."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from invariscope.analysis import Tables
from invariscope.analysis.figures import FigureEntry
from invariscope.analysis.publication import Column, PaperTable


def accuracy_bars(frame: pd.DataFrame) -> Figure:
    """A bar for the accuracy of each checkpoint."""
    means = frame.groupby("checkpoint", observed=True)["accuracy"].mean()
    figure = Figure()
    axes = figure.subplots()
    axes.bar(means.index.astype(str), means.to_numpy())
    axes.set_ylabel("accuracy")
    return figure


def networks(tables: Tables) -> pd.DataFrame:
    """A row per operator, with the number of its checkpoints and runs, and their mean number of parameters."""
    grouped = tables.checkpoints.groupby("operator", observed=True)
    counts = grouped.agg(n=("checkpoint", "nunique"), runs=("run", "nunique"), size=("n_params", "mean"))
    return counts.reset_index()


def table_networks(frame: pd.DataFrame) -> PaperTable:
    """The parameters of the networks of each operator."""
    rows = frame.assign(size_low=float("nan"), size_high=float("nan"))
    return PaperTable("table_networks", rows, ("operator",), (Column("size", "parameters", digits=0),), "Networks.")


TABLE_NETWORKS = FigureEntry(table_networks, ("networks",))
