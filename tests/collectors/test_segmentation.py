"""Segmentation measured: exact values for equivariant networks, a slow loop for others, one line for bad input."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError, ModelError, ShiftError
from invariscope.collectors.measure.segmentation import measure_segmentation
from invariscope.collectors.measure.shifts import ShiftPlan, apply_shift
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.loading import build_model

KINDS = ("circular", "zero", "crop")


class Thresholds(nn.Module):
    """Three classes by the red channel of each pixel alone: no surroundings, so no shift can matter."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([-x[:, 0], x[:, 0] * 0, x[:, 0]], 1)


class Positions(nn.Module):
    """Classes by where a pixel is in the view and by its value: shifts matter."""

    def forward(self, x: Tensor) -> Tensor:
        stripes = torch.arange(x.shape[-1]) % 3
        return torch.stack([x[:, 0] + 0.4 * (stripes == number) for number in range(3)], 1) * torch.tensor(
            [1.0, 1.1, 0.9]
        ).reshape(1, 3, 1, 1)


@pytest.fixture(scope="module")
def scenes() -> ImageSet:
    return load_dataset("shapes:16", limit=6)


@pytest.fixture(scope="module")
def prepared(scenes: ImageSet) -> PreparedImages:
    return PreparedImages(scenes, InputSpec(16, (0.5,), (0.25,)))


def few(images: ImageSet, masks: Tensor, names: int = 3) -> PreparedImages:
    classes = tuple(f"c{number}" for number in range(names))
    changed = ImageSet(images.name, images.images, images.labels, images.classes, masks, classes)
    return PreparedImages(changed, InputSpec(images.images.shape[-1], (0.5,), (0.25,)))


def values(rows: pd.DataFrame) -> dict[str, float]:
    return dict(zip(rows["score"], rows["value"], strict=True))


@pytest.mark.parametrize("operator", ["aps", "lps(hidden=4)", "tips(pool=phase, hard=true)"])
def test_polyphase_networks_are_exactly_consistent_under_circular_shifts(operator: str, scenes: ImageSet) -> None:
    torch.manual_seed(0)
    text = f"zoo:unet?operator={operator}&padding_mode=circular&in_channels=3&classes=5&width=4&depth=2"
    model = build_model(text).double()
    plans = [ShiftPlan.sampled(6, 4, kind=kind) for kind in ("circular", "zero")]
    rows = measure_segmentation(model, PreparedImages(scenes, InputSpec(16, (0.5,), (0.25,))), plans=plans)
    consistency = rows[rows["score"] == "consistency_pixel"].set_index("shift_kind")
    assert consistency.loc["circular", ["value", "se", "low", "high"]].tolist() == [1.0, 0.0, 0.5, 1.0]
    assert consistency.loc["zero", "value"] < 1
    unshifted = rows[rows["shift_kind"] == "none"].set_index("score")["value"]
    shifted = rows[(rows["shift_kind"] == "circular")].set_index("score")["value"]
    assert shifted["miou_shifted"] == pytest.approx(unshifted["miou"], abs=1e-12)
    assert shifted["pixel_accuracy_shifted"] == pytest.approx(unshifted["pixel_accuracy"], abs=1e-12)
    assert shifted["fidelity_pixel"] == pytest.approx(unshifted["pixel_accuracy"], abs=1e-12)


def test_plain_pooling_is_not(prepared: PreparedImages) -> None:
    torch.manual_seed(0)
    model = build_model("zoo:unet?operator=max&padding_mode=circular&in_channels=3&classes=5&width=4&depth=2").double()
    rows = measure_segmentation(model, prepared, plans=[ShiftPlan.sampled(6, 4)], unshifted=False)
    assert values(rows)["consistency_pixel"] < 0.999


@pytest.mark.parametrize("kind", ["circular", "zero", "reflect", "crop"])
def test_a_network_that_looks_at_one_pixel_is_consistent_under_every_shift(kind: str, scenes: ImageSet) -> None:
    """Whatever a shift fills in does not count: only pixels of the image that both views show do."""
    images = PreparedImages(scenes, InputSpec(12 if kind == "crop" else 16, (0.5,), (0.25,)), 16)
    masks = (scenes.masks > 0).to(torch.uint8)
    plan = ShiftPlan.sampled(6, 2, kind=kind)
    rows = values(measure_segmentation(Thresholds(), images, masks, [plan], unshifted=False))
    assert rows["consistency_pixel"] == 1.0
    wholly = Thresholds()(images[:]).argmax(1)
    assert 0.02 < float((wholly == masks).double().mean()) < 0.98
    if kind == "circular":
        assert rows["fidelity_pixel"] == pytest.approx(float((wholly == masks).double().mean()), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_a_loop_over_pixels(kind: str, scenes: ImageSet) -> None:
    window = 12 if kind == "crop" else 16
    masks = (scenes.masks % 3).to(torch.uint8)
    masks[:, 3:6] = 255
    images = PreparedImages(few(scenes, masks).imageset, InputSpec(window, (0.5,), (0.25,)), 16)
    plan = ShiftPlan.sampled(6, 2, n_shifts=4, kind=kind)
    found = measure_segmentation(Positions(), images, plans=[plan], batch_size=5)
    agreement, right, counted = [], 0, 0
    for n in range(6):
        views = []
        for k in range(4):
            offset = plan.offsets[n, k].astype(int)
            size = window if kind == "crop" else None
            view = apply_shift(images[n : n + 1], offset[None], kind, size=size)
            said = Positions()(view).argmax(1)[0]
            start = (16 - window) // 2
            seen = {}
            for y, x in itertools.product(range(16), range(16)):
                v, u = y + offset[0] - start, x + offset[1] - start
                if kind == "circular":
                    v, u = v % 16, u % 16
                if 0 <= v < window and 0 <= u < window and masks[n, y, x] != 255:
                    seen[y, x] = int(said[v, u])
            right += sum(int(masks[n][place]) == number for place, number in seen.items())
            counted += len(seen)
            views.append(seen)
        shares = []
        for one, other in itertools.combinations(views, 2):
            both = one.keys() & other.keys()
            shares.append(sum(one[place] == other[place] for place in both) / len(both))
        agreement.append(np.mean(shares))
    row = found[found["score"] == "consistency_pixel"].iloc[0]
    assert row["value"] == pytest.approx(np.mean(agreement), abs=1e-12)
    assert row["se"] == pytest.approx(np.std(agreement, ddof=1) / np.sqrt(6), abs=1e-12)
    assert (row["n_images"], row["n_pairs"], row["shift_kind"]) == (6, 36, kind)
    assert values(found)["pixel_accuracy_shifted"] == pytest.approx(right / counted, abs=1e-12)
    assert found["void_share"].tolist() == pytest.approx([3 / 16] * len(found), abs=1e-12)
    centre = slice((16 - window) // 2, (16 + window) // 2)
    clean = Positions()(images[:][..., centre, centre]).argmax(1)
    known = masks[:, centre, centre] != 255
    expected = (clean == masks[:, centre, centre])[known].double().mean()
    assert values(found)["pixel_accuracy"] == pytest.approx(float(expected), abs=1e-12)


def test_values_depend_on_the_batch_size_by_no_more_than_rounding(prepared: PreparedImages) -> None:
    torch.manual_seed(0)
    model = build_model("zoo:unet?operator=avg&in_channels=3&classes=5&width=4&depth=2").double()
    plans = [ShiftPlan.sampled(6, 2, n_shifts=4, kind=kind) for kind in ("circular", "zero")]
    tables = [measure_segmentation(model, prepared, plans=plans, batch_size=size) for size in (1, 4, 64)]
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other, check_exact=False, rtol=0, atol=1e-9)


def test_folding_changes_nothing_and_is_done(prepared: PreparedImages) -> None:
    from invariscope.collectors.measure.passes import shift_network

    torch.manual_seed(0)
    model = build_model("zoo:unet?operator=max&in_channels=3&classes=5&width=4&depth=1")
    assert shift_network(model, prepared[:2]) is not model
    plans = [ShiftPlan.sampled(6, 2, n_shifts=3)]
    tables = [measure_segmentation(model, prepared, plans=plans, fold=fold) for fold in (True, False)]
    assert tables[0]["value"].tolist() == pytest.approx(tables[1]["value"].tolist(), abs=2e-3)


def test_no_more_than_the_batch_goes_through_the_network(prepared: PreparedImages) -> None:
    sizes = []

    class Counting(Thresholds):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))  # not of the network, which is afterwards what it was
            return super().forward(x)

    model = Counting()
    masks = torch.zeros(6, 16, 16, dtype=torch.uint8)
    measure_segmentation(model, prepared, masks, [ShiftPlan.sampled(6, 2)], batch_size=4, fold=False)
    assert max(sizes) == 4


def test_absent_classes_and_void_are_told(scenes: ImageSet) -> None:
    masks = torch.full((6, 16, 16), 255, dtype=torch.uint8)
    masks[1:, :8] = 2
    images = few(scenes, masks, 5)
    rows = measure_segmentation(Thresholds(), images, plans=[ShiftPlan.sampled(6, 2)])
    seen = {2, *Thresholds()(images[:])[1:, :, :8].argmax(1).unique().tolist()}
    assert set(rows["classes_absent"]) == {"c0, c1, c3, c4"}
    assert rows["void_share"].tolist() == pytest.approx([7 / 12] * len(rows), abs=1e-12)
    assert set(rows["n_images"]) == {5}  # one image is void throughout
    assert rows.set_index("score")["n_classes"].dropna().to_dict() == {
        "miou": len(seen),
        "miou_shifted": len(seen),
    }


def test_a_single_shift_has_no_pairs(prepared: PreparedImages) -> None:
    masks = torch.zeros(6, 16, 16, dtype=torch.uint8)
    rows = measure_segmentation(Thresholds(), prepared, masks, [ShiftPlan.sampled(6, 2, n_shifts=1)], unshifted=False)
    found = values(rows)
    assert np.isnan(found["consistency_pixel"])
    assert 0 <= found["pixel_accuracy_shifted"] <= 1


def test_images_that_are_not_square(scenes: ImageSet) -> None:
    wide = ImageSet(
        "wide", scenes.images[..., :12, :], scenes.labels, scenes.classes, scenes.masks[:, :12] % 3, ("a", "b", "c")
    )
    images = PreparedImages(wide, InputSpec((12, 16), (0.5,), (0.25,)))
    rows = measure_segmentation(Thresholds(), images, plans=[ShiftPlan.sampled(6, 2, kind="zero")])
    assert values(rows)["consistency_pixel"] == 1.0
    larger = PreparedImages(wide, InputSpec((12, 16), (0.5,), (0.25,)), (16, 20))
    assert larger.shape == (6, 3, 16, 20)
    assert larger.masks(slice(2)).shape == (2, 16, 20)
    rows = measure_segmentation(Thresholds(), larger, plans=[ShiftPlan.sampled(6, 2, kind="crop")])
    assert values(rows)["consistency_pixel"] == 1.0
    with pytest.raises(ShiftError, match="can move 0 pixels"):
        measure_segmentation(Thresholds(), images, plans=[ShiftPlan.sampled(6, 2, kind="crop")])


def test_mappings_as_torchvision_returns_them(prepared: PreparedImages) -> None:
    class Mapped(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"out": Thresholds()(x), "aux": x}

    masks = torch.zeros(6, 16, 16, dtype=torch.uint8)
    plans = [ShiftPlan.sampled(6, 2)]
    one, other = (measure_segmentation(net, prepared, masks, plans) for net in (Thresholds(), Mapped()))
    pd.testing.assert_frame_equal(one, other)


ZEROS = torch.zeros(6, 16, 16, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("masks", "error"),
    [
        (ZEROS[:, :8], r"masks have shape \(6, 8, 16\), and the images want \(6, 16, 16\)"),
        (ZEROS[:5], r"masks have shape \(5, 16, 16\)"),
        (ZEROS.float(), "masks are torch.float32: give whole numbers"),
        (ZEROS.int() - 1, "masks hold numbers from -1 to -1"),
        (ZEROS + 255, "every pixel of the masks is void"),
        (ZEROS + 3, "there is a mask class 3 and Thresholds has 3 classes"),
    ],
)
def test_masks_that_cannot_be_measured(masks: Tensor, error: str, prepared: PreparedImages) -> None:
    with pytest.raises(DataError, match=error):
        measure_segmentation(Thresholds(), prepared, masks)


def test_missing_masks(prepared: PreparedImages) -> None:
    with pytest.raises(DataError, match="masks are missing"):
        measure_segmentation(Thresholds(), prepared[:])
    digits = PreparedImages(load_dataset("digits", limit=2), InputSpec(32, (0.5,), (0.25,)))
    with pytest.raises(DataError, match="digits/test has no masks: take a data set with one for each image"):
        measure_segmentation(Thresholds(), digits)


@pytest.mark.parametrize(
    ("forward", "error"),
    [
        (lambda x: x.mean((2, 3)), "classifies whole images; collect `invariance`"),
        (lambda x: Thresholds()(x)[..., ::2, ::2], r"maps of shape \(4, 3, 8, 8\).*enlarged inside the network"),
        (lambda x: Thresholds()(x) / 0, "NaN or infinite"),
        (lambda x: [x], "returned a list for images"),
        (lambda x: torch.zeros(len(x), 256, 16, 16), "has 256 classes, and masks hold at most 255"),
    ],
)
def test_networks_that_are_no_segmenters(
    forward: Callable[[Tensor], Any], error: str, prepared: PreparedImages
) -> None:
    class Foreign(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return forward(x)

    with pytest.raises(ModelError, match=error) as caught:
        measure_segmentation(Foreign(), prepared, batch_size=4, fold=False)
    assert "\n" not in str(caught.value)
