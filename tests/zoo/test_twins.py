"""Runs of a recipe that train one network under several names are told of."""

from __future__ import annotations

from pathlib import Path

import pytest

from invariscope import cli
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.twins import twins

RECIPE = """
defaults: {data: digits, epochs: 1, batch_size: 32, limit: 64, model: {width: 2}}
grid: {operator: [max, avg, lp(p=1), soft(beta=0), soft(beta=2), lp(p=inf), tips, subsample], seed: [0, 1]}
"""


def test_operators_that_compute_the_same_are_found(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    found = {tuple(sorted(names)) for names in twins(read_recipe(tmp_path / "recipe.yaml"))}
    expected = set()
    for seed in (0, 1):
        for group in (("avg", "lp-p1", "soft-beta0"), ("lp-inf", "max")):
            expected.add(tuple(sorted(f"smallcnn-{name}-zeros-s{seed}" for name in group)))
    assert found == expected


def test_train_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "grid: {data: digits, epochs: 1, limit: 64, batch_size: 32, model: {width: 2}, operator: [%s]}\n"
    for operators, count in (("avg, lp(p=1)", 1), ("avg, max", 0)):
        (tmp_path / "recipe.yaml").write_text(text % operators)
        assert cli.main(["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "zoo")]) == cli.DONE
        told = capsys.readouterr().err
        assert told.count("train one network, which counts once") == count
    assert "smallcnn-avg-zeros-s0, smallcnn-lp-p1-zeros-s0" not in told
