"""The downsampling of code that nobody here wrote: channels last, rearranged, compiled, from other libraries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError
from invariscope.collectors.measure.msb import measure_msb
from invariscope.zoo.operators import Avg, Blur, Subsample
from invariscope.zoo.sites import Site, find_sites

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Call(nn.Module):
    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        return self.function(x)


IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LAST = IMAGE.permute(0, 2, 3, 1).contiguous()


def sites(function: Callable[[Tensor], object], image: Tensor = IMAGE) -> list[Site]:
    return find_sites(Call(function), image)


def readings(model: nn.Module, image: Tensor = IMAGE) -> list[list[float]]:
    frame = measure_msb(model, image)
    columns = ["n_windows", "msb", "msb_all", "msb_weight", "msb_top", "msb_corrected", "msb_corrected_se"]
    return frame[columns].to_numpy().tolist()


# Slices and what reduces like one


def test_channels_last_slices_are_measured_as_channels_first_ones() -> None:
    last, first = Call(lambda x: x[:, 1::2, ::2]), Call(lambda x: x[:, :, 1::2, ::2])
    (site,) = find_sites(last, LAST)
    assert site == Site(0, "subsample", "", "subsample", (1, 1), (2, 2), 3, (16, 16), (8, 8))
    assert readings(last, LAST) == readings(first)
    cut, uncut = Call(lambda x: x[:, 1::2, ::2, :2]), Call(lambda x: x[:, :2, 1::2, ::2])
    assert find_sites(cut, LAST)[0].channels == 2
    assert readings(cut, LAST) == readings(uncut)


def test_nearest_and_area_reduction_are_subsampling_and_averaging() -> None:
    nearest = Call(lambda x: F.interpolate(x, scale_factor=0.5))
    assert readings(nearest) == readings(Subsample(3))
    area = Call(lambda x: F.interpolate(x, size=(8, 8), mode="area"))
    assert readings(area) == readings(Avg(3))
    for other in (F.interpolate(IMAGE, size=(7, 7)), F.interpolate(IMAGE, scale_factor=0.5, mode="bilinear")):
        mode = "nearest" if other.shape[-1] == 7 else "bilinear"
        (site,) = sites(lambda x, o=other, m=mode: F.interpolate(x, size=tuple(o.shape[2:]), mode=m))
        assert site.reason == "interpolation to another size is not sampling at a stride"
    assert sites(lambda x: F.interpolate(x, scale_factor=2.0)) == sites(lambda x: F.interpolate(x, size=(16, 16))) == []


def test_blur_then_slice_is_one_site() -> None:
    filt = torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([1.0, 2.0, 1.0]) / 16
    weight = filt.expand(3, 1, 3, 3)
    circular = Call(lambda x: F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight, groups=3)[..., ::2, ::2])
    (site,) = find_sites(circular, IMAGE)
    assert (site.kind, site.kernel, site.input_size) == ("blur+subsample", (3, 3), (16, 16))
    theirs, ours = readings(circular)[0], readings(Blur(3, padding_mode="circular", m=3))[0]
    assert theirs == pytest.approx(ours, abs=1e-9)


# Space-to-depth


def merge(x: Tensor) -> Tensor:
    """Patch merging, by four slices of a map with its channels last."""
    return torch.cat([x[:, 0::2, 0::2, :], x[:, 1::2, 0::2, :], x[:, 0::2, 1::2, :], x[:, 1::2, 1::2, :]], -1)


@pytest.mark.parametrize(("function", "channels_last"), [
    (lambda x: F.pixel_unshuffle(x, 2), False),
    (lambda x: torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1), False),
    (lambda x: x.view(2, 3, 8, 2, 8, 2).permute(0, 3, 5, 1, 2, 4).contiguous().view(2, 12, 8, 8), False),
    (lambda x: x.reshape(2, 3, 8, 2, 8, 2).permute((0, 1, 3, 5, 2, 4)).flatten(1, 3), False),
    (lambda x: x.unflatten(3, (8, 2)).unflatten(2, (8, 2)).transpose(3, 4).permute(0, 2, 3, 1, 4, 5).flatten(3), False),
    (lambda x: torch.reshape(torch.permute(x.view(2, 3, 8, 2, 8, 2), (0, 2, 4, 1, 3, 5)), (2, 64, 12)), False),
    (merge, True),
    (lambda x: x.reshape(2, 8, 2, 8, 2, 3).permute(0, 1, 3, 4, 2, 5).flatten(3), True),
])  # fmt: skip
def test_space_to_depth_by_every_way(function: Callable[[Tensor], Tensor], channels_last: bool) -> None:
    image = LAST if channels_last else IMAGE
    assert function(image).numel() == image.numel()
    (site,) = sites(function, image)
    assert (site.kind, site.stride, site.channels) == ("space_to_depth", (2, 2), 3)
    assert (site.input_size, site.output_size) == ((16, 16), (8, 8))
    assert site.reason == "it keeps every pixel, as channels: nothing is sampled"


@pytest.mark.parametrize("function", [
    # Windows for attention, and back; a grid; attention heads; shuffled channels; depth-to-space.
    lambda x: x.view(2, 3, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 4, 3),
    lambda x: x.view(2, 3, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 3).view(2, 4, 4, 4, 4, 3),
    lambda x: x.view(2, 3, 4, 4, 4, 4).permute(0, 3, 5, 2, 4, 1).reshape(-1, 4, 4, 3),
    lambda x: x.view(2, 3, 4, 4, 16).transpose(1, 2).flatten(2),
    lambda x: x.view(2, 3, 1, 16, 16).transpose(1, 2).reshape(2, 3, 16, 16),
    lambda x: x.reshape(2, 3, 8, 2, 8, 2).permute(0, 1, 2, 4, 3, 5),
    lambda x: x.view(2, 3, 8, 2, 8, 2).reshape(2, 3, 16, 16),
])  # fmt: skip
def test_rearranging_that_makes_nothing_smaller(function: Callable[[Tensor], Tensor]) -> None:
    assert sites(function) == []


def test_some_of_the_phases_are_subsampling_each() -> None:
    def half(x: Tensor) -> Tensor:
        first, second = x[..., ::2, ::2], x[..., 1::2, 1::2]
        assert first.shape == second.shape
        return torch.cat([first.relu(), F.max_pool2d(second.relu(), 1)])

    assert [(site.name, site.kind) for site in sites(half)] == [
        ("subsample", "subsample"), ("subsample#2", "subsample"),
    ]  # fmt: skip
    # Twice the same phase, or phases of two maps, are no space-to-depth; and the last call may be a slice.
    assert len(sites(lambda x: torch.cat([x[..., ::2, ::2]] * 2 + [x[..., ::2, ::2] for _ in range(3)]))) == 4
    assert len(sites(lambda x: [(x if i else x + 1)[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])) == 4


def test_slices_stand_before_what_follows_them() -> None:
    class Merge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return merge(x)

    class Parts(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]

    model = nn.Sequential(Merge(), Call(lambda x: F.max_pool2d(x.permute(0, 3, 1, 2), 2)))
    found = find_sites(model, LAST)
    assert [(site.depth, site.name, site.kind) for site in found] == [(0, "0", "space_to_depth"), (1, "1", "max")]
    assert [site.name for site in find_sites(nn.Sequential(Parts(), Call(lambda x: torch.cat(x))), LAST)] == ["0"]


# What cannot be measured


def test_code_that_cannot_be_watched_is_listed() -> None:
    grid = F.affine_grid(torch.eye(2, 3).expand(2, 2, 3), [2, 3, 8, 8], align_corners=False)
    cases = {
        "it is code outside of torch, which cannot be watched": Call(
            lambda x: torch.from_numpy(x.numpy()[..., ::2, ::2])
        ),
        "it is TorchScript, which cannot be watched": torch.jit.trace(nn.MaxPool2d(2), IMAGE),
        "it keeps whole patches, as channels: nothing is sampled": nn.Unfold(4, stride=4),
        "MSB is defined on images": Call(lambda x: F.max_pool3d(x[:, :, None].expand(-1, -1, 2, -1, -1), 2)),
        "by a function whose sampling is not known here": Call(lambda x: F.grid_sample(x, grid, align_corners=False)),
    }
    for reason, model in cases.items():
        (site,) = find_sites(nn.Sequential(nn.ReLU(), model), IMAGE)
        assert reason in (site.reason or ""), reason
        assert site.name.startswith("1")
        frame = measure_msb(nn.Sequential(nn.ReLU(), model), IMAGE)
        assert frame["reason"].tolist() == [site.reason]
        assert frame["msb"].isna().all()


@pytest.mark.parametrize("function", [
    # Attention: its four dimensions are batch, heads, tokens and channels, or batch, heads, tokens and tokens.
    lambda x: x.transpose(2, 3) @ x[..., :4],
    lambda x: torch.einsum("nchw,nchv->ncwv", x[..., :4], x[..., :8]),
    lambda x: F.scaled_dot_product_attention(x[:, :, :8], x, x[..., :8]),
    lambda x: F.linear(x.flatten(2), torch.ones(4, 256)),
    lambda x: x[:, :, :8, :8].chunk(2, 2)[0].split(4, 3)[0],
    lambda x: x.mean((2, 3), keepdim=True),
    lambda x: F.adaptive_avg_pool2d(x, (1, 1)),
])  # fmt: skip
def test_what_gets_smaller_and_is_no_downsampling(function: Callable[[Tensor], Tensor]) -> None:
    assert sites(function) == []


def test_scripted_parts_that_make_nothing_smaller_do_no_harm() -> None:
    model = nn.Sequential(torch.jit.script(nn.ReLU()), nn.MaxPool2d(2))
    assert [site.name for site in find_sites(model, IMAGE)] == ["1"]
    assert not torch.nn.modules.module._global_forward_hooks
    for whole in (torch.jit.script(nn.MaxPool2d(2)), torch.jit.trace(nn.MaxPool2d(2), IMAGE)):
        with pytest.raises(ModelError, match="TorchScript, whose inside cannot be watched: give the Python module"):
            find_sites(whole, IMAGE)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv(x).relu())
        return F.avg_pool2d(x, 2)


def test_graphs_and_compiled_networks_are_watched_as_they_were() -> None:
    torch.manual_seed(0)
    net = Net().eval()
    expected = readings(net)
    names = [site.name for site in find_sites(net, IMAGE)]
    assert names == ["conv", "pool", "avg"]
    traced = torch.fx.symbolic_trace(net)
    assert [site.name for site in find_sites(traced, IMAGE)] == names
    assert readings(traced) == expected
    compiled = torch.compile(net)
    assert [site.name for site in find_sites(compiled, IMAGE)] == names
    assert readings(compiled) == expected
    assert [site.kind for site in find_sites(nn.Sequential(compiled), IMAGE)] == ["conv", "max", "avg"]
    exported = torch.export.export(net, (IMAGE,)).module()
    assert [site.kind for site in find_sites(exported, IMAGE)] == ["conv", "max", "avg"]
    assert readings(exported) == expected


# Layers of other libraries


@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_antialiased_cnns_blurpool(mode: str, m: int) -> None:
    library = pytest.importorskip("antialiased_cnns")
    theirs = library.BlurPool(3, pad_type={"zeros": "zero", "replicate": "repl"}.get(mode, mode), filt_size=m, stride=2)
    ours = Blur(3, padding_mode=mode, m=m)
    (site,) = find_sites(theirs, IMAGE)
    assert (site.kind, site.kernel, site.stride, site.reason) == ("blur", (m, m), (2, 2), None)
    assert readings(theirs)[0] == pytest.approx(readings(ours)[0], abs=1e-9)


def test_kornia_blurpool() -> None:
    kornia = pytest.importorskip("kornia")
    for layer, kind in ((kornia.filters.BlurPool2D(3, 2), "blur"), (kornia.filters.MaxBlurPool2D(3, 2), "max+blur")):
        (site,) = find_sites(nn.Sequential(nn.ReLU(), layer), IMAGE)
        assert (site.kind, site.stride, site.output_size, site.reason) == (kind, (2, 2), (8, 8), None)
        assert measure_msb(layer, IMAGE)["msb_weight"].between(0, 1).all()
