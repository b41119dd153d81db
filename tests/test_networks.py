"""A sample of timm's and torchvision's networks: sites, strides along every path, MSB, surgery (`make sweep`: all)."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope import cli
from invariscope.base.errors import ModelError
from invariscope.collectors.measure.msb import PATCH_WINDOWS, measure_msb
from invariscope.collectors.schema import MSB_READINGS
from invariscope.zoo.loading import build_model
from invariscope.zoo.sites import Use, find_sites, record


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
def libraries(timm: ModuleType, torchvision: ModuleType) -> None:
    """Skips these tests where one of the two is not installed."""


LONG = {
    f"timm:{name}"
    for name in (
        *("res2net50_14w_8s", "visformer_tiny", "inception_v3", "tresnet_m", "resnetv2_50x1_bit", "resnetblur50"),
        *("repghostnet_050", "tf_efficientnet_b0", "efficientvit_m0", "hrnet_w18_small", "mobilevit_xxs", "resnest14d"),
        *("skresnet18", "fasternet_t0", "nf_regnet_b0", "hardcorenas_a", "ghostnet_050"),
        *("regnetx_002", "resnet18d"),
    )
}
"""The dearest of the sample, each with a smaller one beside it that has the same kinds of sites: for the full run."""


@pytest.mark.parametrize(
    "network",
    [pytest.param(name, marks=pytest.mark.full) if name in LONG else name for name in sweep.SAMPLE],
)
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
    assert set(sweep.SAMPLE) > LONG


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


SAMPLED = {
    "timm:convnext_atto": 64,
    "timm:tf_efficientnet_b0": 64,
    "timm:regnetx_002": 64,
    "timm:vit_tiny_patch16_224?img_size=64&depth=1": 64,
    "zoo:smallcnn?operator=max": 32,
    "zoo:smallcnn?operator=maxblur": 32,
    "zoo:resnet8?operator=strided": 32,
    "zoo:resnet8?operator=tips": 32,
}
"""Patches of 4 and of 16 pixels, ``same`` padding, groups, slicing, operators."""


@pytest.mark.parametrize(("network", "size"), SAMPLED.items())
def test_sampled_windows_estimate_all_of_them(network: str, size: int) -> None:
    torch.manual_seed(0)
    model = build_model(network)
    images = torch.randn(12, 3, size, size, generator=torch.Generator().manual_seed(1))
    full = measure_msb(model, images, windows_per_image=size * size)
    part = measure_msb(model, images, windows_per_image=5)
    assert (part["n_windows"] < full["n_windows"]).any()
    assert (part["n_windows"] <= 12 * 5 * part["channels"]).all()
    for name in (*MSB_READINGS, "flat_fraction"):
        known = full[name].notna()
        assert (part[name].notna() == known).all()
        near = (part[name] - full[name]).abs() <= 4 * part[f"{name}_se"]
        assert near[known].all(), name


def test_patches_of_16_pixels_are_sampled_unless_all_are_asked_for() -> None:
    model = build_model("timm:vit_tiny_patch16_224?img_size=160&depth=1")
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    (site,) = find_sites(model, images)
    assert (site.kind, site.kernel, site.stride, site.input_size) == ("conv", (16, 16), (16, 16), (145, 145))
    assert measure_msb(model, images)["n_windows"].tolist() == [2 * PATCH_WINDOWS * 192]
    assert measure_msb(model, images, windows_per_image=100)["n_windows"].tolist() == [2 * 100 * 192]


def test_strided_convolutions_of_timm_keep_the_padding_of_their_stride() -> None:
    """``same`` padding depends on the stride: the dense map has the strided call's, and holds its output."""
    from timm.layers import Conv2dSame, MixedConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame

    torch.manual_seed(0)
    images = torch.randn(2, 4, 15, 14)
    layers = [
        Conv2dSame(4, 6, 3, 2), Conv2dSame(4, 6, 5, 2, dilation=2, groups=2), StdConv2dSame(4, 6, 3, 2),
        ScaledStdConv2dSame(4, 6, 3, 2), StdConv2d(4, 6, 3, 2, padding=1), MixedConv2d(4, 6, [3, 5], 2, padding="same"),
    ]  # fmt: skip
    for layer in layers:
        uses: list[Use] = []
        expected = layer.eval()(images)
        record(layer, images, lambda site, use, uses=uses: uses.append(use))
        outputs = torch.cat([use.view(slice(0, 2)).outputs for use in uses], 1).unflatten(2, (8, 7))
        assert torch.allclose(outputs, expected, atol=1e-6)


def test_nothing_is_left_on_a_real_network() -> None:
    model = build_model("timm:mobilevit_xxs").train()
    model.stem.eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    flags = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    assert find_sites(model, torch.zeros(1, 3, 64, 64))
    with pytest.raises(ModelError, match="the network fails on a batch of images 1 x 4 x 64 x 64"):
        find_sites(model, torch.zeros(1, 4, 64, 64))
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == flags
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_sites_command_takes_the_input_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sites", "timm:convnext_tiny"]) == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "timm:convnext_tiny: 4 downsampling sites (input 3 x 224 x 224)"
    assert lines[2].split() == ["0", "stem.0", "conv", "4x4", "4x4", "96", "221x221", "56x56", "reader"]
    assert cli.main(["sites", "timm:lcnet_035?in_chans=1", "--size", "64", "--json"]) == cli.DONE
    rows = json.loads(capsys.readouterr().out)
    assert [row["output_size"] for row in rows] == [[32, 32], [16, 16], [8, 8], [4, 4], [2, 2]]
    assert rows[0]["input_size"] == [64, 64]
    assert cli.main(["sites", "torchvision:inception_v3?init_weights=false"]) == cli.DONE
    assert "(input 3 x 299 x 299)" in capsys.readouterr().out
