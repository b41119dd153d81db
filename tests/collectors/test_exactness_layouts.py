"""Exactness: maps with channels last, outputs with a large bias, and scores of phases that died."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from invariscope.collectors.measure.exactness import explain_invariance
from invariscope.zoo.operators import build_operator
from tests.collectors.test_exactness import Net, conv, noise, same_answer


class Last(nn.Module):
    """Channels last within a block, after a convolution that pads with ``mode``; ``whole``: normalised over space."""

    def __init__(self, mode: str, whole: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = conv(3, 8, mode)
        self.block = nn.Sequential(nn.LayerNorm([12, 12, 8] if whole else 8), nn.Linear(8, 6), nn.GELU())
        nn.init.normal_(self.block[0].weight)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_layers_of_maps_with_channels_last_are_not_blamed() -> None:
    images = noise(4, side=12)
    assert explain_invariance(Last("circular"), images).exact
    assert [(one.precondition, one.where) for one in explain_invariance(Last("zeros"), images).broken] == [
        ("padding", "conv")
    ]
    found = explain_invariance(Last("circular", whole=True), images)
    assert [(one.precondition, one.where) for one in found.broken] == [("code", "block.0")]


@pytest.mark.parametrize("bias", [0.0, 1e7])
def test_a_large_bias_does_not_hide_a_change(bias: float) -> None:
    model, whole = Net(stem=conv(3, 6, "zeros", stride=2)), Net()
    with torch.no_grad():
        for net in (model, whole):
            net.head.bias.fill_(bias)
    found = explain_invariance(model, noise())
    assert not found.exact
    outputs = model.double().eval()(noise().double()).detach()
    changes = [(model(noise().double().roll(roll, (2, 3))).detach() - outputs)[:8] for roll in ((1, 0), (0, 1), (8, 8))]
    most = max(float(change.norm(dim=1).max()) for change in changes)
    spread = float((outputs - outputs.mean(0)).square().sum(1).mean().sqrt())
    spread = max(spread, 1e-8 * float(outputs.norm(dim=1).mean()))
    assert 0.5 * most / spread < found.change < 5 * most / spread
    assert explain_invariance(whole, noise()).exact


def test_scores_that_died_are_told_and_the_padding_is_not_blamed() -> None:
    """Of negative weights on a map without a negative value: all phases of ``lps`` have one score, noise or not."""
    torch.manual_seed(0)
    site = build_operator("lps(hidden=3)", 8, 2, "circular")
    model = nn.Sequential(conv(3, 8), nn.ReLU(), site, conv(8, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).double()
    images = noise(3)
    assert explain_invariance(model, images).exact
    with torch.no_grad():
        site.conv1.weight.copy_(-site.conv1.weight.abs() - 0.1)
        site.conv1.bias.fill_(-0.1)
    found = explain_invariance(model, images)
    assert [(one.precondition, one.where) for one in found.broken] == [("ties", "2")]
    assert "all phases have one score on 3 of 3 images" in found.broken[0].why
    assert "train it again" in found.broken[0].remedy
    assert not same_answer(model, images)
