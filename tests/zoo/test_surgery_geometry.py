from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.zoo.operators import TIPS
from invariscope.zoo.surgery import replace_downsampling


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


sizes = st.integers(9, 24)


@settings(max_examples=60, deadline=None)
@given(
    stride=st.integers(2, 4),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    ceil=st.booleans(),
    size=st.tuples(sizes, sizes),
    other=st.tuples(sizes, sizes),
)
def test_any_max_pooling_at_any_size(
    stride: int, kernel: Any, padding: Any, dilation: int, ceil: bool, size: Any, other: Any
) -> None:
    assume(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
    pool = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
    x = noise(1, 2, *size)
    assume(all(n > 1 for n in pool(x).shape[2:]))
    model, table = replace_downsampling(pool, "subsample", x)
    assert table.replaced.all()
    for y in (x, noise(1, 2, *other)):
        assert torch.equal(model(y), pool(y))
    # Alone, the operator gives the layer's size: cropped, or of a map continued at its end.
    alone, table = replace_downsampling(pool, "avg", x)
    cropped = [-(-n // stride) - out for n, out in zip(size, pool(x).shape[2:], strict=True)]
    found = table.cropped[0]
    assert [max(n, 0) for n in found] == [max(n, 0) for n in cropped]
    assert [n < 0 for n in found] == [n < 0 for n in cropped]
    assert alone(noise(1, 2, *other)).shape == pool(noise(1, 2, *other)).shape


@settings(max_examples=60, deadline=None)
@given(
    stride=st.integers(2, 4),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    mode=st.sampled_from(["zeros", "circular", "reflect", "replicate"]),
    size=st.tuples(sizes, sizes),
    other=st.tuples(sizes, sizes),
)
def test_a_strided_convolution_is_a_dense_one_subsampled(
    stride: int, kernel: Any, padding: Any, dilation: int, groups: int, mode: Any, size: Any, other: Any
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups, padding_mode=mode).double()
    x = noise(1, 2, *size)
    assume(max(conv(x).shape[2:]) > 1)
    model, table = replace_downsampling(conv, "subsample", x)
    assert table.replaced.all()
    assert table.kept[0] == "weight, bias"
    for y in (x, noise(1, 2, *other)):
        torch.testing.assert_close(model(y), conv(y), rtol=1e-12, atol=1e-12)


def test_a_patch_embedding_has_all_its_phases() -> None:
    """Kernel = stride leaves ``s - 1`` rows and columns short at stride 1; they are made from padding."""
    conv = nn.Conv2d(1, 1, 4, 4, bias=False).double()
    model, _ = replace_downsampling(conv, "avg", noise(1, 1, 16, 16))
    dense = F.conv2d(F.pad(noise(1, 1, 16, 16), (0, 3, 0, 3)), conv.weight)
    torch.testing.assert_close(model(noise(1, 1, 16, 16)), F.avg_pool2d(dense, 4))


@pytest.mark.parametrize(
    "layer", ["Conv2dSame", "StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"]
)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 2, 1), (7, 2, 1), (2, 2, 1), (4, 3, 1), (3, 2, 2), (1, 2, 1)]
)
def test_convolutions_of_timm(timm: ModuleType, layer: str, kernel: int, stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    padding = {} if layer.startswith("Conv") or not layer.endswith("Same") else {"padding": "same"}
    conv = getattr(timm.layers, layer)(3, 4, kernel, stride=stride, dilation=dilation, **padding).double()
    x = noise(1, 3, 15, 16)
    model, table = replace_downsampling(conv, "subsample", x)
    assert table.replaced.all()
    for y in (x, noise(1, 3, 22, 17)):
        torch.testing.assert_close(model(y), conv(y), rtol=1e-10, atol=1e-10)
    tips, _ = replace_downsampling(conv, "tips", x, padding_mode="circular")
    assert tips(noise(1, 3, 22, 17)).shape == conv(noise(1, 3, 22, 17)).shape


def test_a_convolution_of_another_kind_of_padding_is_left() -> None:
    class Odd(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.stride[0])

    _, table = replace_downsampling(Odd(2, 2, 3, 2, 1), "tips", torch.randn(1, 2, 8, 8))
    assert table.reason[0] == "the padding of a Odd depends on its stride in a way that is not known"


def test_pools_of_timm(timm: ModuleType) -> None:
    same = pytest.importorskip("timm.layers.pool2d_same")
    for size in (15, 16):
        x = noise(1, 3, size, size)
        for kernel, stride in ((3, 2), (2, 2), (3, 3), (5, 2)):
            pool = same.MaxPool2dSame(kernel, stride)
            model, table = replace_downsampling(pool, "subsample", x)
            assert table.replaced.all()
            for y in (x, noise(1, 3, 21, 14)):
                assert torch.equal(model(y), pool(y))
            pool = same.AvgPool2dSame(kernel, stride)
            model, table = replace_downsampling(pool, "tips", x)
            assert isinstance(model, TIPS) or table.cropped[0] == (0, 0)
            assert model(noise(1, 3, 21, 14)).shape == pool(noise(1, 3, 21, 14)).shape


def test_blur_layers_of_other_libraries_are_replaced(
    timm: ModuleType, kornia: ModuleType, antialiased_cnns: ModuleType
) -> None:
    x = noise(1, 3, 16, 17).float()
    layers = [timm.layers.BlurPool2d(3, filt_size=m) for m in (3, 4, 5)]
    layers += [kornia.filters.BlurPool2D(3, 2), kornia.filters.MaxBlurPool2D(3, 2, 2)]
    layers += [antialiased_cnns.BlurPool(3, filt_size=m) for m in (1, 2, 4)]
    pair = nn.Sequential(nn.MaxPool2d(3, 1, 1), timm.layers.BlurPool2d(3))
    model, table = replace_downsampling(pair, "tips", x)
    assert list(table.kind) == ["max+blur"]
    assert isinstance(model[0], nn.MaxPool2d)
    assert isinstance(model[1], TIPS)
    for layer in layers:
        model, table = replace_downsampling(layer, "tips", x)
        assert table.replaced.all(), table.reason
        for y in (x, noise(1, 3, 30, 21).float()):
            assert model(y).shape == layer(y).shape


@pytest.mark.parametrize("operator", ["aps", "lps", "tips(pool=phase, hard=true)"])
def test_torchvisions_resnet_becomes_exactly_invariant(torchvision: ModuleType, operator: str) -> None:
    """Stride-1 stem, circular padding, one phase per block: no circular shift changes the logits (float64)."""
    torch.manual_seed(0)
    resnet = torchvision.models.resnet
    plain = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=7, width_per_group=4).double().eval()
    x = noise(1, 3, 32, 32)
    model, table = replace_downsampling(plain, operator, x, padding_mode="circular")
    assert table.replaced.all()
    with torch.no_grad():
        logits = model(x)
        for shift in ((1, 0), (-7, 16)):
            rolled = model(x.roll(shift, (2, 3)))
            assert float((rolled - logits).abs().max() / logits.abs().max()) < 1e-10
            before = plain(x.roll(shift, (2, 3))) - plain(x)
            assert float(before.abs().max() / plain(x).abs().max()) > 1e-3


def test_patch_embeddings_and_same_padding_become_exactly_invariant(timm: ModuleType) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4),
        nn.ReLU(),
        timm.layers.Conv2dSame(8, 8, 3, stride=2),
        nn.ReLU(),
        timm.layers.Conv2dSame(8, 8, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ).double()
    model, _ = replace_downsampling(net, "aps", noise(1, 3, 64, 64), padding_mode="circular", keep_max=True)
    x = noise(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x).mean((2, 3))
        for shift in ((1, 0), (5, 3), (-6, 17)):
            torch.testing.assert_close(model(x.roll(shift, (2, 3))).mean((2, 3)), expected, rtol=1e-10, atol=1e-12)


def test_the_padding_mode_of_every_convolution(timm: ModuleType) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding="same", dilation=2),
        timm.layers.StdConv2d(4, 4, 3, padding=1),
        timm.layers.Conv2dSame(4, 4, 3),
        nn.Conv2d(4, 4, 1),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=9, dilation=9),  # wider than the map: torch's own circular padding refuses
    ).double()
    x = noise(2, 3, 14, 14)
    model, _ = replace_downsampling(net, "aps", x, padding_mode="circular")
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(model(x.roll((2, 4), (2, 3))), expected.roll((1, 2), (2, 3)))
        again, _ = replace_downsampling(model, "aps", x, padding_mode="circular")
        assert torch.equal(again(x), expected)
        back, _ = replace_downsampling(model, "aps", x, padding_mode="zeros")
        zeros, _ = replace_downsampling(net, "aps", x, padding_mode="zeros")
        torch.testing.assert_close(back(x), zeros(x))


def test_a_strided_same_convolution_that_stays_says_so(timm: ModuleType) -> None:
    net = nn.Sequential(timm.layers.Conv2dSame(3, 4, 3, stride=2), nn.MaxPool2d(2))
    _, table = replace_downsampling(net, "tips", torch.randn(1, 3, 16, 16), where="max", padding_mode="circular")
    assert table.reason[0].startswith("not among the sites asked for; its padding mode stays: its padding follows")


MODELS = [
    ("timm", "tf_mobilenetv3_small_minimal_100", 48),
    ("timm", "test_convnext", 64),
    ("timm", "test_resnet", 64),
    ("timm", "test_nfnet", 64),
    pytest.param("torchvision", "alexnet", 95, marks=pytest.mark.full),
    ("torchvision", "squeezenet1_0", 70),
    ("torchvision", "shufflenet_v2_x0_5", 64),
]


@pytest.mark.parametrize(("library", "name", "size"), MODELS)
def test_subsampling_gives_any_network_back(
    timm: ModuleType, torchvision: ModuleType, library: str, name: str, size: int
) -> None:
    torch.manual_seed(0)
    build = timm.create_model if library == "timm" else torchvision.models.get_model
    net = build(name, num_classes=5).double().eval()
    x = noise(1, 3, size, size)
    where = lambda site: site.kind != "avg"  # noqa: E731
    model, table = replace_downsampling(net, "subsample", x, where=where)
    assert table.replaced[table.kind != "avg"].all()
    with torch.no_grad():
        expected = net(x)
        torch.testing.assert_close(model(x), expected, rtol=1e-8, atol=1e-8 * float(expected.abs().max()))
