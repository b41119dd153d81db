"""The bundled zoo is what its recipe says: complete, small, trained, and with a spread of factors."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open

from invariscope.base.former import FORMER_NAME
from invariscope.collectors.measure.invariance import measure_accuracy
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.inputs import PreparedImages
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.operators import OPERATORS
from invariscope.zoo.recipe import read_recipe


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "data" / "zoo"


@pytest.fixture(scope="module")
def checkpoints(folder: Path) -> list[Checkpoint]:
    return read_manifest(folder)


@pytest.fixture(scope="module")
def factors(checkpoints: list[Checkpoint]) -> pd.DataFrame:
    return pd.DataFrame([dict(checkpoint.factors) for checkpoint in checkpoints])


def test_size(folder: Path, checkpoints: list[Checkpoint]) -> None:
    assert len(checkpoints) >= 90
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    assert {path.name for path in folder.glob("*.safetensors")} == {c.weights.name for c in checkpoints}


def test_eleven_operators_both_paddings_three_seeds(factors: pd.DataFrame) -> None:
    small = factors[factors["architecture"] == "smallcnn"]
    seeds = small.groupby(["operator_spec", "padding_mode"])["seed"].nunique().unstack()
    assert set(small["operator"]) <= set(OPERATORS)
    assert small["operator"].nunique() >= 11
    assert set(seeds.columns) == {"circular", "zeros"}
    assert (seeds >= 3).all(axis=None)


@pytest.mark.parametrize("operator", ["soft", "lp"])
def test_doses(factors: pd.DataFrame, operator: str) -> None:
    doses = factors[factors["operator"] == operator].groupby("strength")["seed"].nunique()
    assert len(doses) >= 5
    assert (doses >= 3).all()


def test_snapshots_along_training(factors: pd.DataFrame) -> None:
    epochs = factors.groupby("run")["epoch"].nunique()
    assert (epochs >= 2).sum() >= 40


def test_files_hold_the_settings_of_the_recipe(folder: Path, checkpoints: list[Checkpoint]) -> None:
    runs = {
        run.snapshot_name(epoch): run for run in read_recipe(folder / "recipe.yaml") for epoch in run.snapshot_epochs
    }
    assert {checkpoint.name for checkpoint in checkpoints} == set(runs)
    fingerprint = load_dataset("digits", split="train").fingerprint
    for checkpoint in checkpoints:
        with safe_open(checkpoint.weights, "pt") as file:
            metadata = file.metadata()
        assert list(metadata) == [FORMER_NAME]
        stored = json.loads(metadata[FORMER_NAME])
        run = runs[checkpoint.name]
        assert stored["data_fingerprint"] == fingerprint
        assert (stored["run"]["operator"], stored["run"]["seed"]) == (str(run.operator), run.seed)
        assert stored["epoch"] == checkpoint.factors["epoch"]


def test_networks_are_trained(checkpoints: list[Checkpoint]) -> None:
    images = load_dataset("digits", limit=200)
    last = [c for c in checkpoints if c.factors["seed"] == 1 and c.factors["padding_mode"] == "zeros"]
    assert len(last) >= 20
    torch.set_num_threads(1)
    accuracy = {
        c.name: measure_accuracy(load_checkpoint(c), PreparedImages(images, c.input), images.labels)["value"][0]
        for c in last
    }
    assert min(accuracy.values()) > 0.85, accuracy
    assert pd.Series(accuracy).median() > 0.95
