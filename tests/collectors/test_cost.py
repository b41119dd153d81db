"""Costs: counts by hand, timings of calls of known length, networks left as they were, and a zoo's table."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError, InputError, ModelError
from invariscope.cli import main
from invariscope.collectors.engine.run import collect, plan_run
from invariscope.collectors.measure import cost
from invariscope.collectors.measure.cost import count_multiply_adds, in_turn, measure_cost, reference_model
from invariscope.collectors.options import Options
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.loading import build_model
from invariscope.zoo.operators import OPERATORS, build_operator
from invariscope.zoo.operators.base import Downsample

# 6 channels of 7 x 10 pixels at stride 2: 4 x 5 outputs, 8 x 10 pixels with the padding.
BY_HAND = {
    "max": 0,
    "max(3)": 0,
    "avg": 6 * 20 * 4,
    "avg(3)": 6 * 20 * 9,
    "subsample": 0,
    "lp(2)": 6 * 20 * 4,
    "lp(inf)": 0,
    "soft": 6 * 20 * 4,
    "soft(inf)": 0,
    "blur(1)": 0,
    "blur(5)": 6 * 20 * 25,
    "maxblur(3)": 6 * 20 * 9,
    "ddac(3, 2)": 20 * (18 * 6 * 9) + 6 * 20 * 9,
    "aps": 6 * 80,
    "aps(inf)": 0,
    "aps(2, filter=3)": 6 * 70 * 9 + 6 * 80,
    "lps": 80 * (6 * 6 * 9 + 6 * 6 * 9 + 6),
    "lps(hidden=4)": 80 * (6 * 4 * 9 + 4 * 4 * 9 + 4),
    "tips": 6 * (80 * 9 + 80 + 4 + 80),
    "tips(hard=true)": 6 * (80 * 9 + 80 + 4),
    "rank": 6 * 20 * 4,
    "rank((0.5, 0, 0.5, 0))": 6 * 20 * 2,
    "channelranks": 0,
    "owa(0)": 0,
    "owa(0.5)": 6 * 20 * 4,
    "topk(3)": 6 * 20 * 3,
    "quantile": 0,
    "kernel": 6 * 20 * 4,
    "gauss(0.5)": 6 * 20 * 25,
    "phase": 0,
    "lme": 6 * 20 * 4,
    "lehmer(2)": 6 * 20 * 4,
    "mix(0.5, avg, blur(3))": 6 * 20 * (4 + 9 + 2),
    "prefilter(0.5, avg)": 6 * 70 * 9 + 6 * 20 * 4,
    "prefilter(0, max)": 0,
}


@pytest.mark.parametrize("spec", list(BY_HAND))
def test_multiply_adds_of_operators_by_hand(spec: str) -> None:
    operator = build_operator(spec, 6)
    assert operator.multiply_adds((7, 10)) == BY_HAND[spec]
    assert count_multiply_adds(operator, torch.zeros(1, 6, 7, 10)) == BY_HAND[spec]


def test_every_operator_counts_its_window_or_has_a_count_by_hand() -> None:
    by_hand = {spec.split("(")[0] for spec in BY_HAND}
    for name, cls in OPERATORS.items():
        assert name in by_hand or cls.multiply_adds is Downsample.multiply_adds, name


def test_a_choice_that_is_given_is_not_counted() -> None:
    for spec in ("aps", "lps", "tips(hard=true)"):
        assert build_operator(spec, 6).multiply_adds((7, 10), chosen=True) == 0
    assert build_operator("aps(2, filter=3)", 6).multiply_adds((7, 10), chosen=True) == 6 * 70 * 9
    # ResNet-8: the shortcuts take the phase that the main branch chose.
    counts = {
        spec: count_multiply_adds(build_model(f"zoo:resnet8?operator={spec}&width=4"), torch.zeros(1, 3, 16, 16))
        for spec in ("subsample", "aps")
    }
    assert counts["aps"] - counts["subsample"] == 8 * 16 * 16 + 16 * 8 * 8


def test_multiply_adds_of_a_network_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), build_operator("blur(3)", 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 10),
    )  # fmt: skip
    assert count_multiply_adds(network, torch.zeros(1, 3, 12, 12)) == 144 * 3 * 8 * 9 + 36 * 8 * 9 + 80
    assert count_multiply_adds(network, torch.zeros(2, 3, 12, 12)) == 2 * (144 * 3 * 8 * 9 + 36 * 8 * 9 + 80)
    assert all(not (m._forward_hooks or m._forward_pre_hooks) for m in network.modules())


def test_hooks_go_when_the_network_fails() -> None:
    operator = build_operator("tips", 4)
    with pytest.raises(InputError):
        count_multiply_adds(operator, torch.zeros(1, 3, 8, 8))
    assert not operator._forward_hooks
    assert not operator._forward_pre_hooks


class Clock:
    """A clock that only the networks below move."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Sleeper(nn.Module):
    """Takes ``seconds`` for its first pass, and each time a tenth more."""

    def __init__(self, seconds: float = 0, clock: Clock | None = None) -> None:
        super().__init__()
        self.seconds, self.clock = seconds, clock or Clock()
        self.weight = nn.Parameter(torch.ones(5))
        self.norm = nn.BatchNorm2d(3).eval()
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.clock.now += self.seconds * (1 + 0.1 * len(self.modes))
        self.modes.append(self.training)
        return x.mean((2, 3)) * self.weight[:3]


def test_timings_are_of_the_passes_and_relative_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(cost, "time", clock)
    model, reference = Sleeper(0.3, clock), Sleeper(0.1, clock)
    reference.modes.append(True)  # a pass ahead
    steps: list[torch.Tensor] = []
    model.weight.register_hook(steps.append)
    rows = measure_cost(model, torch.randn(4, 3, 8, 6), reference, repeats=5, name="nap").set_index("quantity")
    # A pass each to count, 2 to warm up, 5 timed; then 2 and 5 steps.
    for quantity, first in (("latency", 3), ("training_step", 10)):
        own = np.array([0.3 * (1 + 0.1 * (first + i)) for i in range(5)])
        other = np.array([0.1 * (1 + 0.1 * (first + 1 + i)) for i in range(5)])
        row = rows.loc[quantity]
        assert row[["low", "value", "high"]].tolist() == pytest.approx(sorted(own)[1:4])
        ends = ["relative_low", "relative", "relative_high"]
        assert row[ends].tolist() == pytest.approx(sorted(own / other)[1:4])
        assert (row["repeats"], row["threads"], row["device"]) == (5, torch.get_num_threads(), "cpu")
    assert (rows["reference"] == "nap").all()
    assert (rows["input_size"] == "8x6").all()
    assert (rows["batch_size"] == 4).all()
    assert rows.loc["parameters", "value"] == 11
    assert rows.loc["parameters", "relative"] == 1
    assert model.modes == [False] * 8 + [True] * 7
    assert model.training
    assert not model.norm.training
    assert torch.equal(model.weight, torch.ones(5))
    assert (len(steps), model.weight.grad) == (7, None)  # backward is timed, and leaves nothing


def test_pairs_are_measured_in_turn_each_first_by_turns() -> None:
    order: list[str] = []
    times = in_turn([lambda: order.append("a"), lambda: order.append("b")], 3, torch.device("cpu"))
    assert "".join(order) == "ab" + "ba" + "ab" + "ba" + "ab"
    assert times.own.shape == times.reference.shape == (3,)


def test_without_a_reference_there_are_absolute_values_alone() -> None:
    rows = measure_cost(Sleeper(), torch.randn(2, 3, 4, 4), repeats=2)
    assert rows["value"].notna().all()
    assert rows[["relative", "reference"]].isna().all(axis=None)


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="give a batch"):
        measure_cost(Sleeper(), torch.zeros(0, 3, 4, 4))
    with pytest.raises(DataError, match="give a batch"):
        measure_cost(Sleeper(), torch.zeros(1, 3, 4, 4), repeats=0)
    pair = nn.Module()
    pair.forward = lambda x: (x, x)
    with pytest.raises(ModelError, match="returns a tuple"):
        measure_cost(pair, torch.zeros(1, 3, 4, 4))
    with pytest.raises(DataError, match="cost_repeats is 0"):
        Options(cost_repeats=0)


def test_reference_of_a_model_string() -> None:
    assert reference_model("zoo:resnet20?operator=tips(pool=phase)&width=8") == "zoo:resnet20?operator=max&width=8"
    assert reference_model("zoo:smallcnn") == "zoo:smallcnn?operator=max"
    assert reference_model("python:nets.py:build?operator=blur") == "python:nets.py:build?operator=max"
    assert reference_model("timm:resnet18") is None
    assert reference_model("python:nets.py:build") is None


COUNTED = ["checkpoint", "sha256", "model", "quantity", "value", "unit", "relative", "reference", "input_size"]


def test_a_zoo(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, read_all: Callable[[Path], dict[str, pd.DataFrame]]
) -> None:
    options = Options(collect=("cost",), cost_batch=64, cost_repeats=2)
    tables = []
    for name, some in (("one", images), ("two", images.head(3))):
        assert collect(zoo, some, tmp_path / name, options, progress=False).measured == 6
        tables.append(read_all(tmp_path / name)["cost"])
        # The costs are the same on other images.
        assert not plan_run(zoo, images.head(20), tmp_path / name, options).pending
    counted = [
        rows[rows["quantity"].isin(["parameters", "multiply_adds"])][COUNTED].reset_index(drop=True) for rows in tables
    ]
    pd.testing.assert_frame_equal(*counted)
    rows = tables[0].set_index(["checkpoint", "quantity"])
    assert len(rows) == 12
    assert (rows["batch_size"] == 64).all()
    assert (rows["reference"] == "max").all()
    base = 32 * 32 * 9 * 4 + 16 * 16 * 9 * 4 * 8 + 8 * 8 * 9 * 8 * 16 + 160
    pools = {"max": 0, "avg": 1024 * 4 + 256 * 8 + 64 * 16, "aps": 1024 * 4 + 256 * 8 + 64 * 16}
    for name, own in pools.items():
        assert rows.loc[(name, "multiply_adds"), "value"] == base + own
        assert rows.loc[(name, "multiply_adds"), "relative"] == pytest.approx((base + own) / base)
    timed = rows[rows["unit"] == "s"]
    assert np.isfinite(timed[["value", "relative", "relative_low", "relative_high"]]).all(axis=None)
    assert math.isclose(timed["repeats"].min(), 2)


def test_several_jobs_are_refused(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="disturb each other"):
        collect(zoo, images, tmp_path / "out", Options(collect=("cost",)), jobs=2)


@pytest.mark.slow
def test_the_bundled_zoo_from_the_command_line_to_figure_and_table(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = str(tmp_path / "tables")
    arguments = ["collect", str(repository / "data/zoo"), "--data", "digits", "--out", tables, "--collect", "cost"]
    arguments += ["--cost-batch", "4", "--cost-repeats", "2", "--only", "smallcnn-[mt]*-circular-s40000-e020"]
    assert main(arguments) == 0
    only = ["--only", "cost,table_cost", "--format", "png"]
    assert main(["figures", tables, "--out", str(tmp_path / "figures"), *only]) == 0
    assert "table_cost.md" in capsys.readouterr().out
    shown = pd.read_csv(tmp_path / "figures/table_cost.csv").set_index("operator_spec")
    assert shown.loc["max", "multiply_adds_ratio"] == 1
    # 4, 8 and 16 channels at 32, 16 and 8 pixels: 3x3 convolutions and a head; 10 parameters and 11 multiply-adds per
    # channel and pixel of tips.
    parameters = 9 * (4 + 4 * 8 + 8 * 16) + 2 * (4 + 8 + 16) + 17 * 10
    base = 9 * (4 * 1024 + 4 * 8 * 256 + 8 * 16 * 64) + 160
    assert shown.loc["tips", "parameters"] == parameters + 10 * 28
    tips = 11 * (4 * 1024 + 8 * 256 + 16 * 64) + 4 * 28
    assert shown.loc["tips", "multiply_adds_ratio"] == pytest.approx((base + tips) / base)
