"""Folded networks compute what the networks compute, fold what can be folded and nothing else, and leave no trace."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import InputError, ModelError
from invariscope.collectors.measure import passes
from invariscope.collectors.measure.folding import fold_batch_norms
from invariscope.collectors.measure.passes import shift_network
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.inputs import PreparedImages
from invariscope.zoo.loading import build_model, load_checkpoint
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.operators import OPERATORS
from invariscope.zoo.operators.base import Downsample

MARGIN = 1e-3


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms with statistics and weights as training leaves them: not 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):
                if tensor is not None:
                    tensor.data.uniform_(low, high, generator=generator)
    return model.eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def norms_outside(model: nn.Module) -> int:
    """Batch norms that are no part of an operator: what an operator does with one is its own business."""
    inside = [part for module in model.modules() if isinstance(module, Downsample) for part in module.modules()]
    return norms(model) - len({part for part in inside if isinstance(part, nn.modules.batchnorm._BatchNorm)})


def traces(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]


def assert_same(folded: nn.Module, model: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        expected, found = model(images), folded(images.clone(memory_format=torch.channels_last))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    first, second = expected.topk(2).values.T
    certain = first - second > MARGIN
    assert certain.any()
    assert torch.equal(found.argmax(1)[certain], expected.argmax(1)[certain])


@pytest.mark.parametrize("operator", ["strided", *OPERATORS])
def test_networks_of_the_zoo_fold_whole_and_compute_the_same(operator: str) -> None:
    torch.manual_seed(0)
    model = trained(build_model(f"zoo:resnet8?operator={operator}&shortcut=B&padding_mode=circular"))
    images = noise(8, 3, 16, 16)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norms(model, images[:1])
    assert norms_outside(model) > 0
    assert norms_outside(folded) == 0
    assert_same(folded, model, images)
    assert not traces(model)
    assert not traces(folded)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert folded.linear.weight is model.linear.weight


@pytest.mark.parametrize(
    "model",
    [
        "resnet18?operator=strided",
        "resnet50?operator=aps&stem=operator",
        "unet?operator=lps",
        "unet?encoder=resnet18&operator=max",
        "deeplabv3plus?encoder=resnet18&operator=blur",
    ],
)
def test_larger_networks_of_the_zoo_fold_whole(model: str) -> None:
    torch.manual_seed(0)
    network = trained(build_model(f"zoo:{model}&width=4&padding_mode=circular"))
    images = noise(4, 3, 32, 32)
    folded = fold_batch_norms(network, images[:1])
    assert norms(folded) == 0
    with torch.inference_mode():
        expected, found = network(images), folded(images)
    assert float(expected.std()) > 1e-3
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("resnet18", 0),
        ("regnetx_002", 0),
        ("mobilenetv3_small_050", 0),
        ("efficientnet_lite0", 0),
        ("ghostnet_050", 0),
        # A batch norm before the convolution it would have to be part of.
        ("densenet121", 62),
    ],
)
def test_networks_of_timm(name: str, left: int, timm: ModuleType) -> None:
    torch.manual_seed(0)
    model = trained(build_model(f"timm:{name}?num_classes=10"))
    images = noise(4, 3, 64, 64)
    folded = fold_batch_norms(model, images[:1])
    assert norms(folded) == left
    assert_same(folded, model, images)


def test_a_third_party_network_with_padding_of_its_own() -> None:
    torch.manual_seed(0)
    model = trained(build_model("python:nets.py:TinyResNet", Path(__file__).parents[1] / "third_party"))
    folded = fold_batch_norms(model, noise(1, 3, 32, 32))
    assert norms(folded) == 0
    assert_same(folded, model, noise(16, 3, 32, 32))


class Pair(nn.Module):
    """A convolution and a batch norm, and what is done around them."""

    def __init__(self, around: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
        self.around = around

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.around == "used twice":
            return (self.norm(y) + y).mean((2, 3))
        if self.around == "changed in between":
            y += 1
        if self.around == "called twice":
            return (self.norm(y) + self.conv(x.flip(3))).mean((2, 3))
        if self.around == "normalised twice":
            return (self.norm(y) + self.norm(x[:, :1].repeat(1, 5, 1, 1)).mean()).mean((2, 3))
        if self.around == "in a list":
            return torch.cat([self.norm(y), y], 1).mean((2, 3))
        return self.norm(y).mean((2, 3))


@pytest.mark.parametrize(
    "around", ["used twice", "changed in between", "called twice", "normalised twice", "in a list"]
)
def test_what_is_used_elsewhere_is_not_folded(around: str) -> None:
    model = trained(Pair(around))
    assert fold_batch_norms(model, noise(1, 3, 8, 8)) is model


def without_statistics() -> nn.Module:
    model = trained(Pair())
    model.norm = nn.BatchNorm2d(5, track_running_stats=False).eval()
    return model


def training() -> nn.Module:
    model = trained(Pair())
    model.norm.train()
    return model


def hooked() -> nn.Module:
    model = trained(Pair())
    model.conv.register_forward_hook(lambda module, args, output: output * 2)
    return model


def normalised_weight() -> nn.Module:
    model = trained(Pair())
    nn.utils.parametrizations.weight_norm(model.conv)
    return model


def weight_by_hook() -> nn.Module:
    model = trained(Pair())
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model.conv)
    return model


def standardised() -> nn.Module:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight / self.weight.std(), self.bias)

    model = trained(Pair())
    model.conv = Standardised(3, 5, 3)
    return model


@pytest.mark.parametrize(
    "make", [without_statistics, training, hooked, normalised_weight, weight_by_hook, standardised]
)
def test_what_is_more_than_its_weights_is_not_folded(make) -> None:
    model = make()
    hooks = len(traces(model))
    assert fold_batch_norms(model, noise(1, 3, 8, 8)) is model
    assert len(traces(model)) == hooks


@pytest.mark.parametrize("options", [{"bias": False}, {"padding_mode": "reflect", "padding": 1}, {"groups": 3}])
@pytest.mark.parametrize("affine", [True, False])
def test_convolutions_and_batch_norms_of_every_kind(options: dict[str, object], affine: bool) -> None:
    model = Pair()
    model.conv, model.norm = nn.Conv2d(3, 6, 3, **options), nn.BatchNorm2d(6, affine=affine, eps=1e-2)
    trained(model)
    folded = fold_batch_norms(model, noise(1, 3, 8, 8))
    assert norms(folded) == 0
    assert_same(folded, model, noise(32, 3, 8, 8))


def test_a_batch_norm_that_is_registered_twice_is_gone_from_both_places() -> None:
    model = trained(Pair())
    model.again = nn.ModuleList([model.norm])
    folded = fold_batch_norms(model, noise(1, 3, 8, 8))
    assert norms(folded) == 0
    assert_same(folded, model, noise(32, 3, 8, 8))


def test_a_network_that_fails_is_left_alone() -> None:
    model = trained(Pair())
    assert fold_batch_norms(model, noise(1, 4, 8, 8)) is model
    assert not traces(model)


class TwoWays(Pair):
    """Takes another way where it sees a bright image, which the first image is not."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (self.norm(y) + (y if bool((x > 100).any()) else 0)).mean((2, 3))


def test_a_network_that_folding_changes_runs_as_it_is() -> None:
    model = trained(TwoWays())
    images = noise(8, 3, 8, 8)
    assert norms(fold_batch_norms(model, images[:1])) == 0
    assert norms(shift_network(model, images)) == 0
    images[3] *= 1000
    assert shift_network(model, images) is model


def test_a_batch_norm_of_two_names_is_folded() -> None:
    model = trained(Pair())
    model.first, model.norm = model.norm, None  # the name that runs is the second
    del model.norm
    model.norm = model.first
    folded = fold_batch_norms(model, noise(1, 3, 8, 8))
    assert norms(folded) == 0
    assert_same(shift_network(model, noise(8, 3, 8, 8)), model, noise(8, 3, 8, 8))


def test_the_comparison_sees_a_small_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained(Pair())
    images = noise(8, 3, 8, 8)

    def slightly_wrong(network: nn.Module, example: Tensor) -> nn.Module:
        folded = fold_batch_norms(network, example)
        folded.conv.bias.data += 1e-3
        return folded

    monkeypatch.setattr(passes, "fold_batch_norms", slightly_wrong)
    assert shift_network(model, images) is model


def test_bfloat16_is_a_copy() -> None:
    model = trained(Pair())
    images = noise(8, 3, 8, 8)
    network = shift_network(model, images, precision="bf16")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.inference_mode():
        found = network(images.bfloat16()).float()
        expected = model(images)
    assert 1e-5 < (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_what_cannot_be_had_is_refused_in_one_line() -> None:
    model = trained(Pair())
    with pytest.raises(InputError, match="unknown precision 'bf61': did you mean 'bf16'"):
        shift_network(model, noise(2, 3, 8, 8), precision="bf61")
    model.forward = lambda x: torch.linalg.svdvals(x.mean(1)) @ torch.zeros(8, 4)
    with pytest.raises(ModelError, match=r"Pair does not run in bfloat16 \(.*take precision fp32") as caught:
        shift_network(model, noise(2, 3, 8, 8), precision="bf16")
    assert "\n" not in str(caught.value)


def test_a_trained_network_of_each_operator_of_the_zoo_folds_whole(repository: Path) -> None:
    images = load_dataset("digits", limit=64)
    ones = {}
    for checkpoint in read_manifest(repository / "data" / "zoo", allow_code=True):
        ones[checkpoint.factors["operator"]] = checkpoint
    assert len(ones) > 5
    for checkpoint in ones.values():
        model = load_checkpoint(checkpoint)
        prepared = PreparedImages(images, checkpoint.input)[:]
        network = shift_network(model, prepared)
        assert norms_outside(network) == 0, checkpoint.name
        assert_same(network, model, prepared)
