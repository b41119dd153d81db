"""TIPS: its two regularisers and what the layer keeps for them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators import TIPS, build_operator
from invariscope.zoo.operators.tips import failure_loss, undo_loss


def test_failure_loss_at_known_weights() -> None:
    uniform = torch.full((2, 3, 4), 0.25, dtype=torch.float64)
    one_hot = torch.tensor([0.0, 0, 1, 0], dtype=torch.float64).expand(2, 3, 4)
    assert float(failure_loss(uniform)) == pytest.approx(0.5)
    assert float(failure_loss(one_hot)) == pytest.approx(0)
    assert float(failure_loss(uniform, "both")) == pytest.approx(1)
    assert float(failure_loss(one_hot, "both")) == pytest.approx(1)
    # The norm half-way between 1/s and 1: a weight t and the rest shared.
    for s in (2, 3):
        phases, norm = s * s, (1 + 1 / s) / 2
        rest = phases - 1
        t = (1 + math.sqrt(1 - (rest + 1) * (1 - rest * norm**2))) / (rest + 1)
        tau = torch.tensor([t] + [(1 - t) / rest] * rest, dtype=torch.float64)
        assert float(tau.norm()) == pytest.approx(norm)
        assert float(failure_loss(tau, "both")) == pytest.approx(0)
    mixed = torch.cat([uniform[:, :1], one_hot[:, :1]], 1)
    assert float(failure_loss(mixed)) == pytest.approx(0.25)
    assert float(failure_loss(mixed, "both")) == pytest.approx(1)


def test_failure_loss_of_a_single_phase_is_zero() -> None:
    for form in ("published", "both"):
        assert float(failure_loss(torch.ones(2, 3, 1), form)) == 0


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -2), (-2, 3), (3, 3)])
def test_undo_loss_is_the_loop(shift: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    psi = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    x = torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    total = 0.0
    for h in range(4):
        for w in range(5):
            a, b = h - shift[0], w - shift[1]
            inside = 0 <= a < 4 and 0 <= b < 5
            for n in range(2):
                for c in range(3):
                    target = float(x[n, c, a, b]) if inside else 0.0
                    total += (float(psi[n, c, h, w]) - target) ** 2
    assert float(undo_loss(psi, x, shift)) == pytest.approx(total / psi.numel())


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (0, -2), (-2, 3), (9, -8)])
def test_the_circular_undo_loss_is_the_loop(shift: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    psi, x = (torch.rand(2, 3, 4, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    total = sum(
        (float(psi[n, c, h, w]) - float(x[n, c, (h - shift[0]) % 4, (w - shift[1]) % 5])) ** 2
        for n in range(2)
        for c in range(3)
        for h in range(4)
        for w in range(5)
    )
    assert float(undo_loss(psi, x, shift, "circular")) == pytest.approx(total / psi.numel())


def test_circular_shifts_are_a_fraction_of_the_networks_input(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = TIPS(3, undo="circular")
    x = torch.randn(2, 3, 8, 6)
    layer(x)
    with pytest.raises(OperatorError, match="whose size is not known: call set_input_size"):
        layer.losses()
    layer.set_input_size((40, 32))
    drawn = []

    def randint(low: int, high: int, size: tuple[int, ...]) -> torch.Tensor:
        drawn.append((low, high))
        return torch.tensor(-9)

    monkeypatch.setattr(torch, "randint", randint)
    found = layer.losses()["undo"]
    assert drawn == [(-10, 11), (-8, 9)]  # a quarter of 40 x 32, both ends included
    torch.testing.assert_close(found, undo_loss(layer.logits(x)[0], x, (-1, -3), "circular"))


def test_a_training_tells_every_layer_the_size_of_the_input() -> None:
    from invariscope.zoo.datasets import load_dataset
    from invariscope.zoo.run import Run
    from invariscope.zoo.training.trainer import Trainer

    images = load_dataset("digits", split="train", limit=16)
    operator = "mix(0.5, max, tips(undo=circular))"
    run = Run(operator=operator, data="digits", batch_size=16, epochs=1, wake_up=0, model={"width": 2})
    trainer = Trainer(run, images)
    layers = [module for module in trainer.model.modules() if isinstance(module, TIPS)]
    size = tuple(images.images.shape[-2:])
    assert [layer.input_size for layer in layers] == [size] * 3
    next(iter(trainer.epochs()))


def test_undo_loss_holds_the_target_constant() -> None:
    psi, x = torch.rand(1, 2, 4, 4, requires_grad=True), torch.rand(1, 2, 4, 4, requires_grad=True)
    undo_loss(psi, x, (1, 1)).backward()
    assert x.grad is None
    assert float(psi.grad.abs().sum()) > 0


def test_undo_loss_refuses_a_shift_out_of_the_map() -> None:
    with pytest.raises(OperatorError, match="take a smaller one"):
        undo_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), (4, 0))


def test_losses_are_those_of_the_last_training_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer = TIPS(3, failure="both")
    assert layer.losses() == {}
    layer(torch.randn(2, 3, 9, 16))
    x = torch.randn(2, 3, 9, 16)
    assert isinstance(layer(x), torch.Tensor)
    drawn = []

    def randint(low: int, high: int, size: tuple[int, ...]) -> torch.Tensor:
        drawn.append((low, high))
        return torch.tensor(-1)

    monkeypatch.setattr(torch, "randint", randint)
    losses = layer.losses()
    assert drawn == [(-2, 3), (-4, 5)]  # both ends included; a quarter of 10 x 16
    padded = torch.nn.functional.pad(x, (0, 0, 0, 1))
    psi, logits = layer.logits(padded)
    torch.testing.assert_close(losses["undo"], undo_loss(psi, padded, (-1, -1)))
    torch.testing.assert_close(losses["failure_modes"], failure_loss(logits.softmax(2), "both"))
    sum(losses.values()).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in layer.parameters())
    layer.eval()(x)
    assert layer.losses() == {}


def test_the_shift_is_drawn_anew_and_follows_the_seed() -> None:
    layer = TIPS(3)
    layer.requires_grad_(False)
    layer(torch.randn(2, 3, 16, 16))
    torch.manual_seed(7)
    first = [float(layer.losses()["undo"]) for _ in range(8)]
    torch.manual_seed(7)
    assert [float(layer.losses()["undo"]) for _ in range(8)] == first
    assert len(set(first)) > 4


def test_hard_layers_train_softly_and_choose_in_evaluation() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    hard, soft = build_operator("tips(phase, hard=true)", 3), build_operator("tips(phase)", 3)
    soft.load_state_dict(hard.state_dict())
    assert torch.equal(hard(x), soft(x))
    # What a paired upsampling undoes in training: the one choice for all channels, still soft.
    _, logits = soft.logits(x)
    torch.testing.assert_close(hard.selection, torch.softmax(logits.mean(dim=1), dim=1))
    assert soft.selection is None
    assert set(hard.losses()) == {"undo", "failure_modes"}
    y = hard.eval()(x)
    assert hard.selection.shape == (2,)
    assert not torch.equal(y, soft.eval()(x))
    for n, k in enumerate(hard.selection.tolist()):
        assert torch.equal(y[n], x[n, :, k // 2 :: 2, k % 2 :: 2])


def test_it_replaces_a_max_pool_in_a_sequential() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), TIPS(6), nn.Conv2d(6, 4, 3))
    net(torch.randn(2, 3, 12, 12)).sum().backward()
    assert net[0].weight.grad is not None
