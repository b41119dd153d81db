"""Preconditions of exact invariance: broken on purpose, each is named with its place, and costs consistency."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import invariscope as iv
from invariscope.base.errors import DataError, ModelError, ShiftError
from invariscope.cli import DONE, main
from invariscope.collectors.measure.exactness import explain_invariance
from invariscope.collectors.measure.preconditions import PRECONDITIONS
from invariscope.zoo.operators import build_operator


def noise(count: int = 24, channels: int = 3, side: int = 16) -> Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(3))


def bordered(side: int = 16, border: int = 5, channels: int = 3) -> Tensor:
    """Noise within a border of zeros."""
    image = torch.zeros(1, channels, side, side)
    inner = slice(border, side - border)
    image[..., inner, inner] = noise(1, channels, side)[..., inner, inner]
    return image


def conv(channels: int, out: int, mode: str = "circular", **options: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, padding=1, padding_mode=mode, **options)


class Net(nn.Module):
    """Convolution, ReLU, operator, twice; then the mean over space and a linear layer."""

    def __init__(self, operator: str = "aps", stem: nn.Module | None = None, mode: str = "circular") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem = stem or conv(3, 6)
        self.down1 = build_operator(operator, 6, 2, mode)
        self.body = conv(6, 6)
        self.down2 = build_operator(operator, 6, 2, mode)
        self.head = nn.Linear(6, 10)

    def features(self, x: Tensor) -> Tensor:
        return self.down2(self.body(self.down1(self.stem(x).relu())).relu())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Flat(Net):
    """The same with a head that takes every position of the last map for a feature."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Functional(Net):
    """Max pooling by a function instead of the second operator."""

    def features(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.body(self.down1(self.stem(x).relu())).relu(), 2)


class Padded(Net):
    """Zeros put around the map by a function, and the convolution over them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(6, 6, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.down2(self.body(F.pad(self.down1(self.stem(x).relu()), (1, 1, 1, 1))).relu())


class Split(nn.Module):
    """Two branches that are added; ``shared``: the second takes the phase of the first."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.conv, self.shared = conv(6, 6), shared
        self.main, self.side = build_operator("aps", 6, 2, "circular"), build_operator("aps", 6, 2, "circular")

    def forward(self, x: Tensor) -> Tensor:
        main = self.main(self.conv(x).relu())
        return main + self.side(x, selection=self.main.selection if self.shared else None)


def residual(shared: bool) -> Net:
    net = Net()
    net.down1 = Split(shared)
    return net


class Centred(nn.Module):
    """Logits less their means over images, per class: so that a class of random weights does not win everywhere."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.model = model.eval()
        with torch.no_grad():
            self.mean = model(images).mean(0)
            self.scale = model(images).std(0)

    def forward(self, x: Tensor) -> Tensor:
        return (self.model(x) - self.mean) / self.scale


def consistency(model: nn.Module, images: Tensor) -> float:
    model = Centred(model, images)
    plan = iv.ShiftPlan.sampled(len(images), max_shift=4, kind="circular")
    found = iv.measure_invariance(model, images, None, plan, progress=False)
    return float(found.loc[found["score"] == "consistency", "value"].iloc[0])


def same_answer(model: nn.Module, images: Tensor) -> bool:
    """By every circular shift, in float64, of the images and one within a plain border: the reference."""
    twin, side = model.double().eval(), images.shape[3]
    images = torch.cat([images, bordered(side)]).double()
    with torch.no_grad():
        first = twin(images)
        for dy in range(side):
            shifted = twin(torch.cat([images.roll((dy, dx), (2, 3)) for dx in range(side)])).unflatten(0, (side, -1))
            if not bool(((shifted - first).flatten(2).norm(dim=2) / first.flatten(1).norm(dim=1) < 1e-9).all()):
                return False
    return True


def stem_of_stride_2() -> Net:
    return Net(stem=conv(3, 6, stride=2))


BROKEN: list[tuple[str, Callable[[], nn.Module], int, dict[str, set[str]]]] = [
    ("zeros in one convolution", lambda: Net(stem=conv(3, 6, "zeros")), 16, {"padding": {"stem"}}),
    ("a border left out", lambda: Net(stem=nn.Conv2d(3, 6, 5)), 16, {"padding": {"stem"}}),
    ("zeros in the filters", lambda: Net("aps(filter=3)", mode="zeros"), 16, {"padding": {"down1", "down2"}}),
    ("a strided stem", stem_of_stride_2, 16, {"sampling": {"stem"}}),
    ("max pooling", lambda: Net("max"), 16, {"sampling": {"down1", "down2"}}),
    ("soft TIPS", lambda: Net("tips"), 16, {"sampling": {"down1", "down2"}}),
    ("a function that pools", Functional, 16, {"sampling": {"max"}}),
    ("an odd map at one site", Net, 18, {"size": {"down2"}}),
    ("odd maps at both sites", lambda: Net("lps"), 15, {"size": {"down1"}}),
    ("a head that reads positions", Flat, 16, {"head": {"head"}}),
    ("branches apart", lambda: residual(False), 16, {"shared phase": {"down1"}}),
    ("zeros by a function", Padded, 16, {"padding": {"body"}}),
    (
        "several at once",
        lambda: Net(stem=conv(3, 6, "zeros", stride=2)),
        18,
        {"padding": {"stem"}, "sampling": {"stem"}, "size": {"down1", "down2"}},
    ),
]
WHOLE: list[tuple[str, Callable[[], nn.Module]]] = [
    ("aps", Net),
    ("aps with a filter", lambda: Net("aps(filter=3)")),
    ("lps", lambda: Net("lps")),
    ("hard TIPS", lambda: Net("tips(phase, hard=true)")),
    ("zeros that nothing reads", lambda: Net(mode="zeros")),
    ("one phase for both branches", lambda: residual(True)),
]


@pytest.mark.parametrize(("name", "build"), WHOLE, ids=[name for name, _ in WHOLE])
def test_whole_networks_are_exact(name: str, build: Callable[[], nn.Module]) -> None:
    found = explain_invariance(build().eval(), noise())
    assert found.exact
    assert found.chooses
    assert found.broken == ()
    assert found.change < 1e-9
    assert consistency(build(), noise()) == 1
    assert same_answer(build(), noise(2))


@pytest.mark.parametrize(("name", "build", "side", "expected"), BROKEN, ids=[case[0] for case in BROKEN])
def test_what_is_broken_is_named_with_its_place(
    name: str, build: Callable[[], nn.Module], side: int, expected: dict[str, set[str]]
) -> None:
    found = explain_invariance(build(), noise(side=side))
    frame = found.frame()
    assert {key: set(rows["where"]) for key, rows in frame.groupby("precondition")} == expected
    assert not found.exact
    assert found.change > 1e-3
    assert not same_answer(build(), noise(2, side=side))
    assert set(frame["precondition"]) <= set(PRECONDITIONS)
    for line in found.lines():
        assert "\n" not in line


def test_what_is_broken_costs_circular_consistency() -> None:
    """Of networks with random weights, with which a class changes on some of the images."""
    images = noise(64)
    for build in (lambda: Net(stem=conv(3, 6, "zeros")), stem_of_stride_2, lambda: residual(False), Flat):
        assert consistency(build(), images) < 1
    assert consistency(Net(), noise(64, side=18)) < 1


@pytest.mark.parametrize("image", [bordered(32, 10), torch.full((1, 3, 32, 32), 0.5)], ids=["border", "constant"])
def test_plain_images_do_not_hide_padding(image: Tensor) -> None:
    model = iv.build_model("zoo:smallcnn?operator=aps&width=4")
    found = explain_invariance(model, image)
    assert not found.exact
    assert found.change > 1e-3
    assert {(one.precondition, one.where) for one in found.broken} == {
        ("padding", f"stage{number}.conv") for number in (1, 2, 3)
    }
    said = "exactly invariant under circular shifts, on these images and on noise (1 image, 9 shifts)"
    assert explain_invariance(Net(), image).lines() == [said]


class Overflowing(Net):
    """NaN for an image whose brightest pixel is not in the corner, if that is brighter than 50."""

    def forward(self, x: Tensor) -> Tensor:
        most = x[:, 0].amax((1, 2))
        return super().forward(x).masked_fill(((most > 50) & (x[:, 0, 0, 0] < most))[:, None], float("nan"))


def test_an_output_that_is_not_finite_is_no_exact_one() -> None:
    images = noise(3)
    images[1, 0, 0, 0] = 99
    found = explain_invariance(Overflowing(), images)
    assert not found.exact
    assert "not exactly invariant under circular shifts: an output is not finite (3 images" in found.lines()[0]


class Keeps(nn.Module):
    """Leaves its map for another part."""

    kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = x
        return x


class Adds(nn.Module):
    """Adds the map that another part has left; ``once``: which is then let go."""

    def __init__(self, keeper: Keeps, once: bool) -> None:
        super().__init__()
        self.keepers, self.once = [keeper], once

    def forward(self, x: Tensor) -> Tensor:
        kept = self.keepers[0].kept
        if self.once:
            self.keepers[0].kept = None
        return x + kept


class Lent(Net):
    """A tensor that one part keeps is used by another."""

    def __init__(self, once: bool) -> None:
        super().__init__(mode="zeros", operator="aps(filter=3)")
        self.keeps = Keeps() if not once else nn.Identity()
        self.adds = Adds(self.keeps, once)

    def __deepcopy__(self, memo: object) -> Lent:
        twin = Lent(self.adds.once)
        twin.load_state_dict(self.state_dict())
        return twin

    def features(self, x: Tensor) -> Tensor:
        kept = self.keeps(self.down1(self.stem(x).relu()))
        self.keeps.kept = kept
        return self.down2(self.adds(self.body(kept).relu()))


@pytest.mark.parametrize(
    ("once", "why"), [(True, "it cannot be run alone (TypeError"), (False, "run alone, it gives another output")]
)
def test_a_part_that_cannot_be_run_alone_is_named_and_not_blamed(once: bool, why: str) -> None:
    found = explain_invariance(Lent(once), noise(4))
    assert {(one.precondition, one.where) for one in found.broken} == {("padding", "down1"), ("padding", "down2")}
    said = iv.look(Lent(once), noise(8), swaps=(), progress=False).lines()
    assert len([line for line in said if line.startswith(f"not tried: adds: {why}")]) == 1


def test_look_and_sites_go_on_where_this_step_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise TypeError("two\nlines")

    monkeypatch.setattr("invariscope.collectors.measure.exactness.reasons", fails)
    assert main(["sites", "zoo:smallcnn?operator=aps&width=4"]) == DONE
    assert "whether it is exactly invariant was not tried: two lines" in capsys.readouterr().out
    said = iv.look(Net(mode="zeros", operator="aps(filter=3)"), noise(8), swaps=(), progress=False).lines()
    assert any("exactly invariant was not tried: two lines" in line for line in said)


class Wide(nn.Module):
    """A layer that has as many features as the last map, before its mean, has numbers."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = conv(3, 8, "zeros")
        self.flat, self.drop = nn.Flatten() if flat else None, nn.Dropout()
        self.f1, self.f2 = nn.Linear(512 if flat else 8, 512), nn.Linear(512, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.f2(self.f1(self.drop(self.flat(x) if self.flat else x.mean((2, 3)))).relu())


def test_a_linear_layer_after_the_mean_is_no_head_that_reads_positions() -> None:
    images = noise(4, side=8)
    assert [vars(one)["where"] for one in explain_invariance(Wide(False), images).broken] == ["conv"]
    found = explain_invariance(Wide(True), images).broken
    assert [(one.precondition, one.where) for one in found] == [("padding", "conv"), ("head", "f1")]


def tied() -> Tensor:
    """Two phases of equal norm with other contents: 1, 2 and 2, 1."""
    x = torch.zeros(2, 3, 16, 16)
    x[0, :, 4, 4], x[0, :, 4, 8] = 1, 2
    x[0, :, 4, 5], x[0, :, 4, 9] = 2, 1
    x[1] = noise(1)[0]
    return x


def test_ties_are_told_with_the_images_that_have_them() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(build_operator("aps", 3, 2, "circular"), conv(3, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    found = explain_invariance(model, tied())
    assert [(one.precondition, one.where) for one in found.broken] == [("ties", "0")]
    assert "on 1 of 2 images" in found.broken[0].why
    assert not same_answer(model, tied())
    assert same_answer(model, tied()[1:])
    assert explain_invariance(model.float(), tied()[1:].float()).exact


def test_a_shift_kind_that_loses_pixels_is_a_broken_precondition() -> None:
    found = explain_invariance(Net(), noise(), kinds=("circular", "zero", "fractional"))
    assert found.exact
    assert [(one.precondition, one.where) for one in found.broken] == [("shift kind", "zero shifts")]
    assert found.lines()[-1] == "not tried: fractional shifts: circular shifts by whole pixels alone are"
    assert "every precondition" not in str(found)
    only = explain_invariance(Net(), noise(), kinds=("fractional",))
    assert only.broken == ()
    assert only.lines()[1:] == found.lines()[-1:]
    with pytest.raises(ShiftError):
        explain_invariance(Net(), noise(), kinds=("spiral",))


def test_maps_of_a_segmenter_roll_along_and_those_of_others_do_not() -> None:
    whole = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 5))
    assert explain_invariance(whole, noise()).exact
    whole[2] = conv(4, 5, "reflect")
    found = explain_invariance(whole, noise())
    assert [(one.precondition, one.where) for one in found.broken] == [("padding", "2")]


def test_the_network_is_left_as_it_was_and_bad_input_is_named() -> None:
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explain_invariance(model, noise())
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.stem._forward_hooks
    assert next(model.parameters()).dtype == torch.float32
    with pytest.raises(DataError, match="no images"):
        explain_invariance(model, noise(0))
    with pytest.raises(ModelError, match="4 x 16 x 16"):
        explain_invariance(model, noise(channels=4))


def test_sites_and_look_say_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "zoo:smallcnn?operator=aps&width=4"]) == DONE
    said = capsys.readouterr().out.splitlines()
    (line,) = (line for line in said if line.startswith("broken: "))
    assert line.startswith("broken: padding: stage1.conv, stage2.conv, stage3.conv: it pads with zeros: ")
    assert main(["sites", "zoo:smallcnn?operator=lps&width=4&padding_mode=circular"]) == DONE
    assert "exactly invariant under circular shifts" in capsys.readouterr().out
    assert main(["sites", "zoo:smallcnn?operator=max&width=4"]) == DONE
    assert "invariant" not in capsys.readouterr().out
    found = iv.look(Net(), noise(8, side=18), swaps=(), progress=False)
    assert any(line.startswith("broken: size: down2: its map is 9x9, which stride 2") for line in found.lines())
    assert any(line.startswith("broken: shift kind: zero shifts") for line in found.lines())
    assert not [line for line in iv.look(Net("max"), noise(8), swaps=(), progress=False).lines() if "broken" in line]
