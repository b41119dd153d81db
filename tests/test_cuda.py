"""What a GPU must not change; skipped where there is none. `python -m benchmarks.gpu` runs these first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
import torch

from invariscope.collectors.engine.run import collect
from invariscope.collectors.measure.msb import measure_msb
from invariscope.collectors.options import Options
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.devices import prepare_device
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.operators import OPERATORS, build_operator
from invariscope.zoo.run import Run
from invariscope.zoo.training.trainer import train_run

DEVICE = "cuda"

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture(autouse=True)
def exact() -> None:
    prepare_device(DEVICE)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_every_operator_gives_the_same_there(name: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    operator = build_operator(name, 8, 2, "reflect").eval()
    x = torch.randn(4, 8, 17, 16, requires_grad=True)
    there = operator(x)
    (gradient,) = torch.autograd.grad(there.square().sum(), x)
    operator = operator.to(DEVICE)
    moved = x.detach().to(DEVICE, memory_format=layout).requires_grad_()
    found = operator(moved)
    (other,) = torch.autograd.grad(found.square().sum(), moved)
    torch.testing.assert_close(found.cpu(), there, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.cpu(), gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(OPERATORS))
def test_msb_of_every_operator_is_the_same_there(name: str) -> None:
    torch.manual_seed(0)
    layers = [
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        build_operator(name, 8),
        torch.nn.Conv2d(8, 8, 3, 2),
    ]
    network = torch.nn.Sequential(*layers).eval()
    images = torch.rand(8, 3, 32, 32)
    here = measure_msb(network, images, progress=False)
    there = measure_msb(network.to(DEVICE), images, progress=False)
    pd.testing.assert_frame_equal(there, here, rtol=1e-3, atol=1e-4)


def test_collected_scores_are_the_same_there(repository: Path, tmp_path: Path) -> None:
    checkpoints = read_manifest(repository / "data" / "zoo")[::20]
    images = load_dataset("digits", limit=64)
    names = ("layers", "invariance", "drift", "robustness")
    found = {}
    for device in ("cpu", DEVICE):
        options = Options(names, device=device, n_shifts=4, msb_images=32, robust_images=16)
        assert collect(checkpoints, images, tmp_path / device, options, progress=False).failures == []
        frame = ds.dataset(tmp_path / device / "invariance").to_table().to_pandas()
        found[device] = frame.set_index(["checkpoint", "shift_kind", "score"])["value"].sort_index()
    # A prediction in a tie may differ: one pair of shifts of one image of 64.
    np.testing.assert_allclose(found[DEVICE], found["cpu"], rtol=0, atol=1 / 64)
    assert np.median(np.abs(found[DEVICE] - found["cpu"])) < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_there_learns_and_repeats(precision: str) -> None:
    images = load_dataset("digits", split="train", limit=512)
    run = Run("smallcnn", operator="tips", seed=0, epochs=6, model={"width": 8}, precision=precision)
    first, again = (train_run(run, images, device=DEVICE)[-1] for _ in range(2))
    assert first.accuracy > 0.5
    assert first.loss == pytest.approx(again.loss, rel=1e-3)
