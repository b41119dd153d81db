"""Two networks on the same images: against loops, scipy and statsmodels."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from invariscope.analysis import compare
from invariscope.base.errors import TableError

N, K = 60, 5


def rows(name: str, seed: int, images: int = N) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    label = np.random.default_rng(0).integers(4, size=images)
    clean = np.where(draw.random(images) < 0.8, label, draw.integers(4, size=images))
    moved = np.where(draw.random((images, K)) < 0.7, clean[:, None], draw.integers(4, size=(images, K)))
    about = {"checkpoint": name, "data": "d/test", "data_fingerprint": "f", "shift_kind": "circular", "fill": None,
             "max_shift": 4, "n_shifts": K, "plan": "sampled", "plan_hash": "h"}  # fmt: skip
    return pd.DataFrame(
        {"image": range(images), "label": label, "clean_prediction": clean, "prediction": list(moved)}
    ).assign(**about)


def test_differences_are_paired_and_tests_are_those_of_other_programs() -> None:
    a, b = rows("a", 1), rows("b", 2)
    table = compare(pd.concat([a, b.sample(frac=1, random_state=0)]), "a", "b").set_index("score")
    pairs = list(combinations(range(K), 2))
    agree = [np.array([np.mean([p[i] == p[j] for i, j in pairs]) for p in part["prediction"]]) for part in (a, b)]
    difference = agree[1] - agree[0]
    row = table.loc["consistency"]
    assert row["value_a"] == pytest.approx(agree[0].mean())
    assert row["difference"] == pytest.approx(difference.mean())
    assert row["se"] == pytest.approx(difference.std(ddof=1) / np.sqrt(N))
    assert (row["low"] + row["high"]) / 2 == pytest.approx(row["difference"])
    assert row["low"] < row["difference"] - 1.96 * row["se"]
    hits = [(part["clean_prediction"] == part["label"]).to_numpy() for part in (a, b)]
    stable = [np.array([(p == c).all() for p, c in zip(part["prediction"], part["clean_prediction"], strict=True)])
              for part in (a, b)]  # fmt: skip
    for name, (first, second) in (("accuracy", hits), ("stable", stable)):
        counts = [
            [(first & second).sum(), (first & ~second).sum()],
            [(~first & second).sum(), (~first & ~second).sum()],
        ]
        assert table.loc[name, ["only_a", "only_b"]].tolist() == [counts[0][1], counts[1][0]]
        assert table.loc[name, "p"] == pytest.approx(mcnemar(counts, exact=True).pvalue)
    both_right = [np.mean([np.mean([p[i] == p[j] == y for i, j in pairs]) for p, y in
                           zip(part["prediction"], part["label"], strict=True)]) for part in (a, b)]  # fmt: skip
    assert table.loc["fidelity", "value_b"] == pytest.approx(both_right[1])


def test_only_images_under_the_same_shifts_are_paired() -> None:
    b = rows("b", 2)
    other = pd.concat([rows("a", 1), b.iloc[:40], b.iloc[40:].assign(plan_hash="other")])
    assert set(compare(other, "a", "b")["n_images"]) == {40}
    with pytest.raises(TableError, match="no images under the same shifts"):
        compare(pd.concat([rows("a", 1), b.assign(plan_hash="other")]), "a", "b")


def test_equal_networks_have_the_rule_of_three_for_an_interval() -> None:
    table = compare(pd.concat([rows("a", 1), rows("b", 1)]), "a", "b").set_index("score")
    assert table["difference"].eq(0).all()
    assert table["p"].eq(1).all()
    assert table.loc["accuracy", "high"] == pytest.approx(3 / N)


def test_wrong_names_are_refused() -> None:
    both = pd.concat([rows("first", 1), rows("second", 2)])
    with pytest.raises(TableError, match="secnd"):
        compare(both, "first", "secnd")
    with pytest.raises(TableError, match="compared with itself"):
        compare(both, "first", "first")
    with pytest.raises(TableError, match="holds first twice"):
        compare(pd.concat([both, rows("first", 3)]), "first", "second")
    with pytest.raises(TableError, match="empty"):
        compare(both.iloc[:0], "first", "second")
