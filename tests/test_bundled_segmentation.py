"""The bundled segmentation zoo is what its recipe says, small, and trained; its exact networks are exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from invariscope.collectors.measure.segmentation import measure_segmentation
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.inputs import PreparedImages
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.recipe import read_recipe


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "data" / "zoo_segmentation"


@pytest.fixture(scope="module")
def checkpoints(folder: Path) -> list[Checkpoint]:
    return read_manifest(folder)


def test_it_is_the_recipe_and_small(folder: Path, checkpoints: list[Checkpoint]) -> None:
    names = [run.snapshot_name(epoch) for run in read_recipe(folder / "recipe.yaml") for epoch in run.snapshot_epochs]
    assert sorted(checkpoint.name for checkpoint in checkpoints) == sorted(names)
    assert {path.name for path in folder.glob("*.safetensors")} == {c.weights.name for c in checkpoints}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 3_000_000
    assert len({checkpoint.factors["operator"] for checkpoint in checkpoints}) >= 6
    assert {checkpoint.factors["padding_mode"] for checkpoint in checkpoints} == {"circular", "zeros"}


def test_networks_are_trained(checkpoints: list[Checkpoint]) -> None:
    """All background has an mIoU of 0.17 and a pixel accuracy of 0.85 on these scenes."""
    torch.set_num_threads(1)
    images = load_dataset("shapes:32", limit=40)
    found = {}
    for checkpoint in checkpoints:
        rows = measure_segmentation(load_checkpoint(checkpoint), PreparedImages(images, checkpoint.input))
        found[checkpoint.name] = rows.set_index("score")["value"]
    assert min(values["miou"] for values in found.values()) > 0.45, found
    assert min(values["pixel_accuracy"] for values in found.values()) > 0.85, found


@pytest.mark.parametrize("operator", ["aps", "lps"])
def test_polyphase_networks_are_exactly_consistent(operator: str, checkpoints: list[Checkpoint]) -> None:
    chosen = next(c for c in checkpoints if c.factors["operator"] == operator and "circular" in c.name)
    images = load_dataset("shapes:32", limit=12)
    model = load_checkpoint(chosen).double()
    rows = measure_segmentation(model, PreparedImages(images, chosen.input), plans=[ShiftPlan.sampled(12, 4)])
    assert rows.set_index("score")["value"]["consistency_pixel"] == 1.0
