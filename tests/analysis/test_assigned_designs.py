"""The designs of assigned MSB, each against a slow independent computation: rotations, populations, pairs, held-out."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import special, stats

from invariscope.analysis.designs import paired, rotations
from invariscope.analysis.designs.assigned import (
    BLOCK,
    DRAW,
    LOGIT,
    MSB,
    POPULATION,
    Settings,
    admitted,
    has_population,
    published,
)
from invariscope.analysis.designs.heldout import predict_held_out
from invariscope.analysis.designs.paired import paired_differences, sign_flip_p
from invariscope.analysis.designs.plan_numbers import PlanNumbers
from invariscope.analysis.designs.population import (
    fit_equal,
    freedman_lane_p,
    mediated,
    shares,
    total_association,
)
from invariscope.analysis.designs.reliability import agreement
from invariscope.analysis.designs.rotations import rotation_effect
from invariscope.analysis.designs.simulated import SimulatedDesign, Truth, simulate_study
from invariscope.analysis.stats.ranks import key_blocks
from invariscope.analysis.stats.regression.sandwich import bias_reduced
from invariscope.base.errors import TableError
from invariscope.collectors.schema import OPERATOR_ERROR
from invariscope.zoo.operators.specification import parse_operator

SETTINGS = Settings(draws=99, resamples=99)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """The admitted rows of a small study, circular shifts; MSB, equivariance error and other ranks have effects."""
    truth = Truth("several", msb=-1, see=-3, ranks=(1.1, -0.6, -0.5))
    design = SimulatedDesign(cells=("a", "b"), draws=48, blocks=12, rotated=0.3)
    frame = simulate_study(truth, design, 5)
    return admitted(frame[frame["shift_kind"] == "circular"], SETTINGS)[0]


@pytest.fixture(scope="module")
def drawn(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows[POPULATION] == "P"]


def _weights(rows: pd.DataFrame) -> np.ndarray:
    return np.array([[float(part) for part in text[6:-2].split(",")] for text in rows["operator_spec"]])


def test_the_slope_of_rotations_is_the_contrast_of_the_weights_of_four_ranks(rows: pd.DataFrame) -> None:
    found = rotation_effect(rows, SETTINGS)
    expected = []
    for cell, members in rows[rows[POPULATION] == "R"].groupby("data"):
        blocks = pd.get_dummies(members[BLOCK]).to_numpy(dtype=float)
        design = np.column_stack([_weights(members)[:, :3], blocks])
        codes = pd.factorize(members[BLOCK])[0]
        first, second, third = sm.OLS(members[LOGIT].to_numpy(), design).fit().params[:3]
        slope = 0.75 * (first - (second + third + 0) / 3)
        # Errors by the same contrast: a design whose first column is what the contrast is the coefficient of.
        spread = [w - (1 - _weights(members)[:, 0]) / 3 for w in _weights(members).T[1:3]]
        design = np.column_stack([members[MSB], *spread, blocks])
        fit = sm.OLS(members[LOGIT].to_numpy(), design).fit()
        with np.errstate(divide="ignore"):
            sandwich = bias_reduced(design, codes)
        expected.append((f"{cell}/smallcnn", slope, sandwich.errors(fit.resid)[0], sandwich.df[0]))
        assert fit.params[0] == pytest.approx(slope)
    got = list(found.cells[["cell", "slope", "se", "df"]].itertuples(index=False, name=None))
    for one, other in zip(got, expected, strict=True):
        assert one[0] == other[0]
        assert one[1:] == pytest.approx(other[1:])
    weights = np.array([one[2] ** -2 for one in expected])
    assert found.pooled.estimate == pytest.approx(weights @ [one[1] for one in expected] / weights.sum())
    assert found.p == pytest.approx(1 / 100)


def test_sorted_rotations_take_weight_from_the_opposite_rank_unless_the_spread_is_in_the_model() -> None:
    """The plan's numbers: shares of a quarter, a half and a quarter, a plain slope of 0.67 where the truth is 0.55."""
    rng = np.random.default_rng(0)
    vectors = -np.sort(-rng.dirichlet([0.5] * 4, 4000), axis=1)
    turned = np.stack([np.roll(vectors, turn, axis=1) for turn in range(4)], axis=1)
    within = (turned - 0.25).reshape(-1, 4)
    given = -(within.T @ within[:, 0]) / (within[:, 0] @ within[:, 0])
    assert given[1:] == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    effects = np.array([1.97, 2.35, 0.65, 0.70])
    blocks = np.repeat([f"R{number}" for number in range(60)], 4)
    some = turned[:60].reshape(-1, 4)
    specs = [f"prefilter(0.2, rank(({', '.join(map(str, row))})))" for row in some]
    same = {"data": "a", "architecture": "n", "shift_kind": "zero", "max_shift": 4, "n_shifts": 9}
    frame = pd.DataFrame({MSB: (some[:, 0] - 0.25) / 0.75, BLOCK: blocks, "operator_spec": specs, **same})
    frame[LOGIT] = some @ effects + rng.normal(0, 1e-3, len(some))
    frame["checkpoint"] = range(len(frame))
    truth = 0.75 * (effects[0] - effects[1:].mean())
    assert truth == pytest.approx(0.5525)
    assert rotation_effect(frame, SETTINGS).pooled.estimate == pytest.approx(truth, abs=1e-3)
    assert rotation_effect(frame, SETTINGS, spread=False).pooled.estimate == pytest.approx(0.67, abs=0.03)


def test_blocks_that_lack_a_network_and_cells_of_few_blocks_are_left_out(rows: pd.DataFrame) -> None:
    turned = rows[rows[POPULATION] == "R"]
    first = turned.index[(turned["data"] == "a")][0]
    found = rotation_effect(turned.drop(index=first), SETTINGS, spread=False)
    whole = turned[~((turned["data"] == "a") & (turned[BLOCK] == turned.loc[first, BLOCK]))]
    assert found.cells.loc[0, ["n_blocks", "n", "n_incomplete"]].tolist() == [11, 44, 1]
    assert found.cells.loc[0, "slope"] == rotation_effect(whole, SETTINGS, spread=False).cells.loc[0, "slope"]
    few = turned[(turned["data"] == "b") | turned[BLOCK].isin(["R00", "R01", "R02"])]
    found = rotation_effect(few, SETTINGS, spread=False)
    assert found.cells["in_pool"].tolist() == [False, True]
    assert found.pooled.estimate == found.cells.loc[1, "slope"]


def test_rotations_say_what_they_lack(rows: pd.DataFrame) -> None:
    turned = rows[rows[POPULATION] == "R"]
    with pytest.raises(TableError, match="no rotations: no checkpoint has the factor `block`"):
        rotation_effect(turned.drop(columns=BLOCK))
    with pytest.raises(TableError, match="a network of a block stands there twice"):
        rotation_effect(pd.concat([turned, turned]))
    with pytest.raises(TableError, match="several shift plans together"):
        rotation_effect(pd.concat([turned, turned.assign(max_shift=8)]))
    with pytest.raises(TableError, match=r"has no rank\(\(\.\.\.\)\) in it"):
        rotation_effect(turned.assign(operator_spec="max"))


@pytest.mark.parametrize("text", ["rank((0.5, 0.3, 0.2, 0))", "prefilter(0.1, rank((0.5, 0.3, 0.2, 0)))"])
@pytest.mark.parametrize("canonical", [False, True])
def test_weights_are_read_off_specifications(text: str, canonical: bool) -> None:
    text = parse_operator(text).canonical if canonical else text
    found = rotations.spread_of_others(pd.Series([text, "rank((0.25, 0.25, 0.25, 0.25))"]), np.array([0, 0]))
    second, third = 0.3 - 0.5 / 3, 0.2 - 0.5 / 3
    assert found[0] == pytest.approx([second / 2, third / 2])


def _expected_design(members: pd.DataFrame, centre: float, *readings: str) -> pd.DataFrame:
    msb = members[MSB] - centre
    return pd.DataFrame(
        {
            "constant": 1.0,
            "msb": msb,
            "msb_squared": msb**2,
            "lambda": members["factor_assigned_lambda"],
            "asymmetry": members["factor_assigned_asymmetry"],
            "sqrt_selectivity": members["factor_assigned_selectivity"].clip(lower=0) ** 0.5,
            "padding": (members["padding_mode"] == "zeros").astype(float),
            **{reading: members[reading] for reading in readings},
        }
    )


def test_slopes_at_equal_everything_else_are_those_of_statsmodels(drawn: pd.DataFrame) -> None:
    drawn = drawn.drop(index=drawn.index[5]).sample(frac=1, random_state=0)
    equal = fit_equal(drawn, ["see"])
    fits = {}
    for cell, members in drawn.groupby("data"):
        design = _expected_design(members, drawn[MSB].mean(), "see")
        fits[cell] = sm.OLS(members[LOGIT], design).fit(cov_type="HC3"), members, design
    for found, (fit, _, design) in zip(equal.cells, fits.values(), strict=True):
        assert dict(zip(found.names, found.fit.params, strict=True)) == pytest.approx(fit.params.to_dict())
        assert found.fit.errors[found.at("msb")] == pytest.approx(fit.bse["msb"])
        assert list(found.names) == list(design.columns)
    # The error of the pooled slope, operator by operator: what each adds to both cells' slopes.
    weights = {cell: fit.bse["msb"] ** -2 for cell, (fit, _, _) in fits.items()}
    variance = 0.0
    for draw in drawn[DRAW].unique():
        part = 0.0
        for cell, (fit, members, design) in fits.items():
            if draw not in set(members[DRAW]):
                continue
            place = list(members[DRAW]).index(draw)
            bread = np.linalg.inv(design.T @ design)
            leverage = fit.get_influence().hat_matrix_diag[place]
            move = bread @ design.to_numpy()[place] * fit.resid.iloc[place] / (1 - leverage)
            part += weights[cell] * move[1] / sum(weights.values())
        variance += part**2
    assert equal.pooled("msb").se == pytest.approx(np.sqrt(variance))
    assert equal.pooled("msb").estimate == pytest.approx(
        sum(weights[cell] * fit.params["msb"] for cell, (fit, _, _) in fits.items()) / sum(weights.values())
    )


def test_freedman_lane_is_that_of_refits_to_permuted_outcomes(drawn: pd.DataFrame) -> None:
    equal = fit_equal(drawn)
    keys = np.concatenate([some for _, some in key_blocks(equal.n_units, SETTINGS.draws, SETTINGS.seed + 3)])
    found = np.zeros(1 + SETTINGS.draws)
    for cell in equal.cells:
        index = cell.names.index("asymmetry")
        weight = cell.fit.errors[index] ** -2
        reduced = sm.OLS(cell.y, np.delete(cell.design, index, axis=1)).fit()
        found[0] += weight * sm.OLS(cell.y, cell.design).fit().params[index]
        for number, order in enumerate(np.argsort(keys[:, cell.units], axis=1)):
            again = reduced.fittedvalues + reduced.resid[order]
            found[1 + number] += weight * sm.OLS(again, cell.design).fit().params[index]
    expected = (np.abs(found) >= abs(found[0]) - 1e-9).sum() / (1 + SETTINGS.draws)
    assert freedman_lane_p(equal, "asymmetry", SETTINGS) == pytest.approx(expected)


def test_the_total_association_is_taken_within_conditions(drawn: pd.DataFrame) -> None:
    found = total_association(drawn, "msb_corrected", SETTINGS)
    parts = [
        (stats.spearmanr(members["msb_corrected"], members["consistency"]).statistic, len(members) - 3)
        for _, members in drawn.groupby(["data", "padding_mode"])
    ]
    expected = np.average([np.arctanh(r) for r, _ in parts], weights=[weight for _, weight in parts])
    assert found.z == pytest.approx(expected)
    assert (found.n, found.n_units) == (96, 48)
    with pytest.raises(TableError, match="no 8 drawn operators"):
        total_association(drawn.head(6), "msb_corrected", SETTINGS)


def test_the_equivariance_error_carries_what_it_was_made_to(drawn: pd.DataFrame) -> None:
    made = drawn.assign(see=drawn["see"] + 0.4 * drawn[MSB])
    made = made.assign(**{LOGIT: -3 * made["see"] + np.random.default_rng(1).normal(0, 0.1, len(made))})
    found = mediated(fit_equal(made, ["see"]), "see", SETTINGS)
    assert found.estimate == pytest.approx(-1.2, abs=0.15)
    assert found.low < -1.2 < found.high < 0
    assert found.p == pytest.approx(2 / 100)
    table = shares(fit_equal(made, ["see"]), ["see"])
    assert set(table["player"]) == {"MSB", "low pass", "position", "selectivity", "padding", "see"}
    first = table[table["cell"] == "a/smallcnn"]
    design = _expected_design(made[made["data"] == "a"], made[MSB].mean(), "see")
    assert first["share"].sum() == pytest.approx(sm.OLS(made.loc[made["data"] == "a", LOGIT], design).fit().rsquared)


def _held(rows: pd.DataFrame) -> pd.DataFrame:
    drawn = rows[(rows[POPULATION] == "P") & (rows["padding_mode"] == "circular")]
    names = ["max", "avg", "blur(m=3)", "soft(beta=1)", "subsample", "aps", "tips(pool=phase, hard=true)"]
    parts = [
        members.head(len(names)).assign(**{POPULATION: "H", "operator_spec": names, DRAW: None, "seed": 0})
        for _, members in drawn.groupby("data")
    ]
    return pd.concat([rows, *parts, parts[0].assign(seed=1)], ignore_index=True)


def test_held_out_operators_are_predicted_from_the_others(rows: pd.DataFrame) -> None:
    frame = _held(rows)
    found = predict_held_out(frame, SETTINGS)
    names = {"MSB": ["msb_corrected"], "see": ["see"], "MSB and see": ["msb_corrected", "see"]}
    for name, readings in names.items():
        errors, left, total, points = [], 0.0, 0.0, []
        for cell, members in frame.groupby("data"):
            design = sm.add_constant(members[readings].assign(zeros=members["padding_mode"] == "zeros").astype(float))
            if "msb_corrected" in readings:
                design["square"] = design["msb_corrected"] ** 2
            fitted = members[POPULATION].isin(["P", "R"])
            params = sm.OLS(members.loc[fitted, LOGIT], design[fitted]).fit().params
            new = members[members[POPULATION] == "H"].assign(predicted=design @ params)
            new = new.groupby("operator_spec")[[LOGIT, "predicted"]].mean().drop(["aps", "tips(pool=phase, hard=true)"])
            errors.append((new[LOGIT] - new["predicted"]).to_numpy())
            left += (errors[-1] ** 2).sum()
            total += ((new[LOGIT] - new[LOGIT].mean()) ** 2).sum()
            points += [100 * abs(special.expit(new[LOGIT]) - special.expit(new["predicted"]))]
            assert cell in {"a", "b"}
        mine = found.summary[found.summary["model"] == name].set_index("measure")["estimate"]
        assert mine["R² on logits"] == pytest.approx(1 - left / total)
        assert mine["mean absolute error in points"] == pytest.approx(np.concatenate(points).mean())
    apart = found.networks.loc[found.networks["by_construction"], "operator"].unique()
    assert sorted(apart) == ["aps", "tips(pool=phase, hard=true)"]
    gain = found.summary.set_index("measure")["estimate"]
    by_model = found.summary[found.summary["measure"] == "mean absolute error in points"].set_index("model")["estimate"]
    difference = by_model["see"] - by_model["MSB"]
    assert gain["mean absolute error in points, less that of MSB"] == pytest.approx(difference)
    with pytest.raises(TableError, match="nothing is held out"):
        predict_held_out(rows)


def test_under_zero_shifts_nothing_is_consistent_by_construction(rows: pd.DataFrame) -> None:
    found = predict_held_out(_held(rows).assign(shift_kind="zero"), SETTINGS)
    assert not found.networks["by_construction"].any()


def _pairs(effects: dict[str, float], seeds: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(11)
    records = []
    for cell, seed in itertools.product(["a", "b"], range(seeds)):
        shared = rng.normal()
        for spec, effect in effects.items():
            records.append({"data": cell, "seed": seed, "operator_spec": spec, LOGIT: shared + effect + rng.normal()})
    return pd.DataFrame(records).assign(
        architecture="n", padding_mode="circular", shift_kind="circular", max_shift=4, n_shifts=9
    )


def test_partners_of_one_cell_and_seed_are_compared_and_signs_flipped() -> None:
    specs = ["max", "quantile(j=4)", "quantile(2)", "soft(beta=1)", "lme(beta=1)", "soft(beta=4)", "lme(beta=4)"]
    rows = _pairs(dict.fromkeys(specs, 0.0) | {"quantile(j=4)": 2.0, "aps": 0.0, "aps(rank=4)": 0.0, "aps(p=1)": 9.0})
    found = paired_differences(rows, SETTINGS).set_index("comparison")
    wide = rows.pivot(index=["data", "seed"], columns="operator_spec", values=LOGIT)
    least = (wide["quantile(j=4)"] - wide["max"]).to_numpy()
    assert found.loc["minimum less max", "estimate"] == pytest.approx(least.mean())
    interval = stats.ttest_1samp(least, 0).confidence_interval()
    assert found.loc["minimum less max", ["low", "high"]].tolist() == pytest.approx(list(interval))
    doses = (wide["lme(beta=1)"] - wide["soft(beta=1)"] + wide["lme(beta=4)"] - wide["soft(beta=4)"]) / 2
    assert found.loc["lme less soft", "estimate"] == pytest.approx(doses.mean())
    assert found.loc["lme less soft", "n"] == 12
    assert found.loc["second largest less max", "p"] > 0.05
    check = found.loc["aps of the smallest norm less aps"]
    assert check["estimate"] == pytest.approx((wide["aps(rank=4)"] - wide["aps"]).mean())
    assert np.isnan(check["p"])
    assert paired_differences(rows[rows["seed"] < 2], SETTINGS)["p"].isna().all()


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("minimum less max", "quantile(4)", "max"),
        ("second largest less max", "quantile(2)", "max"),
        ("lme less soft", "lme(0.5)", "soft(0.5)"),
        ("lme less soft", "lme", "soft"),
    ],
)
def test_partners_are_known_by_the_specifications_of_manifests(name: str, first: str, second: str) -> None:
    comparison = paired.COMPARISONS[name]
    one, other = (parse_operator(text).canonical for text in (first, second))
    assert comparison.first(one) is not None
    assert comparison.first(one) == comparison.second(other)
    assert comparison.first(other) is None
    assert comparison.second("max(kernel=3)") is None
    assert comparison.second("maxblur") is None
    assert paired.COMPARISONS["lme less soft"].first("lme(beta=1, kernel=3)") is None


def test_all_signs_are_taken_where_they_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(12).normal(0.4, 1, 9)
    flipped = [abs(np.dot(signs, differences)) for signs in itertools.product([1, -1], repeat=9)]
    exact = np.mean(np.array(flipped) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_p(differences, SETTINGS) == pytest.approx(exact)
    monkeypatch.setattr(paired, "_MOST_EXACT", 1)
    assert sign_flip_p(differences, Settings(draws=20_000)) == pytest.approx(exact, abs=0.015)


def test_networks_that_do_not_count_are_left_out_with_their_reason(rows: pd.DataFrame) -> None:
    frame = rows.drop(columns=LOGIT).reset_index(drop=True).assign(factor_repeat=np.nan, deterministic=True)
    frame["final"] = frame["final"].astype(object)
    frame.loc[0, "final"] = False
    frame.loc[1, "factor_repeat"] = 1
    frame.loc[2, "deterministic"] = False
    frame.loc[3, "accuracy"] = 0.49
    frame.loc[4, "consistency"] = np.nan
    kept, out = admitted(frame, SETTINGS)
    assert len(kept) == len(frame) - 5
    assert out["reason"].tolist() == [
        "not the last snapshot",
        "trained a second time",
        "no function of the image",
        "accuracy below 0.5",
        "no consistency",
    ]
    c, n = kept["consistency"], kept["n_images"].astype(float)
    assert kept[LOGIT].tolist() == pytest.approx(np.log((n * c + 0.5) / (n - n * c + 0.5)).tolist())
    with pytest.raises(TableError, match="need the columns accuracy"):
        admitted(frame.drop(columns="accuracy"), SETTINGS)


def test_published_operators_are_told_from_drawn_ones(rows: pd.DataFrame) -> None:
    frame = _held(rows)
    assert has_population(frame)
    assert set(published(frame)[POPULATION]) == {"H"}
    assert not has_population(published(frame))
    none = frame.drop(columns=POPULATION)
    assert not has_population(none)
    assert published(none) is none


def test_two_trainings_of_one_operator_are_told_apart_from_those_of_others(drawn: pd.DataFrame) -> None:
    again = drawn[drawn[DRAW] < "P010"].assign(factor_repeat=1)
    again["msb_corrected"] += np.random.default_rng(13).normal(0, 0.1, len(again))
    found = agreement(pd.concat([drawn.assign(factor_repeat=np.nan), again]), "msb_corrected")
    assert list(found) == ["a/smallcnn", "b/smallcnn"]
    assert all(one.n == 10 and 0.5 < one.low < one.estimate < one.high <= 1 for one in found.values())
    assert agreement(drawn, "msb_corrected") == {}


def test_the_error_without_training_is_a_mediator_of_its_own(drawn: pd.DataFrame) -> None:
    """Statement 4 with it has the numbers of statement 4 with ``see``, where both are the same."""
    numbers = PlanNumbers(drawn.assign(**{OPERATOR_ERROR: drawn["see"]}), Settings(draws=9, resamples=9))
    records = pd.DataFrame([row for row in numbers.records() if row["statement"] == "4"])
    mine = records["quantity"].str.contains(OPERATOR_ERROR)
    kept = ["quantity", "cell", "estimate", "se", "low", "high"]
    other, own = records.loc[~mine, kept], records.loc[mine, kept]
    assert own["estimate"].notna().all()
    own = own.assign(quantity=own["quantity"].str.replace(OPERATOR_ERROR, "see"))
    shared = other.merge(own, on=["quantity", "cell"], suffixes=("", "_own"))
    assert len(shared) == len(own) > 10
    assert shared["estimate_own"].to_numpy() == pytest.approx(shared["estimate"].to_numpy())
