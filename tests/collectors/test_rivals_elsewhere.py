"""``see`` of other people's operators that choose or weigh their phases: as loops have it, or with a reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from invariscope_tests_rival_loops import see  # loaded by conftest.py
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.collectors.measure.equivariance import equivariance_errors
from invariscope.collectors.measure.msb import measure_msb


def phases(x: Tensor) -> Tensor:
    return torch.stack([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)


class Aps(nn.Module):
    """The phase of the largest norm, picked for each image by its number."""

    def forward(self, x: Tensor) -> Tensor:
        parts = phases(x)
        return parts[torch.arange(len(x)), torch.linalg.vector_norm(parts.flatten(2), dim=2).argmax(1)]


class Lps(nn.Module):
    """The phase of the largest logit of two convolutions, by a one-hot product."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, padding=1, padding_mode="circular")
        self.second = nn.Conv2d(6, 1, 3, padding=1, padding_mode="circular")

    def forward(self, x: Tensor) -> Tensor:
        parts = phases(x)
        logits = [self.second(self.first(parts[:, k]).relu()).mean((1, 2, 3)) for k in range(4)]
        one_hot = F.one_hot(torch.stack(logits, 1).argmax(1), 4).to(x)
        return torch.einsum("nk,nkchw->nchw", one_hot, parts)


class Tips(nn.Module):
    """A mixture of the phases, weighed by a convolution of the whole map."""

    def __init__(self, channels: int, mode: str = "circular", filters: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1, padding_mode=mode)
        self.linear = nn.Linear(filters, 4)

    def forward(self, x: Tensor) -> Tensor:
        weights = (4 * self.linear(self.conv(x).relu().mean((2, 3)))).softmax(1)
        return (phases(x) * weights[:, :, None, None, None]).sum(1)


@pytest.mark.parametrize("operator", [Aps(), Lps(3), Tips(3)])
def test_what_is_chosen_by_the_map_is_chosen_anew_on_rolled_maps(operator: nn.Module) -> None:
    """Six images, as many as filters of the choosing convolutions, which are no rows of a batch."""
    torch.manual_seed(3)
    operator = operator.double().eval()
    for parameter in operator.parameters():
        nn.init.normal_(parameter)
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    row = measure_msb(nn.Sequential(operator, nn.Conv2d(3, 2, 3).double()), images).iloc[0]

    def whole(image: np.ndarray) -> np.ndarray:
        return operator(torch.from_numpy(image)[None])[0].detach().numpy()

    assert row["explained"] == "behaviour"
    assert row["not_applicable"] is None
    assert row["see"] == pytest.approx(see(images.numpy(), whole, (2, 2)), abs=1e-10)
    assert row["see_padding"] == 0.0
    assert (row["see"] > 0.1) == isinstance(operator, Tips)


def test_some_channels_are_of_the_choice_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invariscope.collectors.measure.rivals.BUDGET", 1)
    images = torch.randn(20, 12, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    after = nn.Conv2d(12, 2, 3).double()
    found = measure_msb(nn.Sequential(Aps(), after), images).iloc[0]
    assert found["see"] == 0.0
    torch.manual_seed(0)
    operator = Tips(12, filters=20).double().eval()  # as many as images
    drawn = np.sort(np.random.default_rng([0, 0]).choice(12, 8, replace=False))
    with torch.no_grad():
        wanted = equivariance_errors(lambda x: operator(x)[:, drawn], images[:16], (2, 2)).see()
    assert measure_msb(nn.Sequential(operator, after), images).iloc[0]["see"] == pytest.approx(wanted, abs=1e-10)


def test_a_choice_that_pads_or_that_looks_elsewhere_has_a_reason() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    row = measure_msb(nn.Sequential(Tips(3, "zeros"), nn.Conv2d(3, 2, 3)).double(), images).iloc[0]
    assert np.isnan(row["see"])
    assert "see: its padding cannot be set" in row["not_applicable"]

    class Before(nn.Module):
        """Weights of an earlier map than the one that is sampled."""

        def __init__(self) -> None:
            super().__init__()
            self.tips, self.conv, self.after = Tips(3), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            weights = self.tips.linear(self.tips.conv(x).relu().mean((2, 3))).softmax(1)
            return self.after((phases(self.conv(x).relu()) * weights[:, :, None, None, None]).sum(1))

    row = measure_msb(Before().double(), images).iloc[0]
    assert row["site_kind"] == "mixture"
    assert np.isnan(row["see"])
    assert "see: it cannot be run on other maps (what it chooses by is computed elsewhere)" in row["not_applicable"]
