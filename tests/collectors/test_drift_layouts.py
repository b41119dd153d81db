"""Drift of networks whose maps have their channels last: that of their twins that do not permute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from invariscope_tests_msb_loops import Call  # loaded by conftest.py
from torch import Tensor, nn

from invariscope.collectors.measure.drift import LAST, Watched, measure_drift
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.zoo.operators import OPERATORS, OperatorSpec, build_operator
from invariscope.zoo.wrapping import wrap_in_place

VALUES = ["drift_in", "drift_in_se", "drift_out", "drift_out_se", "blame", "blame_se"]


class Net(nn.Module):
    """A pooling, then layers of pixels on maps of the same number of channels as of rows, and a head.

    ``last``: they are linear layers and layer norms on maps with channels last, and never come back; else 1x1
    convolutions, and norms of permuted maps.
    """

    def __init__(self, last: bool, end: Callable[[Tensor], Tensor] | None = None, width: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last, self.end = last, end
        self.conv, self.pool = nn.Conv2d(3, width, 3, padding=1), nn.MaxPool2d(2)
        self.first, self.norm, self.second = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, width)
        self.ending, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv(x).relu())
        if not self.last:
            for layer in (self.first, self.second):
                x = x + nn.functional.conv2d(x, layer.weight[:, :, None, None], layer.bias).relu()
                if layer is self.first:
                    x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return self.head(self.ending(x.mean((2, 3), keepdim=True).permute(0, 2, 3, 1)).flatten(1))
        x = x.permute(0, 2, 3, 1)
        x = self.norm(x + self.first(x).relu())
        x = x + self.second(x).relu()
        if self.end is not None:
            x = self.end(x)
        return self.head(self.ending(x.mean((1, 2), keepdim=True)).flatten(1))


def tokens(x: Tensor) -> Tensor:
    """To a row of pixels and back, and through windows of them, as in networks of attention."""
    n, h, w, c = x.shape
    windows = (2 * x.reshape(n, h * w, c)).view(n, h, w, c).view(n, 2, h // 2, 2, w // 2, c).transpose(2, 3)
    return windows.transpose(2, 3).reshape(n, h, w, c) / 2


@pytest.mark.parametrize("end", [None, tokens])
def test_a_network_with_channels_last_has_the_drift_of_its_twin(end: Any) -> None:
    """16 pixels become 8, as many as there are channels, so that no size betrays which is which."""
    images, plan = torch.randn(6, 3, 16, 16, dtype=torch.float64), ShiftPlan.sampled(6, 3, 3, "zero", fill="mean")
    found, wanted = (measure_drift(Net(last, end).double(), images, plan, batch_size=4) for last in (True, False))
    assert found["site_kind"].tolist() == wanted["site_kind"].tolist() == ["max", "logits"]
    assert wanted[VALUES].notna().all(axis=None)
    assert found[VALUES].to_numpy() == pytest.approx(wanted[VALUES].to_numpy(), rel=1e-9)


class Plain(nn.Module):
    """A pooling and what ``end`` makes of its map; the pixels of the last map are seen."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool, self.end = nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), Call(end)

    def forward(self, x: Tensor) -> Tensor:
        x = self.end(self.pool(self.conv(x).relu()))
        return x.reshape(len(x), -1)[:, ::7]


def test_where_a_view_takes_the_channels_apart_the_sizes_tell_them_or_nothing_does() -> None:
    images, plan = torch.randn(6, 3, 16, 16), ShiftPlan.sampled(6, 3)

    def shuffled(x: Tensor) -> Tensor:
        return x.reshape(len(x), 2, 2, *x.shape[2:]).flatten(1, 2)

    def square(x: Tensor) -> Tensor:
        return torch.cat([shuffled(x), shuffled(x)], 1)

    told = measure_drift(Plain(shuffled), images, plan)
    same = measure_drift(Plain(lambda x: x + 0), images, plan)
    assert told[VALUES].to_numpy() == pytest.approx(same[VALUES].to_numpy())
    none = measure_drift(Plain(square), images, plan)
    reason = "which dimension of the last map is that of its channels cannot be told"
    assert none["reason"].tolist() == [f"blame: {reason}", f"drift_in, blame: {reason}"]
    assert none.loc[0, "drift_in"] == pytest.approx(same.loc[0, "drift_in"])
    assert none[["blame"]].isna().all(axis=None)


class Twice(nn.Module):
    """Convolution and operator, twice; what is ``seen`` by the head is kept."""

    def __init__(self, spec: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        pads: Any = {"padding": 1, "padding_mode": "circular"}
        self.convs = nn.ModuleList([nn.Conv2d(3, 4, 3, **pads), nn.Conv2d(4, 8, 3, **pads)])
        self.downs = nn.ModuleList([build_operator(spec, channels) for channels in (4, 8)])
        self.head = nn.Linear(8, 5)
        self.seen = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        for conv, down in zip(self.convs, self.downs, strict=True):
            x = down(conv(x).relu())
        self.seen = x
        return self.head(x.mean((2, 3)))


SPECS = [
    OperatorSpec(name, arguments).canonical for name, cls in OPERATORS.items() for arguments in ({}, *cls.examples[:1])
]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("spec", dict.fromkeys(SPECS))
def test_the_last_map_is_what_the_head_sees_whatever_the_operator_is_made_of(
    spec: str, layout: torch.memory_format
) -> None:
    """Some write their map block by block into room made for it, in channels-last alone; circular padding does too."""
    network = Twice(spec).eval().to(memory_format=layout)
    wrap_in_place(network)
    watched = Watched()
    with torch.no_grad():
        for count in (5, 5, 2):
            batch = torch.randn(count, 3, 16, 16).to(memory_format=layout)
            _, found = watched.run(network, batch)
            network(batch)
            assert torch.from_numpy(found[LAST]).numpy() == pytest.approx(
                network.seen.mean((2, 3)).numpy(), rel=1e-4, abs=1e-5
            )


def _into_room(x: Tensor) -> Tensor:
    room = torch.empty_like(x)
    for block in (slice(0, 1), slice(1, None)):
        torch.mul(x[block], 3.0, out=room[block])
    return room


def _set(x: Tensor) -> Tensor:
    room = torch.empty(x.shape)
    room[:, ::2], room[:, 1::2] = 3.0 * x[:, ::2], 3.0 * x[:, 1::2]
    return room


def _copied(x: Tensor) -> Tensor:
    room = torch.zeros(x.shape)
    room[:, :2].copy_(3.0 * x[:, :2])
    room[:, 2:].add_(3.0 * x[:, 2:])
    return room


@pytest.mark.parametrize("write", [_into_room, _set, _copied])
def test_a_map_that_is_written_part_by_part_is_the_last(write: Callable[[Tensor], Tensor]) -> None:
    images, plan = torch.randn(2, 3, 16, 16), ShiftPlan.sampled(2, 3)
    found = measure_drift(Plain(lambda x: write(x).relu()), images, plan)
    wanted = measure_drift(Plain(lambda x: (3.0 * x).relu()), images, plan)
    assert found[VALUES].to_numpy() == pytest.approx(wanted[VALUES].to_numpy(), rel=1e-5, nan_ok=True)
    assert found["blame"].notna().any()
