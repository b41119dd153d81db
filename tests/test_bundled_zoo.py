"""The bundled zoo is what its recipe says: complete, small, trained, drawn operators beside the published ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open

from invariscope.collectors.measure.invariance import measure_accuracy
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.inputs import PreparedImages
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest
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
    assert 90 <= len(checkpoints) <= 200
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    assert {path.name for path in folder.glob("*.safetensors")} == {c.weights.name for c in checkpoints}


def test_drawn_operators_whole_blocks_and_the_published_ones(factors: pd.DataFrame) -> None:
    parts = factors.groupby("population")
    assert parts.size()["P"] >= 60
    assert parts.get_group("P")["operator_spec"].is_unique
    assert parts.get_group("P")["padding_mode"].value_counts().min() >= 28  # of the first 64 of 160 in balance
    blocks = parts.get_group("R").groupby("block")
    assert len(blocks) >= 15
    assert (blocks["operator_spec"].nunique() == 4).all()
    assert (blocks[["seed", "assigned_selectivity", "assigned_lambda", "padding_mode"]].nunique() == 1).all(axis=None)
    held_out = parts.get_group("H")
    assert {"max", "avg", "subsample", "blur", "maxblur", "ddac", "aps", "lps", "tips"} <= set(held_out["operator"])
    doses = held_out.groupby("operator")["operator_spec"].nunique()
    assert doses[["soft", "lp"]].min() >= 4


def test_no_two_are_equal(folder: Path) -> None:
    hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}
    assert len(hashes) == len(list(folder.glob("*.safetensors")))


def test_files_hold_the_settings_of_the_recipe(repository: Path, checkpoints: list[Checkpoint]) -> None:
    recipe = read_recipe(repository / "data" / "recipes" / "population_bundled.yaml")
    runs = {run.snapshot_name(epoch): run for run in recipe for epoch in run.snapshot_epochs}
    assert {checkpoint.name for checkpoint in checkpoints} == set(runs)
    fingerprint = load_dataset("digits", split="train").fingerprint
    for checkpoint in checkpoints:
        with safe_open(checkpoint.weights, "pt") as file:
            metadata = file.metadata()
        (stored,) = map(json.loads, metadata.values())
        run = runs[checkpoint.name]
        assert stored["data_fingerprint"] == fingerprint
        assert (stored["run"]["operator"], stored["run"]["seed"]) == (str(run.operator), run.seed)
        assert stored["epoch"] == checkpoint.factors["epoch"]


def test_networks_are_trained(checkpoints: list[Checkpoint]) -> None:
    images = load_dataset("digits", limit=200)
    some = checkpoints[::8]
    torch.set_num_threads(1)
    accuracy = pd.Series(
        {
            c.name: measure_accuracy(load_checkpoint(c), PreparedImages(images, c.input), images.labels)["value"][0]
            for c in some
        }
    )
    assert accuracy.min() > 0.8, accuracy
    assert accuracy.median() > 0.9
