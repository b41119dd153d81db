"""Exact equivariance under circular shift, through a layer and through a residual block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from invariscope.zoo.operators import build_operator

EXACT = [
    "aps", "aps(p=1)", "aps(p=inf)", "aps(filter=3)", "aps(rank=2)", "aps(rank=4)", "aps(filter=3, choose=input)",
    "lps", "lps(hidden=3, filter=4)", "tips(phase, hard=true)", "prefilter(0.7, aps(rank=3))",
]  # fmt: skip


class Block(nn.Module):
    """Main: conv, ReLU, operator, conv. Shortcut: operator, 1x1; ``shared``: with the phase of the main branch."""

    def __init__(self, spec: str, stride: int, shared: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular")
        self.operator = build_operator(spec, 6, stride, "circular")
        self.conv2 = nn.Conv2d(6, 5, 3, padding=1, padding_mode="circular")
        self.shortcut = build_operator(spec, 4, stride, "circular")
        self.project = nn.Conv2d(4, 5, 1)
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        main = self.conv2(self.operator(self.conv1(x).relu()))
        selection = self.operator.selection if self.shared else None
        return self.project(self.shortcut(x, selection=selection)) + main


@torch.no_grad()
def relative_error(module: nn.Module, x: Tensor, stride: int, shift: tuple[int, int]) -> float:
    """Least difference between the output for the shifted input and any roll of the output."""
    y = module(x)
    shifted = module(x.roll(shift, (2, 3)))
    height, width = y.shape[2:]
    errors = []
    for image in range(len(x)):
        # The phase that was chosen decides whether the output moves by floor or by ceil of shift / stride.
        rolls = [y[image].roll((a, b), (1, 2)) for a in range(height) for b in range(width)]
        errors.append(min(float((shifted[image] - rolled).norm() / rolled.norm()) for rolled in rolls))
    return max(errors)


def inputs(stride: int) -> Tensor:
    return torch.randn(3, 4, 3 * stride, 4 * stride, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spec", EXACT)
@pytest.mark.parametrize("stride", [2, 3])
def test_layer_is_exact(spec: str, stride: int) -> None:
    torch.manual_seed(0)
    operator = build_operator(spec, 4, stride, "circular").double().eval()
    for shift in ((1, 0), (0, 1), (1, 2), (-3, 5)):
        assert relative_error(operator, inputs(stride), stride, shift) <= 1e-10


@pytest.mark.parametrize("spec", EXACT)
@pytest.mark.parametrize("stride", [2, 3])
def test_residual_block_is_exact_with_a_shared_phase(spec: str, stride: int) -> None:
    torch.manual_seed(0)
    block = Block(spec, stride, shared=True).double().eval()
    assert block.operator.shares_selection
    for shift in ((1, 0), (0, 1), (1, 2), (-3, 5)):
        assert relative_error(block, inputs(stride), stride, shift) <= 1e-10
    assert torch.equal(block.shortcut.selection, block.operator.selection)


@pytest.mark.parametrize("spec", EXACT)
def test_residual_block_with_independent_phases_is_not(spec: str) -> None:
    errors = []
    for seed in range(5):
        torch.manual_seed(seed)
        block = Block(spec, 2, shared=False).double().eval()
        errors += [relative_error(block, inputs(2), 2, shift) for shift in ((1, 0), (0, 1), (1, 1))]
    assert max(errors) > 0.05


@pytest.mark.parametrize("spec", ["max", "subsample", "blur(3)", "soft(4)", "tips", "tips(phase)", "tips(hard=true)"])
def test_the_others_are_not_exact(spec: str) -> None:
    errors = []
    for seed in range(5):
        torch.manual_seed(seed)
        operator = build_operator(spec, 4, 2, "circular").double().eval()
        errors += [relative_error(operator, inputs(2), 2, shift) for shift in ((1, 0), (0, 1), (1, 1))]
    assert max(errors) > 0.01
    assert not build_operator("tips", 4).shares_selection


@pytest.mark.parametrize(
    "spec", ["max", "avg", "subsample", "lp(3)", "soft(4)", "blur(4)", "maxblur(3)", "ddac", "tips(phase)"]
)
def test_shifts_by_the_stride_move_the_output(spec: str) -> None:
    torch.manual_seed(0)
    operator = build_operator(spec, 4, 2, "circular").double().eval()
    x = inputs(2)
    torch.testing.assert_close(operator(x.roll((2, -4), (2, 3))), operator(x).roll((1, -2), (2, 3)))


def test_lps_in_training_shares_its_mixture() -> None:
    torch.manual_seed(0)
    block = Block("lps", 2, shared=True).double()
    block(inputs(2))
    assert block.operator.selection.shape == (3, 4)
    assert block.shortcut.selection is block.operator.selection
    torch.testing.assert_close(block.operator.selection.sum(1), torch.ones(3, dtype=torch.float64))
