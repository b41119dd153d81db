"""Published tables: what they say is what our code computes from them, and bad files get one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from scipy import special, stats

from invariscope.analysis.figures import render
from invariscope.analysis.figures.benchmark_scatter import benchmark_scatter, effective_robustness, logit_axes
from invariscope.analysis.figures.fits import logit_line
from invariscope.analysis.figures.style import new_figure
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.tables.published import read_adobe, read_testbed, read_tips
from invariscope.base.errors import TableError


@pytest.fixture(scope="session")
def published(shared_data: Path) -> Path:
    return shared_data / "published"


def test_accuracy_and_consistency_of_adobes_baselines_correlate_at_0966(published: Path) -> None:
    rows = read_adobe(published / "antialiased_cnns_readme.csv")
    baselines = rows[rows["operator"] == "baseline"]
    assert len(baselines) == 23
    assert rows["model"].nunique() == 23
    found = correlate(baselines, ["accuracy"], ["consistency"], methods=("pearson",), clusters={"models": None}).iloc[0]
    assert round(found["r"], 3) == 0.966
    assert found["r"] == pytest.approx(stats.pearsonr(baselines["accuracy"], baselines["consistency"]).statistic)
    assert found["n"] == 23


def test_stability_is_accuracy_times_consistency_in_59_of_the_60_cells_of_tips(published: Path) -> None:
    rows = read_tips(published / "tips_readme.csv")
    assert len(rows) == 60
    product = 100 * rows["accuracy"] * rows["consistency"]
    # Half a unit of the second decimal, and the rounding of the product itself.
    differs = (product - 100 * rows["stability"]).abs() > 0.005 + 1e-9
    (only,) = rows[differs].to_dict("records")
    cell = [only[name] for name in ("dataset", "architecture", "operator", "shift_kind")]
    assert cell == ["Tiny ImageNet", "ResNet-50", "blur", "zero"]
    assert (round(product[differs].iloc[0], 2), round(100 * only["stability"], 2)) == (67.52, 67.49)


@pytest.mark.parametrize("clean", ["val", "val-on-vid-robust-classes"])
def test_the_testbed_is_drawn_with_the_line_of_an_independent_fit(published: Path, clean: str) -> None:
    rows = read_testbed(published / "imagenet_testbed_top1.csv")
    assert rows.shape == (338, 214)
    robust = "imagenet-vid-robust_pm10"
    figure = benchmark_scatter(rows, clean, robust)
    assert render(figure, width="single").startswith(b"\x89PNG")
    known = rows[[clean, robust]].dropna()
    (ax,) = figure.axes
    (points,) = [drawn for drawn in ax.collections if isinstance(drawn, PathCollection)]
    np.testing.assert_allclose(np.sort(points.get_offsets()[:, 1]), np.sort(known[robust]), atol=1e-12)
    line = stats.linregress(special.logit(known[clean]), special.logit(known[robust]))
    fit = next(drawn for drawn in ax.lines if drawn.get_label() == "fit")
    at, to = fit.get_xdata(), fit.get_ydata()
    np.testing.assert_allclose(special.logit(to), line.intercept + line.slope * special.logit(at), atol=1e-9)
    assert (ax.get_xscale(), ax.get_yscale()) == ("logit", "logit")
    assert f"r = {line.rvalue:.2f} [" in figure.caption
    assert f"n = 335, slope {line.slope:.2f} [" in figure.caption
    assert f"Not shown, for want of {clean} or {robust}: 3 rows." in figure.caption
    assert "each a cluster of its own" in figure.caption


def test_a_line_through_the_cloud_keeps_its_95_percent_band() -> None:
    """With as many clusters as rows, the band is that of heteroscedasticity-robust errors (HC1), by hand."""
    rng = np.random.default_rng(0)
    x = special.expit(rng.normal(1, 0.8, 60))
    y = special.expit(0.5 + 0.8 * special.logit(x) + rng.normal(0, 0.3, 60))
    curve = logit_line(pd.Series(x), pd.Series(y), pd.Series(np.arange(60)))
    design = np.column_stack([np.ones(60), special.logit(x)])
    bread = np.linalg.inv(design.T @ design)
    beta = bread @ design.T @ special.logit(y)
    residual = special.logit(y) - design @ beta
    covariance = bread @ (design.T * residual**2 @ design) @ bread * 60 / 59 * 59 / 58
    at = np.array([1.0, special.logit(curve.x[17])])
    half = stats.t.ppf(0.975, 59) * np.sqrt(at @ covariance @ at)
    assert curve.slope == pytest.approx(beta[1], abs=1e-10)
    assert curve.low[17] == pytest.approx(special.expit(at @ beta - half), abs=1e-10)
    assert curve.high[17] == pytest.approx(special.expit(at @ beta + half), abs=1e-10)
    beyond = effective_robustness(pd.Series(x), pd.Series(y), curve)
    np.testing.assert_allclose(beyond, y - special.expit(design @ beta), atol=1e-10)


def test_percentages_and_shares_give_the_same_points_and_groups_their_own_marks() -> None:
    frame = pd.DataFrame({"a": [0.5, 0.6, 0.7, 0.9], "b": [0.3, 0.5, 0.55, 0.8], "kind": ["u", "v", "u", None]})
    shares = benchmark_scatter(frame, "a", "b", group="kind")
    percent = benchmark_scatter(frame.assign(a=100 * frame["a"], b=100 * frame["b"]), "a", "b", group="kind")
    for figure in (shares, percent):
        drawn = {c.get_label(): c.get_offsets() for c in figure.axes[0].collections if isinstance(c, PathCollection)}
        assert set(drawn) == {"u", "v", "not given"}
        np.testing.assert_allclose(np.sort(drawn["u"][:, 1]), [0.3, 0.55])
    assert shares.caption == percent.caption
    below_one = benchmark_scatter(frame.assign(a=frame["a"], b=frame["b"]), "a", "b", percent=True)
    (points,) = [c for c in below_one.axes[0].collections if isinstance(c, PathCollection)]
    assert points.get_offsets()[:, 0].max() == pytest.approx(0.009)


def test_accuracies_of_0_and_1_are_told_and_not_drawn() -> None:
    frame = pd.DataFrame({"a": [0.5, 0.6, 0.7, 0.8, 1.0], "b": [0.3, 0.5, 0.0, 0.6, 0.9], "c": list("xxyyy")})
    figure = benchmark_scatter(frame, "a", "b", clusters="c")
    assert "Not shown, since a logit has no 0 and no 1: 2 rows." in figure.caption
    assert "n = 3, 2 clusters of c" in figure.caption


@pytest.mark.parametrize(
    ("low", "high", "named"),
    [(0.004, 0.9, ["1", "5", "10", "25", "50", "75"]), (0.55, 0.8, ["60", "70"]), (0.9, 0.9, ["90"])],
)
def test_logit_axes_are_named_at_round_percentages(low: float, high: float, named: list[str]) -> None:
    ax = new_figure("single", 3).subplots()
    logit_axes(ax, [low, high], [low, high])
    labels = [text.get_text() for text in ax.get_xticklabels()]
    assert set(named) <= set(labels)
    assert all(float(text) == round(float(text), 1) for text in labels)
    assert ax.get_xlim()[0] < low <= high < ax.get_xlim()[1]


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        ({"a": [0.5], "b": [0.5]}, {"group": "g"}, "no column g; the frame has a, b"),
        ({"a": [0.5, 130], "b": [50, 60]}, {}, "leaves 0 to 100"),
        ({"a": [0.5, 1.3], "b": [0.5, 0.6]}, {"percent": False}, "leaves 0 to 1;"),
        ({"a": [-0.5], "b": [0.5]}, {}, "leaves 0 to 1;"),
        ({"a": [None], "b": [0.5]}, {}, "no row has both a and b"),
    ],
)
def test_bad_frames_are_refused_in_one_line(frame: dict, options: dict, message: str) -> None:
    with pytest.raises(TableError, match=message) as error:
        benchmark_scatter(pd.DataFrame(frame), "a", "b", **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (read_testbed, "network,val\na,1\n", "no column model; it has network, val"),
        (read_testbed, "model\na\n", "no column beside `model`"),
        (read_testbed, "model,val\na,1\na,2\n", "'a' stands in two rows"),
        (read_testbed, "model,val\na,1\nb,120\n", "val is .*120.* in row 2; give a percentage from 0 to 100"),
        (read_testbed, "model,val\na,ten\n", "val is 'ten' in row 1"),
        (read_testbed, "model,val\n", "no rows below the header"),
        (read_testbed, "", "not a CSV"),
        (read_adobe, "model,operator,accuracy\na,b,1\n", "no column consistency"),
        (read_tips, "dataset,architecture,operator,accuracy\na,b,c,1\n", "no column consistency_zero, stability_zero"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, reader, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(TableError, match=message) as error:
        reader(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"none\.csv: cannot be read"):
        read_adobe(tmp_path / "none.csv")


@pytest.mark.parametrize("name", ["a", "b", "kind", "c"])
def test_columns_of_one_name_are_refused_and_not_drawn_against_each_other(name: str) -> None:
    frame = pd.DataFrame({"a": [0.5, 0.6, 0.7], "b": [0.3, 0.5, 0.55], "kind": list("uvu"), "c": list("xxy")})
    twice = pd.concat([frame, frame[[name]]], axis=1)
    with pytest.raises(TableError, match=f"^benchmark_scatter: several columns are named {name}; keep one of each$"):
        benchmark_scatter(twice, "a", "b", group="kind", clusters="c")
