"""The rival explanations of a site: against plain loops, known answers, and every operator of the registry."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from invariscope_tests_msb_loops import Call, grid  # loaded by conftest.py
from invariscope_tests_rival_loops import aliasing, jacobian_share, see, selectivity_and_position
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.collectors.measure.aliasing import folded_energy
from invariscope.collectors.measure.equivariance import equivariance_errors
from invariscope.collectors.measure.msb import measure_msb
from invariscope.collectors.measure.operator_error import coloured_noise, operator_equivariance_error
from invariscope.collectors.schema import OTHER_READINGS
from invariscope.zoo.operators import OPERATORS, build_operator


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one(model: nn.Module, images: Tensor, **options: int) -> pd.Series:
    frame = measure_msb(model, images, **options)
    assert len(frame) == 1
    return frame.iloc[0]


def around(image: np.ndarray, u: int, v: int, kernel: int, stride: int) -> list[tuple[int, int]]:
    height, width = image.shape
    places = itertools.product(range(kernel), range(kernel))
    return [((stride * u + i) % height, (stride * v + j) % width) for i, j in places]


def pooled(kind: str, image: np.ndarray, stride: int, step: int) -> np.ndarray:
    """2 x 2 or 3 x 3 windows of ``stride``, at every ``step``-th pixel, around the border."""
    out = np.empty((image.shape[0] // step, image.shape[1] // step))
    for u, v in itertools.product(*map(range, out.shape)):
        values = [image[pixel] for pixel in around(image, u, v, stride, step)]
        out[u, v] = {"max": max(values), "avg": sum(values) / len(values), "subsample": values[0]}[kind]
    return out


@pytest.mark.parametrize("kind", ["max", "avg", "subsample"])
@pytest.mark.parametrize(("stride", "size"), [(2, (4, 6)), (3, (6, 6))])
def test_see_and_aliasing_as_loops_have_them(kind: str, stride: int, size: tuple[int, int]) -> None:
    images = noise(3, 2, *size)
    row = one(build_operator(kind, 2, stride), images)
    array = images.numpy()
    whole = lambda image: np.stack([pooled(kind, channel, stride, stride) for channel in image])  # noqa: E731
    assert row["see"] == pytest.approx(see(array, whole, (stride, stride)), abs=1e-10)
    dense = np.array([[pooled(kind, channel, stride, 1) for channel in image] for image in array])
    assert row["aliasing"] == pytest.approx(aliasing(dense, (stride, stride)), abs=1e-10)
    assert row["see_padding"] == pytest.approx(0.0, abs=1e-10)


def test_a_choice_of_phase_is_made_for_all_channels_together() -> None:
    images = noise(3, 2, 4, 4)

    def whole(image: np.ndarray) -> np.ndarray:
        phases = [image[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        weights = [0.1, 0.4, 0.2, 0.3]  # a choice that does not move along
        return phases[int(np.argmax([w * (phase**2).sum() for w, phase in zip(weights, phases, strict=True)]))]

    run = lambda x: torch.from_numpy(np.stack([whole(image) for image in x.numpy()]))  # noqa: E731
    found = equivariance_errors(run, images, (2, 2)).see()
    assert found == pytest.approx(see(images.numpy(), whole, (2, 2)), abs=1e-10)
    assert found > 0.1


def test_strides_of_two_kinds_and_a_strided_convolution() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, (2, 1), 1, padding_mode="circular").double()
    images = noise(3, 2, 4, 6)
    row = one(conv, images)

    def whole(image: np.ndarray) -> np.ndarray:
        x = F.pad(torch.from_numpy(image)[None], (1, 1, 1, 1), mode="circular")
        return F.conv2d(x, conv.weight, conv.bias, (2, 1))[0].detach().numpy()

    assert row["see"] == pytest.approx(see(images.numpy(), whole, (2, 1)), abs=1e-10)
    x = F.pad(images, (1, 1, 1, 1), mode="circular")
    dense = F.conv2d(x, conv.weight).detach().numpy()
    assert row["aliasing"] == pytest.approx(aliasing(dense, (2, 1)), abs=1e-10)


def test_see_padding_is_what_the_own_padding_adds() -> None:
    torch.manual_seed(0)
    conv, images = nn.Conv2d(2, 3, 3, 2, 1).double(), noise(4, 2, 8, 8)
    row = one(conv, images)
    own = lambda image: conv(torch.from_numpy(image)[None])[0].detach().numpy()  # noqa: E731
    assert row["see"] + row["see_padding"] == pytest.approx(see(images.numpy(), own, (2, 2)), abs=1e-10)
    assert abs(row["see_padding"]) > 0.01


@pytest.mark.parametrize(("spec", "kernel"), [("max", 3), ("soft(beta=1)", 3), ("soft(beta=1)", 2), ("avg", 2)])
def test_selectivity_and_position_as_loops_have_them(spec: str, kernel: int) -> None:
    images = noise(3, 2, 5, 6).relu().round(decimals=1)
    name, _, rest = spec.partition("(")
    operator = build_operator(f"{name}({rest[:-1]}{', ' if rest else ''}kernel={kernel})", 2, 2)
    row = one(operator, images)
    before = (kernel - 1) // 2 if kernel > 2 else 0

    def window(image: np.ndarray, u: int, v: int) -> dict:
        taps = grid(image.shape, u, v, (kernel, kernel), (2, 2), (before, before), (1, 1), "zeros")
        pixels = [tap for tap in taps if tap is not None]
        values = np.array([image[pixel] for pixel in pixels])
        raw = {"max": values == values.max(), "avg": values * 0 + 1, "soft": np.exp(values)}[name].astype(float)
        found = {((p[0] - 2 * u, p[1] - 2 * v), p): w for p, w in zip(pixels, raw / raw.sum(), strict=True)}
        for i, j in itertools.product(range(2), range(2)):
            cell = (2 * u + i, 2 * v + j)
            if cell[0] < image.shape[0] and cell[1] < image.shape[1]:
                found.setdefault(((i, j), cell), 0.0)
        return found

    selectivity, position = selectivity_and_position(images.numpy(), window, (3, 3))
    assert row["selectivity"] == pytest.approx(selectivity, abs=1e-12)
    assert row["position"] == pytest.approx(position, abs=1e-12)


OUTPUTS = {
    "soft(beta=2)": lambda x: (np.exp(2 * x) * x).sum() / np.exp(2 * x).sum(),
    "lp(p=3)": lambda x: (np.maximum(x, 0) ** 3).mean() ** (1 / 3),
    "lme(beta=2)": lambda x: np.log(np.exp(2 * x).mean()) / 2,
    "lehmer(p=2)": lambda x: (x**2).sum() / x.sum(),
    "mix(0.3, max, soft(beta=2))": lambda x: 0.3 * x.max() + 0.7 * OUTPUTS["soft(beta=2)"](x),
    "rank((0.5, 0.3, 0.2, 0))": lambda x: np.sort(x)[::-1] @ np.array([0.5, 0.3, 0.2, 0]),
}


@pytest.mark.parametrize("spec", list(OUTPUTS))
def test_the_derivative_as_differences_have_it(spec: str) -> None:
    images = noise(2, 2, 4, 4).abs() + 0.1
    found = []
    for image in images.numpy().reshape(-1, 4, 4):
        for u, v in itertools.product(range(2), range(2)):
            pixels = around(image, u, v, 2, 2)
            output = lambda x, pixels=pixels: OUTPUTS[spec](np.array([x[pixel] for pixel in pixels]))  # noqa: E731
            found.append(jacobian_share(image, pixels, output, 1e-6))
    assert one(build_operator(spec, 2), images)["msb_jacobian"] == pytest.approx(np.mean(found), abs=1e-6)


def test_an_output_that_depends_on_other_channels() -> None:
    """The row is that of the output's own channel, whatever else the filter of ``ddac`` is predicted from."""
    torch.manual_seed(0)
    operator = build_operator("ddac(kernel=2, groups=2)", 4, padding_mode="circular").double().eval()
    images = noise(2, 4, 4, 4)
    found, windows = [], ((0, 0), (0, 1), (1, 0), (1, 1))
    for n, c, (u, v) in itertools.product(range(2), range(4), windows):

        def output(x: np.ndarray, n: int = n, c: int = c, at: tuple[int, int] = (u, v)) -> float:
            given = images[n : n + 1].clone()
            given[0, c] = torch.from_numpy(x)
            return float(operator(given)[0, c, at[0], at[1]].detach())

        found.append(jacobian_share(images[n, c].numpy(), around(images[n, c].numpy(), u, v, 2, 2), output, 1e-6))
    assert one(operator, images)["msb_jacobian"] == pytest.approx(np.mean(found), abs=1e-6)


def test_after_a_relu_the_average_is_one_function_whatever_its_name() -> None:
    images = noise(6, 3, 8, 8).relu()
    rows = [one(build_operator(spec, 3), images) for spec in ("avg", "lp(p=1)", "soft(beta=0)")]
    for row in rows:
        assert row["msb_jacobian"] == pytest.approx(0.0, abs=1e-12)
    assert rows[1]["msb_corrected"] > 0.3


def test_weights_of_a_whole_image_are_held_fixed() -> None:
    images = noise(4, 2, 8, 8)
    for spec in ("tips", "aps", "lps", "tips(hard=true)"):
        torch.manual_seed(0)
        row = one(build_operator(spec, 2).double().eval(), images)
        assert row["msb_jacobian"] == row["msb_corrected"]
    torch.manual_seed(0)
    row = one(build_operator("mix(0.4, tips, max)", 2).double().eval(), images)
    assert row["msb_jacobian"] == pytest.approx(row["msb_corrected"], abs=1e-10)


def test_an_ideal_low_pass_leaves_nothing_that_folds() -> None:
    spectrum = torch.fft.rfft2(noise(3, 2, 16, 16))
    rows, columns = torch.fft.fftfreq(16).abs(), torch.fft.rfftfreq(16)
    spectrum[:, :, rows >= 0.25] = 0
    spectrum[..., columns >= 0.25] = 0
    row = one(build_operator("subsample", 2), torch.fft.irfft2(spectrum, s=(16, 16)))
    assert row["aliasing"] == pytest.approx(0.0, abs=1e-20)
    assert row["see"] == pytest.approx(0.0, abs=1e-12)


def test_subsampling_of_white_noise_folds_three_quarters() -> None:
    row = one(build_operator("subsample", 4), noise(64, 4, 16, 16))
    assert abs(row["aliasing"] - 0.75) <= 4 * row["aliasing_se"]
    assert row["position"] == 0.75
    assert row["selectivity"] == 1.0


def test_the_choice_of_a_phase_is_equivariant_and_aliases() -> None:
    images = noise(16, 4, 16, 16)
    for spec in ("aps", "aps(filter=3)", "lps"):
        row = one(build_operator(spec, 4, 2, "circular").double().eval(), images)
        assert row["see"] == row["see_se"] == row["see_padding"] == 0.0
    assert one(build_operator("aps", 4), images)["aliasing"] == one(build_operator("subsample", 4), images)["aliasing"]


def test_known_selectivity_and_position() -> None:
    images = noise(32, 4, 16, 16)
    average, most = one(build_operator("avg", 4), images), one(build_operator("max", 4), images)
    assert average["selectivity"] == average["position"] == 0.0
    assert most["selectivity"] == 1.0
    assert most["position"] < 0.02
    assert one(build_operator("quantile(j=4)", 4), images)["selectivity"] == 1.0


@pytest.mark.parametrize("mode", ["circular", "zeros"])
@pytest.mark.parametrize("name", list(OPERATORS))
def test_every_operator_has_every_reading(name: str, mode: str) -> None:
    torch.manual_seed(0)
    row = one(build_operator(name, 4, 2, mode).eval(), noise(4, 4, 8, 8).relu().float())
    assert row["not_applicable"] is None
    assert np.isfinite([row[column] for reading in OTHER_READINGS for column in (reading, f"{reading}_se")]).all()
    if mode == "circular":
        assert row["see_padding"] == 0.0


def test_errors_are_the_jackknife_over_images() -> None:
    images = noise(5, 2, 8, 8)
    operator = build_operator("soft(beta=1, kernel=3)", 2).double()
    whole = one(operator, images)
    for reading in ("selectivity", "position", "aliasing", "see", "see_padding"):
        left = [one(operator, images[[m for m in range(5) if m != n]])[reading] for n in range(5)]
        error = math.sqrt(4 / 5 * sum((value - np.mean(left)) ** 2 for value in left))
        assert whole[f"{reading}_se"] == pytest.approx(error, rel=1e-9), reading


def test_what_does_not_apply_says_why() -> None:
    row = one(nn.AvgPool2d(2), noise(3, 1, 2, 2))
    assert np.isnan(row["see"])
    assert "see: its output has one pixel" in row["not_applicable"]

    def by_number(x: Tensor) -> Tensor:
        phases = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return torch.stack([phases[int(torch.stack([p[n].norm() for p in phases]).argmax())][n] for n in range(len(x))])

    frame = measure_msb(nn.Sequential(Call(by_number), nn.Conv2d(2, 2, 3, padding=1).double()), noise(3, 2, 8, 8))
    row = frame.iloc[0]
    assert np.isnan(row["see"])
    assert "see: " in row["not_applicable"]
    assert row["msb_corrected"] == pytest.approx(one(build_operator("aps", 2), noise(3, 2, 8, 8))["msb_corrected"])


@pytest.mark.parametrize(
    ("spec", "function"),
    [
        ("max", lambda x: x.view(6, 2, 4, 2, 4, 2).amax((3, 5))),
        ("avg", lambda x: sum(x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4),
        ("subsample", lambda x: x[:, :, ::2][:, :, :, ::2]),
        ("max", lambda x: F.max_pool2d(x, 2)),
        ("avg", lambda x: F.interpolate(x, scale_factor=0.5, mode="area")),
    ],
)
def test_sites_known_by_other_means_have_the_same_readings(spec: str, function: object) -> None:
    images = noise(6, 2, 8, 8)
    model = nn.Sequential(Call(function), nn.Conv2d(2, 2, 3, padding=1).double())
    found, wanted = measure_msb(model, images).iloc[0], one(build_operator(spec, 2), images)
    for reading in OTHER_READINGS:
        assert found[reading] == pytest.approx(wanted[reading], abs=1e-9), reading


def test_large_maps_are_measured_on_fewer_images_and_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invariscope.collectors.measure.rivals.BUDGET", 1)
    images = noise(20, 12, 8, 8)
    row, first = one(build_operator("blur", 12), images), one(build_operator("blur", 12), images[:16])
    assert row["see"] == pytest.approx(first["see"], abs=1e-12)
    assert row["aliasing"] == pytest.approx(first["aliasing"], abs=1e-12)
    drawn = np.sort(np.random.default_rng([0, 0]).choice(12, 8, replace=False))
    wanted = folded_energy(images[:16, drawn], (2, 2))
    dense = one(build_operator("subsample", 12), images)["aliasing"]
    assert dense == pytest.approx(wanted.folded.sum() / wanted.total.sum(), abs=1e-12)


def test_the_operators_own_error() -> None:
    batch = coloured_noise()
    assert batch.shape == (64, 4, 32, 32)
    assert float(batch.min()) == 0.0
    spectrum = torch.fft.fft2(batch).abs().square().mean((0, 1))
    assert spectrum[0, 1] > 20 * spectrum[0, 8]
    for spec in ("aps", "lps"):
        assert operator_equivariance_error(spec) == 0.0
    values = [operator_equivariance_error(spec) for spec in ("subsample", "max", "avg", "blur(3)", "blur(5)")]
    assert values == sorted(values, reverse=True)
    lowered = operator_equivariance_error("prefilter(1, max)")
    assert lowered < operator_equivariance_error("prefilter(0.5, max)") < operator_equivariance_error("max")
