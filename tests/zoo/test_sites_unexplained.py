"""What is listed and not measured, what is told again in every batch, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.explained import remark
from invariscope.collectors.measure.msb import measure_msb
from invariscope.zoo.operators import build_operator
from invariscope.zoo.sites import find_sites, replay
from tests.zoo.test_sites_battery import WAYS, Call

IMAGES = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(3))


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


def linear_in_rows(x: Tensor) -> Tensor:
    return F.linear(x, torch.rand(8, 16))


def stack_of_phases(x: Tensor) -> Tensor:
    return torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)


def aps(x: Tensor) -> Tensor:
    phases = stack_of_phases(x)
    return phases[torch.arange(len(x)), phases.flatten(2).norm(dim=2).argmax(1)]


def test_a_learned_layer_of_an_axis_is_listed() -> None:
    for before in (nn.Identity(), nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.GELU())):
        (site,) = find_sites(nn.Sequential(before, Call(linear_in_rows), nn.Conv2d(3, 2, 1)), IMAGES)
        assert (site.output_size, site.explained) == ((16, 8), "no")


def test_layers_of_the_tokens_of_windows_are_none_of_a_map() -> None:
    def tokens(x: Tensor) -> Tensor:
        windows = x.view(8, 16, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(8, 16, 16, 16)
        wide = F.linear(windows, torch.rand(64, 16)).relu()
        return (windows + F.linear(wide, torch.rand(16, 64))).view(8, 4, 4, 4, 4, 16).permute(0, 5, 1, 3, 2, 4)

    model = nn.Sequential(nn.Conv2d(3, 16, 1), Call(lambda x: tokens(x).reshape(8, 16, 16, 16)), nn.MaxPool2d(2))
    assert [site.name for site in find_sites(model, IMAGES)] == ["2"]


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
    assert site.explained == "no"
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


@pytest.mark.parametrize("layer", [nn.MaxPool2d(2), nn.Conv2d(3, 4, 2, 2), Call(aps), build_operator("tips", 3)])
def test_two_images_stacked_in_the_batch(layer: nn.Module) -> None:
    model = nn.Sequential(Call(lambda x: torch.cat([x, x.flip(-1)])), layer, nn.ReLU())
    frame = measure_msb(model, IMAGES, batch_size=5)
    assert frame["site"].tolist() == ["1"] if not isinstance(layer, Call) else len(frame) == 1
    assert "no image has its own" in frame["reason"][0]
    assert frame["msb_corrected"].isna().all()


def test_no_identity_holds_free_text() -> None:
    (site,) = find_sites(nn.MaxPool2d(2), IMAGES)
    assert site == replace(site, reason="why", explained="no")
    changed = replace(site, kind="avg", input_size=(8, 8))
    assert site.changed_from(changed) == "kind avg and then max, input_size (8, 8) and then (16, 16)"


def test_a_batch_that_cannot_be_read_takes_the_site_with_it() -> None:
    def signed(x: Tensor) -> Tensor:
        sign = torch.where(x.mean() > 3, -1.0, 1.0)
        return (x.view(-1, 3, 8, 2, 8, 2) * sign).amax((3, 5))

    images = torch.cat([IMAGES, IMAGES + 9])
    (row,) = measure_msb(nn.Sequential(Call(signed), nn.ReLU()), images, batch_size=8).to_dict("records")
    assert (row["site_kind"], row["explained"], row["n_windows"]) == ("max", "no", 0)
    assert row["reason"] == "16×16 → 8×8, not explained: in one of the batches it gives some pixels a negative weight"


def test_the_places_of_a_window_are_those_of_every_batch() -> None:
    def medians(x: Tensor) -> Tensor:
        return x.unfold(2, 3, 2).unfold(3, 3, 2).flatten(4).median(4)[0]

    noise = torch.randn(2, 3, 65, 65, generator=torch.Generator().manual_seed(5)).double()
    rising = torch.arange(65.0) + 100 * torch.arange(65.0)[:, None] + 0.001 * noise
    images = torch.cat([noise, rising])  # in the second batch the median is always the middle
    model = nn.Sequential(Call(medians), nn.ReLU())
    parts, whole = (measure_msb(model, images, batch_size=size).drop(columns="site") for size in (2, 4))
    pd.testing.assert_frame_equal(parts, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["sum of phases", "means of lines", "index_add", "view mean"])
def test_a_mean_is_compared_with_the_maximum_and_not_its_sum(name: str) -> None:
    function = next(way[2] for way in WAYS if way[0] == name)
    images = IMAGES.relu()
    found = measure_msb(nn.Sequential(Call(function), nn.ReLU()), images).iloc[0]
    expected = measure_msb(build_operator("avg", 3), images).iloc[0]
    assert found["msb"] == pytest.approx(expected["msb"], abs=0.01)
    assert found["msb_all"] == pytest.approx(expected["msb_all"], abs=0.01)


def test_a_low_pass_is_no_part_of_a_pool_of_values_after_it() -> None:
    for pool, kinds in ((nn.MaxPool2d(2), ["max"]), (build_operator("soft(beta=2)", 3), ["soft"])):
        frame = measure_msb(nn.Sequential(nn.AvgPool2d(3, 1, 1), pool), IMAGES)
        assert frame["site_kind"].tolist() == kinds
        alone = measure_msb(pool, F.avg_pool2d(IMAGES, 3, 1, 1))
        assert frame["msb_corrected"][0] == pytest.approx(alone["msb_corrected"][0], abs=1e-12)
    for last, kind in ((nn.AvgPool2d(1, 2), "avg+avg"), (build_operator("aps", 3), "avg+aps")):
        assert [site.kind for site in find_sites(nn.Sequential(nn.AvgPool2d(3, 1, 1), last), IMAGES)] == [kind]
    assert [site.kind for site in find_sites(nn.Sequential(nn.MaxPool2d(2, 1), nn.AvgPool2d(2)), IMAGES)] == ["max+avg"]


class Attention(nn.Module):
    """Keys and values of a reduced map, attended to from every pixel: these values are on the main path."""

    def __init__(self, reduce: nn.Module, fused: bool) -> None:
        super().__init__()
        self.pool, self.reduce, self.fused = nn.MaxPool2d(2), reduce, fused
        self.query, self.key, self.value = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x.relu())
        tokens, small = (y.flatten(2).mT for y in (x, self.reduce(x)))
        query, key, value = self.query(tokens), self.key(small), self.value(small)
        if self.fused:
            return x + F.scaled_dot_product_attention(query, key, value).mT.reshape(x.shape)
        return x + ((query @ key.mT).softmax(2) @ value).mT.reshape(x.shape)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("reduce", "kind"), [
    (nn.AvgPool2d(2), "avg"),
    (nn.Conv2d(3, 3, 2, 2), "conv"),
    (Call(lambda x: x.view(8, 3, 4, 2, 4, 2).mean((3, 5))), "avg"),
])  # fmt: skip
def test_reduced_keys_and_values_of_attention(reduce: nn.Module, kind: str, fused: bool) -> None:
    model = nn.Sequential(Attention(reduce, fused), nn.Conv2d(3, 2, 3, 2))
    sites = find_sites(model, IMAGES)
    assert [(site.kind, site.reason) for site in sites] == [("max", None), (kind, None), ("conv", None)]


def test_channels_that_a_permutation_moves_are_followed() -> None:
    class Tokens(nn.Module):
        """Attention to another map, put together channels last, and a norm of each pixel's channels."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.other, self.conv = (
                nn.Conv2d(3, 16, 3, 2, 1),
                nn.Conv2d(16, 16, 1),
                nn.Conv2d(16, 8, 1),
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            query, small = x.flatten(2).mT[:, None], self.other(x).flatten(2).mT[:, None].contiguous()
            mixed = (
                F.scaled_dot_product_attention(query, small, small).transpose(1, 2).reshape(len(x), *x.shape[2:], 16)
            )
            x = self.conv(mixed.permute(0, 3, 1, 2).contiguous())
            return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True))

    model = nn.Sequential(Tokens(), nn.Conv2d(8, 4, 1))
    assert [(site.name, site.reason) for site in find_sites(model, IMAGES[..., :4, :4])] == [("0.first", None)]


@pytest.mark.parametrize("name", ["two slices", "APS by index", "einsum", "TIPS stacked"])
def test_exported_graphs_are_read_alike(name: str) -> None:
    function = next(way[2] for way in WAYS if way[0] == name)
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    model = nn.Sequential(Call(function), nn.ReLU())
    frames = [measure_msb(each, images) for each in (model, torch.export.export(model, (images,)).module())]
    same = [column for column in frames[0] if column != "site"]
    pd.testing.assert_frame_equal(frames[0][same], frames[1][same], check_dtype=False)


class Blur(nn.Module):
    """One blur: with its filter as a buffer, a frozen parameter, or in a frozen convolution."""

    def __init__(self, keep: str) -> None:
        super().__init__()
        weight = (torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([1.0, 2.0, 1.0]) / 16).repeat(3, 1, 1, 1)
        self.conv = nn.Conv2d(3, 3, 3, 2, groups=3, bias=False).requires_grad_(False) if keep == "convolution" else None
        if self.conv is not None:
            self.conv.weight.copy_(weight)
        elif keep == "buffer":
            self.register_buffer("weight", weight)
        else:
            self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return self.conv(x) if self.conv is not None else F.conv2d(x, self.weight, stride=2, groups=3)


def test_one_blur_has_one_answer() -> None:
    networks: list[nn.Module] = [Blur(keep).eval() for keep in ("buffer", "parameter", "convolution")]
    networks += [torch.export.export(network, (IMAGES,)).module() for network in networks]
    frames = [measure_msb(network, IMAGES).drop(columns="site") for network in networks]
    assert frames[0]["site_kind"].tolist() == ["blur"]
    for frame in frames[1:]:
        pd.testing.assert_frame_equal(frame, frames[0])


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
