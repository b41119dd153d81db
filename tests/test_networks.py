"""A sample of timm's and torchvision's networks: sites, strides along every path, MSB, surgery (`make sweep`: all)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def load() -> ModuleType:
    name = "sweep_networks"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


sweep = load()


@pytest.fixture(scope="module", autouse=True)
def libraries() -> None:
    sweep.declare_torchvision_operators()
    for name in ("timm", "torchvision"):
        pytest.importorskip(name)


@pytest.mark.parametrize("network", sweep.SAMPLE)
def test_network_of_another_library(network: str) -> None:
    outcome = sweep.check(network)
    assert {field: getattr(outcome, field) for field in sweep.FIELDS} == dict.fromkeys(sweep.FIELDS, "ok")
    assert outcome.sites


def test_the_lists_are_what_they_claim_to_be() -> None:
    names = [f"timm:{name}" for name in sweep.TIMM] + [f"torchvision:{name}" for name in sweep.TORCHVISION]
    assert len(sweep.TIMM) >= 60
    assert len(sweep.SAMPLE) >= 25
    assert len(set(names)) == len(names)
    assert set(sweep.SAMPLE) | set(sweep.EXCEPTIONS) <= set(names)


class Branches(nn.Module):
    def __init__(self, function: str) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 3, 3, 2, 1), function

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.function == "missed branch":
            return y + torch.roll(x, 1)[:, :, :8, :8]
        if self.function == "missed site":
            return F.max_pool2d(x[:, :, :8, :8], 2)
        return y + F.avg_pool2d(x, 2)


@pytest.mark.parametrize(("function", "verdict"), [
    ("missed branch", "branches that come together have total strides ('1', '1'), ('2', '2')"),
    ("missed site", "max: total stride 2 x 2, but 16 is (4, 4)"),
    ("right", "ok"),
])  # fmt: skip
def test_the_check_of_strides_can_fail(function: str, verdict: str) -> None:
    """Cutting a map to a corner is downsampling to these eyes, and no site: as if a site had been missed."""
    assert sweep.right_strides(Branches(function), sweep.Outcome(""), 16) == verdict
