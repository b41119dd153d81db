"""Scores against explicit loops over pairs of shifts, over classes, and over left-out images."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from invariscope.collectors.measure.scores import (
    ScoreEstimate,
    accuracy,
    fidelity_product,
    kappa,
    mean_drift,
    mean_over_images,
    pair_agreement,
    shift_scores,
)


@st.composite
def outcomes(draw: st.DrawFn, least_images: int = 1) -> dict[str, np.ndarray]:
    n, k, classes = draw(st.integers(least_images, 7)), draw(st.integers(2, 6)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return {
        "prediction": rng.integers(0, classes, (n, k)) * 3,
        "label": rng.integers(0, classes, n) * 3,
        "clean_prediction": rng.integers(0, classes, n) * 3,
        "clean_probability": rng.random(n),
        "drift_probability": rng.random((n, k)),
    }


def scored(
    prediction: np.ndarray,
    label: np.ndarray,
    clean_prediction: np.ndarray,
    clean_probability: np.ndarray,
    drift_probability: np.ndarray,
    **options: bool,
) -> dict[str, ScoreEstimate]:
    drift = mean_drift(drift_probability, clean_probability)
    return shift_scores(prediction, label, clean_prediction, drift, **options)


def pair_share(row: np.ndarray, wanted: int | None = None) -> float:
    pairs = list(combinations(row.tolist(), 2))
    return sum(a == b and (wanted is None or a == wanted) for a, b in pairs) / len(pairs)


def consistency_by_loops(prediction: np.ndarray) -> float:
    return float(np.mean([pair_share(row) for row in prediction]))


def kappa_by_loops(prediction: np.ndarray) -> float:
    chance = sum((prediction == c).mean() ** 2 for c in np.unique(prediction))
    return (consistency_by_loops(prediction) - chance) / (1 - chance) if chance < 1 else float("nan")


def product_by_loops(prediction: np.ndarray, hits: np.ndarray) -> float:
    return float(hits.mean()) * consistency_by_loops(prediction)


def jackknife_by_loops(function, *arrays) -> float:
    """Standard error from the explicit leave-one-out values."""
    n = len(arrays[0])
    values = np.array([function(*(np.delete(array, i, axis=0) for array in arrays)) for i in range(n)])
    return float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum()))


@given(case=outcomes())
@settings(max_examples=150, deadline=None)
def test_scores_equal_explicit_loops(case):
    scores = scored(is_path=True, **case)
    p, y, p0 = case["prediction"], case["label"], case["clean_prediction"]
    n, k = p.shape
    drift = abs(case["drift_probability"] - case["clean_probability"][:, None])
    expected = {
        "consistency": [pair_share(row) for row in p],
        "consistency_to_clean": [np.mean([p[i, j] == p0[i] for j in range(k)]) for i in range(n)],
        "fidelity": [pair_share(row, label) for row, label in zip(p, y, strict=True)],
        "stability": [pair_share(row, clean) for row, clean in zip(p, p0, strict=True)],
        "worst_case_accuracy": [float(all(p[i, j] == y[i] for j in range(k))) for i in range(n)],
        "flip_rate": [1 - np.mean([p[i, j] == p[i, j + 1] for j in range(k - 1)]) for i in range(n)],
        "probability_drift": [drift[i].sum() / k for i in range(n)],
    }
    for name, values in expected.items():
        estimate = scores[name]
        assert estimate.value == pytest.approx(np.mean(values), abs=1e-12), name
        if n > 1:
            assert estimate.se == pytest.approx(stats.sem(values), abs=1e-12), name
        else:
            assert np.isnan(estimate.se)
    assert scores["kappa"].value == pytest.approx(kappa_by_loops(p), abs=1e-12, nan_ok=True)
    assert scores["fidelity_product"].value == pytest.approx(product_by_loops(p, p0 == y), abs=1e-12)
    assert set(scores) == {*expected, "kappa", "fidelity_product"}


@given(case=outcomes(least_images=2))
@settings(max_examples=150, deadline=None)
def test_jackknife_errors_equal_explicit_leave_one_out(case):
    p, hits = case["prediction"], case["clean_prediction"] == case["label"]
    expected = jackknife_by_loops(kappa_by_loops, p)
    if np.isnan(kappa_by_loops(p)) or (pair_agreement(p) < 1).any():
        assert kappa(p).se == pytest.approx(expected, abs=1e-12, nan_ok=True)
    expected = jackknife_by_loops(product_by_loops, p, hits)
    assert fidelity_product(hits, pair_agreement(p)).se == pytest.approx(expected, abs=1e-12)


def test_mean_interval_is_the_t_interval_of_the_logit():
    for values in ([0.2, 0.5, 0.6, 0.4], [1.0, 1.0, 1.0, 0.5]):
        estimate = mean_over_images(np.array(values))
        mean, se = np.mean(values), stats.sem(values)
        low, high = stats.t.interval(0.95, 3, np.log(mean / (1 - mean)), se / (mean * (1 - mean)))
        assert (estimate.low, estimate.high) == pytest.approx((1 / (1 + np.exp(-low)), 1 / (1 + np.exp(-high))))


@pytest.mark.parametrize(("hits", "n"), [(147, 150), (1, 150), (5, 9), (599, 602)])
def test_the_interval_of_a_share_of_images_is_wilsons(hits, n):
    outcomes = np.arange(n) < hits
    expected = proportion_confint(hits, n, method="wilson")
    label = np.zeros(n, dtype=int)
    prediction = np.where(outcomes, 0, 1)[:, None].repeat(2, axis=1)
    always = shift_scores(prediction, label, label, np.zeros(n))["worst_case_accuracy"]
    for estimate in (accuracy(outcomes), always):
        assert (estimate.low, estimate.high) == pytest.approx(expected, abs=1e-12)
        assert estimate.se == pytest.approx(stats.sem(outcomes), abs=1e-12)


def test_wilsons_interval_covers_where_the_t_interval_does_not():
    """Exact coverage over the binomial distribution, at an accuracy of 0.98 on 150 images."""
    n, truth, covered = 150, 0.98, {"ours": 0.0, "t": 0.0}
    for hits in range(n + 1):
        outcomes = np.arange(n) < hits
        estimate, chance = accuracy(outcomes), stats.binom.pmf(hits, n, truth)
        covered["ours"] += chance * (estimate.low <= truth <= estimate.high)
        reach = stats.t.ppf(0.975, n - 1) * stats.sem(outcomes)
        covered["t"] += chance * (abs(hits / n - truth) <= reach)
    assert 0.93 < covered["ours"] < 0.98
    assert covered["t"] < 0.87


def test_an_estimate_at_its_bound_has_the_rule_of_three():
    hits, consistent = np.zeros(100, dtype=bool), np.linspace(0.5, 1, 100)
    product = fidelity_product(hits, consistent)
    assert (product.value, product.se, product.low, product.high) == (0.0, 0.0, 0.0, pytest.approx(0.03))


def test_rule_of_three_where_all_images_agree():
    assert mean_over_images(np.ones(100)) == ScoreEstimate(1.0, 0.0, 0.97, 1.0)
    assert mean_over_images(np.zeros(100)) == ScoreEstimate(0.0, 0.0, 0.0, 0.03)
    assert mean_over_images(np.full(30, 0.5)) == ScoreEstimate(0.5, 0.0, 0.45, 0.55)
    assert mean_over_images(np.ones(2)) == ScoreEstimate(1.0, 0.0, 0.0, 1.0)
    one = mean_over_images(np.ones(1))
    assert np.isnan(one.se)
    assert (one.value, one.low, one.high) == (1.0, 0.0, 1.0)


def test_a_value_that_all_images_share_has_no_rounding_error():
    # A mean of 0.1 over 7 images is not 0.1 in binary, so that a computed spread would be 1e-17.
    assert mean_over_images(np.full(7, 0.1)).se == 0.0


def test_exact_invariance():
    label = np.arange(60) % 3
    prediction = np.repeat(label[:, None], 4, axis=1)
    scores = scored(prediction, label, label, np.full(60, 0.9), np.full((60, 4), 0.9))
    for name in ("consistency", "consistency_to_clean", "fidelity", "worst_case_accuracy"):
        assert (scores[name].value, scores[name].se, scores[name].low, scores[name].high) == (1.0, 0.0, 0.95, 1.0), name
    assert scores["probability_drift"].value == 0.0
    assert (scores["fidelity_product"].value, scores["fidelity_product"].low) == (1.0, pytest.approx(0.95**2))
    # chance = 3 * (1/3)², so the bound on consistency maps to (0.95 - 1/3) / (2/3)
    assert (scores["kappa"].value, scores["kappa"].se, scores["kappa"].high) == (1.0, 0.0, 1.0)
    assert scores["kappa"].low == pytest.approx((0.95 - 1 / 3) / (2 / 3))
    assert accuracy(label == label) == ScoreEstimate(1.0, 0.0, 0.95, 1.0)


def test_kappa_of_one_class_is_undefined_and_quiet():
    constant = kappa(np.zeros((5, 3), dtype=int))
    assert np.isnan([constant.value, constant.se, constant.low, constant.high]).all()
    # Without its second image only one class is left: the value stands, its jackknife error does not.
    almost = kappa(np.array([[0, 0], [0, 1], [0, 0]]))
    assert almost.value == pytest.approx(kappa_by_loops(np.array([[0, 0], [0, 1], [0, 0]])))
    assert np.isnan([almost.se, almost.low, almost.high]).all()


def test_kappa_of_images_that_all_agree_is_bounded_though_one_image_alone_has_its_class():
    estimate = kappa(np.array([[0, 0]] * 9 + [[1, 1]]))
    chance = 0.9**2 + 0.1**2
    assert (estimate.value, estimate.se, estimate.high) == (pytest.approx(1.0), 0.0, pytest.approx(1.0))
    assert estimate.low == pytest.approx((0.7 - chance) / (1 - chance))


def test_kappa_may_be_negative_and_stays_above_minus_one():
    estimate = kappa(np.array([[0, 1], [1, 0], [0, 1], [1, 0]]))
    assert estimate.value == -1.0
    assert estimate.low == -1.0
    assert estimate.low <= estimate.value <= estimate.high


def test_kappa_is_near_zero_for_predictions_by_chance():
    prediction = np.random.default_rng(0).choice(4, p=[0.7, 0.1, 0.1, 0.1], size=(4000, 9))
    estimate = kappa(prediction)
    assert abs(estimate.value) < 4 * estimate.se
    assert pair_agreement(prediction).mean() > 0.5


def test_one_shift_has_no_pairs():
    scores = scored(np.zeros((3, 1), int), np.zeros(3, int), np.zeros(3, int), np.ones(3), np.ones((3, 1)))
    for name in ("consistency", "fidelity", "fidelity_product", "kappa"):
        assert np.isnan(scores[name].value), name
        assert scores[name].n_pairs == 0
    assert scores["consistency_to_clean"].value == 1.0


def test_pairs_are_counted():
    scores = scored(
        np.zeros((5, 4), int), np.zeros(5, int), np.zeros(5, int), np.ones(5), np.ones((5, 4)), is_path=True
    )
    counted = {name: estimate.n_pairs for name, estimate in scores.items()}
    pairs, to_clean, steps = 5 * 6, 5 * 4, 5 * 3
    assert counted == {
        "consistency": pairs,
        "fidelity": pairs,
        "stability": pairs,
        "fidelity_product": pairs,
        "kappa": pairs,
        "consistency_to_clean": to_clean,
        "probability_drift": to_clean,
        "flip_rate": steps,
        "worst_case_accuracy": 0,
    }


@pytest.mark.parametrize(("n", "steadiness", "least"), [(80, (4, 1), 930), (150, (40, 1), 930)])
def test_intervals_cover(n, steadiness, least):
    """Consistency, fidelity and their product lie within their 95 % intervals in 95 % of 1,000 samples of ``n`` images,
    within sampling error; of the steadier networks consistency is 0.95.
    """
    rng = np.random.default_rng(1)
    chance_of_top = rng.beta(*steadiness, 100_000)
    right = chance_of_top**2
    consistency, fidelity = float((right + (1 - chance_of_top) ** 2).mean()), float(right.mean())
    truth = {"consistency": consistency, "fidelity": fidelity, "fidelity_product": 0.98 * consistency}
    covered = dict.fromkeys(truth, 0)
    for _ in range(1000):
        q = rng.choice(chance_of_top, n)
        prediction = (rng.random((n, 9)) >= q[:, None]).astype(int)
        clean = (rng.random(n) >= 0.98).astype(int)
        scores = shift_scores(prediction, np.zeros(n, dtype=int), clean, np.zeros(n))
        for name, value in truth.items():
            covered[name] += scores[name].low <= value <= scores[name].high
    assert all(least <= hits <= 970 for hits in covered.values()), covered


def test_blocks_of_images_change_nothing(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    prediction = rng.integers(0, 4, (50, 5)).astype(np.int16)
    case = prediction, rng.integers(0, 4, 50), rng.integers(0, 4, 50), rng.random(50), rng.random((50, 5))
    whole = scored(*case)
    monkeypatch.setattr("invariscope.collectors.measure.scores.BLOCK", 7)
    assert scored(*case) == whole


def test_stability_as_loops_have_it() -> None:
    rng = np.random.default_rng(3)
    prediction, clean, label = rng.integers(0, 3, (7, 5)), rng.integers(0, 3, 7), rng.integers(0, 3, 7)
    agree = [[prediction[n, k] == prediction[n, j] == clean[n] for k in range(5) for j in range(k)] for n in range(7)]
    found = shift_scores(prediction, label, clean, np.zeros(7))["stability"]
    assert found.value == pytest.approx(np.mean(agree))
    assert found.se == pytest.approx(np.std(np.mean(agree, axis=1), ddof=1) / np.sqrt(7))
    assert found.n_pairs == 7 * 10
    assert found.value != shift_scores(prediction, label, clean, np.zeros(7))["fidelity"].value
