"""What accuracy has to do with it: accuracy against consistency, and MSB against consistency given accuracy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.axes import Axes
from scipy import special

from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.groups import (
    Groups,
    condition_handles,
    conditions_of,
    conditions_told,
    scatter_groups,
)
from invariscope.analysis.figures.selection import FigureRows, Snapshots, counts, plan_sentence, select, without
from invariscope.analysis.say.numbers import nominal_and_coverage, r_in_words
from invariscope.analysis.stats.regression.estimate import logits
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING, PRIMARY_SCORE


def confounding(
    frame: pd.DataFrame,
    *,
    reading: str = PRIMARY_READING,
    score: str = PRIMARY_SCORE,
    hue: str | None = None,
    data: str | None = None,
    snapshots: Snapshots = "final",
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Per shift kind: accuracy against ``score``, and the partial residual plot of ``reading`` given accuracy.

    The residual plot is of least squares on logits, ``logit score ~ reading + accuracy`` (and architecture, where
    there are several), with ``(n s + ½) / (n + 1)``, ``n`` images, in the place of ``score``; a point is
    ``expit(residual + b (x - mean x) + mean logit)``, so that it stays a share; the line has slope ``b`` in logits.
    Bands: 95 %, errors clustered by operator; dashed: without plain subsampling. Points by the factor ``hue``,
    operators unless asked. ``frame`` is :func:`invariscope.analysis.tables.joined.join`'s. Raises
    :class:`TableError` when there is nothing to draw.
    """
    if score == "accuracy":
        raise TableError("confounding draws accuracy against another score: choose a score such as consistency")
    selection = select(frame, "confounding", [reading, score, "accuracy", "n_images"], data, snapshots, elsewhere=True)
    _only_shares(selection.rows[score], score)
    selection, groups = Groups.of(selection, hue)
    what = _What(selection, groups, conditions_of(selection.rows, hue), reading, score, _covariates(selection.rows))
    with style.theme(width):
        rows = len(selection.kinds)
        figure = style.new_figure(width, 0.75 + rows * (2.2 if width == "double" else 1.85))
        wide = width == "double"
        axes = figure.subplots(
            rows, 2, squeeze=False, sharex="col", sharey="row", width_ratios=[1, 1 if wide else 1.12]
        )
        sentences = []
        for (left, right), kind in zip(axes, selection.kinds, strict=True):
            sentences.append(_accuracy_panel(left, what, kind))
            sentences.append(_residual_panel(right, what, kind))
            left.set_ylabel(style.label(score, lines=2))
            unit = style.label(score, lines=2).partition("\n")[2] if wide else ""
            right.set_ylabel(f"{style.word(score)}\nat mean accuracy\n{unit}".strip())  # as on the left
        axes[-1, 0].set_xlabel(style.label("accuracy", lines=1 if width == "double" else 2))
        axes[-1, 0].locator_params(axis="x", nbins=6 if width == "double" else 3)
        axes[-1, 1].set_xlabel(style.label(reading, lines=1 if width == "double" else 2))
        handles = groups.handles() + condition_handles(what.conditions)
        handles += style.elsewhere_handles(selection.elsewhere)
        handles += style.fit_handles("fit", without(selection.rows) is not None, "double")
        style.legend_below(figure, handles, width, columns=7 if width == "double" else 3)
        for ax in axes.ravel():
            _inside(ax)
    figure.caption = _caption(what, sentences)
    return figure


@dataclass(frozen=True)
class _What:
    """What is drawn in every panel."""

    selection: FigureRows
    groups: Groups
    conditions: dict[str, list[str]]
    reading: str
    score: str
    covariates: tuple[str, ...]

    def scatter(self, ax: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
        scatter_groups(ax, rows, x, y, self.groups, self.conditions)


def _only_shares(values: pd.Series, score: str) -> None:
    if values.min() < 0 or values.max() > 1:
        raise TableError(f"confounding takes logits of {score}, which leaves 0 to 1: choose a score that is a share")


def _covariates(rows: pd.DataFrame) -> tuple[str, ...]:
    several = "architecture" in rows and rows["architecture"].nunique() > 1
    return ("accuracy", "architecture") if several else ("accuracy",)


def _inside(ax: Axes) -> None:
    """An axis of shares does not reach beyond what a share can be, but for half a mark."""
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -0.02), min(high, 1.02))


def _accuracy_panel(ax: Axes, what: _What, kind: str) -> str:
    selection, score = what.selection, what.score
    rows = selection.kind(kind)
    rest = without(rows)
    what.scatter(ax, rows, "accuracy", score)
    style.scatter_elsewhere(ax, selection.apart(kind), "accuracy", score)
    style.draw_curve(ax, fits.logit_curve(rows["accuracy"], rows[score], rows["operator"]))
    row = fits.correlation_row(rows, "accuracy", score)
    count = f"n = {row['n']}, {counted(row['n_clusters'], 'operator')}"
    sentence = f"{kind}, accuracy against {score}: Pearson {r_in_words(row)} over {count}{nominal_and_coverage(row)}"
    if rest is not None:
        style.draw_curve(ax, fits.logit_curve(rest["accuracy"], rest[score], rest["operator"]), apart=True)
        apart = fits.correlation_row(rest, "accuracy", score)
        sentence += f"; without subsample {r_in_words(apart)} (n = {apart['n']})"
    ax.set_title(selection.title(kind), loc="left")
    return f"{sentence}."


def _residual_panel(ax: Axes, what: _What, kind: str) -> str:
    rows, reading, score = what.selection.kind(kind), what.reading, what.score
    covariates = list(what.covariates)
    given = "given " + " and ".join(covariates)
    ax.set_title(given.replace(" and ", "\nand "), loc="left")
    found = _adjusted(rows, what)
    if found is None:
        ax.set_title(f"{reading} does not vary\n{given}", loc="left")
        return f"No partial residuals: {reading} does not vary enough {given}."
    values, curve = found
    what.scatter(ax, rows.assign(adjusted=values), reading, "adjusted")
    style.draw_curve(ax, curve)
    row = fits.correlation_row(rows, reading, score, "partial_pearson", covariates=what.covariates)
    slope = fits.slope_in_words(curve, "slope")
    sentence = (
        f"{kind}, {reading} against {score} {given}: {r_in_words(row, 'partial r')}{nominal_and_coverage(row)}, "
        f"{slope} logits"
    )
    rest = without(rows)
    apart = None if rest is None else _adjusted(rest, what)
    if rest is not None and apart is not None:
        style.draw_curve(ax, apart[1], apart=True)
        row = fits.correlation_row(rest, reading, score, "partial_pearson", covariates=what.covariates)
        slope = fits.slope_in_words(apart[1], "slope")
        sentence += f"; without subsample {r_in_words(row, 'partial r')}, {slope} logits"
    return f"{sentence}."


def _adjusted(rows: pd.DataFrame, what: _What) -> tuple[fits.Array, fits.Curve] | None:
    """Partial residuals on the logit scale and their line, both as shares."""
    logit = logits(rows[what.score].to_numpy(dtype=float), rows["n_images"].to_numpy(dtype=float))
    made = rows.assign(logit=logit)
    found = fits.partial_residuals(made, what.reading, "logit", list(what.covariates), "operator")
    if found is None:
        return None
    values, line = found
    shares = {name: special.expit(getattr(line, name)) for name in ("y", "low", "high")}
    return special.expit(values), replace(line, **shares)


def _caption(what: _What, sentences: list[str]) -> str:
    selection, score = what.selection, what.score
    return "\n".join(
        [
            f"Left: accuracy against {score}, with a fractional logit. Right: partial residuals of "
            f"{style.label(what.reading)} in the least squares of the logit of {score} on it and "
            f"{' and '.join(what.covariates)}, shown as {score} adjusted to mean accuracy; logits of "
            f"(n s + ½) / (n + 1), n images ({selection.rows['n_images'].max():.0f}). "
            f"One point per checkpoint ({counts(selection.rows)}), colour and marker: {what.groups.hue}"
            f"{conditions_told(what.conditions)}. Dashed: without subsample.",
            plan_sentence(selection),
            "Bands and slopes: 95 %, errors clustered by operator with t quantiles of (operators - 1) degrees of "
            "freedom; slopes in logits per unit of the reading. Partial r: of shares, not of logits. Brackets after r: "
            f"95 % {fits.INTERVAL_OF_R}, operators as clusters.",
            *sentences,
            *selection.notes,
        ]
    )
