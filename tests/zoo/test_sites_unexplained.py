"""What is listed and not measured, what is told again in every batch, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.explained import remark
from invariscope.collectors.measure.msb import measure_msb
from invariscope.zoo.operators import build_operator
from invariscope.zoo.sites import find_sites, replay

IMAGES = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(3))


class Call(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Quantised(nn.Module):
    """A strided convolution in 8 bits."""

    def __init__(self) -> None:
        super().__init__()
        quantised = pytest.importorskip("torch.ao.nn.quantized")
        self.conv = quantised.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(quantise(x)).dequantize()


def quantise(x: Tensor) -> Tensor:
    return torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)


def crop_of_frequencies(x: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x)[:, :, :8, :5], s=(8, 8))


def negative_phases(x: Tensor) -> Tensor:
    return x[:, :, ::2, ::2] - x[:, :, 1::2, 1::2]


def stack_of_phases(x: Tensor) -> Tensor:
    return torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)


def aps(x: Tensor) -> Tensor:
    phases = stack_of_phases(x)
    return phases[torch.arange(len(x)), phases.flatten(2).norm(dim=2).argmax(1)]


@pytest.mark.parametrize("function", [
    crop_of_frequencies,
    negative_phases,
    lambda x: x.view(8, 3, 8, 2, 8, 2).std((3, 5)),
    lambda x: x.view(8, 3, 8, 2, 8, 2).square().sum((3, 5)).sqrt(),
    lambda x: torch.einsum("nchw,cdij,ih,jw->ndij", x, torch.rand(3, 3, 8, 8), torch.rand(8, 16), torch.rand(8, 16)),
])  # fmt: skip
def test_a_shrink_that_is_not_explained_is_listed(function: Callable[[Tensor], Tensor]) -> None:
    model = nn.Sequential(Call(function), nn.Conv2d(3, 2, 1))
    (site,) = find_sites(model, IMAGES)
    assert str(site.reason).startswith("16×16 → 8×8, not explained: ")
    assert measure_msb(model, IMAGES, batch_size=8)["reason"].tolist() == [site.reason]


def test_quantised_layers() -> None:
    (site,) = find_sites(Quantised(), IMAGES)
    assert site.reason == "16×16 → 8×8, not explained: by a function whose sampling is not known here"
    for function, spec in ((F.max_pool2d, "max"), (F.avg_pool2d, "avg")):
        row = measure_msb(Call(lambda x, pool=function: pool(quantise(x), 2).dequantize()), IMAGES).iloc[0]
        same = measure_msb(build_operator(spec, 3), quantise(IMAGES).dequantize()).iloc[0]
        assert row["msb_corrected"] == same["msb_corrected"]


def test_all_phases_by_one_axis_after_the_other_keep_every_pixel() -> None:
    def merge(x: Tensor) -> Tensor:
        upper, lower = x[:, :, ::2], x[:, :, 1::2]
        return torch.cat([upper[..., ::2], upper[..., 1::2], lower[..., ::2], lower[..., 1::2]], 1)

    (site,) = find_sites(nn.Sequential(Call(merge), nn.Conv2d(12, 2, 1)), IMAGES)
    assert (site.kind, site.reason) == ("space_to_depth", "it keeps every pixel, as channels: nothing is sampled")


@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_parallel_poolings_that_are_added_are_one_site(a: float) -> None:
    model = nn.Sequential(Call(lambda x: a * F.max_pool2d(x, 2) + (1 - a) * F.avg_pool2d(x, 2)), nn.ReLU())
    (row,) = measure_msb(model, IMAGES).to_dict("records")
    assert row["msb_corrected"] == pytest.approx(a, abs=1e-6)


def test_parallel_poolings_of_which_that_is_not_known_are_marked() -> None:
    def mixed(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2).mul(-2) + F.avg_pool2d(x, 2)

    frame = measure_msb(nn.Sequential(Call(mixed), nn.Conv2d(3, 2, 1)), IMAGES)
    assert frame["site_kind"].tolist() == ["max", "avg"]
    assert frame["reason"].str.startswith("parallel").all()
    assert frame["msb_corrected"].isna().all()


def test_two_images_stacked_in_the_batch() -> None:
    model = nn.Sequential(Call(lambda x: torch.cat([x, x.flip(-1)])), nn.MaxPool2d(2))
    frame = measure_msb(model, IMAGES, batch_size=5)
    assert frame["site"].tolist() == ["1"]
    assert "no image has its own" in frame["reason"][0]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_do_not_matter(batch_size: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), Call(aps), nn.Conv2d(4, 4, 3, padding=1), Call(
        lambda x: x.reshape(len(x), 4, 4, 2, 4, 2).amax((3, 5))
    )).double()  # fmt: skip
    whole = measure_msb(model, IMAGES.double())
    assert whole["msb_corrected"].notna().all()
    parts = measure_msb(model, IMAGES.double(), batch_size=batch_size)
    pd.testing.assert_frame_equal(parts, whole, rtol=0, atol=1e-9)


def test_large_maps_are_read_a_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(Call(aps), nn.ReLU())
    whole = measure_msb(model, IMAGES)
    monkeypatch.setattr(replay, "AT_ONCE", 2 * 3 * 256)
    pd.testing.assert_frame_equal(measure_msb(model, IMAGES), whole, rtol=0, atol=1e-12)
    fixed = nn.Sequential(Call(lambda x: x.view(8, 3, 8, 2, 8, 2).amax((3, 5))), nn.ReLU())
    assert measure_msb(fixed, IMAGES)["msb_corrected"].tolist() == [1.0]
    monkeypatch.setattr(replay, "LARGEST", 1000)
    assert "too large to be run again" in measure_msb(fixed, IMAGES)["reason"][0]


def test_a_network_that_does_something_else_in_another_batch_is_planned_anew() -> None:
    def either(x: Tensor) -> Tensor:
        phases = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        if len(x) == 8:
            return torch.maximum(torch.maximum(*phases[:2]), torch.maximum(*phases[2:]))
        return torch.stack(phases).amax(0)

    frame = measure_msb(nn.Sequential(Call(either), nn.ReLU()), torch.cat([IMAGES, IMAGES[:3]]), batch_size=8)
    assert frame["msb_corrected"].tolist() == [1.0]
    assert frame["n_images"].tolist() == [11]


def test_what_is_said_in_one_line() -> None:
    measured, aside = ("a", None, "reader"), ("b", "side branch: it comes back only as a gate", "reader")
    unknown, listed = ("c", "why", "no"), ("d", "it keeps every pixel", "reader")
    assert remark([]) == "no downsampling site"
    assert remark([aside]) == "no downsampling site, 1 on side branches"
    assert remark([measured, aside]) is remark([measured, listed]) is None
    assert remark([measured, aside, unknown]) == "1 of 2 shrinks not explained: c (why)"
    assert remark([listed, unknown]) == "none of its 2 downsampling sites is measured: c (why)"
    assert remark([listed]) == "none of its 1 downsampling sites is measured: d (it keeps every pixel)"
