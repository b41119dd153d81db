from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError
from invariscope.zoo.architectures import ARCHITECTURES, SEGMENTERS, is_segmenter
from invariscope.zoo.architectures.resnet import Block, SmallResNet
from invariscope.zoo.architectures.smallcnn import SmallCNN
from invariscope.zoo.architectures.vgg import VGG
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.operators import OPERATORS
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sampling import PADDING_MODES


def n_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics and weights as after training: batch norms that do something, no symmetric operators."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, Downsample):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.5)
    return network.double().eval()


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_architecture_gives_logits(name: str) -> None:
    network = ARCHITECTURES[name](operator="avg", padding_mode="circular", in_channels=1, classes=7, width=2).eval()
    expected = (2, 7, 16, 16) if name in SEGMENTERS else (2, 7)
    assert network(torch.randn(2, 1, 16, 16)).shape == expected
    assert is_segmenter(name) == is_segmenter(f"zoo:{name}?operator=aps") == (name in SEGMENTERS)


@pytest.mark.parametrize("operator", list(OPERATORS))
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_every_operator_in_every_padding_mode(operator: str, padding_mode: str) -> None:
    for name, head in (("smallcnn", "linear"), ("resnet8", "linear"), ("vgg8", "classifier.0")):
        network = ARCHITECTURES[name](operator=operator, padding_mode=padding_mode, in_channels=1, classes=3, width=2)
        logits = network(torch.randn(2, 1, 17, 20))
        assert logits.shape == (2, 3)
        assert torch.isfinite(logits).all()
        logits.sum().backward()
        gradient = network.get_parameter(f"{head}.weight").grad
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
        main = [conv for conv in convolutions if conv.kernel_size == (3, 3) and conv.groups == 1]
        assert {conv.padding_mode for conv in main if conv.in_channels in (1, 2, 4, 8)} >= {padding_mode}


@pytest.mark.parametrize("operator", list(OPERATORS))
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_every_operator_in_the_larger_networks(operator: str, padding_mode: str) -> None:
    for name, options in (("resnet18", {"stem": "operator"}), ("unet", {"depth": 3}), ("deeplabv3plus", {})):
        network = ARCHITECTURES[name](operator, padding_mode, in_channels=1, classes=3, width=2, **options)
        x = torch.randn(2, 1, 33, 40)
        logits = network(x)
        assert logits.shape == ((2, 3, 33, 40) if name in SEGMENTERS else (2, 3))
        assert torch.isfinite(logits).all()
        inside = {part for down in network.modules() if isinstance(down, Downsample) for part in down.modules()}
        own = [part for part in network.modules() if isinstance(part, nn.Conv2d) and part not in inside]
        assert {conv.padding_mode for conv in own if conv.kernel_size != (1, 1)} == {padding_mode}


def published_count(depth: int, width: int = 16, classes: int = 10) -> int:
    """By hand: 3x3 kernels without bias, two numbers per batch norm channel, a linear layer; shortcuts have none."""
    total = 3 * 3 * 3 * width + 2 * width
    channels = width
    for stage_width in (width, 2 * width, 4 * width):
        for _ in range((depth - 2) // 6):
            total += 3 * 3 * channels * stage_width + 2 * stage_width
            total += 3 * 3 * stage_width * stage_width + 2 * stage_width
            channels = stage_width
    return total + channels * classes + classes


@pytest.mark.parametrize(("depth", "count"), [(20, 269_722), (56, 853_018), (110, 1_727_962)])
def test_parameter_counts_are_the_published_ones(depth: int, count: int) -> None:
    network = ARCHITECTURES[f"resnet{depth}"](operator="strided")
    assert n_params(network) == count == published_count(depth)
    assert n_params(ARCHITECTURES[f"resnet{depth}"](operator="aps")) == count


def test_parameter_counts_of_operators_and_options() -> None:
    assert (
        n_params(SmallResNet(20, "strided", shortcut="B")) == published_count(20) + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    )
    # TIPS has 10 C: on the main branch (32, 64) and on the shortcut (16, 32).
    assert n_params(SmallResNet(20, "tips")) == published_count(20) + 10 * (32 + 64 + 16 + 32)
    assert n_params(SmallCNN("max", in_channels=1, width=8)) == 9 * (8 + 8 * 16 + 16 * 32) + 2 * 56 + 32 * 10 + 10


def published_forward(state: dict[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    """The network of He et al. 2016 with option A, written out over a state dict."""

    def norm(x: Tensor, key: str) -> Tensor:
        return F.batch_norm(
            x, state[f"{key}.running_mean"], state[f"{key}.running_var"], state[f"{key}.weight"], state[f"{key}.bias"]
        )

    x = F.relu(norm(F.conv2d(x, state["conv1.weight"], padding=1), "bn1"))
    for layer in (1, 2, 3):
        for block in range(blocks):
            key = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = F.conv2d(x, state[f"{key}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(F.relu(norm(y, f"{key}.bn1")), state[f"{key}.conv2.weight"], padding=1)
            y = norm(y, f"{key}.bn2")
            if stride == 2:
                quarter = y.shape[1] // 4
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, quarter, quarter))
            x = F.relu(x + y)
    return F.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1), state["linear.weight"], state["linear.bias"])


@pytest.mark.parametrize(("depth", "file"), [(20, "resnet20-12fca82f.th"), (56, "resnet56-4bfd9763.th")])
def test_public_checkpoints_load_and_compute_what_was_published(shared_data: Path, depth: int, file: str) -> None:
    path = shared_data / "checkpoints" / "akamaster_resnet_cifar10" / file
    checkpoint = Checkpoint(
        "a", f"zoo:resnet{depth}?operator=strided", path, InputSpec(32, (0.0,), (1.0,)), prefix="module."
    )
    network = load_checkpoint(checkpoint)
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    state = {key.removeprefix("module."): value for key, value in state.items()}
    batch_counters = {key for key in network.state_dict() if key.endswith("num_batches_tracked")}
    assert set(network.state_dict()) - batch_counters == set(state) - batch_counters
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network(x), published_forward(state, x, (depth - 2) // 6), rtol=1e-5, atol=1e-5)


def test_option_b_has_the_public_keys_and_a_strided_shortcut() -> None:
    block = randomise(Block(3, 6, 2, "strided", "zeros", "B"))
    assert [key for key in block.state_dict() if key.startswith("shortcut")][:2] == [
        "shortcut.0.weight",
        "shortcut.1.weight",
    ]
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    conv, norm = block.shortcut
    y = block.bn2(
        F.conv2d(F.relu(block.bn1(F.conv2d(x, block.conv1.weight, stride=2, padding=1))), block.conv2.weight, padding=1)
    )
    torch.testing.assert_close(block(x), F.relu(y + norm(F.conv2d(x, conv.weight, stride=2))))


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_the_operator_stands_before_conv2_and_on_the_shortcut(shortcut: str) -> None:
    block = randomise(Block(2, 4, 2, "avg", "circular", shortcut))
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)
    wrapped = F.pad(x, (1, 1, 1, 1), mode="circular")
    y = F.avg_pool2d(F.relu(block.bn1(F.conv2d(wrapped, block.conv1.weight))), 2)
    y = block.bn2(F.conv2d(F.pad(y, (1, 1, 1, 1), mode="circular"), block.conv2.weight))
    s = F.avg_pool2d(x, 2)
    s = F.pad(s, (0, 0, 0, 0, 1, 1)) if shortcut == "A" else block.shortcut[1](F.conv2d(s, block.shortcut[0].weight))
    torch.testing.assert_close(block(x), F.relu(y + s))


def test_smallcnn_is_three_times_convolution_norm_relu_operator() -> None:
    network = randomise(SmallCNN("max", in_channels=2, classes=3, width=4))
    x = torch.randn(2, 2, 16, 16, dtype=torch.float64)
    y = x
    for stage in (network.stage1, network.stage2, network.stage3):
        y = F.max_pool2d(F.relu(stage.bn(F.conv2d(y, stage.conv.weight, padding=1))), 2)
    torch.testing.assert_close(network(x), network.linear(y.mean((2, 3))))


PUBLISHED_VGG = {11: 132_863_336, 13: 133_047_848, 16: 138_357_544, 19: 143_667_240}
"""Parameters of the columns A, B, D and E (133, 133, 138 and 144 million in table 2 of the paper)."""


@pytest.mark.parametrize(("depth", "count"), PUBLISHED_VGG.items())
def test_vgg_has_the_published_number_of_parameters(depth: int, count: int) -> None:
    with torch.device("meta"):
        network = VGG(depth, classes=1000, batch_norm=False, head="published")
    assert n_params(network) == count


@pytest.mark.parametrize(
    ("depth", "batch_norm"),
    [
        pytest.param(depth, norm, marks=pytest.mark.full if (depth, norm) not in ((11, True), (13, False)) else ())
        for depth in PUBLISHED_VGG
        for norm in (True, False)
    ],
)
def test_vgg_loads_what_torchvision_has_and_computes_the_same(
    torchvision: ModuleType, depth: int, batch_norm: bool
) -> None:
    reference = getattr(torchvision.models, f"vgg{depth}{'_bn' * batch_norm}")
    torch.manual_seed(0)
    features = randomise(reference(num_classes=2).features)
    network = VGG(depth, batch_norm=batch_norm, classes=3).double().eval()
    network.features.load_state_dict(features.state_dict())
    x = torch.randn(1, 3, 64, 32, dtype=torch.float64)
    with torch.inference_mode():
        y = features(x)
        expected = F.linear(y.mean((2, 3)), network.classifier[0].weight, network.classifier[0].bias)
        torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-10)


def test_the_published_head_is_torchvisions(torchvision: ModuleType) -> None:
    shapes = {key: value.shape for key, value in torchvision.models.vgg11_bn().state_dict().items()}
    network = VGG(11, width=2, in_channels=1, classes=4, head="published").double().eval()
    assert set(network.state_dict()) == set(shapes)
    x = torch.randn(2, 1, 70, 64, dtype=torch.float64)
    first, second, third = (network.classifier[index] for index in (0, 3, 6))
    assert first.out_features == second.out_features == 128
    with torch.inference_mode():
        y = F.adaptive_avg_pool2d(network.features(x), 7).flatten(1)
        torch.testing.assert_close(network(x), third(second(first(y).relu()).relu()))


@pytest.mark.parametrize(
    ("name", "widths", "size"), [("vgg7", [2, 4, 8, 16], (2, 4)), ("vgg8", [2, 4, 8, 16, 16], (1, 2))]
)
def test_the_small_vggs_have_one_convolution_per_stage_and_a_site_each(
    name: str, widths: list[int], size: tuple[int, int]
) -> None:
    network = ARCHITECTURES[name](operator="avg", width=2, in_channels=1, classes=3)
    kinds = [type(module).__name__ for module in network.features]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", kinds[3]] * len(widths)
    assert [module.out_channels for module in network.features if isinstance(module, nn.Conv2d)] == widths
    assert network.features(torch.randn(1, 1, 32, 64)).shape == (1, 16, *size)


def shift_error(network: nn.Module, x: Tensor) -> float:
    """Largest change of the logits over circular shifts, relative to their spread over the images."""
    with torch.inference_mode():
        logits = network(x)
        shifts = [(0, 1), (1, 0), (1, 1), (3, -2), (-5, 7)]
        changes = [(network(x.roll(shift, (2, 3))) - logits).abs().max() for shift in shifts]
        return float(max(changes) / logits.std(0).max())


EXACT = ("aps", "lps", "tips(pool=phase, hard=true)")


@pytest.mark.parametrize("operator", EXACT)
@pytest.mark.parametrize(
    ("architecture", "options"),
    [("resnet8", {"shortcut": "A"}), ("resnet8", {"shortcut": "B"}), ("smallcnn", {}), ("vgg11", {})],
)
def test_exact_invariance_to_circular_shifts(operator: str, architecture: str, options: dict[str, str]) -> None:
    size = 32 if architecture.startswith("vgg") else 16
    x = torch.randn(3, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network = ARCHITECTURES[architecture](operator=operator, padding_mode="circular", in_channels=2, width=4, **options)
    assert shift_error(randomise(network), x) <= 1e-10


@pytest.mark.parametrize("operator", ["max", "avg", "subsample", "tips", "strided"])
def test_other_operators_are_not_invariant(operator: str) -> None:
    x = torch.randn(3, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network = SmallResNet(8, operator, padding_mode="circular", in_channels=2, width=4)
    assert shift_error(randomise(network), x) > 1e-2


@pytest.mark.parametrize("operator", EXACT)
def test_without_the_shared_phase_invariance_is_lost(operator: str) -> None:
    x = torch.randn(16, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    network = randomise(SmallResNet(8, operator, padding_mode="circular", in_channels=2, width=4))
    for module in network.modules():
        if isinstance(module, Downsample):
            module.shares_selection = False
    assert shift_error(network, x) > 1e-2


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ModelError, match=re.escape("depth is 18, and must be 8, 14, 20 or another 6 n + 2")):
        SmallResNet(18)
    with pytest.raises(ModelError, match=re.escape("depth is 12, and must be one of 7, 8, 11, 13, 16, 19")):
        VGG(12)
    with pytest.raises(ModelError, match=re.escape("head is 'linear', and must be one of average, published")):
        VGG(11, head="linear")
    for options in ({"width": 0}, {"classes": -1}, {"in_channels": 1.5}, {"width": True}):
        for builder in (SmallCNN, ARCHITECTURES["resnet8"], ARCHITECTURES["vgg8"]):
            with pytest.raises(ModelError, match=f"{next(iter(options))} is .*, and must be an integer of at least 1"):
                builder(**options)
