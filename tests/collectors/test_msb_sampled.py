"""MSB of large maps, of which windows are sampled by default."""

from __future__ import annotations

import pandas as pd
import torch
from torch import nn

from invariscope.collectors.measure import msb
from invariscope.collectors.measure.msb import measure_msb
from invariscope.collectors.schema import MSB_READINGS
from invariscope.zoo.operators import build_operator


def test_large_maps_are_sampled_by_default() -> None:
    torch.manual_seed(0)
    first, second = nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 6, 3, 2, 1)
    model = nn.Sequential(first, build_operator("maxblur", 3), second).eval()
    images = torch.randn(16, 3, 96, 96)
    full = measure_msb(model, images, windows_per_image=48 * 48)
    part = measure_msb(model, images)
    pd.testing.assert_frame_equal(measure_msb(model, images, windows_at_most=None), full)
    outputs = full["n_windows"] / (16 * full["channels"])
    assert (part["n_windows"] == 16 * part["channels"] * outputs.clip(upper=msb.LARGEST_WHOLE)).all()
    assert (outputs > msb.LARGEST_WHOLE).any()
    for name in (*MSB_READINGS, "flat_fraction"):
        assert ((part[name] - full[name]).abs() <= 4 * part[f"{name}_se"] + 1e-12).all(), name
