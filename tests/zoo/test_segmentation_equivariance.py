"""The logits of segmentation networks, and of the ImageNet ResNets, under circular shifts of the image."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor, nn

from invariscope.zoo.architectures import SEGMENTERS
from invariscope.zoo.loading import build_model
from invariscope.zoo.operators.base import Downsample

EXACT = ("aps", "lps", "tips(pool=phase, hard=true)")
PLAIN = ("max", "avg", "subsample", "blur")

SEGMENTATION = {
    "unet?depth=3": 8,
    "unet?encoder=resnet18&stem=stride1": 8,
    "unet?encoder=resnet18&stem=operator": 32,
    "deeplabv3plus?encoder=resnet18&stem=stride1": 4,
    "deeplabv3plus?encoder=resnet18&stem=operator": 16,
    "deeplabv3plus?encoder=resnet50&stem=operator": 16,
    "deeplabv3plus?encoder=resnet18&stem=operator&output_stride=8": 8,
}
"""Model -> total stride."""

CLASSIFICATION = {
    "resnet18?stem=stride1": 8,
    "resnet18?stem=operator": 32,
    "resnet50?stem=stride1": 8,
    "resnet18?stem=stride1&output_stride=16": 4,
}


def build(model: str, operator: str, *, width: int = 8, padding_mode: str = "circular", seed: int = 0) -> nn.Module:
    """A network with the weights and statistics that it could have after training, in float64, in evaluation mode."""
    torch.manual_seed(seed)
    mark = "&" if "?" in model else "?"
    options = f"padding_mode={padding_mode}&in_channels=2&classes=5&width={width}"
    network = build_model(f"zoo:{model}{mark}operator={operator}&{options}")
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


def images(size: int | tuple[int, int] = 32, count: int = 2) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(count, 2, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def shifts(total: int, count: int) -> list[tuple[int, int]]:
    """Some of the shifts in ``[0, total)^2``, ``(0, 1)`` and ``(1, 0)`` among them."""
    every = [(dy, dx) for dy in range(total) for dx in range(total) if (dy, dx) != (0, 0)]
    drawn = random.Random(0).sample(every, min(count, len(every)))
    return list(dict.fromkeys([(0, 1), (1, 0), *drawn]))


def map_error(network: nn.Module, x: Tensor, moves: list[tuple[int, int]]) -> float:
    """Largest difference of the logits, rolled back, from those of the image, relative to their spread over it."""
    with torch.inference_mode():
        logits = network(x)
        assert logits.shape == (len(x), 5, *x.shape[2:])
        back = [network(x.roll((dy, dx), (2, 3))).roll((-dy, -dx), (2, 3)) for dy, dx in moves]
        return float(max((again - logits).abs().max() for again in back) / logits.std((2, 3)).max())


def logit_error(network: nn.Module, x: Tensor, moves: list[tuple[int, int]]) -> float:
    """The same for the logits of whole images, relative to their spread over the images."""
    with torch.inference_mode():
        logits = network(x)
        changes = [(network(x.roll(move, (2, 3))) - logits).abs().max() for move in moves]
        return float(max(changes) / logits.std(0).max())


@pytest.mark.parametrize("operator", EXACT)
@pytest.mark.parametrize("model", list(SEGMENTATION))
def test_logit_maps_roll_along_with_the_image(model: str, operator: str) -> None:
    assert map_error(build(model, operator), images(), shifts(SEGMENTATION[model], 10)) <= 1e-10


@pytest.mark.parametrize("operator", EXACT)
def test_every_shift_of_a_small_unet(operator: str) -> None:
    every = [(dy, dx) for dy in range(4) for dx in range(4)]
    assert map_error(build("unet?depth=2", operator), images((16, 24), 3), every) <= 1e-10


@pytest.mark.parametrize("operator", PLAIN)
@pytest.mark.parametrize("model", ["unet?depth=3", "deeplabv3plus?encoder=resnet18&stem=operator"])
def test_plain_pooling_is_not_equivariant(model: str, operator: str) -> None:
    assert map_error(build(model, operator), images(), shifts(SEGMENTATION[model], 2)) > 1e-3


@pytest.mark.parametrize("upsampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("model", ["unet?depth=3", "deeplabv3plus?encoder=resnet18&stem=operator"])
def test_without_polyphase_upsampling_equivariance_is_lost(model: str, upsampling: str) -> None:
    network = build(f"{model}&upsampling={upsampling}", "aps")
    assert map_error(network, images(), shifts(SEGMENTATION[model], 2)) > 1e-3


@pytest.mark.parametrize("model", ["unet?encoder=resnet18", "deeplabv3plus?encoder=resnet18", "unet?depth=3"])
def test_a_strided_stem_soft_mixing_and_zero_padding_end_it(model: str) -> None:
    if "resnet" in model:
        assert map_error(build(f"{model}&stem=strided", "aps"), images(), [(0, 1), (1, 0)]) > 1e-3
    assert map_error(build(model, "tips(pool=phase)"), images(), [(0, 1), (1, 0)]) > 1e-3
    assert map_error(build(model, "aps", padding_mode="zeros"), images(), [(0, 1), (1, 0)]) > 1e-3


def test_sizes_that_the_stride_does_not_divide_keep_their_size_but_not_exactness() -> None:
    assert map_error(build("unet?depth=3", "aps"), images((27, 21)), [(0, 1), (1, 0)]) > 1e-3


@pytest.mark.parametrize("operator", EXACT)
@pytest.mark.parametrize("model", list(CLASSIFICATION))
def test_imagenet_resnets_are_exactly_invariant(model: str, operator: str) -> None:
    assert logit_error(build(model, operator), images(count=3), shifts(CLASSIFICATION[model], 6)) <= 1e-10


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("operator", EXACT)
def test_a_stride_2_stem_alone_costs_the_invariance(depth: int, operator: str) -> None:
    assert logit_error(build(f"resnet{depth}?stem=strided", operator), images(count=4), [(0, 1), (1, 0)]) > 1e-2


@pytest.mark.parametrize("operator", [*PLAIN, "strided"])
def test_imagenet_resnets_with_plain_pooling_are_not_invariant(operator: str) -> None:
    assert logit_error(build("resnet18?stem=stride1", operator), images(count=4), [(0, 1), (1, 0)]) > 1e-2


@pytest.mark.parametrize("name", sorted(SEGMENTERS))
@pytest.mark.parametrize("operator", ["lps", "tips(pool=phase, hard=true)", "tips", "max"])
def test_every_parameter_learns(name: str, operator: str) -> None:
    network = build(name, operator, width=4).float().train()
    network(images(32, 3).float()).square().mean().backward()
    still = [
        key
        for key, parameter in network.named_parameters()
        if parameter.grad is None or not bool(torch.isfinite(parameter.grad).all())
    ]
    # A shortcut that takes the main branch's phase does not choose: its own scores are not used.
    assert all("shortcut_down" in key for key in still)


@pytest.mark.parametrize("name", sorted(SEGMENTERS))
@pytest.mark.parametrize("operator", EXACT)
def test_an_image_alone_gets_the_logits_that_it_gets_in_a_batch(name: str, operator: str) -> None:
    network, x = build(name, operator), images(32, 4)
    with torch.inference_mode():
        torch.testing.assert_close(torch.cat([network(image[None]) for image in x]), network(x))
