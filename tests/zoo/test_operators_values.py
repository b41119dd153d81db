"""Every operator's numbers against plain loops over its definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from invariscope.zoo.operators import OPERATORS, build_operator, parse_operator
from invariscope.zoo.sampling import PADDING_MODES
from tests.zoo import slow_operators as references
from tests.zoo.slow_operators import slow, slow_windows


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def built(spec: str, channels: int, stride: int = 2, padding_mode: str = "zeros") -> torch.nn.Module:
    """The operator in float64 with random parameters and, where it has them, random running statistics."""
    torch.manual_seed(1)
    operator = build_operator(spec, channels, stride, padding_mode).double().eval()
    for name, tensor in operator.state_dict().items():
        if name == "norm.running_var":
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_()
    return operator


MORE = [
    "rank", "rank((0.4, 0.3, 0.2, 0.1), 2)", "rank((0, 0, 0, 0, 0, 0.1, 0.2, 0.3, 0.4), 3)", "channelranks",
    "channelranks((0.5, 0, 0, 0, 0, 0, 0, 0, 0.5), 3)", "owa(0.4)", "owa(3, kernel=3)", "topk(3)", "quantile(4)",
    "quantile(7, 3)", "kernel", "kernel((0.1, 0.2, 0.3, 0.4), 2)", "kernel((0, 0, 0, 0, 0, 0, 0.2, 0.3, 0.5), 3)",
    "gauss(0.6)", "phase", "phase(1)", "phase(0, 1)", "lme(2)", "lme(-3, 3)", "lme(0)", "lme(inf)", "lme(-inf)",
    "lehmer", "lehmer(1)", "lehmer(3.5, 3)", "lehmer(inf)", "soft(-4)", "soft(-1, 3)", "mix(0.3, max, avg)",
    "mix(0.3, rank((0.4, 0.3, 0.2, 0.1), 2), kernel((0.1, 0.2, 0.3, 0.4), 2))", "mix(0.6, soft(4), blur(3))",
    "prefilter(0.3, max)", "prefilter(1, mix(0.5, quantile(4), phase(1)))",
]  # fmt: skip
"""Specifications of the operators above; every padding mode and stride is tried."""

LOOPS: set[str] = set()
"""Operators with a test of their own here, against loops."""

Test = TypeVar("Test", bound=Callable[..., None])


def loop_of(name: str) -> Callable[[Test], Test]:
    """Marks the test of an operator against loops."""
    LOOPS.add(name)
    return lambda test: test


def test_every_operator_has_a_slow_reference() -> None:
    fixed = {parse_operator(spec).name for spec in (*references.SLOW, *MORE)}
    assert fixed | LOOPS == set(OPERATORS.own)
    assert not fixed & LOOPS


@pytest.mark.parametrize("spec", [*references.SLOW, *MORE])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_fixed_operators_are_the_loops(spec: str, stride: int) -> None:
    for size in ((6, 6), (5, 7), (2, 1)):
        x = noise(2, 3, *size)
        x[0, 0].clamp_(max=0)  # windows without a positive value
        for mode in PADDING_MODES:
            expected = torch.tensor([slow(spec, image, stride, mode) for image in x.tolist()], dtype=torch.float64)
            for layout in (torch.contiguous_format, torch.channels_last):
                y = build_operator(spec, 3, stride, mode)(x.contiguous(memory_format=layout))
                torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


@loop_of("ddac")
@pytest.mark.parametrize(("kernel", "groups"), [(3, 2), (2, 3), (3, 8)])
def test_ddac_is_the_loop(kernel: int, groups: int) -> None:
    for mode in PADDING_MODES:
        operator = built(f"ddac({kernel}, {groups})", 3, 2, mode)
        state, count = operator.state_dict(), min(groups, 3)
        x = noise(1, 3, 5, 4)
        planes = [slow_windows(p, kernel, 2, (kernel - 1) // 2, kernel // 2, mode) for p in x[0].tolist()]
        y = operator(x).detach()
        for c in range(3):
            group = c * count // 3
            for u in range(3):
                for v in range(2):
                    around = [[value or 0.0 for value in plane[u][v]] for plane in planes]
                    logits = []
                    for t in range(kernel**2):
                        k = group * kernel**2 + t
                        filters = state["conv.weight"][k].flatten(1).tolist()
                        z = sum(
                            f * a
                            for row, taps in zip(filters, around, strict=True)
                            for f, a in zip(row, taps, strict=False)
                        )
                        z = (z - state["norm.running_mean"][k]) / math.sqrt(state["norm.running_var"][k] + 1e-5)
                        logits.append(float(z * state["norm.weight"][k] + state["norm.bias"][k]))
                    weights = [math.exp(z) for z in logits]
                    expected = sum(w * a for w, a in zip(weights, around[c], strict=True)) / sum(weights)
                    assert float(y[0, c, u, v]) == pytest.approx(expected, rel=1e-12)


def test_ddac_training_uses_the_statistics_of_every_position() -> None:
    operator = built("ddac", 4).train()
    x = noise(2, 4, 6, 7)
    operator.norm.momentum = 1.0
    with torch.no_grad():
        y = operator(x)
    dense = torch.nn.functional.conv2d(x, operator.conv.weight, padding=1)
    dense = dense.detach()
    torch.testing.assert_close(operator.norm.running_mean, dense.mean((0, 2, 3)))
    operator.norm.running_var.copy_(dense.var((0, 2, 3), correction=0))
    torch.testing.assert_close(operator.eval()(x), y)


@loop_of("aps")
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_aps_is_the_loop(p: float, rank: int) -> None:
    for stride, size in ((1, (3, 4)), (2, (5, 6)), (3, (7, 6))):
        for mode in PADDING_MODES:
            x = noise(4, 3, *size)
            operator = build_operator(f"aps({p}, rank={rank})", 3, stride, mode)
            y = operator(x)
            for n, image in enumerate(x.tolist()):
                cells = [slow_windows(plane, stride, stride, 0, None, mode) for plane in image]
                norms = []
                for k in range(stride**2):
                    values = [abs(cell[k] or 0.0) for plane in cells for row in plane for cell in row]
                    norms.append(max(values) if p == math.inf else sum(v**p for v in values))
                best = sorted(range(stride**2), key=lambda k: -norms[k])[min(rank, stride**2) - 1]
                assert int(operator.selection[n]) == best
                assert y[n].tolist() == [[[cell[best] or 0.0 for cell in row] for row in plane] for plane in cells]


def test_aps_takes_the_first_of_tied_phases() -> None:
    operator = build_operator("aps", 2)
    assert operator(torch.ones(3, 2, 4, 4)).shape == (3, 2, 2, 2)
    assert operator.selection.tolist() == [0, 0, 0]


def test_aps_chooses_on_the_input_or_on_what_is_filtered() -> None:
    x = noise(8, 3, 6, 6)
    filtered, chosen = (build_operator(f"aps(filter=3, choose={on})", 3, 2, "circular") for on in ("filtered", "input"))
    plain = build_operator("aps", 3)
    for operator in (filtered, chosen, plain):
        operator(x)
    assert torch.equal(chosen.selection, plain.selection)
    assert not torch.equal(chosen.selection, filtered.selection)
    torch.testing.assert_close(chosen(x), filtered(x, selection=plain.selection), rtol=0, atol=0)
    same = build_operator("aps(choose=input)", 3)
    assert torch.equal(same(x), plain(x))


def test_ranks_of_aps_take_each_phase_once_and_the_first_of_tied_ones_first() -> None:
    x = torch.ones(2, 2, 4, 4)
    chosen = []
    for rank in range(1, 5):
        operator = build_operator(f"aps(rank={rank})", 2)
        operator(x)
        chosen.append(operator.selection.tolist())
    assert chosen == [[0, 0], [1, 1], [2, 2], [3, 3]]


def test_aps_chooses_one_phase_for_all_channels() -> None:
    x = torch.zeros(1, 2, 2, 2)
    x[0, 0, 0, 1], x[0, 1, 1, 0] = 3.0, 4.0
    assert build_operator("aps", 2)(x).flatten().tolist() == [0.0, 4.0]


@loop_of("lps")
def test_lps_trains_on_the_gumbel_mixture() -> None:
    operator = built("lps", 3, 3, "reflect").train()
    x = noise(4, 3, 6, 9)
    torch.manual_seed(5)
    y = operator(x)
    pi = operator.selection
    expected = sum(pi[:, k, None, None, None] * x[:, :, k // 3 :: 3, k % 3 :: 3] for k in range(9))
    torch.testing.assert_close(y, expected)
    scores = []
    for k in range(9):
        component = x[:, :, k // 3 :: 3, k % 3 :: 3]
        for conv in (operator.conv1, operator.conv2):
            wrapped = torch.cat([component[..., -1:, :], component, component[..., :1, :]], 2)
            wrapped = torch.cat([wrapped[..., -1:], wrapped, wrapped[..., :1]], 3)
            component = torch.nn.functional.conv2d(wrapped, conv.weight, conv.bias)
            component = component.relu() if conv is operator.conv1 else component
        scores.append(component.mean((1, 2, 3)))
    scores = torch.stack(scores, 1)
    torch.manual_seed(5)
    gumbel = -torch.empty_like(scores).exponential_().log()
    torch.testing.assert_close(pi, (scores + gumbel).softmax(1))
    assert torch.equal(operator.eval()(x), torch.stack([
        image[:, k // 3 :: 3, k % 3 :: 3] for image, k in zip(x, scores.argmax(1).tolist(), strict=True)
    ]))  # fmt: skip


def test_lps_temperature_falls_linearly() -> None:
    operator = build_operator("lps", 2)
    seen = [operator.tau]
    for fraction in (0.5, 1.0, 2.0):
        operator.set_progress(fraction)
        seen.append(operator.tau)
    assert seen == pytest.approx([1.0, 0.505, 0.01, 0.01])
    operator.train()(torch.randn(8, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert operator.selection.amax(1).mean() > 0.95


@loop_of("tips")
@pytest.mark.parametrize("spec", ["tips", "tips(phase)", "tips(phase_order=official)", "tips(hard=true)"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_tips_is_the_loop(spec: str, stride: int) -> None:
    height, width = 2 * stride, 3 * stride
    x = noise(2, 2, height, width)
    operator = built(spec, 2, stride, "zeros")
    state = operator.state_dict()
    arguments = parse_operator(spec).arguments
    outputs = operator(x).detach()
    for n in range(2):
        logits = []
        for c in range(2):
            kernel = state["depthwise.weight"][c, 0].flatten().tolist()
            around = slow_windows(x[n, c].tolist(), 3, 1, 1, 1, "zeros")
            psi = [
                [max(sum(k * (v or 0) for k, v in zip(kernel, cell, strict=True)), 0.0) for cell in row]
                for row in around
            ]
            weight = float(state["pointwise.weight"][c])
            pooled = {}
            for a in range(stride):
                for b in range(stride):
                    if arguments.get("pool") == "phase":
                        rows, columns = range(a, height, stride), range(b, width, stride)
                    else:
                        rows, columns = range(2 * a, 2 * a + 2), range(3 * b, 3 * b + 3)
                    values = [psi[h][w] for h in rows for w in columns]
                    phase = (b, a) if "phase_order" in arguments else (a, b)
                    pooled[phase] = weight * sum(values) / len(values)
            logits.append(pooled)
        for c in range(2):
            if "hard" in arguments:
                means = {phase: (logits[0][phase] + logits[1][phase]) / 2 for phase in logits[0]}
                best = max(means, key=lambda phase: means[phase])
                tau = {phase: float(phase == best) for phase in means}
            else:
                total = sum(math.exp(z) for z in logits[c].values())
                tau = {phase: math.exp(z) / total for phase, z in logits[c].items()}
            for u in range(2):
                for v in range(3):
                    expected = sum(t * float(x[n, c, stride * u + i, stride * v + j]) for (i, j), t in tau.items())
                    assert float(outputs[n, c, u, v]) == pytest.approx(expected, rel=1e-12)


def test_tips_has_ten_parameters_per_channel() -> None:
    assert sum(p.numel() for p in build_operator("tips", 7, 3).parameters()) == 70
