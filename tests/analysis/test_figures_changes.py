"""Doses, swaps and shift surfaces: changes and differences against independent computations."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from scipy import special, stats

from invariscope.analysis.figures.dose_response import dose_positions, dose_response
from invariscope.analysis.figures.shift_surface import shift_surface
from invariscope.analysis.figures.swap import swap
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


def maps_of(figure) -> dict[tuple[str, str], Axes]:
    """The heat maps by shift kind and operator."""
    return {
        (part.get_suptitle().split()[0], ax.get_title().split()[0]): ax
        for part in figure.subfigs[:-1]
        for ax in part.axes
        if ax.images
    }


def test_surface_maps_are_differences_from_max(tables: Tables) -> None:
    surface = frames.surface_frame(tables)
    moved = (surface["dy"] != 0) | (surface["dx"] != 0)
    surface["agreement"] = surface["agreement"].where(~moved, 0.5 * surface["agreement"])
    figure = shift_surface(surface)
    assert len(figure.subfigs) == 3
    found = maps_of(figure)
    assert len(found) == 2 * 11
    last = surface[surface["final"]]
    means: dict[tuple[str, str], float] = {}
    for (kind, name), ax in found.items():
        (image,) = ax.images
        assert image.get_extent() == [-2.5, 2.5, 2.5, -2.5]
        of_kind = last[last["shift_kind"] == kind]
        of_max = {}
        for row in of_kind[of_kind["operator"] == "max"].itertuples():
            of_max[row.seed, row.dy, row.dx] = row.agreement
        cells: dict[tuple[int, int], list[float]] = {}
        changes: dict[str, list[float]] = {}
        for row in of_kind[of_kind["operator"] == name].itertuples():
            beside = of_max[row.seed, row.dy, row.dx]
            value = row.agreement if name == "max" else 100 * (row.agreement - beside)
            cells.setdefault((row.dy, row.dx), []).append(value)
            if (row.dy, row.dx) != (0, 0):
                changes.setdefault(row.checkpoint, []).append(value)
        assert len(cells) == 25
        for (dy, dx), values in cells.items():
            assert image.get_array()[dy + 2, dx + 2] == pytest.approx(np.mean(values), abs=1e-10)
        each = [np.mean(values) for values in changes.values()]
        means[kind, name] = np.mean(each)
        assert f"({{}} = {len(each)})".format("n") in ax.get_title()
        if name != "max":
            low, high = stats.t.interval(0.95, len(each) - 1, loc=np.mean(each), scale=stats.sem(each))
            told = f"{name} {np.mean(each):.1f} [{low:.1f}, {high:.1f}], n = {len(each)}"
            assert told in figure.caption.replace("−", "-").replace("-0.0", "0.0")
            assert image.norm.vmin == -image.norm.vmax
        else:
            assert image.norm.vmax == 1
    assert [part.get_suptitle() for part in figure.subfigs[:2]] == [
        "circular shift, ≤ 2 px, 256 images",
        "zero shift, ≤ 2 px, 256 images",
    ]
    assert "per operator, on 256 images" in figure.caption
    order = [name for kind, name in found if kind == "circular"]
    assert order[0] == "max"
    ranked = [means["circular", name] for name in order[1:]]
    assert ranked == sorted(ranked, reverse=True)


def test_surfaces_without_max_or_without_a_match_are_told(tables: Tables) -> None:
    surface = frames.surface_frame(tables)
    apart = surface[surface["operator"] != "max"]
    figure = shift_surface(apart, kinds=["zero"])
    assert "the operators' own maps, for want of networks of max" in figure.caption
    ax = maps_of(figure)["zero", "avg"]
    wanted = apart[(apart["shift_kind"] == "zero") & (apart["operator"] == "avg") & apart["final"]]
    wanted = wanted[(wanted["dy"] == 1) & (wanted["dx"] == 0)]["agreement"].mean()
    assert ax.images[0].get_array()[3, 2] == pytest.approx(wanted, abs=1e-12)
    alone = surface[~((surface["operator"] == "max") & (surface["seed"] == 1))]
    count = alone.loc[alone["final"] & (alone["seed"] == 1), "checkpoint"].nunique()
    assert f"Without a network of max to match: {count} checkpoints." in shift_surface(alone, kinds=["zero"]).caption


def test_an_unmeasured_shift_is_left_blank(tables: Tables) -> None:
    surface = frames.surface_frame(tables)
    gone = (surface["operator"] == "avg") & (surface["dy"] == 1) & (surface["dx"] == -2)
    ax = maps_of(shift_surface(surface[~gone], kinds=["zero"]))["zero", "avg"]
    values = np.ma.filled(ax.images[0].get_array(), np.nan)
    assert np.isnan(values[3, 0])
    assert np.isfinite(np.delete(values.ravel(), 15)).all()
    with pytest.raises(TableError, match="no rows of kind 'crop'; the tables hold circular, zero"):
        shift_surface(surface, kinds=["crop"])


def test_doses_stand_on_a_logarithmic_axis_with_zero_and_infinity() -> None:
    known = [0, 0.5, 1, 2, 32, np.inf]
    np.testing.assert_allclose(dose_positions(known, known), [-2, -1, 0, 1, 5, 6])
    np.testing.assert_allclose(dose_positions([3.0], [3.0]), [np.log2(3)])


@pytest.mark.parametrize("width", ["double", pytest.param("single", marks=pytest.mark.full)])
def test_dose_lines_are_changes_within_runs_of_one_seed(
    everything: pd.DataFrame, frame: pd.DataFrame, width: str
) -> None:
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
            wide = part.pivot_table(index="seed", columns="strength", values=column)
            if column != "msb_corrected":
                wide = 100 * wide.sub(wide[doses[0]], axis=0)
            np.testing.assert_allclose(found[:, 1], wide.mean(), atol=1e-10)
            np.testing.assert_allclose(found[:, 0], x, atol=0.02 * np.ptp(x))
            ends = np.array(container.lines[2][0].get_segments())[:, :, 1]
            for index, dose in enumerate(doses):
                values = wide[dose]
                if np.ptp(values) == 0:
                    assert np.ptp(ends[index]) == 0
                    continue
                interval = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
                np.testing.assert_allclose(ends[index], interval, atol=1e-9)
            thin = [drawn.get_xydata() for drawn in ax.lines if drawn.get_label() == "_run"]
            for seed in (0, 1):
                assert any(np.allclose(drawn[:, 1], wide.loc[seed], atol=1e-10) for drawn in thin)
        assert [tick.get_text() for tick in row[2].get_xticklabels()] == [f"{dose:g}" for dose in doses]
    assert grid[0][1].get_ylim() == grid[1][1].get_ylim()
    assert np.ptp(grid[0][2].get_ylim()) < np.ptp(grid[0][1].get_ylim())  # accuracy is legible on its own scale
    assert "soft: strengths 0, 0.5, 1, 2, 8, 32; n = 12 checkpoints in 12 runs, 2 lines." in figure.caption
    assert grid[0][2].get_xlabel() == "β of soft pooling"
    assert grid[0][1].get_ylabel() == "change of consistency\n(percentage points)"


def test_the_level_at_the_lowest_dose_has_a_logit_interval(frame: pd.DataFrame) -> None:
    high = frame.assign(accuracy=np.where(frame["seed"] == 0, 0.999, 0.97))
    caption = dose_response(high, operators=["soft"]).caption
    middle, error = 0.9845, 0.0145
    half = stats.t.ppf(0.975, 1) * error / (middle * (1 - middle))
    ends = special.expit(special.logit(middle) + np.array([-half, half]))
    assert f"soft, accuracy: 0.98 [{ends[0]:.2f}, {ends[1]:.2f}] at 0; change in points:" in caption


def test_families_without_the_lowest_dose_have_no_change_and_are_counted(frame: pd.DataFrame) -> None:
    lost = frame[~((frame["operator"] == "soft") & (frame["strength"] == 0) & (frame["seed"] == 1))]
    figure = dose_response(lost, operators=["soft"])
    assert "soft, accuracy: without 1 family lacking 0;" in figure.caption
    assert sum(drawn.get_label() == "_run" for drawn in figure.axes[2].lines) == 1


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


@pytest.mark.parametrize("width", ["double", pytest.param("single", marks=pytest.mark.full)])
def test_swaps_are_drawn_as_the_frame_has_them(seen: ModuleType, simulate: ModuleType, width: str) -> None:
    zoo = simulate.Zoo(seeds=1, epochs=(8.0,), padding_modes=("zeros",), swap_slope=-0.2)
    frame = swap_frame(simulate.simulate_tables(zoo))
    figure = swap(frame, width=width)
    panels = (("circular", "consistency"), ("zero", "consistency"), ("circular", "accuracy"))
    for ax, (kind, y) in zip(figure.axes, panels, strict=True):
        rows = frame[frame["shift_kind"] == kind]
        single = rows[rows["depth"].notna()]
        strips = seen.points(ax)
        assert len(strips) == 4 * 3
        for label, drawn in strips.items():
            name, _, place = label.partition(", ")
            changes = 100 * rows.loc[(rows["replacement"] == name) & (rows["sites"] == place), y]
            np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(changes), atol=1e-9)
            assert np.ptp(drawn[:, 1]) < 0.7
            quartiles = np.quantile(changes, [0.25, 0.5, 0.75])
            assert seen.line(ax, f"quartiles of {label}")[:, 0] == pytest.approx(quartiles[[0, 2]])
            assert seen.line(ax, f"median of {label}")[:, 0] == pytest.approx(quartiles[[1, 1]])
            (mean,) = [c for c in ax.containers if c.get_label() == label]
            assert mean.lines[0].get_xdata()[0] == pytest.approx(changes.mean(), abs=1e-9)
        start = "no shift" if y == "accuracy" else f"{kind} shift, ≤ 4 px"
        told = next(t for t in figure.caption.splitlines() if t.startswith(f"{start}, change of {y} with that"))
        told = told.replace("−", "-")
        assert seen.numbers_after(told, "ρ") == seen.bootstrap(single, "msb_corrected_site", y, "spearman", "cluster")
        pooling = single[(single["replacement"] != "subsample") & (single["site_kind"] != "subsample")]
        rest = told.partition("plain subsampling")[2]
        assert seen.numbers_after(rest, "ρ") == seen.bootstrap(pooling, "msb_corrected_site", y, "spearman", "cluster")
        assert f"n = {len(single)} swaps, {single['cluster'].nunique()} networks" in told
        assert ax.get_xlabel() == f"change of {y} (points)"
    assert len(figure.axes[0].get_yticks()) == 12


def test_swaps_without_rows_say_what_to_collect(tables: Tables) -> None:
    with pytest.raises(TableError, match="collect `swaps`"):
        swap(swap_frame(tables))
