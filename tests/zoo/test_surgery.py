from __future__ import annotations

import copy
import io
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError, OperatorError
from invariscope.zoo.architectures import ARCHITECTURES
from invariscope.zoo.operators import OPERATORS, TIPS, Blur
from invariscope.zoo.operators.blur import blur
from invariscope.zoo.sites import find_sites
from invariscope.zoo.surgery import replace_downsampling


class Plain(nn.Module):
    """A network with one site of each common kind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.average = nn.AvgPool2d(2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.norm(self.stem(x))))
        x = self.average(self.conv(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Block(nn.Module):
    """A residual block that uses its activation twice, as torchvision's does."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, channels, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv2(self.relu(self.bn1(self.conv1(x)))) + self.shortcut(x))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def plain() -> nn.Module:
    torch.manual_seed(0)
    model = Plain()
    # Running statistics that change something, so that a norm left out would be seen.
    model.norm.running_mean.uniform_(-1, 1)
    model.norm.running_var.uniform_(0.5, 2)
    return model.eval()


def row(table: pd.DataFrame, site: str) -> Any:
    return table[table.site == site].iloc[0]


@torch.no_grad()
def test_the_output_is_that_of_the_network_built_by_hand(plain: Plain, images: Tensor) -> None:
    model, table = replace_downsampling(plain, "blur(m=4)", images)
    x = F.conv2d(images, plain.stem.weight, padding=3)
    x = blur(plain.norm(x).relu(), 4)
    x = blur(F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-9e9), 3, 1), 4)
    x = blur(F.conv2d(x, plain.conv.weight, plain.conv.bias, padding=1), 4)
    x = blur(x, 4)
    torch.testing.assert_close(model(images), plain.head(x.mean((2, 3))))
    assert table.replaced.all()
    assert list(table.site) == ["stem", "pool", "conv", "average"]
    assert list(table.placed) == [
        "after act",
        "in place of pool, after its maximum at stride 1",
        "after conv",
        "in place of average",
    ]
    assert list(table.kept) == ["stem.weight", "", "conv.weight, conv.bias", ""]
    assert set(table.operator) == {"blur(m=4)"}
    assert row(table, "conv").reason == "no activation follows it directly"


@torch.no_grad()
def test_tips_stands_alone_for_a_max_pooling(plain: Plain, images: Tensor) -> None:
    model, table = replace_downsampling(plain, "tips", images, where="pool")
    assert isinstance(model.pool, TIPS)
    assert list(table.replaced) == [False, True, False, False]
    assert row(table, "stem").reason == "not among the sites asked for"
    x = plain.average(plain.conv(model.pool(plain.act(plain.norm(plain.stem(images))))))
    torch.testing.assert_close(model(images), plain.head(x.mean((2, 3))))
    kept, _ = replace_downsampling(plain, "tips", images, where="pool", keep_max=True)
    assert kept.pool.dense is not None
    alone, _ = replace_downsampling(plain, "blur", images, where="pool", keep_max=False)
    assert isinstance(alone.pool, Blur)


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 65, 50])
def test_subsampling_gives_the_network_back(plain: Plain, images: Tensor, size: int) -> None:
    plain.average = nn.Identity()
    model, _ = replace_downsampling(plain.double(), "subsample", images.double())
    other = torch.randn(1, 3, size, size, dtype=torch.float64)
    torch.testing.assert_close(model(other), plain(other), rtol=1e-12, atol=1e-12)


def test_the_weights_stay_and_so_does_the_network_itself(plain: Plain, images: Tensor) -> None:
    state = copy.deepcopy(plain.state_dict())
    plain.norm.train()
    plain.stem.weight.requires_grad_(False)
    random = torch.get_rng_state()
    model, _ = replace_downsampling(plain, "tips", images)
    assert torch.equal(torch.get_rng_state(), random) is False  # the operators' own weights are drawn
    assert plain.state_dict().keys() == state.keys()
    found = model.state_dict()
    for key, value in state.items():
        assert torch.equal(plain.state_dict()[key], value)
        assert torch.equal(found[key], value)
    added = sorted(set(found) - set(state))
    assert added == [
        f"{place}.{part}.weight"
        for place in ("act.operator", "average.operator", "conv.operator", "pool")
        for part in ("depthwise", "pointwise")
    ]
    assert model.norm.training
    assert not model.training
    assert not model.pool.training
    assert not model.stem.weight.requires_grad
    assert plain.stem.stride == (2, 2)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules())
    same, _ = replace_downsampling(plain, "tips", images, inplace=True)
    assert same is plain
    assert plain.stem.stride == (1, 1)


def test_data_type_and_training_mode_are_taken_over(plain: Plain, images: Tensor) -> None:
    model, _ = replace_downsampling(plain.double().train(), "lps", images.double())
    assert {value.dtype for value in model.state_dict().values() if value.is_floating_point()} == {torch.float64}
    assert all(module.training for module in model.modules())
    half, _ = replace_downsampling(plain.bfloat16().eval(), "tips", images.bfloat16())
    assert half(images.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("operator", list(OPERATORS))
def test_every_operator_trains_in_any_place(operator: str, images: Tensor) -> None:
    torch.manual_seed(0)
    model, table = replace_downsampling(Plain().train(), operator, images)
    assert table.replaced.all()
    model(images).square().sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients.values())
    assert all(bool(gradients[name].abs().sum() > 0) for name in gradients if "head" in name or "stem" in name)
    if operator in ("tips", "lps", "ddac"):
        mine = [name for name in gradients if name not in dict(Plain().named_parameters())]
        assert len(mine) >= 8
        assert any(bool(gradients[name].abs().sum() > 0) for name in mine)


def test_a_second_call_changes_nothing(plain: Plain, images: Tensor) -> None:
    once, _ = replace_downsampling(plain, "tips", images, padding_mode="circular")
    twice, table = replace_downsampling(once, "tips", images, padding_mode="circular")
    assert not table.replaced.any()
    assert set(table.reason) == {"it is tips already"}
    assert str(twice) == str(once)
    for key, value in once.state_dict().items():
        assert torch.equal(twice.state_dict()[key], value)
    assert torch.equal(twice(images), once(images))
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in once.modules()]
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in twice.modules()] == hooks


@torch.no_grad()
def test_another_operator_takes_the_first_ones_place(plain: Plain, images: Tensor) -> None:
    once, _ = replace_downsampling(plain, "tips", images)
    model, table = replace_downsampling(once, "blur(m=2)", images)
    assert table.replaced.all()
    direct, _ = replace_downsampling(plain, "blur(m=2)", images, keep_max=False)
    torch.testing.assert_close(model(images), direct(images))
    circular, table = replace_downsampling(direct, "blur(m=2)", images, padding_mode="circular")
    assert table.replaced.all()
    assert circular.pool.padding_mode == "circular"


def test_where(plain: Plain, images: Tensor) -> None:
    def chosen(where: Any) -> list[str]:
        table = replace_downsampling(plain, "avg", images, where=where)[1]
        return list(table.site[table.replaced])

    assert chosen(None) == ["stem", "pool", "conv", "average"]
    assert chosen("conv") == ["stem", "conv"]  # the name of one site and the kind of two
    assert chosen("max") == ["pool"]
    assert chosen("*e*") == ["stem", "average"]
    assert chosen(["stem", "pool"]) == ["stem", "pool"]
    assert chosen(lambda site: site.depth > 1) == ["conv", "average"]
    assert chosen(lambda site: False) == []
    with pytest.raises(ModelError, match=r"kind 'layer9': the network's sites are stem \(conv\), pool \(max\), "):
        chosen("layer9")


@torch.no_grad()
def test_places_behind_an_activation() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 6, 16, 16)
    block = Block().eval()
    block.bn1.running_var.uniform_(0.5, 2)
    model, table = replace_downsampling(block, "blur", x)
    assert list(table.placed) == ["before conv2", "after shortcut"]
    main = block.conv2(blur(block.bn1(F.conv2d(x, block.conv1.weight, block.conv1.bias, padding=1)).relu()))
    side = blur(F.conv2d(x, block.shortcut.weight, block.shortcut.bias))
    torch.testing.assert_close(model(x), (main + side).relu())
    conv, table = replace_downsampling(block, "blur", x, placement="conv")
    assert list(table.placed) == ["after conv1", "after shortcut"]
    assert list(table.reason) == ["", ""]
    main = block.conv2(block.bn1(blur(F.conv2d(x, block.conv1.weight, block.conv1.bias, padding=1))).relu())
    torch.testing.assert_close(conv(x), (main + side).relu())
    published, table = replace_downsampling(block, "tips", x, placement="published")
    assert list(table.placed) == ["before conv2", "before shortcut"]
    operator = published.get_submodule("shortcut.operator_before")
    side = F.conv2d(operator(x), block.shortcut.weight, block.shortcut.bias)
    main = published.conv2(block.bn1(F.conv2d(x, block.conv1.weight, block.conv1.bias, padding=1)).relu())
    torch.testing.assert_close(published(x), (main + side).relu())


def test_shared_modules_are_replaced_once() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2)
            self.again = self.pool
            self.conv = nn.Conv2d(3, 3, 3, 2, 1)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.act(self.conv(self.act(self.conv(self.pool(x))))))

    net, x = Shared(), torch.randn(1, 3, 33, 40)
    model, table = replace_downsampling(net, "tips", x)
    assert list(table.site) == ["pool", "conv", "conv#2", "pool#2"]
    assert table.replaced.all()
    assert list(table.cropped) == [(1, 0), (0, 0), (0, 0), (0, 1)]
    assert set(table.reason[1:3]) == {"the convolution is used several times"}
    assert model.again is model.pool
    assert model(x).shape == net(x).shape
    exact, _ = replace_downsampling(net, "subsample", x)
    torch.testing.assert_close(exact(x), net(x))
    one, table = replace_downsampling(net, "tips", x, where="conv#2")
    assert list(table.replaced) == [False, True, True, False]
    assert table.reason[1].endswith("its module is at a site that was asked for")
    assert one.pool is one.again


def test_a_network_can_be_a_pool_or_a_convolution() -> None:
    x = torch.randn(1, 3, 16, 16)
    model, table = replace_downsampling(nn.MaxPool2d(2), "tips", x)
    assert isinstance(model.operator, TIPS)
    assert table.placed[0] == "in place of the network"
    conv = nn.Conv2d(3, 4, 3, 2)
    model, table = replace_downsampling(conv, "subsample", x)
    torch.testing.assert_close(model(x), conv(x))
    assert (table.placed[0], table.kept[0]) == ("after the network", "weight, bias")


def test_networks_of_this_project(images: Tensor) -> None:
    zoo = ARCHITECTURES["resnet8"](operator="max").eval()
    model, table = replace_downsampling(zoo, "tips", images)
    assert table.replaced.all()
    assert [site.kind for site in find_sites(model, images)] == ["tips"] * 4
    assert model(images).shape == (2, 10)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor, scale: Tensor) -> dict[str, Any]:
        y = self.pool(x) * scale
        return {"out": y, "more": [y.mean(), (y, None)]}


def test_two_inputs_and_outputs_in_a_dict() -> None:
    x = torch.randn(1, 3, 9, 9)
    model, table = replace_downsampling(Two(), "tips", (x, torch.tensor(2.0)))
    assert table.cropped[0] == (1, 1)
    assert model(x, torch.tensor(2.0))["out"].shape == (1, 3, 4, 4)
    with pytest.raises(ModelError, match="missing 1 required positional argument: 'scale'"):
        replace_downsampling(Two(), "tips", x)


def test_bad_input_is_one_line(plain: Plain, images: Tensor) -> None:
    class Uncopied(nn.MaxPool2d):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no\ncopies")

    class Fixed(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if type(self[0]) is not nn.MaxPool2d:
                raise RuntimeError("only a maximum will do")
            return super().forward(x)

    cases: list[tuple[type[Exception], str, Any, Any, dict[str, Any]]] = [
        (OperatorError, "unknown operator 'tip': did you mean 'tips'", plain, images, {"operator": "tip"}),
        (ModelError, "unknown placement 'relu'", plain, images, {"placement": "relu"}),
        (ModelError, "unknown padding mode 'zero'", plain, images, {"padding_mode": "zero"}),
        (ModelError, "no downsampling site: nothing to replace", nn.ReLU(), images, {}),
        (ModelError, "the network fails on a batch of images", plain, images[:, :1], {}),
        (ModelError, r"cannot be copied \(no copies\): pass inplace=True", Uncopied(2), images, {}),
        (ModelError, "with the operator in it, .*only a maximum will do", Fixed(nn.MaxPool2d(2)), images, {}),
    ]
    for kind, message, model, example, arguments in cases:
        with pytest.raises(kind, match=message) as caught:
            replace_downsampling(model, **{"operator": "tips", "example": example, **arguments})
        assert "\n" not in str(caught.value)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in plain.modules())


def test_an_example_is_not_always_needed(plain: Plain) -> None:
    _, table = replace_downsampling(plain)
    assert row(table, "stem").output_size == (112, 112)
    assert set(table.operator) == {"tips"}
    plain.pretrained_cfg = {"input_size": (3, 32, 32)}
    assert row(replace_downsampling(plain)[1], "stem").output_size == (16, 16)


def test_the_result_can_be_copied_saved_and_loaded(plain: Plain, images: Tensor) -> None:
    model, _ = replace_downsampling(nn.Sequential(nn.Conv2d(3, 6, 2, 2), Block()).eval(), "aps", images)
    expected = model(images)
    assert torch.equal(copy.deepcopy(model)(images), expected)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(images), expected)
    fresh, _ = replace_downsampling(nn.Sequential(nn.Conv2d(3, 6, 2, 2), Block()).eval(), "aps", images)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(images), expected)
