from __future__ import annotations

import re
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError, OperatorError
from invariscope.collectors.measure.msb import measure_msb
from invariscope.zoo.architectures import ARCHITECTURES, takes_strided
from invariscope.zoo.architectures.deeplab import ASPP, DeepLabV3Plus
from invariscope.zoo.architectures.imagenet import ResNet, ResNetEncoder
from invariscope.zoo.architectures.parts import WideConv2d, conv
from invariscope.zoo.architectures.residual import BasicBlock, Bottleneck
from invariscope.zoo.architectures.unet import UNet
from invariscope.zoo.loading import build_model
from invariscope.zoo.manifest_models import check_zoo_model
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sites import find_sites
from invariscope.zoo.surgery import replace_downsampling


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics as after training, and batch norms that do something."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
    return network.double().eval()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert float(expected.detach().std()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("depth", "output_stride"),
    [
        *((18, 32), (50, 16), (18, 8)),
        *(pytest.param(*case, marks=pytest.mark.full) for case in ((34, 32), (50, 32), (101, 32), (18, 16), (50, 8))),
    ],
)
def test_the_strided_network_is_timms(depth: int, output_stride: int, timm: ModuleType) -> None:
    theirs = randomise(timm.create_model(f"resnet{depth}", num_classes=7, output_stride=output_stride))
    ours = build_model(f"zoo:resnet{depth}?operator=strided&classes=7&output_stride={output_stride}").double().eval()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = noise(2, 3, 40, 33)
    with torch.inference_mode():
        assert_same(ours(x), theirs(x))


@pytest.mark.parametrize("depth", [18, 50])
def test_the_strided_network_is_torchvisions(depth: int, torchvision: ModuleType) -> None:
    theirs = randomise(getattr(torchvision.models, f"resnet{depth}")(num_classes=7))
    ours = ResNet(depth, "strided", classes=7).double().eval()
    ours.load_state_dict(theirs.state_dict())
    x = noise(2, 3, 64, 64)
    with torch.inference_mode():
        assert_same(ours(x), theirs(x))


@pytest.mark.parametrize(("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160)])
def test_parameter_counts_are_the_published_ones(depth: int, count: int) -> None:
    with torch.device("meta"):
        networks = [ResNet(depth, operator, classes=1000) for operator in ("strided", "aps")]
    for network in networks:
        assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_names_of_the_two_families_do_not_meet() -> None:
    assert {name: type(ARCHITECTURES[name]()).__module__ for name in ("resnet20", "resnet18")} == {
        "resnet20": "invariscope.zoo.architectures.resnet",
        "resnet18": "invariscope.zoo.architectures.imagenet",
    }


def test_a_basic_block_has_the_operator_before_conv2_and_on_the_shortcut() -> None:
    block = randomise(BasicBlock(2, 4, 2, "avg", "circular"))
    x = noise(2, 2, 8, 8)
    y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), block.conv1.weight)
    y = F.avg_pool2d(F.relu(block.bn1(y)), 2)
    y = block.bn2(F.conv2d(F.pad(y, (1, 1, 1, 1), mode="circular"), block.conv2.weight))
    pointwise, norm = block.downsample
    assert_same(block(x), F.relu(y + norm(F.conv2d(F.avg_pool2d(x, 2), pointwise.weight))))


def test_a_bottleneck_has_the_operator_before_conv3_and_on_the_shortcut() -> None:
    block = randomise(Bottleneck(2, 4, 2, "avg", "circular"))
    x = noise(2, 2, 8, 8)
    y = F.relu(block.bn1(F.conv2d(x, block.conv1.weight)))
    y = F.relu(block.bn2(F.conv2d(F.pad(y, (1, 1, 1, 1), mode="circular"), block.conv2.weight)))
    y = block.bn3(F.conv2d(F.avg_pool2d(y, 2), block.conv3.weight))
    pointwise, norm = block.downsample
    assert_same(block(x), F.relu(y + norm(F.conv2d(F.avg_pool2d(x, 2), pointwise.weight))))


@pytest.mark.parametrize(
    ("stem", "kernel", "stride", "downs"), [("strided", 7, 2, 1), ("operator", 7, 1, 2), ("stride1", 3, 1, 0)]
)
def test_stems(stem: str, kernel: int, stride: int, downs: int) -> None:
    network = randomise(ResNet(18, "avg", in_channels=2, width=4, stem=stem))
    seen: list[Tensor] = []
    network.layer1.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = noise(2, 2, 32, 32)
    network(x)
    y = F.relu(network.bn1(F.conv2d(x, network.conv1.weight, stride=stride, padding=kernel // 2)))
    assert network.conv1.kernel_size == (kernel, kernel)
    for _ in range(downs):
        y = F.avg_pool2d(y, 2)
    assert_same(seen[0], y)


def test_the_total_stride_follows_stem_and_output_stride() -> None:
    for stem, divisor in (("strided", 1), ("operator", 1), ("stride1", 4)):
        for output_stride in (32, 16, 8):
            encoder = ResNetEncoder(50, "max", "zeros", 3, 2, stem, output_stride).eval()
            with torch.inference_mode():
                levels = encoder(torch.randn(1, 3, 64, 64))
            assert levels[-1].size == (64 * divisor // output_stride,) * 2
            assert levels[0].size == (64, 64)
            assert [level.features.shape[1] for level in levels] == encoder.widths
            assert len(encoder.operators) == len(encoder.decoder_widths) - 1 == len(levels) - 1
            assert levels[encoder.first_stage].features.shape[1] == 8


def test_tiny_maps_keep_one_level_per_stage() -> None:
    levels = ResNetEncoder(18, "aps", "circular", 3, 2, "stride1").eval()(torch.randn(1, 3, 2, 2))
    assert [level.size for level in levels] == [(2, 2), (1, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate", "zeros"])
def test_dilation_wider_than_the_map(mode: str) -> None:
    wide = conv(2, 3, 3, dilation=5, padding_mode=mode).double()
    assert isinstance(wide, WideConv2d) == (mode != "zeros")
    x = noise(1, 2, 3, 4)
    expected = torch.zeros(1, 3, 3, 4, dtype=torch.float64)
    for row in range(3):
        for column in range(4):
            for p in range(3):
                for q in range(3):
                    u, v = row + 5 * (p - 1), column + 5 * (q - 1)
                    if mode == "zeros" and not (0 <= u < 3 and 0 <= v < 4):
                        continue
                    # Reflection past the other end falls back to replication.
                    u, v = (u % 3, v % 4) if mode == "circular" else (min(max(u, 0), 2), min(max(v, 0), 3))
                    expected[0, :, row, column] += wide.weight[:, :, p, q] @ x[0, :, u, v]
    torch.testing.assert_close(wide(x), expected)
    big, plain = noise(2, 2, 16, 15), nn.Conv2d(2, 3, 3, padding=5, dilation=5, bias=False, padding_mode=mode).double()
    plain.load_state_dict(wide.state_dict())
    assert torch.equal(wide(big), plain(big))


def test_the_pyramid_is_five_branches_and_a_projection() -> None:
    pyramid = randomise(ASPP(3, 4, 2, "zeros"))
    x = noise(2, 3, 9, 8)

    def branch(part: nn.Module, y: Tensor, rate: int | None = None) -> Tensor:
        padding = {} if rate is None else {"padding": rate, "dilation": rate}
        return F.relu(part[1](F.conv2d(y, part[0].weight, **padding)))

    parts = [branch(pyramid.branches[0], x), *(branch(pyramid.branches[i], x, 2 * i) for i in (1, 2, 3))]
    pooled = branch(pyramid.pooled, F.adaptive_avg_pool2d(x, 1)).repeat(1, 1, 9, 8)
    assert_same(pyramid(x), branch(pyramid.project, torch.cat([*parts, pooled], 1)))


@pytest.mark.parametrize(
    ("options", "rates"),
    [("", (6, 12, 18)), ("&output_stride=8", (12, 24, 36)), ("&output_stride=32", (3, 6, 9)), ("&rate=2", (2, 4, 6))],
)
def test_rates_of_the_pyramid(options: str, rates: tuple[int, ...]) -> None:
    network = build_model(f"zoo:deeplabv3plus?encoder=resnet18&width=2{options}")
    assert isinstance(network, DeepLabV3Plus)
    dilations = [branch[0].dilation for branch in network.aspp.branches]
    assert dilations == [(1, 1), *((rate, rate) for rate in rates)]


def test_deeplab_without_a_selection_upsamples_at_once_as_published() -> None:
    network = randomise(DeepLabV3Plus("max", in_channels=2, classes=3, width=4, encoder="resnet18"))
    x = noise(2, 2, 64, 48)
    seen: dict[str, Tensor] = {}
    for name in ("aspp", "low", "fuse", "head"):
        network.get_submodule(name).register_forward_hook(lambda m, a, y, name=name: seen.update({name: y}))
    network.fuse.register_forward_pre_hook(lambda module, args: seen.update(into=args[0]))
    logits = network(x)
    assert seen["aspp"].shape == (2, 16, 4, 3)
    assert seen["low"].shape == (2, 3, 16, 12)
    up = F.interpolate(seen["aspp"], scale_factor=4, mode="bilinear", align_corners=False)
    assert_same(seen["into"], torch.cat([seen["low"], up], 1))
    assert_same(logits, F.interpolate(seen["head"], scale_factor=4, mode="bilinear", align_corners=False))


def test_unet_with_max_pooling_written_out() -> None:
    network = randomise(UNet("max", in_channels=2, classes=3, width=4, depth=2))
    x = noise(2, 2, 16, 12)

    def twice(part: nn.Module, y: Tensor) -> Tensor:
        for at in (0, 3):
            y = F.relu(part[at + 1](F.conv2d(y, part[at].weight, padding=1)))
        return y

    def step(part: nn.Module, y: Tensor, skip: Tensor) -> Tensor:
        y = F.conv2d(y, part.reduce.weight, part.reduce.bias)
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        return twice(part.fuse, torch.cat([skip, y], 1))

    first = twice(network.encoder.stages[0], x)
    second = twice(network.encoder.stages[1], F.max_pool2d(first, 2))
    third = twice(network.encoder.stages[2], F.max_pool2d(second, 2))
    y = step(network.decoder[1], step(network.decoder[0], third, second), first)
    assert_same(network(x), F.conv2d(y, network.head.weight, network.head.bias))


SITES = {
    "resnet18?stem=strided": (8, 1),
    "resnet18?stem=operator": (8, 0),
    "resnet18?stem=stride1": (6, 0),
    "resnet50?stem=strided": (8, 1),
    "unet": (4, 0),
    "unet?depth=2": (2, 0),
    "unet?encoder=resnet18": (8, 1),
    "deeplabv3plus?encoder=resnet18": (6, 1),
    "deeplabv3plus?encoder=resnet18&stem=operator&output_stride=8": (4, 0),
}
"""Model -> number of sites, and of strided convolutions among them."""


@pytest.mark.parametrize("operator", ["aps", "tips", "max", "blur"])
@pytest.mark.parametrize("model", list(SITES))
def test_upsampling_is_no_site_and_every_downsampling_is_one(model: str, operator: str) -> None:
    count, convolutions = SITES[model]
    mark = "&" if "?" in model else "?"
    network = build_model(f"zoo:{model}{mark}operator={operator}&width=2&padding_mode=circular").eval()
    sites = find_sites(network, torch.rand(1, 3, 32, 32))
    kinds = [site.kind for site in sites]
    assert (len(sites), kinds.count("conv"), kinds.count(operator)) == (count, convolutions, count - convolutions)
    assert all(site.reason is None for site in sites)
    assert not any(part in site.path for site in sites for part in ("decoder", "up", "aspp", "fuse"))


@pytest.mark.parametrize("name", ["unet", "deeplabv3plus?encoder=resnet18&stem=operator"])
def test_msb_of_a_segmenter(name: str) -> None:
    torch.manual_seed(0)
    mark = "&" if "?" in name else "?"
    images = torch.rand(4, 3, 32, 32)
    for operator, expected in (("max", 1.0), ("avg", 0.0)):
        network = randomise(build_model(f"zoo:{name}{mark}operator={operator}&width=4")).float()
        rows = measure_msb(network, images)
        assert list(rows["site_kind"].unique()) == [operator]
        measured = rows["msb_corrected"].dropna()
        assert len(measured) >= 3
        assert measured.to_numpy() == pytest.approx(expected, abs=1e-6)
    # An encoder is measured as it would be alone: no part of the decoder changes what its sites hold.
    network = randomise(build_model(f"zoo:{name}{mark}operator=aps&width=4")).float()
    alone = measure_msb(network.encoder, images)
    assert measure_msb(network, images)["msb"].to_list() == pytest.approx(alone["msb"].to_list(), nan_ok=True)


def shared_state(source: nn.Module, target: nn.Module) -> None:
    """Weights by name; operators without parameters have none to copy."""
    target.load_state_dict(source.state_dict())


@pytest.mark.parametrize("depth", [18, 50])
def test_surgery_on_the_published_network_gives_the_network_with_the_operator(depth: int) -> None:
    published = randomise(ResNet(depth, "strided", "circular", in_channels=2, width=4, stem="stride1"))
    x = noise(3, 2, 32, 32)
    changed, table = replace_downsampling(published, "aps", x, placement="published", padding_mode="circular")
    assert table["replaced"].all()
    own = ResNet(depth, "aps", "circular", in_channels=2, width=4, stem="stride1").double().eval()
    shared_state(published, own)
    with torch.inference_mode():
        assert_same(changed(x), own(x))


@pytest.mark.parametrize("name", ["unet?", "unet?encoder=resnet18&", "deeplabv3plus?encoder=resnet18&stem=operator&"])
def test_surgery_on_segmenters_takes_the_upsampling_along(name: str) -> None:
    x = noise(2, 3, 32, 32)
    model = f"zoo:{name}width=8&padding_mode=circular&operator="
    plain = randomise(build_model(f"{model}max"))
    changed, table = replace_downsampling(plain, "aps", x, where="max")
    assert (table["replaced"] == (table["kind"] == "max")).all()
    own = build_model(f"{model}aps").double().eval()
    shared_state(plain, own)
    assert_same(changed(x), own(x))
    back, _ = replace_downsampling(changed, "max", x, where="aps")
    assert_same(back(x), plain(x))


def test_surgery_that_leaves_nothing_to_undo_is_refused() -> None:
    network = UNet("aps", width=2, depth=2, upsampling="polyphase").eval()
    with pytest.raises(OperatorError, match="polyphase upsampling has no selection: pair it with"):
        replace_downsampling(network, "max", torch.rand(1, 3, 16, 16))


def test_strided_where_there_is_a_published_network() -> None:
    for model in ("resnet18", "deeplabv3plus", "unet?encoder=resnet34", "resnet8"):
        mark = "&" if "?" in model else "?"
        parts = ModelString.parse(f"zoo:{model}{mark}operator=strided")
        assert takes_strided(parts)
        check_zoo_model(parts)
    for model in ("unet", "smallcnn", "unet?encoder=plain"):
        mark = "&" if "?" in model else "?"
        parts = ModelString.parse(f"zoo:{model}{mark}operator=strided")
        assert not takes_strided(parts)
        with pytest.raises(OperatorError, match="unknown operator 'strided'"):
            check_zoo_model(parts)


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("resnet18?stem=maxpool", "unknown stem 'maxpool': known are operator, stride1, strided"),
        ("resnet18?output_stride=4", "output_stride is 4, and must be one of 32, 16, 8"),
        ("resnet18?width=0", "width is 0, and must be an integer of at least 1"),
        ("resnet18?classes=0", "classes is 0, and must be an integer of at least 1"),
        ("resnet18?operator=strided&stem=operator", "stem is operator, and the operator is strided, which is none"),
        ("resnet18?padding_mode=same", "padding_mode is 'same', and must be one of zeros"),
        ("unet?depth=0", "depth is 0, and must be an integer of at least 1"),
        ("unet?encoder=resnet20", "unknown encoder 'resnet20': did you mean"),
        ("unet?operator=strided", "operator is strided, which is for ResNets: name an operator, or encoder=resnet18"),
        ("unet?upsampling=cubic", "unknown upsampling 'cubic'"),
        ("unet?upsampling=polyphase", "upsampling is polyphase, and max has no choice of phase to share"),
        ("deeplabv3plus?rate=0", "rate is 0, and must be an integer of at least 1"),
        ("deeplabv3plus?encoder=plain", "unknown encoder 'plain': known are resnet101, resnet18, resnet34, resnet50"),
        ("deeplabv3plus?output_stride=true", "output_stride is True, and must be one of"),
    ],
)
def test_what_cannot_be_built_is_one_line(model: str, line: str) -> None:
    with pytest.raises((ModelError, OperatorError), match=re.escape(line)) as caught:
        build_model(f"zoo:{model}")
    assert "\n" not in str(caught.value)


def test_every_operator_is_counted_as_one() -> None:
    network = build_model("zoo:unet?encoder=resnet18&stem=operator&operator=tips&width=2")
    assert sum(isinstance(module, Downsample) for module in network.modules()) == 8
