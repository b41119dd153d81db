"""Attacks against what can be known: closed forms, a plain loop, a library, budgets, and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError, InputError, ModelError
from invariscope.collectors.measure.attack import Attack
from invariscope.collectors.measure.attacks import PixelModel, attack_images, hard_selections, measure_attack
from invariscope.zoo.loading import build_model

N = 24
CURVE = {"linf": (1 / 255, 4 / 255, 0.3), "l2": (0.03, 0.5, 8.0)}


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.rand(N, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network(pixels: Tensor) -> nn.Module:
    """A small network in float64, where rounding does not turn the sign of a gradient; its classes are as likely."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 6, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.Softplus(), nn.Flatten()]
    last = nn.Linear(200, 5)
    model = PixelModel(nn.Sequential(*layers, last), (0.4,), (0.5,)).double().eval()
    with torch.no_grad():
        last.bias -= model(pixels.double()).mean(0)
    return model


@pytest.fixture(scope="module")
def labels(network: nn.Module, pixels: Tensor) -> Tensor:
    """What the network says, but for every sixth image."""
    with torch.no_grad():
        found = network(pixels.double()).argmax(1)
    found[::6] = (found[::6] + 1) % 5
    return found


def plain_pgd(network: nn.Module, image: Tensor, label: Tensor, norm: str, eps: float, step: float, steps: int):
    """One image, from itself: the first wrong point, or the last; and whether it is wrong. No code shared."""
    x = image.clone()
    for turn in range(steps + 1):
        x = x.detach().requires_grad_()
        logits = network(x[None])[0]
        if logits.argmax() != label or turn == steps:
            return x.detach(), bool(logits.argmax() != label)
        (gradient,) = torch.autograd.grad(-logits.log_softmax(0)[label], x)
        if norm == "linf":
            x = (x + step * gradient.sign()).detach()
            x = torch.minimum(torch.maximum(x, image - eps), image + eps)
        else:
            x = (x + step * gradient / gradient.square().sum().sqrt()).detach()
            length = (x - image).square().sum().sqrt()
            x = image + (x - image) * min(1.0, eps / float(length))
        x = x.clip(0, 1)
    raise AssertionError


@pytest.mark.parametrize(("norm", "eps"), [("linf", 3 / 255), ("l2", 0.15)])
def test_pgd_is_a_plain_loop_over_single_images(
    network: nn.Module, pixels: Tensor, labels: Tensor, norm: str, eps: float
) -> None:
    attack = Attack("pgd", norm, eps, steps=7, restarts=0)
    (made,) = attack_images(network, pixels.double(), labels, attack)
    wanted = [
        plain_pgd(network, image, label, norm, eps, 2.5 * eps / 7, 7)
        for image, label in zip(pixels.double(), labels, strict=True)
    ]
    torch.testing.assert_close(made.images, torch.stack([image for image, _ in wanted]), atol=1e-12, rtol=0)
    assert made.broken.tolist() == [broken for _, broken in wanted]
    assert 0 < int((made.broken & made.right).sum()) < int(made.right.sum())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_a_linear_network_the_accuracy_is_known(norm: str) -> None:
    """Two classes, logits ``±w x / 2``: broken where the margin is below ``eps ||w||`` of the dual norm."""
    draws = np.random.default_rng(0)
    weight = draws.normal(size=48)
    images = torch.from_numpy(0.5 + 0.002 * draws.normal(size=(40, 3, 4, 4)))
    margin = (images.flatten(1).numpy() - 0.5) @ weight
    dual = np.abs(weight).sum() if norm == "linf" else np.linalg.norm(weight)
    linear = nn.Linear(48, 2).double()
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(np.stack([-weight, weight]) / 2))
        linear.bias.copy_(torch.tensor([weight.sum(), -weight.sum()]) / 4)
    labels = torch.from_numpy((margin > 0).astype(int))
    for share in (0.3, 1.0, 2.0):
        eps = share * float(np.median(np.abs(margin))) / dual
        # From the image itself: on a sphere, a random start comes close to the nearest point and not quite to it.
        attack = Attack("pgd", norm, eps, restarts=0)
        row = measure_attack(nn.Sequential(nn.Flatten(), linear), images, labels, attack).iloc[0]
        assert row["accuracy"] == pytest.approx(np.mean(np.abs(margin) > eps * dual)), share
        assert 0 < row["accuracy"] < 1


def test_no_budget_is_clean_accuracy(network: nn.Module, pixels: Tensor, labels: Tensor) -> None:
    with torch.no_grad():
        clean = float((network(pixels.double()).argmax(1) == labels).double().mean())
    assert clean == pytest.approx(20 / 24)
    for norm in CURVE:
        assert measure_attack(network, pixels, labels, Attack("pgd", norm, 0.0))["accuracy"][0] == clean


@pytest.mark.parametrize("norm", CURVE)
def test_accuracy_falls_with_the_budget_and_the_images_stay_within_it(
    network: nn.Module, pixels: Tensor, labels: Tensor, norm: str
) -> None:
    shares = []
    for eps in CURVE[norm]:
        (made,) = attack_images(network, pixels, labels, Attack("pgd", norm, eps, steps=20))
        change = (made.images - pixels.double()).flatten(1)
        length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
        assert float(length.max()) <= eps * (1 + 1e-9)
        assert float(length.max()) > 0.3 * eps or eps == CURVE[norm][-1]
        assert made.images.min() >= 0
        assert made.images.max() <= 1
        with torch.no_grad():
            assert ((network(made.images).argmax(1) != labels) == made.broken).all()
        shares.append(float((~made.broken).double().mean()))
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5
    assert shares[-1] == 0


def test_the_start_is_the_images_own_and_no_block_matters(network: nn.Module, pixels: Tensor, labels: Tensor) -> None:
    for norm, budgets in CURVE.items():
        attack = Attack("pgd", norm, budgets[1], steps=4, restarts=2, seed=5)
        whole, small = (
            torch.cat([part.images for part in attack_images(network, pixels.double(), labels, attack, block=block)])
            for block in (N, 5)
        )
        torch.testing.assert_close(whole, small, atol=1e-12, rtol=0)
        (head,) = attack_images(network, pixels[:7].double(), labels[:7], attack)
        torch.testing.assert_close(whole[:7], head.images, atol=1e-12, rtol=0)
        (other,) = attack_images(network, pixels.double(), labels, Attack("pgd", norm, budgets[1], 4, 2, None, 6))
        assert not torch.equal(whole, other.images)


def test_starts_are_uniform_in_the_ball() -> None:
    """One step that moves nothing: the last image is the start. Uniform: mean radius d / (d + 1), signs balanced."""
    still = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    images = torch.full((400, 1, 2, 2), 0.5).double()
    with torch.no_grad():
        labels = still(images).argmax(1)
    for norm, mean in (("linf", 0.5), ("l2", 4 / 5)):
        parts = attack_images(still, images, labels, Attack("pgd", norm, 1e-3, steps=1, step_size=1e-12))
        change = torch.cat([part.images for part in parts]) - 0.5
        size = change.abs().flatten() if norm == "linf" else change.flatten(1).norm(dim=1)
        error = float(size.std()) / len(size) ** 0.5
        assert float(size.mean()) == pytest.approx(mean * 1e-3, abs=4 * error)
        assert abs(float((change > 0).double().mean()) - 0.5) < 4 * 0.5 / 40
        assert len(change.flatten(1).unique(dim=0)) == 400


def test_more_steps_raise_the_loss_and_more_starts_break_more(
    network: nn.Module, pixels: Tensor, labels: Tensor
) -> None:
    losses, shares = [], []
    right = network(pixels.double()).argmax(1) == labels
    for steps in (1, 2, 8):
        attack = Attack("pgd", "linf", 1 / 255, steps=steps, restarts=0, step_size=0.25 / 255)
        (made,) = attack_images(network, pixels, labels, attack)
        with torch.no_grad():
            losses.append(float(nn.functional.cross_entropy(network(made.images)[right], labels[right])))
    assert losses == sorted(losses)
    for restarts in (1, 3, 9):
        row = measure_attack(network, pixels, labels, Attack("pgd", "l2", 0.12, steps=1, restarts=restarts))
        shares.append(row["accuracy"][0])
    assert shares == sorted(shares, reverse=True)


def test_the_network_is_left_as_it_was(pixels: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(256, 4)).train()
    labels = torch.arange(N) % 4
    rows = [measure_attack(model, pixels, labels, Attack(epsilon=0.01, steps=3)) for _ in range(2)]
    assert rows[0].equals(rows[1])
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


class Rounded(nn.Module):
    """A linear network of rounded pixels: its gradient is zero, or cut off."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.cut = nn.Linear(256, 3), cut

    def forward(self, x: Tensor) -> Tensor:
        x = (x.flatten(1) * 255).round() / 255
        return self.linear(x).detach() if self.cut else self.linear(x)


@pytest.mark.parametrize(("cut", "line"), [(True, "lets no gradient through"), (False, "gradient of the loss is zero")])
def test_a_network_without_gradient_is_refused_in_one_line(pixels: Tensor, cut: bool, line: str) -> None:
    model = Rounded(cut)
    labels = model(pixels).argmax(1)
    with pytest.raises(ModelError, match=f"Rounded.*{line}.*square") as caught:
        measure_attack(model, pixels, labels, Attack(epsilon=0.01, steps=2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"epsilon": -0.1}, r"epsilon is -0.1 in linf: give a number from 0 to 1"),
        ({"epsilon": 8.0}, r"epsilon is 8 in linf.*8/255"),
        ({"epsilon": float("nan"), "norm": "l2"}, "epsilon is nan in l2: give a number of at least 0"),
        ({"norm": "l1"}, "unknown norm 'l1'"),
        ({"name": "pdg"}, "unknown attack 'pdg': did you mean 'pgd'"),
        ({"steps": 0}, "an attack of 0 steps"),
        ({"restarts": -1}, "pgd with -1 restarts"),
        ({"name": "square", "restarts": 0}, "square with 0 restarts"),
        ({"step_size": 0.0}, "step size is 0"),
        ({"name": "apgd-ce", "step_size": 0.1}, "apgd-ce chooses its step sizes itself"),
    ],
)
def test_bad_settings(settings: dict, line: str) -> None:
    with pytest.raises(InputError, match=line):
        Attack(**settings)


def test_bad_images(network: nn.Module, pixels: Tensor, labels: Tensor) -> None:
    whole = (pixels * 255).byte()
    for images in (whole, whole.float() / 255):
        found = measure_attack(network, images, labels, Attack(steps=2, restarts=1))["accuracy"].item()
        assert (
            found
            == measure_attack(network, whole.double() / 255, labels, Attack(steps=2, restarts=1))["accuracy"].item()
        )
    with pytest.raises(DataError, match="pixels and not normalised: give them as uint8"):
        measure_attack(network, whole.float(), labels, Attack())
    with pytest.raises(DataError, match=r"image 0 has pixels from .*PixelModel\(model, mean, std\)"):
        measure_attack(network, (pixels - 0.5) / 0.2, labels, Attack())


def test_hard_selections_are_told() -> None:
    images, labels = torch.rand(4, 1, 16, 16), torch.arange(4)
    wanted = {"max": 0, "aps": 2, "lps": 2, "tips": 0, "tips(hard=true)": 2}
    for operator, sites in wanted.items():
        model = build_model(f"zoo:smallcnn?operator={operator}&width=4&in_channels=1")
        found = hard_selections(model)
        assert (found > 0) == (sites > 0), operator
        note = measure_attack(model, images, labels, Attack(epsilon=0.0))["note"][0]
        assert (note or "") == (f"gradients see only the chosen phase at {found} sites" if sites else "")


class TestLibrary:
    """The attacks of torchattacks."""

    @pytest.fixture(autouse=True)
    def library(self, torchvision) -> None:
        pytest.importorskip("torchattacks")

    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_pgd_is_that_of_the_library(self, network: nn.Module, pixels: Tensor, labels: Tensor, norm: str) -> None:
        import torchattacks

        eps, steps = (2 / 255, 5) if norm == "linf" else (0.1, 5)
        (made,) = attack_images(network, pixels.double(), labels, Attack("pgd", norm, eps, steps, restarts=0))
        make = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
        theirs = make(network, eps=eps, alpha=2.5 * eps / steps, steps=steps, random_start=False)
        found = theirs(pixels.double(), labels)
        standing = ~made.broken
        assert 5 < int(standing.sum()) < N
        torch.testing.assert_close(made.images[standing], found[standing].detach(), atol=1e-8, rtol=0)

    @pytest.mark.parametrize("norm", ["linf", "l2"])
    def test_the_ensemble_is_the_strongest_and_a_black_box_no_stronger(
        self, network: nn.Module, pixels: Tensor, labels: Tensor, norm: str
    ) -> None:
        eps = {"linf": 3 / 255, "l2": 0.15}[norm]
        shares = {}
        for name in ("pgd", "apgd-ce", "apgd-t", "fab-t", "square", "autoattack"):
            (made,) = attack_images(network.float(), pixels, labels, Attack(name, norm, eps, steps=8))
            change = (made.images - pixels).flatten(1)
            length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
            assert float(length.max()) <= eps * (1 + 2e-5) + 1e-6
            assert made.images.min() >= 0
            assert made.images.max() <= 1
            with torch.no_grad():
                assert ((network(made.images).argmax(1) != labels) == made.broken).all()
            shares[name] = float((~made.broken).double().mean())
        network.double()
        # Its first attack has the dice of that attack alone, the others see fewer images and so have dice of their own.
        assert shares["autoattack"] <= min(shares["apgd-ce"], shares["pgd"]) < 20 / 24
        assert shares["autoattack"] <= min(shares.values()) + 2 / 24
        assert shares["square"] >= max(shares["pgd"], shares["autoattack"])

    def test_square_needs_no_gradient(self, pixels: Tensor) -> None:
        model = Rounded(cut=True)
        labels = model(pixels).argmax(1)
        row = measure_attack(model, pixels, labels, Attack("square", epsilon=0.3, steps=4)).iloc[0]
        assert row["accuracy"] < 0.5

    def test_repeats_itself_and_leaves_random_numbers_alone(self, pixels: Tensor, labels: Tensor) -> None:
        torch.manual_seed(11)
        wanted = torch.rand(3)
        torch.manual_seed(11)
        model = build_model("zoo:smallcnn?operator=max&width=4&in_channels=1&classes=5")
        torch.manual_seed(11)
        attack = Attack("autoattack", epsilon=0.01, steps=3)
        rows = [measure_attack(model, pixels, labels, attack) for _ in range(2)]
        assert torch.equal(torch.rand(3), wanted)
        assert rows[0].equals(rows[1])

    def test_too_few_classes(self, pixels: Tensor) -> None:
        model = Rounded(cut=False)
        with pytest.raises(ModelError, match="apgd-t needs 4 classes and the network has 3"):
            measure_attack(model, pixels, model(pixels).argmax(1), Attack("apgd-t", epsilon=0.01, steps=2))

    def test_images_too_small_for_square(self, network: nn.Module) -> None:
        model, images = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), torch.rand(2, 1, 8, 8)
        with pytest.raises(ModelError, match=r"square in l2 needs images of 15 pixels, and these have 8: .* pgd"):
            measure_attack(model, images, model(images).argmax(1), Attack("square", "l2", 0.1, steps=1))
