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
from invariscope.analysis.figures.clean_accuracy import clean_accuracy
from invariscope.analysis.figures.cost import cost
from invariscope.analysis.figures.msb_by_depth import msb_by_depth
from invariscope.analysis.figures.robustness import robustness
from invariscope.analysis.figures.segmentation import segmentation
from invariscope.analysis.figures.within_between import BETWEEN, LEAST_SPREAD, WITHIN, within_between
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


def test_operators_without_spread_have_no_slope_and_are_counted(frame: pd.DataFrame) -> None:
    flat = frame.assign(msb_corrected=frame["msb_corrected"].where(frame["operator"] != "max", 1.0))
    figure = within_between(flat)
    cell = flat["operator"] + flat["architecture"] + flat["padding_mode"]
    steady = []
    for name in flat["operator"].unique():
        spreads = []
        for kind in ("circular", "zero"):
            mine = (flat["operator"] == name) & (flat["shift_kind"] == kind)
            values = flat.loc[mine, "msb_corrected"]
            spreads.append((values - values.groupby(cell[mine]).transform("mean")).std(ddof=0))
        steady += [name] if max(spreads) < LEAST_SPREAD else []
    assert "max" in steady
    assert 0 < len(steady) < 11
    bottom = figure.axes[2]
    labels = [tick.get_text() for tick in bottom.get_yticklabels()]
    assert not set(labels) & set(steady)
    assert len(labels) == 11 - len(steady) + 2
    assert bottom.get_title(loc="left") == f"not drawn: {len(steady)} of 11 operators, whose readings hardly vary"
    narrow = within_between(flat, width="single").axes[2].get_title(loc="left")
    assert max(map(len, narrow.splitlines())) < 40  # a line of one column
    assert not any(line.get_label() == f"slope {name}" for name in steady for line in figure.axes[0].lines)
    assert f"No line and no slope of {len(steady)} of 11 operators (" in figure.caption
    assert "max none (msb_corrected hardly varies here" in figure.caption


def test_what_leaves_the_slope_axis_gets_an_arrow(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invariscope.analysis.figures.within_between.REACH", 0.3)
    bottom = within_between(frame[frame["shift_kind"] == "zero"]).axes[1]
    low, high = bottom.get_xlim()
    ends = np.concatenate([np.asarray(line.get_xdata(), float) for line in bottom.lines[2:]])
    assert ends.min() < low - 0.01 or ends.max() > high + 0.01
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


def test_robustness_is_the_difference_from_max_of_the_same_seed(tables: Tables) -> None:
    rows = frames.robustness_frame(tables)
    figure = robustness(rows)
    assert len([ax for ax in figure.axes if ax.axison]) == 3 * rows["operator"].nunique()
    assert "Not shown here: digits-far." in figure.caption
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    (first,) = [place for place, title in enumerate(titles) if title == "pgd L∞\nmax alone"]
    tips = next(ax for ax in figure.axes[first:] if ax.get_title(loc="left") == "tips")
    wide = rows[(rows["condition_kind"] == "clean") | (rows["norm"] == "linf")].assign(
        budget=lambda found: found["severity"].where(found["condition_kind"] != "clean", 0)
    )
    wide = wide.pivot_table(
        index=["architecture", "padding_mode", "seed", "budget"], columns="operator", values="accuracy"
    )
    change = (100 * (wide["tips"] - wide["max"])).unstack("budget")
    np.testing.assert_allclose(drawn(tips, "tips"), np.column_stack([[0, 1, 2, 4], change.mean()]), atol=1e-8)
    level = 100 * wide["max"].unstack("budget").mean()
    np.testing.assert_allclose(drawn(figure.axes[first], "max"), np.column_stack([[0, 1, 2, 4], level]), atol=1e-8)
    band = next(part for part in tips.collections if len(part.get_paths()))
    low, high = t_interval(change.iloc[:, -1])
    assert np.isclose(band.get_paths()[0].vertices, [[4, low]], atol=1e-8).all(axis=1).any()
    assert np.isclose(band.get_paths()[0].vertices, [[4, high]], atol=1e-8).all(axis=1).any()
    assert (
        f"tips {change.iloc[:, -1].mean():.1f} [{low:.1f}, {high:.1f}] (n = {len(change)})".replace("-", "−")
        in figure.caption
    )


def test_robustness_without_the_reference_or_without_a_match(tables: Tables) -> None:
    rows = frames.robustness_frame(tables)
    figure = robustness(rows[rows["operator"] != "max"], only=["pgd L2"])
    assert "The operators' own, for want of networks of the reference" in figure.caption
    tips = next(ax for ax in figure.axes if ax.get_title(loc="left") == "tips")
    mine = rows[rows["operator"] == "tips"]
    strongest = mine[mine["norm"] == "l2"]
    strongest = strongest[strongest["severity"] == strongest["severity"].max()]
    assert drawn(tips, "tips")[-1, 1] == pytest.approx(100 * strongest["accuracy"].mean())
    lost = rows[~((rows["operator"] == "max") & (rows["seed"] == 0))]
    many = lost.loc[(lost["seed"] == 0), "checkpoint"].nunique()
    assert f"Without a network of max to match: {many} checkpoints." in robustness(lost, only=["pgd L2"]).caption


def test_robust_against_clean_accuracy_is_the_regression_of_logits(tables: Tables) -> None:
    rows = frames.robustness_frame(tables)
    figure = clean_accuracy(rows)
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
    figure = robustness(pd.concat([lost, again], ignore_index=True), only=["pgd L2"])
    assert "Measured under some of the corruptions only, left out of their mean: 1 checkpoint." in figure.caption
    assert f"Measured on fewer images or in fewer steps as well, not shown here: {len(again)} rows." in figure.caption
    assert np.ptp(drawn(figure.axes[0], "max")[:, 1]) > 0
    np.testing.assert_allclose(drawn(figure.axes[0], "max"), drawn(robustness(rows, only=["pgd L2"]).axes[0], "max"))


def test_robustness_without_conditions_or_clean_accuracy(tables: Tables) -> None:
    rows = frames.robustness_frame(tables)
    for figure in (robustness, clean_accuracy):
        with pytest.raises(TableError, match="clean accuracies only"):
            figure(rows[rows["condition_kind"] == "clean"])
    with pytest.raises(TableError, match="no clean accuracies to draw against"):
        clean_accuracy(rows[rows["condition_kind"] == "data"])
    figure = robustness(rows[rows["condition_kind"] != "clean"], only=["pgd L2"])
    assert "No clean accuracy in the table: nothing at strength 0." in figure.caption
    assert drawn(figure.axes[0], "max")[0, 0] > 0


def test_conditions_are_chosen_by_name_and_the_others_are_told(tables: Tables) -> None:
    rows = frames.robustness_frame(tables)
    figure = robustness(rows, only=["pgd L∞"], width="single")
    assert sum(ax.axison for ax in figure.axes) == rows["operator"].nunique()
    assert "Not shown here: pgd L2, mean of 3 corruptions, digits-far." in figure.caption
    assert "Not shown here: digits-farther." in clean_accuracy(
        pd.concat([rows, *(rows[rows["condition_kind"] == "data"].assign(condition=name) for name in
                           ("digits-a", "digits-b", "digits-c", "digits-d", "digits-farther"))]), width="single"
    ).caption  # fmt: skip
    for name, figure in (("robustness", robustness), ("clean_accuracy", clean_accuracy)):
        with pytest.raises(TableError, match=rf"{name}: no condition 'pgd'; the tables hold pgd L2, pgd L∞"):
            figure(rows, only=["pgd"])


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


def test_a_quantity_in_which_nothing_differs_has_no_panel(tables: Tables) -> None:
    rows = frames.cost_frame(tables)
    idle = rows.assign(relative=rows["relative"].where(rows["quantity"] != "parameters", 1.02))
    figure = cost(idle)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["multiply-adds", "latency", "training step"]
    assert "parameters, not drawn since all medians are within 5 % of max: aps 1.02; avg 1.02;" in figure.caption
    assert len(cost(rows.assign(relative=1.0)).axes) == 4  # nothing else to show
