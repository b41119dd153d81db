"""A figure: accuracies, as bars."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure


def accuracy_bars(frame: pd.DataFrame) -> Figure:
    """A bar for the accuracy of each checkpoint."""
    means = frame.groupby("checkpoint", observed=True)["accuracy"].mean()
    figure = Figure()
    axes = figure.subplots()
    axes.bar(means.index.astype(str), means.to_numpy())
    axes.set_ylabel("accuracy")
    return figure
