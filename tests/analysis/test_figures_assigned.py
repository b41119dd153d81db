"""The figures of operators drawn at random: what is drawn is what the designs say, against independent computations."""

from __future__ import annotations

import itertools
import re
from math import factorial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from benchmarks.synthetic import Synthetic
from invariscope.analysis import Frames, load
from invariscope.analysis.designs.assigned import Settings, admitted
from invariscope.analysis.designs.heldout import predict_held_out
from invariscope.analysis.designs.plan_numbers import PlanNumbers
from invariscope.analysis.designs.rotations import rotation_effect
from invariscope.analysis.figures.assigned_rows import RAIL
from invariscope.analysis.figures.heldout import heldout
from invariscope.analysis.figures.importance import COLORS, UNEXPLAINED, importance
from invariscope.analysis.figures.mechanism import mechanism
from invariscope.analysis.figures.population import RAMP, population
from invariscope.analysis.figures.published_operators import published_operators
from invariscope.analysis.figures.rotations import rotations

DRAWN = {"population": population, "rotations": rotations, "mechanism": mechanism, "importance": importance}
DRAWN |= {"heldout": heldout}
CELLS, KINDS = ("digits", "mnist"), ("circular", "zero")
PANELS = list(itertools.product(CELLS, KINDS))


@pytest.fixture(scope="module")
def frame(studies: ModuleType) -> pd.DataFrame:
    return studies.study()


@pytest.fixture(scope="module")
def rows(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with their logits; all of them count."""
    c, n = frame["consistency"], frame["n_images"].astype(float)
    return frame.assign(logit=np.log((n * c + 0.5) / (n - n * c + 0.5)))


@pytest.fixture(scope="module")
def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    return {name: function(frame) for name, function in DRAWN.items()}


def part(rows: pd.DataFrame, cell: str, kind: str, population: str) -> pd.DataFrame:
    chosen = rows[(rows["data"] == cell) & (rows["shift_kind"] == kind)]
    return chosen[chosen["factor_population"] == population]


def panel(figure: Figure, cell: str, kind: str) -> Axes:
    (found,) = [ax for ax in figure.axes if ax.get_title(loc="left").startswith(f"{cell}, {kind} shift")]
    return found


def line(ax: Axes, label: str) -> np.ndarray:
    (found,) = [drawn for drawn in ax.lines if drawn.get_label() == label]
    return np.asarray(found.get_xydata())


def scatter(ax: Axes, label: str):
    (found,) = [drawn for drawn in ax.collections if drawn.get_label() == label]
    return found


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+\.\d+", text.replace("−", "-"))]


def sorted_rows(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    return values[np.lexsort(values.T[::-1])]


def design(members: pd.DataFrame, centre: float, *readings: str) -> pd.DataFrame:
    msb = members["factor_assigned_msb"].astype(float) - centre
    return pd.DataFrame(
        {
            "constant": 1.0,
            "msb": msb,
            "msb_squared": msb**2,
            "lambda": members["factor_assigned_lambda"],
            "asymmetry": members["factor_assigned_asymmetry"],
            "sqrt_selectivity": members["factor_assigned_selectivity"] ** 0.5,
            "padding": (members["padding_mode"] == "zeros").astype(float),
            **{reading: members[reading] for reading in readings},
        }
    ).astype(float)


@pytest.mark.parametrize(("cell", "kind"), PANELS)
def test_population_points_are_the_drawn_networks(figures, rows: pd.DataFrame, cell: str, kind: str) -> None:
    ax, drawn = panel(figures["population"], cell, kind), part(rows, cell, kind, "P")
    for padding in ("circular", "zeros"):
        members = drawn[drawn["padding_mode"] == padding]
        found = scatter(ax, f"drawn, {padding}")
        assert np.allclose(found.get_offsets(), members[["msb_corrected", "logit"]])
        assert np.allclose(found.get_array(), members["selectivity"])
        assert found.get_cmap() is RAMP
        assert found.get_clim() == (0, 1)


@pytest.mark.parametrize(("cell", "kind"), PANELS)
def test_population_curve_is_the_fit_at_the_mean_of_everything_else(
    figures, rows: pd.DataFrame, cell: str, kind: str
) -> None:
    ax, drawn = panel(figures["population"], cell, kind), part(rows, cell, kind, "P")
    centre = rows.loc[(rows["factor_population"] == "P") & (rows["shift_kind"] == kind), "factor_assigned_msb"].mean()
    columns = design(drawn, centre)
    fit = sm.OLS(drawn["logit"], columns).fit(cov_type="HC3", use_t=True)
    curve = line(ax, "fit")
    at = pd.DataFrame(np.tile(columns.mean(), (len(curve), 1)), columns=columns.columns)
    at["msb"] = curve[:, 0] - centre
    at["msb_squared"] = at["msb"] ** 2
    said = fit.get_prediction(at).summary_frame(alpha=0.05)
    assert curve[[0, -1], 0].tolist() == pytest.approx(drawn["factor_assigned_msb"].agg(["min", "max"]).tolist())
    assert curve[:, 1] == pytest.approx(said["mean"].to_numpy())
    band = scatter(ax, "band").get_paths()[0].vertices
    for wanted in ("mean_ci_lower", "mean_ci_upper"):
        edge = np.column_stack([curve[:, 0], said[wanted]])
        assert np.abs(band[:, None] - edge[None]).sum(axis=2).min(axis=0).max() < 1e-8
    low, high = fit.conf_int().loc["msb"]
    heading = ax.get_title(loc="left").split("\n")[1]
    assert numbers(heading) == pytest.approx([fit.params["msb"], low, high], abs=0.0051)
    assert heading.endswith(f"n = {len(drawn)}")


def test_population_names_published_operators_and_sets_those_by_construction_apart(
    figures, rows: pd.DataFrame, studies: ModuleType
) -> None:
    for cell, kind in PANELS:
        ax = panel(figures["population"], cell, kind)
        held = part(rows, cell, kind, "H").groupby("operator_spec")[["msb_corrected", "logit"]].mean()
        apart = [spec for spec in studies.CONSTRUCTED if kind == "circular"]
        plain = held.drop(index=apart)
        operators = {spec.partition("(")[0] for spec in plain.index}
        for name in operators:
            mine = plain[[spec.partition("(")[0] == name for spec in plain.index]]
            assert np.allclose(sorted_rows(scatter(ax, name).get_offsets()), sorted_rows(mine))
        named = [text for text in ax.texts if text.get_text() in operators]
        assert {text.get_text() for text in named} == operators
        for text in named:
            mine = plain[[spec.partition("(")[0] == text.get_text() for spec in plain.index]]
            assert np.abs(mine.to_numpy() - np.array(text.xy)).sum(axis=1).min() < 1e-9
        rail = {spec: scatter(ax, f"{spec.partition('(')[0]}, by construction").get_offsets()[0] for spec in apart}
        for spec, (x, y) in rail.items():
            assert (x, y) == pytest.approx((held.loc[spec, "msb_corrected"], RAIL))
        assert ("aps, lps, tips" in [text.get_text() for text in ax.texts]) == bool(apart)
        softs = part(rows, cell, kind, "H")
        for padding, of_padding in softs[softs["operator_spec"].str.startswith("soft(")].groupby("padding_mode"):
            means = of_padding.groupby("operator_spec")[["msb_corrected", "logit"]].mean()
            doses = means.loc[sorted(means.index, key=lambda spec: float(spec[len("soft(beta=") : -1]))]
            assert len(doses) > 1
            assert np.allclose(line(ax, f"_doses soft, {padding}"), doses)


def test_population_colours_by_what_was_assigned_where_selectivity_was_not_measured(frame: pd.DataFrame) -> None:
    figure = population(frame.drop(columns="selectivity"), data="digits")
    drawn = part(frame, "digits", "zero", "P")
    found = scatter(panel(figure, "digits", "zero"), "drawn, zeros")
    assert np.allclose(found.get_array(), drawn.loc[drawn["padding_mode"] == "zeros", "factor_assigned_selectivity"])
    assert "colour: assigned selectivity" in figure.caption
    assert "mnist" not in figure.caption


def weights(rows: pd.DataFrame) -> np.ndarray:
    return np.array([[float(number) for number in text[6:-2].split(",")] for text in rows["operator_spec"]])


@pytest.mark.parametrize(("cell", "kind"), PANELS)
def test_rotations_are_drawn_block_by_block(figures, rows: pd.DataFrame, cell: str, kind: str) -> None:
    ax, turned = panel(figures["rotations"], cell, kind), part(rows, cell, kind, "R")
    slopes = {}
    for name, block in turned.groupby("factor_block"):
        x, y = block["factor_assigned_msb"].astype(float), block["logit"]
        slopes[name] = np.polyfit(x, y, 1)[0]
        ends = line(ax, f"block {name}")
        assert ends[:, 0].tolist() == pytest.approx([x.min(), x.max()])
        assert ends[:, 1].tolist() == pytest.approx(
            [slopes[name] * (x.min() - x.mean()), slopes[name] * (x.max() - x.mean())]
        )
    within = turned.assign(y=turned["logit"] - turned.groupby("factor_block")["logit"].transform("mean"))
    found = np.vstack([c.get_offsets() for c in ax.collections if c.get_label() == "_networks"])
    assert np.allclose(sorted_rows(found), sorted_rows(within[["factor_assigned_msb", "y"]]))
    caption = figures["rotations"].caption
    assert f"12 blocks, 48 networks; {sum(slope > 0 for slope in slopes.values())} of 12 blocks rise" in caption


def dummies(turned: pd.DataFrame, spread: bool) -> np.ndarray:
    others = [w - (1 - weights(turned)[:, 0]) / 3 for w in weights(turned).T[1:3]] if spread else []
    blocks = pd.get_dummies(turned["factor_block"]).to_numpy(dtype=float)
    return np.column_stack([turned["factor_assigned_msb"].astype(float), *others, blocks])


@pytest.mark.parametrize("kind", KINDS)
def test_the_slope_on_top_and_the_forest_are_statement_1(figures, rows: pd.DataFrame, kind: str) -> None:
    figure = figures["rotations"]
    effect = rotation_effect(rows[(rows["factor_population"] == "R") & (rows["shift_kind"] == kind)], Settings(draws=9))
    (forest,) = [ax for ax in figure.axes if ax.get_title(loc="left").startswith("slopes within")]
    labels = [text.get_text() for text in forest.get_yticklabels()]
    assert labels == ["circular shift", *CELLS, "pooled", "zero shift", *CELLS, "pooled"]
    start = labels.index(f"{kind} shift")
    marks = {line.get_ydata()[0]: line for line in forest.lines if line.get_label() in (*CELLS, "pooled")}
    spans = {line.get_ydata()[0]: line for line in forest.lines if str(line.get_label()).startswith("_interval")}
    hollow = {line.get_ydata()[0]: line for line in forest.lines if str(line.get_label()).startswith("_plain")}
    for place, cell in enumerate(CELLS, start=start + 1):
        turned, row = part(rows, cell, kind, "R"), effect.cells.set_index("cell").loc[f"{cell}/smallcnn"]
        slope = sm.OLS(turned["logit"].to_numpy(), dummies(turned, True)).fit().params[0]
        plain = sm.OLS(turned["logit"].to_numpy(), dummies(turned, False)).fit().params[0]
        assert marks[place].get_xdata()[0] == pytest.approx(slope)
        assert hollow[place + 0.28].get_xdata()[0] == pytest.approx(plain)
        assert spans[place].get_xdata() == pytest.approx([row["low"], row["high"]])
        ax = panel(figure, cell, kind)
        on_top = line(ax, "slope")
        assert np.allclose(on_top[:, 1], slope * (on_top[:, 0] - turned["factor_assigned_msb"].astype(float).mean()))
        assert numbers(ax.get_title(loc="left")) == pytest.approx([slope, row["low"], row["high"]], abs=0.0051)
        end, edges = on_top[-1, 0], scatter(ax, "interval").get_paths()[0].vertices
        at_end = edges[np.isclose(edges[:, 0], end), 1]
        away = end - turned["factor_assigned_msb"].astype(float).mean()
        assert sorted({at_end.min(), at_end.max()}) == pytest.approx(sorted([row["low"] * away, row["high"] * away]))
    pooled = effect.pooled
    assert marks[start + 3].get_xdata()[0] == pytest.approx(pooled.estimate)
    assert spans[start + 3].get_xdata() == pytest.approx([pooled.low, pooled.high])


def test_a_block_that_lacks_a_network_is_not_drawn_and_is_told_of(frame: pd.DataFrame) -> None:
    first = frame.index[(frame["factor_population"] == "R") & (frame["data"] == "digits")][0]
    figure = rotations(frame.drop(index=first), data="digits")
    block = frame.loc[first, "factor_block"]
    labels = [line.get_label() for line in panel(figure, "digits", "circular").lines]
    assert f"block {block}" not in labels
    assert "1 block left out that lack a network" in figure.caption
    assert f"block {block}" in [line.get_label() for line in panel(figure, "digits", "zero").lines]


@pytest.mark.parametrize(("cell", "kind"), PANELS)
def test_the_rivals_of_mechanism_have_their_own_curves_and_shares(
    figures, rows: pd.DataFrame, cell: str, kind: str
) -> None:
    figure, drawn = figures["mechanism"], part(rows, cell, kind, "P")
    first = panel(figure, cell, kind)
    second = figure.axes[figure.axes.index(first) + 1]
    told = {}
    for ax, column, degree in ((first, "factor_assigned_msb", 2), (second, "see", 1)):
        x, y = drawn[column].astype(float), drawn["logit"]
        params = np.polyfit(x, y, degree)
        curve = line(ax, "fit")
        assert curve[:, 1] == pytest.approx(np.polyval(params, curve[:, 0]))
        told[column] = 1 - ((y - np.polyval(params, x)) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        assert ax.get_title(loc="left").endswith(f"R² = {told[column]:.2f}")
        points = np.vstack([c.get_offsets() for c in ax.collections])
        assert np.allclose(sorted_rows(points), sorted_rows(np.column_stack([x, y])))
    everything = admitted(rows[rows["shift_kind"] == kind], Settings())[0]
    said = pd.DataFrame(PlanNumbers(everything, Settings(draws=9, resamples=9))._mechanism(
        everything[everything["factor_population"] == "P"], "see"))  # fmt: skip
    said = said[said["cell"] == f"{cell}/smallcnn"].set_index("quantity")["estimate"]
    assert said["R² of see alone"] == pytest.approx(told["see"])
    assert said["R² of msb alone"] == pytest.approx(told["factor_assigned_msb"])


def brute_shares(columns: pd.DataFrame, y: pd.Series, players: dict[str, list[str]]) -> dict[str, float]:
    """The Shapley value of R² as its definition has it, by subsets."""
    explained = {}
    for size in range(len(players) + 1):
        for subset in itertools.combinations(players, size):
            names = ["constant", *(name for player in subset for name in players[player])]
            explained[frozenset(subset)] = sm.OLS(y, columns[names]).fit().rsquared if subset else 0.0
    found = dict.fromkeys(players, 0.0)
    for player in players:
        for before, value in explained.items():
            if player not in before:
                orders = factorial(len(before)) * factorial(len(players) - len(before) - 1) / factorial(len(players))
                found[player] += orders * (explained[before | {player}] - value)
    return found


def test_the_bars_of_importance_are_shapley_values(figures, rows: pd.DataFrame) -> None:
    players = {"MSB": ["msb", "msb_squared"], "low pass": ["lambda"], "position": ["asymmetry"]}
    players |= {"selectivity": ["sqrt_selectivity"], "padding": ["padding"]}
    drawn = part(rows, "mnist", "zero", "P")
    columns = design(drawn, 0.0, "see")
    labels = [text.get_text() for text in figures["importance"].axes[0].get_yticklabels()]
    for ax, given in zip(figures["importance"].axes, ({}, {"see": ["see"]}), strict=True):
        assert labels == ["digits, circular", "mnist, circular", "digits, zero", "mnist, zero"]
        height = ax.get_yticks()[labels.index("mnist, zero")]
        bars = {
            to_hex(p.get_facecolor()).upper(): p
            for p in ax.patches
            if np.isclose(p.get_y() + p.get_height() / 2, height)
        }
        wanted = brute_shares(columns, drawn["logit"], players | given)
        start = 0.0
        for player, color in COLORS.items():
            if player in wanted:
                assert bars[color].get_width() == pytest.approx(100 * wanted[player])
                assert bars[color].get_x() == pytest.approx(start)
                start += 100 * wanted[player]
        whole = sm.OLS(drawn["logit"], columns[[name for name in columns if name != "see" or given]]).fit().rsquared
        assert start == pytest.approx(100 * whole)
        assert f"{start:.0f} %" in [text.get_text() for text in ax.texts]
        assert len(bars) == len(wanted) + 1
        assert bars[UNEXPLAINED.upper()].get_width() == 100


def predicted(rows: pd.DataFrame, cell: str, kind: str, model: str) -> pd.DataFrame:
    mine = rows[(rows["data"] == cell) & (rows["shift_kind"] == kind)]
    columns = pd.DataFrame({"constant": 1.0, "zeros": (mine["padding_mode"] == "zeros").astype(float)})
    if model != "see":
        columns["msb"], columns["square"] = mine["msb_corrected"], mine["msb_corrected"] ** 2
    if model != "MSB":
        columns["see"] = mine["see"]
    fitted = mine["factor_population"].isin(["P", "R"])
    params = sm.OLS(mine.loc[fitted, "logit"], columns[fitted]).fit().params
    found = mine.assign(predicted=columns @ params)
    return found[found["factor_population"] == "H"].groupby("operator_spec")[["predicted", "logit"]].mean()


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_operators_stand_where_they_are_predicted_and_measured(
    figures, rows: pd.DataFrame, studies: ModuleType, kind: str
) -> None:
    apart = list(studies.CONSTRUCTED) if kind == "circular" else []
    summary = predict_held_out(admitted(rows[rows["shift_kind"] == kind], Settings())[0]).summary
    words = {"MSB": "MSB", "see": "equivariance error", "MSB and see": "both"}
    for model, word in words.items():
        (ax,) = [a for a in figures["heldout"].axes if a.get_title(loc="left").startswith(f"by {word}, {kind} shift")]
        left = total = 0.0
        for cell in CELLS:
            wanted = predicted(rows, cell, kind, model).drop(index=apart)
            for name in {spec.partition("(")[0] for spec in wanted.index}:
                mine = wanted[[spec.partition("(")[0] == name for spec in wanted.index]]
                assert np.allclose(sorted_rows(line(ax, f"{name}, {cell}/smallcnn")), sorted_rows(mine))
            left += ((wanted["logit"] - wanted["predicted"]) ** 2).sum()
            total += ((wanted["logit"] - wanted["logit"].mean()) ** 2).sum()
        row = summary[(summary["model"] == model) & (summary["measure"] == "R² on logits")].iloc[0]
        said = numbers(ax.get_title(loc="left"))
        assert said[:3] == pytest.approx([1 - left / total, row["low"], row["high"]], abs=0.0051)
        operators = {spec.partition("(")[0] for spec in predicted(rows, "digits", kind, model).drop(index=apart).index}
        assert {text.get_text() for text in ax.texts} == operators | ({"aps, lps, tips"} if apart else set())
        for spec in apart:
            x = np.mean([predicted(rows, cell, kind, model).loc[spec, "predicted"] for cell in CELLS])
            low, high = ax.get_xlim()
            found = scatter(ax, f"{spec.partition('(')[0]}, by construction").get_offsets()[0]
            assert tuple(found) == pytest.approx((np.clip(x, low, high), RAIL))


@pytest.mark.parametrize(("operators", "named"), [(20, 20), (30, 12)])
def test_of_a_crowd_of_published_operators_the_most_solitary_are_named(
    tmp_path: Path, operators: int, named: int
) -> None:
    """Each name once in a panel; a line to its mark where it is far, and no hidden one elsewhere."""
    joined = Frames(load(str(Synthetic(4 * operators, operators).write(tmp_path))))["joined"]
    figure = published_operators(joined)
    panels = [ax for ax in figure.axes if ax.texts]
    assert len(panels) == 2 * 2 * 2
    for ax in panels:
        assert len({text.get_text() for text in ax.texts}) == len(ax.texts) == named
        arrows = [text.arrow_patch for text in ax.texts if text.arrow_patch is not None]
        assert len(arrows) < named
        assert all(arrow.get_visible() for arrow in arrows)
    assert ("the 12 most solitary have their names" in figure.caption) == (operators > named)
