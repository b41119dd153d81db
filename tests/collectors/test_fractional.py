"""Fractional shifts: the Fourier shift against its series, what is exact, and plans in parts of a pixel."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch

from invariscope.base.errors import ShiftError
from invariscope.collectors.measure.fourier import fourier_shift
from invariscope.collectors.measure.invariance import measure_invariance, measure_surface
from invariscope.collectors.measure.segmentation import measure_segmentation
from invariscope.collectors.measure.shifts import ShiftPlan, apply_shift
from invariscope.collectors.shift_kinds import SHIFT_KINDS, ShiftKind, check_shift_kind
from invariscope.zoo.loading import build_model

STEPS = SHIFT_KINDS["fractional"].steps


def slow(line: np.ndarray, shift: float) -> np.ndarray:
    n = len(line)
    out = np.zeros(n)
    for k in range(-(n // 2), (n + 1) // 2):
        coefficient = sum(line[m] * cmath.exp(-2j * math.pi * k * m / n) for m in range(n)) / n
        for m in range(n):
            turn = math.cos(math.pi * shift) if 2 * abs(k) == n else cmath.exp(-2j * math.pi * k * shift / n)
            out[m] += (coefficient * turn * cmath.exp(2j * math.pi * k * m / n)).real
    return out


@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("axis", [-1, -2, 1])
def test_against_the_series(size: int, axis: int) -> None:
    x = torch.randn(3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifts = torch.tensor([0.3, -2.7, 1.0])
    found = fourier_shift(x, shifts, axis).numpy()
    lines = np.moveaxis(x.numpy(), axis, -1)
    wanted = np.array([[slow(line, float(s)) for line in image] for image, s in zip(lines, shifts, strict=True)])
    assert np.moveaxis(found, axis, -1) == pytest.approx(wanted, abs=1e-7)  # the shifts are float32
    one = fourier_shift(x, 0.3, axis).numpy()
    assert np.moveaxis(one, axis, -1)[1, 2] == pytest.approx(slow(lines[1, 2], 0.3), abs=1e-12)


def test_whole_pixels_roll_and_the_way_back_is_the_way_there() -> None:
    x = torch.randn(2, 3, 7, 9, dtype=torch.float64)
    whole = np.array([[2 * STEPS, -3 * STEPS], [0, STEPS]])
    rolled = apply_shift(x, whole // STEPS, "circular")
    assert torch.allclose(apply_shift(x, whole, "fractional"), rolled, atol=1e-12)
    part = np.array([[5, -7], [STEPS // 2, 3]])
    moved = apply_shift(x, part, "fractional")
    assert not torch.allclose(moved, x, atol=0.1)
    assert torch.allclose(apply_shift(moved, -part, "fractional"), x, atol=1e-12)


def test_a_plan_is_drawn_in_parts_of_a_pixel() -> None:
    plan = ShiftPlan.sampled(200, 4, 9, "fractional")
    assert plan.max_shift == 4
    assert plan.offsets.min() == -4 * STEPS
    assert plan.offsets.max() == 4 * STEPS
    assert (plan.offsets % STEPS != 0).mean() > 0.9
    with pytest.raises(ShiftError, match=r"an offset is 4\.0625 pixels and max_shift is 4"):
        ShiftPlan("fractional", "sampled", 4, None, 0, np.full((1, 2, 2), 4 * STEPS + 1))
    with pytest.raises(ShiftError, match="floating-point"):
        apply_shift(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), np.array([[1, 1]]), "fractional")
    with pytest.raises(ShiftError, match="fractional shift of"):
        apply_shift(torch.zeros(1, 1, 4, 4), np.array([[4 * STEPS, 0]]), "fractional")


def test_scores_and_surface_under_fractional_shifts() -> None:
    torch.manual_seed(0)
    model = build_model("zoo:smallcnn?operator=aps&padding_mode=circular&width=4&in_channels=1").double().eval()
    images, labels = torch.randn(12, 1, 32, 32, dtype=torch.float64), torch.zeros(12, dtype=torch.int64)
    frame = measure_invariance(model, images, labels, ShiftPlan.sampled(12, 4, 9, "fractional"))
    assert set(frame["shift_kind"]) == {"none", "fractional"}
    wanted = measure_surface(model, images, labels, 1, "circular")
    found = measure_surface(model, images, labels, 1, "fractional")
    columns = ["dy", "dx", "agreement", "accuracy"]
    assert found[columns].equals(wanted[columns])


def test_pixels_are_not_brought_back_from_parts_of_one() -> None:
    plan = ShiftPlan.sampled(1, 2, 2, "fractional")
    with pytest.raises(ShiftError, match="brings no pixel to a pixel"):
        measure_segmentation(
            torch.nn.Conv2d(1, 2, 1), torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64), plans=[plan]
        )


def test_parts_of_a_pixel_need_a_reversible_kind() -> None:
    with pytest.raises(ShiftError, match="2 steps per pixel"):
        check_shift_kind("half", ShiftKind(SHIFT_KINDS["zero"].source, "half", "#000000", steps=2))
