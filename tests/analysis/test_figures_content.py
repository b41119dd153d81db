"""What is drawn is what the tables say: points, curves, means, maps and numbers against independent computations."""

from __future__ import annotations

import re
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from scipy import stats

from invariscope.analysis.figures import fits
from invariscope.analysis.figures.confounding import confounding
from invariscope.analysis.figures.dose_response import dose_positions, dose_response
from invariscope.analysis.figures.msb_by_operator import msb_by_operator
from invariscope.analysis.figures.msb_invariance import msb_invariance
from invariscope.analysis.figures.shift_surface import shift_surface
from invariscope.analysis.figures.swap import swap
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.tables import frames
from invariscope.analysis.tables.joined import join
from invariscope.analysis.tables.load import Tables
from invariscope.analysis.tables.swapped import swap_frame
from invariscope.base.errors import TableError


@pytest.fixture(scope="module")
def tables(simulate: ModuleType) -> Tables:
    return simulate.simulate_tables(
        simulate.Zoo(seeds=2, epochs=(8.0, 24.0), padding_modes=("zeros",), surface_shift=2)
    )


@pytest.fixture(scope="module")
def everything(tables: Tables) -> pd.DataFrame:
    joined = join(tables)
    return joined.assign(**{name: joined[name].round(9) for name in ("msb", "msb_corrected")})


@pytest.fixture(scope="module")
def frame(everything: pd.DataFrame) -> pd.DataFrame:
    """The last snapshots, which are what figures draw unless told otherwise."""
    return everything[everything["epoch"] == 24].reset_index(drop=True)


def points(ax: Axes) -> dict[str, np.ndarray]:
    """The offsets of each labelled scatter, rows sorted."""
    found = {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)}
    return {name: in_order(values) for name, values in found.items() if not name.startswith("_")}


def in_order(values: np.ndarray) -> np.ndarray:
    return values[np.lexsort(values.T[::-1])]


def expected(rows: pd.DataFrame, x: str, y: str) -> dict[str, np.ndarray]:
    return {name: in_order(part[[x, y]].to_numpy()) for name, part in rows.groupby("operator")}


def assert_same_points(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-9)


def line(ax: Axes, label: str) -> np.ndarray:
    (found,) = [drawn for drawn in ax.lines if drawn.get_label() == label]
    return np.asarray(found.get_xydata())


def heading(ax: Axes) -> str:
    return ax.get_title(loc="left").replace("−", "-")


def numbers_after(text: str, symbol: str) -> list[float]:
    """``r = -0.45 [-0.70, -0.20]`` -> [-0.45, -0.70, -0.20]."""
    found = re.search(rf"{re.escape(symbol)} =? ?(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", text)
    assert found, (symbol, text)
    return [float(number) for number in found.groups()]


def bootstrap(
    rows: pd.DataFrame, x: str, y: str, method: str = "pearson", cluster: str | None = "operator", **options
) -> list[float]:
    row = correlate(rows, [x], [y], methods=(method,), clusters={"b": cluster}, **options).iloc[0]
    return [round(row[name], 2) for name in ("r", "low", "high")]


@pytest.mark.parametrize("width", ["double", pytest.param("single", marks=pytest.mark.full)])
def test_the_headline_shows_the_frame(frame: pd.DataFrame, width: str) -> None:
    figure = msb_invariance(frame, width=width)
    panels = [(score, kind) for score in ("consistency", "fidelity") for kind in ("circular", "zero")]
    assert len(figure.axes) == 4
    for ax, (score, kind) in zip(figure.axes, panels, strict=True):
        rows = frame[frame["shift_kind"] == kind]
        rest = rows[rows["operator"] != "subsample"]
        assert_same_points(points(ax), expected(rows, "msb_corrected", score))
        text = heading(ax)
        assert text.startswith(f"{kind} shift, ≤ 4 px\n")
        assert f"n = {len(rows)}, 11 operators" in text
        assert numbers_after(text, "\nr" if "\nr =" in text else "r")[0] == round(
            stats.pearsonr(rows["msb_corrected"], rows[score])[0], 2
        )
        assert numbers_after(text, "r") == bootstrap(rows, "msb_corrected", score)
        means = rows.groupby("operator")[["msb_corrected", score]].mean().reset_index()
        assert numbers_after(text, "ρ") == bootstrap(means, "msb_corrected", score, "spearman", None)
        assert numbers_after(text, "without subsample: r" if width == "double" else "r*") == bootstrap(
            rest, "msb_corrected", score
        )
        assert line(ax, "fit")[0, 0] == rows["msb_corrected"].min()
        assert line(ax, "fit")[-1, 0] == rows["msb_corrected"].max()
        fit = smf.glm(f"{score} ~ msb_corrected", rest, family=_binomial()).fit()
        drawn = line(ax, "without subsample")
        np.testing.assert_allclose(drawn[:, 1], fit.predict(pd.DataFrame({"msb_corrected": drawn[:, 0]})), atol=1e-8)
    assert figure.axes[0].get_ylabel().replace("\n", " ") == "consistency (share of shift pairs)"
    assert figure.axes[2].get_xlabel().replace("\n", " ") == "MSB, chance-corrected (1 = always the maximum)"
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert set(frame["operator"]) <= labels
    assert "95 % band" in labels


def _binomial():
    import statsmodels.api as sm

    return sm.families.Binomial()


def test_other_readings_and_scores_can_be_drawn(frame: pd.DataFrame) -> None:
    figure = msb_invariance(frame, reading="msb", scores=["kappa"])
    rows = frame[frame["shift_kind"] == "zero"]
    assert_same_points(points(figure.axes[1]), expected(rows, "msb", "kappa"))
    assert figure.axes[0].get_xlabel() == "MSB, literal (share of windows)"


def test_confounding_shows_accuracy_and_partial_residuals(frame: pd.DataFrame) -> None:
    figure = confounding(frame)
    for index, kind in enumerate(("circular", "zero")):
        rows = frame[frame["shift_kind"] == kind].reset_index(drop=True)
        left, right = figure.axes[2 * index : 2 * index + 2]
        assert_same_points(points(left), expected(rows, "accuracy", "consistency"))
        assert numbers_after(heading(left), "r") == bootstrap(rows, "accuracy", "consistency")
        ols = smf.ols("consistency ~ msb_corrected + accuracy", rows).fit()
        slope = ols.params["msb_corrected"]
        x = rows["msb_corrected"]
        rows["adjusted"] = ols.resid + slope * (x - x.mean()) + rows["consistency"].mean()
        assert_same_points(points(right), expected(rows, "msb_corrected", "adjusted"))
        drawn = line(right, "fit")
        assert np.polyfit(drawn[:, 0], drawn[:, 1], 1)[0] == pytest.approx(slope, abs=1e-9)
        assert np.interp(x.mean(), drawn[:, 0], drawn[:, 1]) == pytest.approx(rows["consistency"].mean(), abs=1e-9)
        text = heading(right)
        assert numbers_after(text, "partial r") == bootstrap(
            rows, "msb_corrected", "consistency", "partial_pearson", covariates=("accuracy",)
        )
        robust = smf.ols("consistency ~ msb_corrected + accuracy", rows).fit(
            cov_type="cluster", cov_kwds={"groups": pd.factorize(rows["operator"])[0]}
        )
        half = stats.t.ppf(0.975, rows["operator"].nunique() - 1) * robust.bse["msb_corrected"]
        assert numbers_after(text, "slope") == [round(v, 2) for v in (slope, slope - half, slope + half)]
        assert "without subsample: partial r" in text
    assert figure.axes[2].get_xlabel() == "accuracy (share of images)"
    with pytest.raises(TableError, match="another score"):
        confounding(frame, score="accuracy")


def test_architecture_joins_the_covariates_where_there_are_several(simulate: ModuleType) -> None:
    zoo = simulate.Zoo(
        n_operators=3, seeds=2, epochs=(8.0,), architectures=("smallcnn", "resnet20"), shift_kinds=("zero",)
    )
    rows = simulate.simulate_frame(zoo)
    figure = confounding(rows)
    slope = smf.ols("consistency ~ msb_corrected + accuracy + C(architecture)", rows).fit().params["msb_corrected"]
    assert "given accuracy and architecture" in heading(figure.axes[1])
    drawn = line(figure.axes[1], "fit")
    assert np.polyfit(drawn[:, 0], drawn[:, 1], 1)[0] == pytest.approx(slope, abs=1e-9)


def test_operators_are_ordered_and_every_checkpoint_is_there(frame: pd.DataFrame, tables: Tables) -> None:
    figure = msb_by_operator(frame, frames.site_frame(tables))
    rows = frame[frame["shift_kind"] == "zero"]
    means = rows.groupby("operator")["msb_corrected"].mean().sort_values(ascending=False)
    counts = rows["operator"].value_counts()
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == [
        f"{name} (n = {counts[name]})" for name in means.index
    ]
    assert left.get_ylim()[0] > left.get_ylim()[1]
    assert left.get_xlim()[1] < 1.1  # though intervals from two runs reach further
    for position, name in enumerate(means.index):
        drawn = points(left)[name]
        np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(rows.loc[rows["operator"] == name, "msb_corrected"]))
        assert ((drawn[:, 1] > position - 0.35) & (drawn[:, 1] < position + 0.1)).all()
        mean, low, high = fits.clustered_mean(
            rows.loc[rows["operator"] == name, "msb_corrected"], rows.loc[rows["operator"] == name, "cluster"]
        )
        lines = [drawn.get_xydata().tolist() for drawn in left.lines]
        assert [[mean, position + 0.27]] in lines
        assert [[low, position + 0.27], [high, position + 0.27]] in lines
        text = f"{name}: {mean:.2f} [{low:.2f}, {high:.2f}], n = {counts[name]} in".replace("-", "−")
        assert text.replace("−0.00", "0.00") in figure.caption
    sites = tables.layers.merge(tables.checkpoints[["sha256", "operator"]], on="sha256")
    sites = sites[sites["checkpoint"].isin(frame["checkpoint"])]
    for name, part in sites.groupby("operator"):
        drawn = points(right)[name]
        by_depth = part.groupby("depth")["msb_corrected"].mean().to_numpy()
        order = np.argsort(drawn[:, 1])
        np.testing.assert_allclose(drawn[order, 0], by_depth, atol=1e-12)
    assert len(msb_by_operator(frame).axes) == 1


def test_surface_maps_are_means_over_checkpoints_on_one_scale(tables: Tables) -> None:
    surface = frames.surface_frame(tables)
    moved = (surface["dy"] != 0) | (surface["dx"] != 0)
    surface["agreement"] = surface["agreement"].where(~moved, 0.5 * surface["agreement"])
    figure = shift_surface(surface)
    assert len(figure.subfigs) == 3
    norms = set()
    for part, kind in zip(figure.subfigs, ("circular", "zero"), strict=False):
        assert part.get_suptitle() == f"{kind} shift, ≤ 2 px"
        assert (part.get_supxlabel(), part.get_supylabel()) == ("shift right (px)", "shift down (px)")
        of_kind = surface[surface["shift_kind"] == kind]
        maps = [ax for ax in part.axes if ax.images]
        assert len(maps) == 11
        averages = []
        for ax in maps:
            name, n, mean = re.match(r"(\w+) \(n = (\d+)\)\n([\d.]+) \[", ax.get_title()).groups()
            rows = of_kind[of_kind["operator"] == name]
            (image,) = ax.images
            norms.add((image.norm.vmin, image.norm.vmax))
            left, right, bottom, top = image.get_extent()
            assert (left, right, bottom, top) == (-2.5, 2.5, 2.5, -2.5)
            cells: dict[tuple[int, int], list[float]] = {}
            for dy, dx, value in zip(rows["dy"], rows["dx"], rows["agreement"], strict=True):
                cells.setdefault((dy, dx), []).append(value)
            assert len(cells) == 25
            for (dy, dx), values in cells.items():
                assert abs(image.get_array()[dy + 2, dx + 2] - sum(values) / len(values)) < 1e-12
            assert int(n) == rows["checkpoint"].nunique()
            average = rows[(rows["dy"] != 0) | (rows["dx"] != 0)]["agreement"].mean()
            assert mean == f"{average:.2f}"
            averages.append(average)
        if kind == "circular":
            assert averages == sorted(averages, reverse=True)
    assert len(norms) == 1
    low, high = norms.pop()
    assert high == 1
    lowest = surface.groupby(["shift_kind", "operator", "dy", "dx"])["agreement"].mean().min()
    assert lowest - 0.05 <= low <= lowest
    solid = [ax for ax in figure.subfigs[2].axes if ax.name == "3d"]
    assert len(solid) == 3
    assert {ax.get_zlim() for ax in solid} == {(low, 1.0)}
    assert (solid[0].get_xlabel(), solid[0].get_ylabel(), solid[0].get_zlabel()) == (
        "right (px)",
        "down (px)",
        "agreement",
    )


def test_an_unmeasured_shift_is_left_blank(tables: Tables) -> None:
    surface = frames.surface_frame(tables)
    gone = (surface["operator"] == "max") & (surface["dy"] == 1) & (surface["dx"] == -2)
    figure = shift_surface(surface[~gone], kinds=["zero"])
    (ax,) = [ax for ax in figure.axes if ax.get_title().startswith("max (")]
    assert np.isnan(ax.images[0].get_array().filled(np.nan)[3, 0])
    assert np.isfinite(np.delete(ax.images[0].get_array().filled(np.nan).ravel(), 15)).all()
    with pytest.raises(TableError, match="no rows of kind 'crop'; the tables hold circular, zero"):
        shift_surface(surface, kinds=["crop"])


def test_doses_stand_on_a_logarithmic_axis_with_zero_and_infinity() -> None:
    known = [0, 0.5, 1, 2, 32, np.inf]
    np.testing.assert_allclose(dose_positions(known, known), [-2, -1, 0, 1, 5, 6])
    np.testing.assert_allclose(dose_positions([3.0], [3.0]), [np.log2(3)])


@pytest.mark.parametrize("width", ["double", pytest.param("single", marks=pytest.mark.full)])
def test_dose_lines_join_runs_and_means_are_means(everything: pd.DataFrame, frame: pd.DataFrame, width: str) -> None:
    figure = dose_response(everything, width=width)
    grid = np.array(figure.axes).reshape((2, 3) if width == "double" else (3, 2))
    grid = grid if width == "double" else grid.T
    for row, family in zip(grid, ("soft", "lp"), strict=True):
        rows = frame[frame["operator"] == family]
        one = rows[rows["shift_kind"] == "zero"]
        doses = sorted(one["strength"].unique())
        x = dose_positions(doses, doses)
        assert row[0].get_title(loc="left") == f"{family}: n = {len(one)}"
        for ax, column, part, label in [
            (row[0], "msb_corrected", one, family),
            (row[1], "consistency", one, f"{family}, zero"),
            (row[1], "consistency", rows[rows["shift_kind"] == "circular"], f"{family}, circular"),
            (row[2], "accuracy", one, family),
        ]:
            (container,) = [c for c in ax.containers if c.get_label() == label]
            found = container.lines[0].get_xydata()
            means = part.groupby("strength")[column].mean()
            np.testing.assert_allclose(found, np.column_stack([x, means]), atol=1e-12)
            ends = np.array(container.lines[2][0].get_segments())[:, :, 1]
            for index, dose in enumerate(doses):
                values = part.loc[part["strength"] == dose, column]
                interval = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
                np.testing.assert_allclose(ends[index], interval, atol=1e-12)
            thin = [drawn.get_xydata() for drawn in ax.lines if drawn.get_label() == "_run"]
            for seed in (0, 1):
                wanted = part[part["seed"] == seed].sort_values("strength")[column].to_numpy()
                assert any(np.allclose(drawn[:, 1], wanted, atol=1e-12) for drawn in thin)
        assert [tick.get_text() for tick in row[2].get_xticklabels()] == [f"{dose:g}" for dose in doses]
    assert grid[0][1].get_ylim() == grid[1][2].get_ylim()
    assert "soft: strengths 0, 0.5, 1, 2, 8, 32; n = 12 checkpoints in 12 runs, 2 lines." in figure.caption
    assert grid[0][2].get_xlabel() == "β of soft pooling"


def test_dose_lines_keep_runs_of_other_factors_apart(frame: pd.DataFrame) -> None:
    wide = frame.assign(factor_width=16, checkpoint=frame["checkpoint"] + "-wide", cluster=frame["cluster"] + "-wide")
    figure = dose_response(pd.concat([frame, wide], ignore_index=True), operators=["soft"])
    assert "n = 24 checkpoints in 24 runs, 4 lines." in figure.caption


def test_infinite_doses_are_drawn_and_negative_ones_refused(frame: pd.DataFrame) -> None:
    endless = frame.assign(strength=frame["strength"].replace(9.0, np.inf))
    figure = dose_response(endless, operators=["lp"])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()][-1] == "∞"
    with pytest.raises(TableError, match="below 0"):
        dose_response(frame.assign(strength=frame["strength"].replace(9.0, -1.0)))
    with pytest.raises(TableError, match="two strengths"):
        dose_response(frame.assign(strength=2.0))


def test_crowded_doses_keep_their_marks_and_lose_labels(frame: pd.DataFrame) -> None:
    close = frame.assign(strength=frame["strength"].replace({8.0: 31.0}))
    ax = dose_response(close, operators=["soft"]).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "0.5", "1", "2", "31"]
    assert len(ax.get_xticks(minor=True)) + len(ax.get_xticks()) >= 6


def test_black_fill_is_said_in_the_heading(frame: pd.DataFrame) -> None:
    black = frame[frame["shift_kind"] == "zero"].assign(fill="black")
    assert heading(msb_invariance(black).axes[0]).startswith("zero shift, ≤ 4 px, black")


def test_five_kinds_stand_below_each_other(simulate: ModuleType) -> None:
    kinds = ("circular", "zero", "reflect", "replicate", "crop")
    rows = simulate.simulate_frame(
        simulate.Zoo(n_operators=3, seeds=1, epochs=(8.0,), padding_modes=("zeros",), shift_kinds=kinds)
    )
    figure = msb_invariance(rows)
    assert [heading(ax).split()[0] for ax in figure.axes[::2]] == list(kinds)
    assert len(figure.axes) == 10


@pytest.mark.parametrize("width", ["double", pytest.param("single", marks=pytest.mark.full)])
def test_swaps_are_drawn_as_the_frame_has_them(simulate: ModuleType, width: str) -> None:
    zoo = simulate.Zoo(seeds=1, epochs=(8.0,), padding_modes=("zeros",), swap_slope=-0.2)
    frame = swap_frame(simulate.simulate_tables(zoo))
    figure = swap(frame, width=width)
    scatters, means = figure.axes[:3], figure.axes[3:]
    if width == "single":
        scatters, means = figure.axes[::2], figure.axes[1::2]
    panels = (("circular", "consistency"), ("zero", "consistency"), ("circular", "accuracy"))
    for ax, below, (kind, y) in zip(scatters, means, panels, strict=True):
        rows = frame[frame["shift_kind"] == kind]
        single = rows[rows["depth"].notna()]
        assert_same_points(points(ax), expected(single.assign(operator=single["replacement"]), "msb_corrected_site", y))
        rho = bootstrap(single, "msb_corrected_site", y, "spearman", "cluster")
        assert numbers_after(heading(ax), "ρ") == rho
        pooling = single[(single["replacement"] != "subsample") & (single["site_kind"] != "subsample")]
        assert numbers_after(heading(ax), "ρ*") == bootstrap(pooling, "msb_corrected_site", y, "spearman", "cluster")
        for container in below.containers:
            name, _, place = container.get_label().partition(", ")
            found = rows[(rows["replacement"] == name) & (rows["sites"] == place)][y]
            assert container.lines[0].get_ydata()[0] == pytest.approx(found.mean(), abs=1e-12)
        assert len(below.containers) == 4 * 3
    assert f"n = {len(single)} swaps, {single['cluster'].nunique()} networks" in figure.caption


def test_swaps_without_rows_say_what_to_collect(tables: Tables) -> None:
    with pytest.raises(TableError, match="collect `swaps`"):
        swap(swap_frame(tables))


def test_earlier_snapshots_are_left_out_unless_asked_for(everything: pd.DataFrame, frame: pd.DataFrame) -> None:
    one = everything[everything["shift_kind"] == "zero"]
    figure = msb_invariance(one, scores=["consistency"])
    final = frame[frame["shift_kind"] == "zero"]
    assert_same_points(points(figure.axes[0]), expected(final, "msb_corrected", "consistency"))
    assert f"not shown here: {len(final)} checkpoints." in figure.caption
    figure = msb_invariance(one, scores=["consistency"], snapshots="all")
    assert_same_points(points(figure.axes[0]), expected(one, "msb_corrected", "consistency"))
    assert "snapshots" not in figure.caption
    with pytest.raises(TableError, match="unknown choice of snapshots 'some': known are all, final"):
        msb_invariance(one, snapshots="some")  # type: ignore[arg-type]
