"""The figures of slopes, depth, robustness, segmentation and cost show what the tables say, against plain pandas."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from scipy import special, stats

from invariscope.analysis.figures import draw
from invariscope.analysis.figures.cost import cost
from invariscope.analysis.figures.msb_by_depth import msb_by_depth
from invariscope.analysis.figures.robustness import robustness
from invariscope.analysis.figures.segmentation import segmentation
from invariscope.analysis.figures.within_between import BETWEEN, WITHIN, within_between
from invariscope.analysis.stats import regression
from invariscope.analysis.tables import frames
from invariscope.analysis.tables.joined import join
from invariscope.analysis.tables.load import Tables
from invariscope.base.errors import TableError


@pytest.fixture(scope="module")
def tables(simulate: ModuleType, conditions: ModuleType) -> Tables:
    zoo = simulate.Zoo(
        truth="simpson", seeds=2, epochs=(24.0,), padding_modes=("zeros",), architectures=("smallcnn", "resnet8")
    )
    return conditions.with_conditions(simulate.simulate_tables(zoo))


@pytest.fixture(scope="module")
def frame(tables: Tables) -> pd.DataFrame:
    return join(tables)


def drawn(ax: Axes, label: str) -> np.ndarray:
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return np.asarray(found.get_xydata(), dtype=float)


def points(ax: Axes, label: str) -> np.ndarray:
    (found,) = [c for c in ax.collections if isinstance(c, PathCollection) and c.get_label() == label]
    return np.asarray(found.get_offsets(), dtype=float)


def t_interval(values: pd.Series) -> tuple[float, float]:
    return stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))


def test_within_between_shows_the_slopes_of_the_regressions(frame: pd.DataFrame) -> None:
    figure = within_between(frame)
    top, bottom = figure.axes[0], figure.axes[2]
    circular = frame[frame["shift_kind"] == "circular"]
    soft = circular[circular["operator"] == "soft"]
    alone = regression.FractionalLogit("x", "consistency", ("msb_corrected",), ("architecture",), "cluster")
    wanted = regression.fit(soft, alone).set_index("term").loc["msb_corrected"]
    assert drawn(bottom, "soft")[0, 0] == pytest.approx(wanted["estimate"], rel=1e-6)
    assert drawn(bottom, "_soft")[:, 0] == pytest.approx([wanted["low"], wanted["high"]], rel=1e-6)
    pooled = regression.FractionalLogit("x", "consistency", ("msb_corrected", "accuracy"), ("architecture",))
    both = regression.within_between(circular, pooled).set_index("term")["estimate"]
    assert drawn(bottom, WITHIN)[0, 0] == pytest.approx(both["msb_corrected_within"], rel=1e-6)
    assert drawn(bottom, BETWEEN)[0, 0] == pytest.approx(both["msb_corrected_between"], rel=1e-6)
    assert drawn(bottom, WITHIN)[0, 0] < 0 < drawn(bottom, BETWEEN)[0, 0]
    line = drawn(top, "slope soft")
    expected = special.logit(soft["consistency"].mean()) + wanted["estimate"] * (
        line[:, 0] - soft["msb_corrected"].mean()
    )
    np.testing.assert_allclose(special.logit(line[:, 1]), expected, atol=1e-6)
    assert line[[0, -1], 0] == pytest.approx([soft["msb_corrected"].min(), soft["msb_corrected"].max()])
    assert np.ptp(drawn(top, f"slope {BETWEEN}")[:, 0]) > 0.8
    assert f"soft {wanted['estimate']:.2f}".replace("-", "−") in figure.caption


def test_within_between_gives_a_reason_for_each_missing_slope(frame: pd.DataFrame) -> None:
    flat = frame.assign(msb_corrected=frame["msb_corrected"].where(frame["operator"] != "max", 1.0))
    figure = within_between(flat)
    assert "max none (msb_corrected hardly varies here" in figure.caption
    assert any(text.get_text() == "no slope" for text in figure.axes[2].texts)


def test_what_leaves_the_slope_axis_gets_an_arrow(frame: pd.DataFrame) -> None:
    squeezed, values = frame["operator"] == "ddac", frame["msb_corrected"]
    middle = values[squeezed].mean()
    tight = frame.assign(msb_corrected=values.where(~squeezed, middle + (values - middle) / 10))
    bottom = within_between(tight).axes[2]
    ends = drawn(bottom, "_ddac")[:, 0]
    assert ends.min() < bottom.get_xlim()[0] or ends.max() > bottom.get_xlim()[1]
    assert any(line.get_label() == "_off" for line in bottom.lines)


def test_depth_shows_the_mean_of_each_site_with_its_interval_over_runs(tables: Tables) -> None:
    sites = frames.site_frame(tables)
    figure = msb_by_depth(sites)
    titles = [ax.get_title(loc="left").split(":")[0] for ax in figure.axes]
    assert titles == ["resnet8", "smallcnn"]
    ax = figure.axes[0]
    (bars,) = [container for container in ax.containers if container.get_label() == "lp"]
    of_lp = sites[(sites["operator"] == "lp") & (sites["architecture"] == "resnet8")]
    means = of_lp.groupby("depth")["msb_corrected"].mean()
    np.testing.assert_allclose(bars.lines[0].get_ydata(), means, atol=1e-9)
    assert np.round(bars.lines[0].get_xdata()).tolist() == [1, 2, 3]
    segments = bars.lines[2][0].get_segments()
    low, high = t_interval(of_lp.loc[of_lp["depth"] == 1, "msb_corrected"])
    np.testing.assert_allclose(segments[1][:, 1], [low, high], atol=1e-8)


def test_robustness_curves_are_means_over_checkpoints(tables: Tables) -> None:
    rows = frames.robustness_frame(tables)
    figure = robustness(rows)
    titles = [ax.get_title(loc="left").splitlines()[0] for ax in figure.axes if ax.axison]
    graded = ["pgd L2", "pgd L∞", "mean of 3 corruptions"]
    assert titles == [*graded, *graded, "digits-far"]
    linf, corruptions = figure.axes[1], figure.axes[2]
    tips = rows[rows["operator"] == "tips"]
    clean = tips.loc[tips["condition_kind"] == "clean", "accuracy"].mean()
    by_budget = tips[tips["norm"] == "linf"].groupby("severity")["accuracy"].mean()
    np.testing.assert_allclose(drawn(linf, "tips"), np.column_stack([[0, 1, 2, 4], [clean, *by_budget]]), atol=1e-9)
    by_severity = tips[tips["condition_kind"] == "corruption"].groupby("severity")["accuracy"].mean()
    np.testing.assert_allclose(drawn(corruptions, "tips")[1:], np.column_stack([range(1, 6), by_severity]), atol=1e-9)


def test_robust_against_clean_accuracy_is_the_regression_of_logits(tables: Tables) -> None:
    rows = frames.robustness_frame(tables)
    figure = robustness(rows)
    ax = next(a for a in figure.axes if a.get_title(loc="left").startswith("digits-far"))
    wide = rows[rows["condition_kind"].isin(["clean", "data"])].pivot(
        index=["checkpoint", "operator"], columns="condition_kind", values="accuracy"
    )
    shares = (500 * wide + 0.5) / 501
    of_tips = shares.xs("tips", level="operator")
    np.testing.assert_allclose(
        np.sort(points(ax, "tips"), axis=0), np.sort(of_tips[["clean", "data"]], axis=0), atol=1e-9
    )
    line = stats.linregress(special.logit(shares["clean"]), special.logit(shares["data"]))
    fit = drawn(ax, "fit")
    np.testing.assert_allclose(
        special.logit(fit[:, 1]), line.intercept + line.slope * special.logit(fit[:, 0]), atol=1e-8
    )
    beyond = shares["data"] - special.expit(line.intercept + line.slope * special.logit(shares["clean"]))
    mean = beyond.xs("max", level="operator").mean()
    told = figure.caption.partition("digits-far, against")[2]
    assert mean < 0
    assert f"max −{abs(mean):.2f} [" in told


def test_a_checkpoint_without_all_corruptions_and_repeated_measurements_are_told(tables: Tables) -> None:
    rows = frames.robustness_frame(tables)
    first = rows["checkpoint"].iloc[0]
    lost = rows[(rows["checkpoint"] != first) | (rows["condition"] != "fog")]
    again = rows[(rows["condition"] == "pgd")].assign(n_images=100, accuracy=0.0)
    figure = robustness(pd.concat([lost, again], ignore_index=True))
    assert "Measured under some of the corruptions only, left out of their mean: 1 checkpoint." in figure.caption
    assert f"Measured on fewer images or in fewer steps as well, not shown here: {len(again)} rows." in figure.caption
    np.testing.assert_allclose(drawn(figure.axes[0], "max"), drawn(robustness(rows).axes[0], "max"))


def test_robustness_without_conditions_or_clean_accuracy(tables: Tables) -> None:
    rows = frames.robustness_frame(tables)
    with pytest.raises(TableError, match="clean accuracies only"):
        robustness(rows[rows["condition_kind"] == "clean"])
    with pytest.raises(TableError, match="other data sets only"):
        robustness(rows[rows["condition_kind"] == "data"])
    figure = robustness(rows[rows["condition_kind"] != "clean"])
    assert "No clean accuracy in the table" in figure.caption
    assert sum(ax.axison for ax in figure.axes) == 3


def test_conditions_are_chosen_by_name_and_the_others_are_told(tables: Tables) -> None:
    rows = frames.robustness_frame(tables)
    figure = robustness(rows, only=["pgd L∞"], width="single")
    assert len(figure.axes) == 2
    assert "Not shown here: pgd L2, mean of 3 corruptions, digits-far." in figure.caption
    more = rows[rows["condition_kind"] == "data"].assign(condition="digits-farther")
    assert "Not shown here: digits-farther." in robustness(pd.concat([rows, more]), width="single").caption
    with pytest.raises(TableError, match=r"no condition 'pgd'; the tables hold pgd L2, pgd L∞"):
        robustness(rows, only=["pgd"])


def test_segmentation_shows_checkpoints_and_operator_means(tables: Tables) -> None:
    rows = frames.segmentation_frame(tables)
    assert len(rows) == 2 * tables.checkpoints["checkpoint"].nunique()
    figure = segmentation(rows)
    miou, msb = figure.axes[:2]
    blur = rows[(rows["operator"] == "blur") & (rows["shift_kind"] == "circular")]
    found = points(miou, "blur")
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(blur[["miou", "consistency_pixel"]], axis=0), atol=1e-9)
    msb_of = tables.layers.groupby("checkpoint")["msb_corrected"].mean()
    np.testing.assert_allclose(np.sort(points(msb, "blur")[:, 0]), np.sort(msb_of[blur["checkpoint"]]), atol=1e-9)
    low, high = t_interval(blur["consistency_pixel"])
    intervals = [np.asarray(line.get_ydata()) for line in miou.lines if line.get_label() == "_interval"]
    assert any(np.allclose(ends, [low, high], atol=1e-9) for ends in intervals)
    r = stats.pearsonr(*rows.loc[rows["shift_kind"] == "circular", ["msb_corrected", "consistency_pixel"]].to_numpy().T)
    assert f"r = −{abs(r.statistic):.2f} [" in msb.get_title(loc="left")


def test_segmentation_without_layers_draws_one_column(tables: Tables) -> None:
    figure = draw("segmentation", dataclasses.replace(tables, layers=tables.layers.iloc[:0]))
    assert len(figure.axes) == 2
    assert "No msb_corrected in the tables: collect `layers` to draw it." in figure.caption


def test_cost_shows_ratios_with_quartiles(tables: Tables) -> None:
    rows = frames.cost_frame(tables)
    figure = cost(rows)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "parameters",
        "multiply-adds",
        "latency",
        "training step",
    ]
    latency = figure.axes[2]
    of_tips = rows.loc[(rows["operator"] == "tips") & (rows["quantity"] == "latency"), "relative"]
    assert drawn(latency, "tips")[0, 0] == pytest.approx(of_tips.median())
    quartiles = [line.get_xdata() for line in latency.lines if line.get_label() == "_quartiles"]
    assert any(np.allclose(ends, of_tips.quantile([0.25, 0.75])) for ends in quartiles)
    assert f"tips {of_tips.median():.2f} [" in figure.caption
    assert latency.get_xlabel() == "× max"
    assert figure.axes[0].get_xticklabels()[0].get_text() == "0.9"
