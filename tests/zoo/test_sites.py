"""Finding the downsampling sites of networks, and leaving the networks as they were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError
from invariscope.zoo.architectures import ARCHITECTURES
from invariscope.zoo.operators import OPERATORS, build_operator
from invariscope.zoo.sites import Site, find_sites, record


class Call(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[[Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


IMAGE = torch.arange(2 * 3 * 16 * 16).float().view(2, 3, 16, 16) / 100


def kinds(model: nn.Module, image: Tensor = IMAGE) -> list[tuple[str, str]]:
    return [(site.name, site.kind) for site in find_sites(model, image)]


def test_every_kind_of_module() -> None:
    model = nn.Sequential(
        nn.MaxPool2d(3, 1, 1),
        nn.Conv2d(3, 4, 3, 2, 1, dilation=2, groups=1, padding_mode="reflect"),
        nn.ReLU(),
        nn.MaxPool2d((2, 1), (2, 1)),
        nn.AvgPool2d((1, 2), (1, 2)),
        nn.Conv2d(4, 8, 1, 2),
        nn.AdaptiveAvgPool2d(1),
    )
    assert find_sites(model, IMAGE) == [
        Site(0, "1", "1", "conv", (3, 3), (2, 2), 4, (14, 14), (7, 7)),
        Site(1, "3", "3", "max", (2, 1), (2, 1), 4, (7, 7), (3, 7)),
        Site(2, "4", "4", "avg", (1, 2), (1, 2), 4, (3, 7), (3, 3)),
        Site(3, "5", "5", "conv", (1, 1), (2, 2), 8, (3, 3), (2, 2)),
    ]


def test_what_is_no_site() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.MaxPool2d(3, 1, 1),
        nn.AvgPool2d(2, 1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
        build_operator("max", 4, stride=1),
        build_operator("blur", 4, stride=1),
    )
    assert find_sites(model, IMAGE) == []
    for pool in (nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1), nn.AvgPool2d(16), nn.MaxPool2d(16), nn.Flatten()):
        assert find_sites(pool, IMAGE) == []
    assert find_sites(Call(lambda x: F.avg_pool2d(x, x.shape[-1])), IMAGE) == []
    assert find_sites(Call(lambda x: x[:, :2, 1:5, 3:]), IMAGE) == []
    # A stride on a map of one pixel makes nothing smaller.
    assert find_sites(nn.Conv2d(3, 4, 1, 2), IMAGE[..., :1, :1]) == []
    assert find_sites(Call(lambda x: x.long()[..., ::2, ::2]), IMAGE) == []


def test_functions_are_found_with_their_module() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = F.max_pool2d(self.conv(x), 2)
            return F.conv2d(y, self.conv.weight, stride=2) + F.avg_pool2d(y, 2)[..., 1:, 1:]

    model = nn.Sequential()
    model.add_module("stem", Call(lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))[:, 1:4]))
    model.add_module("block", Block())
    assert [(site.name, site.path, site.kind) for site in find_sites(model, IMAGE)] == [
        ("stem", "stem", "subsample"),
        ("block.max", "block", "max"),
        ("block.conv", "block", "conv"),
        ("block.avg", "block", "avg"),
    ]
    assert kinds(nn.MaxPool2d(2)) == [("max", "max")]


@pytest.mark.parametrize("function", [
    lambda x: F.max_pool2d(x, 2),
    lambda x: F.max_pool2d(x, kernel_size=2, stride=2, return_indices=True)[0],
    lambda x: torch.max_pool2d(x, 2),
    lambda x: F.max_pool2d_with_indices(x, 2)[0],
    lambda x: F.adaptive_max_pool2d(x, (8, 8)),
    lambda x: F.adaptive_max_pool2d(x, 8, return_indices=True)[0],
])  # fmt: skip
def test_every_way_to_call_max_pooling(function: Callable[[Tensor], Tensor]) -> None:
    (site,) = find_sites(Call(function), IMAGE)
    assert site == Site(0, "max", "", "max", (2, 2), (2, 2), 3, (16, 16), (8, 8))


def test_a_module_used_twice_is_two_sites() -> None:
    pool = nn.MaxPool2d(2)
    assert kinds(nn.Sequential(pool, nn.ReLU(), pool)) == [("0", "max"), ("0#2", "max")]
    operator = build_operator("tips", 3)
    assert kinds(nn.Sequential(operator, operator)) == [("0", "tips"), ("0#2", "tips")]
    function = Call(lambda x: F.max_pool2d(F.max_pool2d(x, 2).relu(), 2))
    assert kinds(function) == [("max", "max"), ("max#2", "max")]


@pytest.mark.parametrize(("spec", "kernel"), [
    ("max", 2), ("max(kernel=3)", 3), ("avg", 2), ("subsample", 1), ("soft", 2), ("lp", 2), ("blur(4)", 4),
    ("maxblur(3)", 4), ("ddac", 3), ("aps", 2), ("aps(filter=3)", 4), ("lps", 2), ("tips", 2),
])  # fmt: skip
def test_operators_are_one_site_each(spec: str, kernel: int) -> None:
    model = nn.Sequential(nn.ReLU(), build_operator(spec, 3))
    name = spec.partition("(")[0]
    assert find_sites(model, IMAGE) == [Site(0, "1", "1", name, (kernel,) * 2, (2, 2), 3, (16, 16), (8, 8))]


def test_every_operator_is_found_in_the_architectures() -> None:
    for operator in OPERATORS:
        for architecture, count in (("smallcnn", 3), ("resnet8", 4)):
            found = find_sites(ARCHITECTURES[architecture](operator=operator), torch.rand(1, 3, 32, 32))
            assert len(found) == count
            assert {site.kind for site in found} == {operator}
            assert {site.stride for site in found} == {(2, 2)}
    strided = find_sites(ARCHITECTURES["resnet8"](operator="strided"), torch.rand(1, 3, 32, 32))
    assert [site.kind for site in strided] == ["conv", "subsample", "conv", "subsample"]


def test_padding_and_stride_one_filters_belong_to_the_site_after_them() -> None:
    pooled = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2))
    assert find_sites(pooled, IMAGE) == [Site(0, "1", "1", "max", (3, 3), (2, 2), 3, (16, 16), (8, 8))]
    composite = nn.Sequential(nn.MaxPool2d(2, 1), nn.ReflectionPad2d(1), nn.AvgPool2d(3, 2))
    assert find_sites(composite, IMAGE) == [Site(0, "2", "2", "max+avg", (4, 4), (2, 2), 3, (16, 16), (8, 8))]
    for every_second in (lambda x: x[..., ::2, ::2], lambda x: x[:, :, ::2, ::2]):
        sliced = nn.Sequential(nn.MaxPool2d(2, 1), Call(every_second))
        (site,) = find_sites(sliced, IMAGE)
        assert (site.kind, site.kernel, site.input_size) == ("max+subsample", (2, 2), (16, 16))
    fewer = nn.Sequential(nn.MaxPool2d(2, 1), Call(lambda x: x[:, :2, ::2, ::2]))
    assert kinds(fewer) == [("1", "subsample")]
    operators = nn.Sequential(build_operator("blur", 3, stride=1), build_operator("aps", 3))
    assert kinds(operators) == [("1", "blur+aps")]
    # Something between the two, also in place, makes them two operations: only the second has a stride.
    for between in (nn.ReLU(), nn.ReLU(inplace=True), Call(lambda x: x.mul_(2)), Call(lambda x: x.__iadd__(1))):
        model = nn.Sequential(nn.MaxPool2d(2, 1), between, nn.AvgPool2d(3, 2))
        assert kinds(model) == [("2", "avg")]


def test_averaging_with_a_fixed_filter_is_blur_and_with_a_learned_one_convolution() -> None:
    fixed = torch.full((3, 1, 2, 2), 0.25)
    uneven = fixed * torch.tensor([1.0, 1.0, 2.0])[:, None, None, None]
    signed = fixed * torch.tensor([[3.0, -1.0], [1.0, 1.0]])

    def kind(weight: Tensor, bias: Tensor | None = None) -> str:
        return find_sites(Call(lambda x: F.conv2d(x, weight, bias, 2, groups=3)), IMAGE)[0].kind

    assert kind(fixed) == "blur"
    assert kind(nn.Parameter(fixed)) == kind(uneven) == kind(signed) == kind(fixed, torch.zeros(3)) == "conv"


def test_what_cannot_be_measured_is_listed_with_its_reason() -> None:
    cases = {
        "windows of several sizes": nn.AdaptiveAvgPool2d(5),
        "not sampling at a stride": nn.Upsample(scale_factor=0.5, mode="bilinear"),
        "nothing is sampled": nn.PixelUnshuffle(2),
        "powers of signed values": nn.LPPool2d(2, 2),
        "fractional": nn.FractionalMaxPool2d(2, output_size=7),
        "no image has its own": Call(lambda x: F.max_pool2d(x.repeat(2, 1, 1, 1), 2)),
        "without a batch dimension": Call(lambda x: F.max_pool2d(x[0], 2)),
    }
    for reason, model in cases.items():
        (site,) = find_sites(model, IMAGE)
        assert reason in (site.reason or ""), model
    (site,) = find_sites(Call(lambda x: F.conv2d(x[0], torch.ones(1, 3, 2, 2), stride=2)), IMAGE)
    assert "without a batch dimension" in (site.reason or "")


def hooks(model: nn.Module) -> int:
    kept = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")
    return sum(len(getattr(module, name)) for module in model.modules() for name in kept)


def network() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Dropout(), build_operator("lps", 4), nn.BatchNorm2d(4))
    model[1].eval()
    return model.train()


def test_nothing_is_left_behind() -> None:
    model = network()
    model[3].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    find_sites(model, IMAGE)
    assert hooks(model) == 0
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    # A forward pass that draws numbers leaves the random state alone too.
    find_sites(Call(lambda x: F.max_pool2d(x + torch.rand_like(x), 2)), IMAGE)
    assert torch.equal(torch.get_rng_state(), random)


def test_nothing_is_left_behind_by_a_failure() -> None:
    model = network()
    flags = [module.training for module in model.modules()]
    with pytest.raises(ModelError, match=r"the network fails on a batch of images 2 x 1 x 16 x 16: .*channels"):
        find_sites(model, IMAGE[:, :1])
    assert hooks(model) == 0
    assert [module.training for module in model.modules()] == flags

    class Broken(Exception):
        pass

    def consume(site: Site, use: object) -> None:
        raise Broken

    for inside in (model, nn.MaxPool2d(2)):
        # The consumer's own errors are not the network's.
        with pytest.raises(Broken):
            record(inside, IMAGE, consume)
        assert hooks(inside) == 0
    calls = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            calls.append(func)
            return func(*args, **(kwargs or {}))

    with Watch():
        F.relu(IMAGE)
    assert len(calls) == 1


def test_model_with_several_inputs_and_outputs() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, scale: float) -> dict[str, Tensor]:
            return {"out": F.max_pool2d(x * scale, 2)}

    assert [site.kind for site in find_sites(Two(), (IMAGE, 2.0))] == ["max"]
