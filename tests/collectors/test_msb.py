"""MSB's known values, its standard errors, its independence of batches, and what it says about bad input."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import DataError, InputError, ModelError
from invariscope.collectors.measure import msb
from invariscope.collectors.measure.jackknife import ratio_jackknife
from invariscope.collectors.measure.msb import measure_msb
from invariscope.collectors.schema import IDENTITY, MSB_READINGS, PROVENANCE, TABLES
from invariscope.zoo.operators import OPERATORS, Blur, MaxBlur, Soft, Subsample, build_operator

READINGS = (*MSB_READINGS, "flat_fraction")


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def one(model: nn.Module, images: Tensor, **options: int) -> pd.Series:
    frame = measure_msb(model, images, **options)
    assert len(frame) == 1
    return frame.iloc[0]


class EachChannel(nn.Module):
    """A layer of one channel, once for each channel: as many sites."""

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x[:, [place]]) for place, layer in enumerate(self.layers)], 1)


class Net(nn.Module):
    """Every kind of site in one network."""

    def __init__(self, operator: str = "tips") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 6, 3, 2, 1, padding_mode="circular")
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.down = build_operator(operator, 6)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.pool(self.stem(x)))
        x = self.conv(F.avg_pool2d(x, 2))
        return (self.down(x) + x[..., ::2, ::2]).mean((2, 3))


class Every(nn.Module):
    """Plain slicing."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.step, :: self.step]


@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_max_pooling_always_samples_the_maximum(kernel: int, stride: int, ceil_mode: bool) -> None:
    for padding in range(kernel // 2 + 1):
        # The stride cell starts at s * o, the kernel `padding` before it: it must reach the cell's last pixel.
        if kernel - padding < stride:
            continue
        images = noise(4, 3, 4 * stride, 5 * stride).relu()
        row = one(nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode), images)
        assert [row[name] for name in MSB_READINGS] == [1.0] * 5
        assert [row[f"{name}_se"] for name in MSB_READINGS] == [0.0] * 5


def test_average_of_two_by_two() -> None:
    row = one(nn.AvgPool2d(2), noise(8, 4, 16, 16))
    assert row["msb_weight"] == row["msb_top"] == 0.25
    assert row["msb_corrected"] == row["flat_fraction"] == 0.0
    assert row["msb"] <= 1e-3
    assert row["n_windows"] == 8 * 4 * 64


@pytest.mark.parametrize("stride", [2, 3])
def test_subsampling_and_blur_of_noise_are_blind(stride: int) -> None:
    images = noise(64, 2, 4 * stride, 4 * stride)
    shuffle = nn.Conv2d(2, 2, 1, stride, bias=False)
    shuffle.weight.data = torch.eye(2)[[1, 0], :, None, None]
    for model in (Subsample(2, stride), shuffle):
        row = one(model, images)
        assert abs(row["msb"] - 1 / stride**2) <= 4 * row["msb_se"]
        assert row["msb"] == pytest.approx(row["msb_weight"], abs=1e-12)
        assert row["msb"] == pytest.approx(row["msb_top"], abs=1e-12)
    for m in (2, 3, 4):
        for mode in ("zeros", "circular"):
            row = one(Blur(2, stride, mode, m=m), images)
            assert abs(row["msb_corrected"]) <= 4 * row["msb_corrected_se"]


def test_intervals_cover() -> None:
    """95 % intervals of the true value, over 500 channels of independent noise, a site each."""
    for layer, name, truth in ((Subsample(1), "msb", 0.25), (Blur(1, m=3), "msb_corrected", 0.0)):
        rows = pd.concat([measure_msb(EachChannel(layer, 50), part) for part in noise(10, 48, 50, 8, 8)])
        covered = abs(rows[name] - truth) <= 1.96 * rows[f"{name}_se"]
        assert (len(rows), 0.93 <= covered.mean() <= 0.97) == (500, True)


def test_soft_rises_with_beta() -> None:
    images = noise(8, 2, 8, 8)
    weights = [one(Soft(2, beta=beta), images)["msb_weight"] for beta in (0, 0.5, 1, 2, 4, 8, 32, 1000)]
    assert weights[0] == pytest.approx(0.25, abs=1e-7)
    assert all(low < high for low, high in itertools.pairwise(weights))
    assert weights[-1] > 0.99


@pytest.mark.parametrize("operator", list(OPERATORS))
def test_constant_input_has_no_reading(operator: str) -> None:
    row = one(build_operator(operator, 2, padding_mode="circular"), torch.ones(3, 2, 8, 8))
    assert row["flat_fraction"] == 1.0
    assert row["flat_fraction_se"] == 0.0
    assert all(math.isnan(row[name]) and math.isnan(row[f"{name}_se"]) for name in MSB_READINGS)
    assert row["reason"] == "every window is flat"


def test_constant_input_of_a_convolution() -> None:
    for conv in (nn.Conv2d(2, 4, 3, 2), nn.Conv2d(2, 4, 3, 2, 1, padding_mode="circular"), nn.Conv2d(2, 4, 1, 2)):
        row = one(conv, torch.full((2, 2, 8, 8), 0.7))
        assert row["flat_fraction"] == 1.0
        assert math.isnan(row["msb"])


def test_flat_windows_by_hand() -> None:
    image = torch.tensor([[0, 0, 1, 2], [0, 0, 3, 3]]).float()[None, None]
    images = torch.cat([image, torch.zeros_like(image), image.flip(3)])
    row = one(Subsample(1), images)
    # Windows: flat, {1 2 3 3}; flat, flat; {2 1 3 3}, flat. Subsampling takes 1 and 2: never a maximum.
    assert (row["n_windows"], row["n_images"]) == (6, 3)
    assert row["flat_fraction"] == 4 / 6
    assert (row["msb"], row["msb_all"], row["msb_weight"]) == (0.0, 4 / 6, 0.0)
    # Two of the four are maxima: (0 - 1/2) / (1 - 1/2).
    assert row["msb_corrected"] == -1.0
    row = one(nn.AvgPool2d(2), images)
    assert (row["msb_weight"], row["msb_top"], row["msb_corrected"]) == (0.5, 0.5, 0.0)


def test_window_of_one_pixel_is_flat() -> None:
    row = one(Subsample(1), torch.arange(9.0).view(1, 1, 3, 3))
    assert row["n_windows"] == 4
    assert row["flat_fraction"] == 0.25


def test_window_of_a_copied_pixel_and_one_that_is_not_sampled() -> None:
    images = torch.tensor([[0.0, 1.0], [1.0, 0.0], [3.0, 2.0]]).view(3, 1, 1, 2)
    row = one(nn.Sequential(nn.ReplicationPad2d((1, 0, 0, 0)), nn.AvgPool2d((1, 2))), images)
    assert (row["n_windows"], row["flat_fraction"]) == (3, 0.0)
    assert row["msb"] == row["msb_weight"] == row["msb_top"] == 2 / 3
    assert row["msb_corrected"] == pytest.approx(1 / 3)


def test_windows_outside_the_map_are_left_out() -> None:
    # Taps at -2 and 1, then at 0 and 3 of the one column: the first row and column of outputs keep one tap each.
    row = one(nn.MaxPool2d((2, 1), (2, 1), (1, 0), dilation=(3, 1)), torch.tensor([[0.0, 1.0, 2.0]]).mT[None, None])
    assert row["n_windows"] == 1
    row = one(nn.AvgPool2d(2, 3, 1, count_include_pad=False), torch.arange(16.0).view(1, 1, 4, 4))
    assert row["n_windows"] == 4


def test_jackknife_equals_the_loop() -> None:
    generator = np.random.default_rng(0)
    denominator = generator.integers(0, 9, 30).astype(float)
    numerator = denominator * generator.random(30)
    value, se = ratio_jackknife(numerator, denominator)
    left_out = [np.delete(numerator, i).sum() / np.delete(denominator, i).sum() for i in range(30)]
    loop = sum((ratio - np.mean(left_out)) ** 2 for ratio in left_out) * 29 / 30
    assert value == pytest.approx(numerator.sum() / denominator.sum(), abs=1e-15)
    assert se == pytest.approx(math.sqrt(loop), abs=1e-15)


def test_jackknife_at_its_edges() -> None:
    assert all(map(math.isnan, ratio_jackknife(np.zeros(3), np.zeros(3))))
    value, se = ratio_jackknife(np.array([2.0, 0.0]), np.array([4.0, 0.0]))
    assert value == 0.5
    assert math.isnan(se)
    assert math.isnan(ratio_jackknife(np.array([1.0]), np.array([2.0]))[1])


@pytest.mark.parametrize("operator", ["tips", "aps", "lps", "maxblur", "ddac"])
@pytest.mark.parametrize("windows", [None, 3])
def test_batch_size_does_not_matter(operator: str, windows: int | None) -> None:
    model, images = Net(operator).double(), noise(7, 3, 32, 32, dtype=torch.float64)
    whole = measure_msb(model, images, batch_size=64, windows_per_image=windows, dense_images=5)
    for batch_size in (1, 2, 3):
        parts = measure_msb(model, images, batch_size=batch_size, windows_per_image=windows, dense_images=5)
        pd.testing.assert_frame_equal(parts, whole, rtol=0, atol=1e-12)


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = Net("aps(filter=3)").double(), noise(5, 3, 32, 32, dtype=torch.float64)
    whole = measure_msb(model, images)
    for sizes in ((1, 1 << 23, 1), (1, 40, 1 << 17), (5000, 5000, 1 << 17)):
        for name, size in zip(("CHUNK", "LARGEST_CHUNK", "AT_ONCE"), sizes, strict=True):
            monkeypatch.setattr(msb, name, size)
        pd.testing.assert_frame_equal(measure_msb(model, images), whole, rtol=0, atol=1e-12)


def test_dense_images_bounds_the_convolutions_only() -> None:
    frame = measure_msb(Net(), noise(6, 3, 32, 32), dense_images=4, batch_size=3).set_index("site")
    assert frame["n_images"].to_dict() == {"stem": 4, "pool": 6, "avg": 6, "down": 6, "subsample": 6}
    torch.manual_seed(0)
    conv, images = nn.Conv2d(3, 4, 3, 2), noise(6, 3, 9, 9)
    pd.testing.assert_frame_equal(measure_msb(conv, images, dense_images=2), measure_msb(conv, images[:2]))


def test_sampled_windows_estimate_all_of_them() -> None:
    model, images = Net("maxblur"), noise(64, 3, 64, 64)
    full = measure_msb(model, images)
    part = measure_msb(model, images, windows_per_image=10, seed=3)
    again = measure_msb(model, images, windows_per_image=10, seed=4)
    assert (part["n_windows"] == 64 * 10 * part["channels"]).all()
    for name in READINGS:
        near = (part[name] - full[name]).abs() <= 4 * part[f"{name}_se"] + 1e-12
        assert near.all(), name
    assert (part["msb_corrected"] != again["msb_corrected"]).any()


def test_what_no_drawn_window_shows_is_not_held_to_be_impossible() -> None:
    images = noise(6, 2, 16, 16)
    assert one(nn.MaxPool2d(2), images)["msb_se"] == 0
    part = one(nn.MaxPool2d(2), images, windows_per_image=5)
    assert (part["msb"], part["msb_se"], part["flat_fraction_se"]) == (1, 1 / 30, 1 / 30)
    assert one(nn.MaxPool2d(2), images, windows_per_image=64)["msb_se"] == 0
    for batch_size in (1, 4):
        again = one(nn.MaxPool2d(2), images, windows_per_image=5, batch_size=batch_size)
        pd.testing.assert_series_equal(again, part)
    assert one(nn.Conv2d(2, 3, 4, 4), images, dense_images=4, windows_per_image=2)["flat_fraction_se"] >= 1 / 8


def test_patch_embedding_is_sampled_by_default() -> None:
    torch.manual_seed(0)
    conv, images = nn.Conv2d(3, 8, 4, 4), noise(8, 3, 48, 48)
    row = one(conv, images)
    assert row["n_windows"] == 8 * 8 * msb.PATCH_WINDOWS
    full = one(conv, images, windows_per_image=144)
    assert full["n_windows"] == 8 * 8 * 144
    assert abs(row["msb_corrected"] - full["msb_corrected"]) <= 4 * row["msb_corrected_se"]
    dense = F.conv2d(images, conv.weight, conv.bias)
    cells = F.pad(dense, (0, 3, 0, 3), value=-math.inf).unfold(2, 4, 4).unfold(3, 4, 4)
    # The last cells are clipped by the dense map of 45 x 45; that of the corner has one pixel, and is flat.
    assert full["msb_all"] == float((cells[..., 0, 0] == cells.amax((-1, -2))).double().mean())
    assert full["flat_fraction"] == 1 / 144


def test_strided_convolution_needs_no_padding_of_its_own() -> None:
    """What TensorFlow-style padding adds before a strided call is what the dense call sees, not what it would add."""
    conv = nn.Conv2d(2, 3, 3, 2)
    images = noise(4, 2, 9, 9)

    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.conv.weight, self.conv.bias, self.conv.stride)

    row = one(Same(), images)
    assert (row["input_size"], row["output_size"]) == ("8x8", "4x4")
    other = one(conv, F.pad(images, (0, 1, 0, 1)))
    assert row[list(READINGS)].tolist() == other[list(READINGS)].tolist()


def test_blur_layer_of_another_library_is_a_blur() -> None:
    """A depthwise strided convolution with a fixed binomial filter, reflect padding before it: Blur, by any name."""

    class BlurPool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            line = torch.tensor([1.0, 2.0, 1.0])
            self.register_buffer("filt", (line[:, None] * line / 16).expand(4, 1, 3, 3).clone())
            self.pad = nn.ReflectionPad2d(1)

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(self.pad(x), self.filt, stride=2, groups=x.shape[1])

    images = noise(8, 4, 16, 16).relu()
    theirs, ours = one(BlurPool(), images), one(Blur(4, padding_mode="reflect", m=3), images)
    assert theirs["site_kind"] == "blur"
    assert theirs["kernel"] == ours["kernel"] == "3x3"
    for name in (*READINGS, *(f"{name}_se" for name in READINGS), "n_windows"):
        assert theirs[name] == pytest.approx(ours[name], abs=1e-9)
    # Max at stride 1, then blur: one site from the maximum's input.
    composite = one(nn.Sequential(nn.MaxPool2d(2, 1), BlurPool()), F.pad(images, (0, 1, 0, 1)))
    assert composite["site_kind"] == "max+blur"
    assert (composite["kernel"], composite["input_size"], composite["output_size"]) == ("4x4", "17x17", "8x8")
    operator = nn.Sequential(nn.MaxPool2d(2, 1), Blur(4, padding_mode="reflect", m=3))
    same = one(operator, F.pad(images, (0, 1, 0, 1)))
    assert same["msb_corrected"] == pytest.approx(composite["msb_corrected"], abs=1e-9)
    blur = BlurPool()
    blur.pad = nn.CircularPad2d(1)
    circular = one(nn.Sequential(nn.CircularPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1), blur), images)
    ours = one(MaxBlur(4, padding_mode="circular", m=3), images)
    assert ours["kernel"] == circular["kernel"]
    for name in READINGS:
        assert circular[name] == pytest.approx(ours[name], abs=1e-6)


def test_maximum_that_is_sliced_is_max_pooling() -> None:
    """Its window reaches back to the maximum's input: over the maxima alone it would look like blind subsampling."""
    images = noise(4, 3, 16, 16)
    row = one(nn.Sequential(nn.MaxPool2d(2, 1), Every(2)), images)
    assert row["site_kind"] == "max+subsample"
    assert [row[name] for name in MSB_READINGS] == [1.0] * 5
    assert row["n_windows"] == one(nn.MaxPool2d(2), images)["n_windows"] == 4 * 3 * 64


def test_shared_selection_is_what_was_sampled() -> None:
    """A shortcut that takes the main branch's phase is measured with that phase, not with its own choice."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.short = build_operator("aps", 1), build_operator("aps", 1)

        def forward(self, x: Tensor) -> Tensor:
            self.main(x)
            return self.short(-x.roll(1, 3), selection=self.main.selection)

    images = noise(32, 1, 8, 8)
    frame = measure_msb(Block(), images, batch_size=5).set_index("site")
    assert frame.loc["short", "msb"] == pytest.approx(frame.loc["short", "msb_weight"], abs=1e-12)


def test_half_precision() -> None:
    row = one(nn.MaxPool2d(2), noise(4, 2, 8, 8).bfloat16())
    assert row["msb"] == row["msb_weight"] == row["msb_corrected"] == 1.0


def test_rows_follow_the_schema() -> None:
    frame = measure_msb(Net(), noise(4, 3, 32, 32))
    names = [name for name in TABLES["layers"].names if name in frame.columns]
    assert list(frame.columns) == names
    assert set(TABLES["layers"].names) - set(names) == {field.name for field in (*IDENTITY, *PROVENANCE)}
    assert frame["site"].tolist() == ["stem", "pool", "avg", "down", "subsample"]
    assert frame["depth"].tolist() == [0, 1, 2, 3, 4]
    assert (frame["n_sites"] == 5).all()
    assert frame["kernel"].tolist() == ["3x3", "3x3", "2x2", "2x2", "1x1"]
    assert frame["input_size"].tolist() == ["32x32", "16x16", "8x8", "4x4", "4x4"]
    assert frame["reason"].isna().all()


def test_network_without_a_site() -> None:
    row = one(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), noise(2, 3, 8, 8))
    assert row["site"] is None
    assert row["reason"] == "the network has no downsampling site"
    assert (row["depth"], row["n_sites"], row["n_windows"]) == (0, 0, 0)
    assert math.isnan(row["msb_corrected"])


def test_site_that_cannot_be_measured_keeps_its_row() -> None:
    frame = measure_msb(nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.MaxPool2d(3, 2)), noise(2, 3, 8, 8))
    assert frame["reason"].tolist()[0].startswith("adaptive pooling from (8, 8) to (3, 3)")
    assert frame["n_windows"].tolist() == [0, 6]
    assert math.isnan(frame["msb"][0])


def test_bad_input() -> None:
    images = noise(2, 3, 32, 32)
    broken = Net()
    broken.conv.weight.data[0] = math.nan
    with pytest.raises(ModelError, match=r"site down has NaN or infinite values: check"):
        measure_msb(broken, images)
    with pytest.raises(ModelError, match=r"fails on a batch of images 2 x 1 x 32 x 32: .* \(check the images"):
        measure_msb(Net(), images[:, :1])
    with pytest.raises(DataError, match="no images"):
        measure_msb(Net(), images[:0])
    for option in ("batch_size", "dense_images", "windows_per_image"):
        with pytest.raises(InputError, match=f"{option} is 0, and must be at least 1"):
            measure_msb(Net(), images, **{option: 0})
    with pytest.raises(InputError, match="seed is -1"):
        measure_msb(Net(), images, seed=-1)

    class Fickle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.max_pool2d(x, 2 if len(x) > 1 else 4)

    with pytest.raises(ModelError, match="changes from batch to batch"):
        measure_msb(Fickle(), noise(3, 1, 8, 8), batch_size=2)
