"""Swaps at poolings of others: one that is the replacement already is none, and where nothing is left a row says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import invariscope as iv
from invariscope import cli
from invariscope.analysis.tables.frames import FRAMES
from invariscope.collectors import ShiftPlan, measure_swaps
from invariscope.collectors.engine.run import collect
from invariscope.collectors.engine.status import status
from invariscope.collectors.options import Options
from invariscope.collectors.store.compaction import compact
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.datasets.inputs import InputSpec

N, CLASSES = 12, 4
PLAN = ShiftPlan.sampled(N, 3, n_shifts=5, kind="zero")


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.randn(N, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.arange(N) % CLASSES


class Foreign(nn.Module):
    """Poolings of torch, and of others, in the place of operators."""

    def __init__(self, *pools: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.pools = nn.ModuleList(pools)
        self.linear = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for pool in self.pools:
            x = pool(x)
        return self.linear(x.mean((2, 3)))


class OwnMax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x, 2)


@pytest.mark.parametrize(
    ("pools", "to", "swapped"),
    [
        ((nn.MaxPool2d(2), nn.AvgPool2d(2)), "max", {1}),
        ((nn.MaxPool2d(2), nn.AvgPool2d(2)), "avg", {0}),
        ((nn.MaxPool2d(2, ceil_mode=True), OwnMax()), "avg", {0, 1, None}),
        ((OwnMax(), nn.AvgPool2d(2)), "max", {1}),
        ((nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2)), "max", {0, 1, None}),  # other windows
    ],
)
def test_a_pooling_of_others_that_is_the_replacement_is_no_swap(
    noise: Tensor, labels: Tensor, pools: tuple[nn.Module, ...], to: str, swapped: set[int | None]
) -> None:
    frame = measure_swaps(Foreign(*pools).eval(), noise, labels, [PLAN], [to])
    # All sites at once has a row even where one of them stays: the others change.
    at = {None if np.isnan(depth) else int(depth) for depth in frame["depth"].astype(float)}
    assert at - {None} == swapped - {None}
    changes = frame[(frame["measure"] == "msb_corrected") & (frame["scope"] == "site")]["change"]
    assert len(changes) == len(swapped - {None})


@pytest.mark.parametrize(
    ("pools", "reason"),
    [
        ((nn.MaxPool2d(2), OwnMax()), "every site does what it would be replaced by"),
        ((), "the network has no downsampling site"),
    ],
)
def test_where_nothing_can_be_swapped_one_row_per_plan_says_so(
    noise: Tensor, labels: Tensor, pools: tuple[nn.Module, ...], reason: str
) -> None:
    frame = measure_swaps(Foreign(*pools).eval(), noise, labels, [PLAN], ["max"])
    assert frame["measure"].tolist() == ["none"] * 2
    assert frame["shift_kind"].tolist() == ["none", "zero"]
    assert frame["reason"].eq(reason).all()
    assert frame[["before", "after", "change", "se", "low", "high"]].isna().all(axis=None)
    for name in ("replacement", "measure", "scope", "n_sites", "n_images"):
        assert frame[name].notna().all()


NETS = """
from torch import nn

def build(pool="max"):
    made = {"max": nn.MaxPool2d(2), "avg": nn.AvgPool2d(2)}[pool]
    return nn.Sequential(nn.Conv2d(1, 4, 3), made, nn.Flatten(), nn.Linear(4 * 15 * 15, 10))
"""


def test_status_asks_for_no_swap_that_cannot_be(images: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    zoo = []
    for pool in ("max", "avg"):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Identity(), nn.Identity(), nn.Linear(900, 10))
        save_file(layers.state_dict(), tmp_path / f"{pool}.safetensors")
        model, spec = f"python:nets.py:build?pool={pool}", InputSpec(32, (0.5,), (0.25,))
        zoo.append(Checkpoint(pool, model, tmp_path / f"{pool}.safetensors", spec, folder=tmp_path))
    out = tmp_path / "t"
    options = Options(("swaps",), swap_to=("max",), swap_images=8, shift=("circular",), n_shifts=2)
    outcome = collect(zoo, images, out, options, progress=False)
    assert (outcome.measured, outcome.failures) == (2 * 3, [])
    for _ in range(2):
        conditions = status(out, zoo).conditions
        assert {condition.table for condition in conditions} == {"checkpoints", "swaps"}
        assert all(condition.missing == () for condition in conditions), [str(one) for one in conditions]
        assert collect(zoo, images, out, options, progress=False).measured == 0
        rows = iv.load(out).swaps
        assert rows.loc[rows["checkpoint"] == "max", "measure"].eq("none").all()
        frame = FRAMES["swaps"](iv.load(out))
        assert set(frame["checkpoint"]) == {"avg"}
        assert isinstance(frame, pd.DataFrame)
        compact(out)
    assert cli.main(["status", str(out)]) == cli.DONE
