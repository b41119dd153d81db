"""Views cut out of large images are those that are gathered pixel by pixel, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invariscope.base.errors import ShiftError
from invariscope.collectors.measure.shifts import apply_shift
from invariscope.collectors.measure.slices import LEAST_PIXELS, can_slice, slice_views
from invariscope.collectors.measure.views import ShiftView
from invariscope.collectors.schema import SHIFT_KINDS

WHOLE = [name for name, kind in SHIFT_KINDS.items() if kind.steps == 1]


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("shape", [(2, 3, 12, 9), (1, 1, 9, 12), (3, 2, 11, 11)])
def test_views_are_those_of_apply_shift(kind: str, shape: tuple[int, ...]) -> None:
    rule, rng = SHIFT_KINDS[kind], np.random.default_rng(0)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    size = None if rule.keeps_size else (shape[2] - 5, shape[3] - 4)  # one of the margins is larger below
    reach = (min(shape[2:]) - 1, min(shape[2:]) - 1) if rule.keeps_size else (2, 2)
    fill = torch.arange(float(shape[1])) if rule.takes_fill else 0.0
    for k in (1, 6):
        offsets = rng.integers(-reach[0], reach[1] + 1, (shape[0], k, 2))
        offsets[0, 0] = -reach[0], reach[1]
        if not rule.keeps_size and k > 1:
            offsets[0, 1] = -3, -2
        expected = apply_shift(images.repeat_interleave(k, 0), offsets.reshape(-1, 2), kind, fill, size)
        found = slice_views(images, offsets, kind, fill, size)
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_large_images_are_cut_and_small_ones_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[int] = []
    monkeypatch.setattr(
        "invariscope.collectors.measure.views.slice_views", lambda images, *_: cut.append(images.shape[2]) or images
    )
    for side in (32, int(LEAST_PIXELS**0.5)):
        ShiftView("circular", 0.0, None).shifted(torch.randn(2, 3, side, side), np.ones((2, 3, 2), np.int64))
    assert cut == [64]
    assert not can_slice(torch.randn(1, 1, 64, 64), "fractional")
    assert not can_slice(torch.empty(1, 1, 64, 64, device="meta"), "circular")


@pytest.mark.parametrize(
    ("kind", "move", "size", "message"),
    [
        ("circular", 64, None, "take shifts smaller than the image"),
        ("zero", 1, 32, "give size for crop only"),
        ("crop", 9, 48, "use images of at least 66"),
        ("crop", 1, None, "give size= the network's input size"),
    ],
)
def test_what_apply_shift_refuses_is_refused(kind: str, move: int, size: int | None, message: str) -> None:
    with pytest.raises(ShiftError, match=message):
        ShiftView(kind, 0.0, size).shifted(torch.randn(1, 3, 64, 64), np.full((1, 1, 2), move))


def test_a_fill_of_another_shape_is_refused() -> None:
    with pytest.raises(ShiftError, match="one for each of 3 channels"):
        ShiftView("zero", torch.zeros(2), None).shifted(torch.randn(1, 3, 64, 64), np.ones((1, 1, 2), np.int64))
