"""Operators made of others: their numbers by hand, one site each, and what a site sees of a low pass before it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from invariscope.collectors.measure.msb import measure_msb
from invariscope.zoo.operators import OPERATORS, build_operator
from invariscope.zoo.operators.composed import low_pass
from invariscope.zoo.sampling import PADDING_MODES, take
from invariscope.zoo.sites import Site, find_sites, record
from invariscope.zoo.surgery import replace_downsampling

FUSED = [
    "mix(0.3, rank((0.4, 0.3, 0.2, 0.1)), kernel((0.1, 0.2, 0.3, 0.4)))",
    "mix(0.3, rank((0.4, 0.3, 0.2, 0.1)), rank((0, 0, 0, 1)))",
    "mix(0.3, kernel((0.4, 0.3, 0.2, 0.1)), avg)",
    "mix(0.3, channelranks((0.4, 0.2, 0.2, 0.2)), mix(0.5, kernel, owa(0.3)))",
    "mix(0.3, rank((0, 0, 0, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2), 3), kernel((0, 0, 0, 0, 0, 0, 0.5, 0, 0.5), 3))",
]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("spec", "mode"), [*itertools.product(FUSED, PADDING_MODES)])
def test_a_mixture_is_the_sum_of_its_parts_where_it_is_computed_as_one(spec: str, mode: str) -> None:
    operator = build_operator(spec, 5, 2, mode)
    assert operator.window_weights() is not None
    for size in ((6, 6), (7, 5)):
        x = noise(2, 5, *size).requires_grad_()
        y, expected = operator(x), 0.3 * operator.first_part(x) + 0.7 * operator.second_part(x)
        torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
        weight = noise(*y.shape, seed=1)
        gradients = [torch.autograd.grad((each * weight).sum(), x)[0] for each in (y, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_parts_over_other_windows_or_of_other_kinds_are_added() -> None:
    x = noise(2, 4, 6, 6)
    for first, second in (("rank(kernel=3)", "kernel"), ("max", "avg"), ("soft(2)", "blur"), ("aps", "tips")):
        operator = build_operator(f"mix(0.3, {first}, {second})", 4).double()
        assert operator.window_weights() is None
        expected = 0.3 * operator.first_part(x) + 0.7 * operator.second_part(x)
        torch.testing.assert_close(operator(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("a", [0.0, 0.2, 1.0])
def test_the_bias_of_a_mixture_is_its_share(a: float) -> None:
    """``mix(a, max, avg)`` has ``msb_corrected = a``."""
    row = measure_msb(nn.Sequential(build_operator(f"mix({a}, max, avg)", 3)), noise(4, 3, 8, 8)).iloc[0]
    assert row["msb_corrected"] == pytest.approx(a, abs=1e-9)
    assert row["site_kind"] == "mix"


def slow_low_pass(x: Tensor, weight: float) -> Tensor:
    """Circular, by rolls."""
    taps = {-1: 0.25, 0: 0.5, 1: 0.25}
    smooth = sum(p * q * x.roll((-i, -j), (2, 3)) for i, p in taps.items() for j, q in taps.items())
    return (1 - weight) * x + weight * smooth


def test_the_low_pass_is_the_binomial_filter_of_its_weight() -> None:
    x = noise(2, 3, 5, 6)
    for weight in (0.0, 0.3, 1.0):
        torch.testing.assert_close(low_pass(x, weight, "circular"), slow_low_pass(x, weight), rtol=1e-12, atol=1e-12)
    y = build_operator("prefilter(0.3, rank((0.4, 0.3, 0.2, 0.1)))", 3, 2, "circular")(x[..., :4, :])
    expected = build_operator("rank((0.4, 0.3, 0.2, 0.1))", 3)(slow_low_pass(x[..., :4, :], 0.3))
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert build_operator("prefilter(0, max)", 3)(x).equal(build_operator("max", 3)(x))


@pytest.mark.parametrize("inner", ["max", "rank((0.4, 0.3, 0.2, 0.1))", "mix(0.2, max, avg)", "aps", "blur"])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_the_site_of_a_prefiltered_operator_begins_after_the_low_pass(inner: str, mode: str) -> None:
    spec = f"prefilter(0.7, {inner})"
    model = nn.Sequential(nn.ReLU(), build_operator(spec, 3, 2, mode).double())
    images = noise(2, 3, 8, 8)
    kernel = build_operator(inner, 3).support()
    assert find_sites(model, images) == [Site(0, "1", "1", "prefilter", kernel, (2, 2), 3, (8, 8), (4, 4))]
    seen: list[Tensor] = []

    def keep(site: Site, use: object) -> None:
        view = use.view(slice(None))  # type: ignore[attr-defined]
        seen.append(view.pixels.unflatten(2, (8, 8)))
        y = (view.taps.weights * take(seen[0], view.taps.index)).sum(-1)
        torch.testing.assert_close(y, view.outputs, rtol=1e-12, atol=1e-12)

    record(model, images, keep)
    assert torch.equal(seen[0], low_pass(images.relu(), 0.7, mode))
    readings = [
        measure_msb(each, x).iloc[0][["msb", "msb_weight", "msb_corrected"]].astype(float).tolist()
        for each, x in (
            (model, images),
            (nn.Sequential(build_operator(inner, 3, 2, mode)), low_pass(images.relu(), 0.7, mode)),
        )
    ]
    assert readings[0] == pytest.approx(readings[1], abs=1e-12)


def test_a_low_pass_is_no_link_of_what_follows_and_follows_no_link() -> None:
    images = noise(2, 3, 8, 8)
    model = nn.Sequential(nn.MaxPool2d(2, 1), build_operator("prefilter(1, avg)", 3).double())
    assert [site.kind for site in find_sites(model, images)] == ["prefilter"]


def test_a_shortcut_takes_the_phase_of_an_operator_inside() -> None:
    x = noise(4, 3, 8, 8)
    selection = torch.tensor([0, 1, 2, 3])
    for spec in (
        "prefilter(0.5, aps)",
        "mix(0.4, aps, max)",
        "mix(0.4, max, aps)",
        "prefilter(0.5, mix(0.4, max, aps))",
    ):
        operator = build_operator(spec, 3, 2, "circular").double()
        assert operator.shares_selection
        operator(x)
        chosen = operator.selection
        assert chosen is not None
        assert chosen.shape == (4,)
        torch.testing.assert_close(operator(x, selection=chosen), operator(x))
        assert not torch.equal(operator(x, selection=(chosen + 1) % 4), operator(x))
        operator(x, selection=selection)
        assert torch.equal(operator.selection, selection)


def test_surgery_replaces_a_prefiltered_operator_whole() -> None:
    images = torch.randn(2, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1))
    spec = "prefilter(0.5, mix(0.2, max, avg))"
    once, table = replace_downsampling(model, spec, images)
    assert table["replaced"].all()
    _, table = replace_downsampling(once, spec, images)
    assert list(table["reason"]) == ["it is prefilter(low_pass=0.5, then=mix(a=0.2)) already"]
    other, table = replace_downsampling(once, "max", images)
    torch.testing.assert_close(other(images), model(images))
    assert not any(isinstance(module, OPERATORS["prefilter"]) for module in other.modules())
