"""Blame: who is named, against networks whose culprit is known, and the numbers against loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from invariscope.base.errors import InputError
from invariscope.collectors.measure.blame import blame_of, measure_blame
from invariscope.collectors.measure.border import circularly_padded
from invariscope.collectors.measure.drift import measure_drift, sum_drift
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.loading import build_model
from invariscope.zoo.surgery import replace_downsampling

SPEC = InputSpec(32, (0.3055,), (0.3241,))


def digits(count: int) -> PreparedImages:
    return PreparedImages(load_dataset("digits", split="test", limit=count), SPEC)


def with_culprit(position: int, seed: int, images: PreparedImages, mode: str = "circular") -> nn.Module:
    """A network of random weights with one plain subsampling among blurs."""
    torch.manual_seed(seed)
    text = f"zoo:smallcnn?operator=blur(m=5)&padding_mode={mode}&in_channels=1&classes=10&width=8"
    wanted = f"stage{position + 1}.down"
    changed, _ = replace_downsampling(
        build_model(text).eval(), "subsample", images[:1], where=lambda site: site.name == wanted
    )
    return changed


@pytest.mark.parametrize(
    "position", [0, pytest.param(1, marks=pytest.mark.full), pytest.param(2, marks=pytest.mark.full)]
)
def test_the_one_subsampling_among_blurs_adds_most_in_nine_of_ten_seeds(position: int) -> None:
    """Among blurs of three taps random weights name the second site half of the time where the first is the culprit:
    a blur of three taps on the smaller map then aliases as much as subsampling does on smooth images."""
    images = digits(48)
    plan = ShiftPlan.sampled(48, 4)
    named = []
    for seed in range(10):
        blame = measure_blame(with_culprit(position, seed, images), images, plan, border=False, resamples=50)
        sites = blame.rows[blame.rows["cause"] == "site"]
        named.append(sites.loc[sites["added"].idxmax(), "site"])
    assert named.count(f"stage{position + 1}.down") >= 9


def test_parts_sum_to_the_drift_of_the_logits_and_are_those_of_the_table() -> None:
    torch.manual_seed(0)
    model, images = with_culprit(1, 0, digits(8), "zeros").double(), digits(8)[:].double()
    plan = ShiftPlan.sampled(8, 4, kind="zero", fill="mean")
    blame = measure_blame(model, images, plan)
    own, around = measure_drift(model, images, plan), circularly_padded(model, images[:1])
    circular = measure_drift(around, images, ShiftPlan("circular", "sampled", 4, None, 0, plan.offsets))
    assert blame.rows["cause"].tolist() == ["before", "site", "site", "site", "head", "border"]
    assert blame.total == pytest.approx(own["drift_out"].iloc[-1])
    assert blame.rows["added"].sum() == pytest.approx(blame.total)
    assert blame.rows["added"].tolist()[1:5] == pytest.approx(circular["blame"].tolist())
    assert blame.rows["se"].tolist()[1:5] == pytest.approx(circular["blame_se"].tolist())
    assert blame.rows["added"].iloc[-1] == pytest.approx(blame.total - circular["drift_out"].iloc[-1])


def test_resampled_drifts_are_those_of_the_images_drawn() -> None:
    images = digits(6)
    model, plan = with_culprit(0, 0, images), ShiftPlan.sampled(6, 4)
    sums = sum_drift(model, images, plan)
    blame = blame_of(sums, plan, None, resamples=30, seed=3)
    draws = np.random.default_rng(3).integers(6, size=(30, 6))
    greatest = np.zeros(len(blame.rows))
    for rows in draws:
        offsets = ShiftPlan("circular", "sampled", 4, None, 0, plan.offsets[rows])
        frame = measure_drift(model, images[torch.from_numpy(rows)], offsets)
        parts = [frame["drift_in"].iloc[0], *frame["blame"]]
        greatest[int(np.argmax(parts))] += 1 / 30
    assert blame.rows["greatest"].tolist() == pytest.approx(greatest.tolist())


def test_the_border_is_named_where_only_the_border_breaks() -> None:
    """Operators that choose their phase are exactly equivariant: what drifts, drifts at the border."""
    torch.manual_seed(0)
    text = "zoo:smallcnn?operator=aps&padding_mode=zeros&in_channels=1&classes=10&width=4"
    images = digits(16)
    blame = measure_blame(build_model(text).eval(), images, ShiftPlan.sampled(16, 4, kind="zero"))
    assert blame.culprits["cause"].tolist() == ["border"]
    assert "the border" in blame.line()


class Head(nn.Module):
    """A map that only circles, and a head that looks at one of its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular")
        self.pool = nn.AvgPool2d(2)
        self.linear = nn.Linear(4 * 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(self.conv(x)).flatten(1))


def test_the_head_is_named_where_it_alone_depends_on_places() -> None:
    torch.manual_seed(0)
    images = torch.randn(12, 1, 16, 16)
    blame = measure_blame(Head().eval(), images, ShiftPlan.sampled(12, 4))
    assert blame.culprits["cause"].tolist() == ["head"]
    assert blame.line().startswith("greatest added drift: the head")


def test_nothing_is_blamed_where_nothing_moves() -> None:
    torch.manual_seed(0)
    text = "zoo:smallcnn?operator=aps&padding_mode=circular&in_channels=1&classes=10&width=4"
    images = digits(8)
    blame = measure_blame(build_model(text).eval(), images, ShiftPlan.sampled(8, 4))
    assert blame.culprits.empty
    assert blame.line() == "the logits do not move"


def test_one_image_has_no_drift_and_says_why() -> None:
    images = digits(1)
    blame = measure_blame(with_culprit(0, 0, images), images, ShiftPlan.sampled(1, 4))
    assert blame.culprits.empty
    assert "give two or more" in blame.line()


def test_resamples_of_one_image_alone_are_passed_over() -> None:
    images = digits(3)
    blame = measure_blame(with_culprit(1, 0, images), images, ShiftPlan.sampled(3, 4), resamples=200)
    assert blame.rows["greatest"].sum() == pytest.approx(1)


class Beside(nn.Module):
    """A residual block: a strided convolution, and another beside it."""

    def __init__(self) -> None:
        super().__init__()
        around = {"padding": 1, "padding_mode": "circular"}
        self.first, self.second = (nn.Conv2d(1, 4, 3, 2, **around) for _ in range(2))
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((self.first(x) + self.second(x)).relu().mean((2, 3)))


def test_sites_beside_each_other_are_named_together() -> None:
    torch.manual_seed(0)
    blame = measure_blame(Beside().eval(), torch.randn(8, 1, 16, 16), ShiftPlan.sampled(8, 4), border=False)
    assert set(blame.culprits["site"]) == {"first", "second"}
    assert blame.culprits["greatest"].nunique() == 1


def test_no_resamples_are_refused() -> None:
    images = digits(2)
    with pytest.raises(InputError, match="resamples is 0"):
        measure_blame(with_culprit(0, 0, images), images, ShiftPlan.sampled(2, 4), resamples=0)


class Padded(nn.Module):
    """Channels are padded, as in the shortcuts of small ResNets, and a pooling pads its map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.maximum = nn.MaxPool2d(3, 2, 1)
        self.mean = nn.AvgPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mean(self.maximum(self.conv(x).relu()).relu())
        return nn.functional.pad(x, (0, 0, 0, 0, 1, 1)).mean((2, 3))


def test_channels_may_be_padded_and_pools_keep_their_names_under_circular_padding() -> None:
    torch.manual_seed(0)
    images = torch.randn(6, 1, 16, 16)
    made = circularly_padded(Padded().eval(), images[:1])
    plan = ShiftPlan.sampled(6, 4)
    assert measure_drift(made, images, plan)["site"].tolist()[:2] == ["maximum", "mean"]
    blame = measure_blame(Padded().eval(), images, plan)
    assert blame.reason == ""
    assert blame.rows["added"].notna().all()


def test_a_map_smaller_than_its_padding_leaves_the_border_untold() -> None:
    """As the last convolutions of 7 x 7 of a ConvNeXt on small images have it."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 4, 4, 4),
        nn.Conv2d(4, 4, 7, padding=3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    images = torch.randn(6, 1, 8, 8)
    blame = measure_blame(nn.Sequential(*layers), images, ShiftPlan.sampled(6, 1), resamples=20)
    assert "a map is smaller than its padding" in blame.reason
    assert blame.rows.loc[blame.rows["cause"] == "border", "added"].isna().all()
