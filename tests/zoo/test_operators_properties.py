"""What holds for every operator: sampling weights, constants, gradients, number formats, copies, limits."""

from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from invariscope.zoo.operators import OPERATORS, OperatorSpec, build_operator, parse_operator
from invariscope.zoo.operators.base import sampled_support
from invariscope.zoo.operators.blur import blur, content_adaptive_blur, max_blur
from invariscope.zoo.operators.checking import SIZES, check_behaviour, check_declaration
from invariscope.zoo.operators.polyphase import aps
from invariscope.zoo.operators.pooling import LP_FLOOR, avg_pool, lp_pool, max_pool, soft_pool, subsample
from invariscope.zoo.operators.tips import tips, tips_logits, tips_psi
from invariscope.zoo.sampling import PADDING_MODES, take

ALL = {
    OperatorSpec(name, arguments).canonical: place
    for name, cls in OPERATORS.items()
    for place, arguments in enumerate(({}, *cls.examples))
}
"""Every operator of the registry, with its default arguments and with its examples; the place of each among them."""

SPECS = [pytest.param(spec, marks=pytest.mark.full if place > 1 else ()) for spec, place in ALL.items()]
"""Further examples than the first are for the full run."""

LEARNED = [spec for spec in ALL if any(True for _ in build_operator(spec, 4).parameters())]


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


@pytest.mark.parametrize(
    "spec", [pytest.param(spec, marks=pytest.mark.full if place else ()) for spec, place in ALL.items()]
)
def test_every_operator_does_what_one_from_outside_must(spec: str) -> None:
    parsed = parse_operator(spec)
    check_declaration(parsed.operator_class)
    check_behaviour(parsed.operator_class, parsed.arguments, sizes=(*SIZES, (2, 1), (1, 1)), tolerance=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_sampling_reproduces_the_forward_pass_of_any_parameters(spec: str) -> None:
    for stride in (1, 2, 3):
        for mode in PADDING_MODES:
            operator = built(spec, 4, stride, mode)
            x = noise(2, 4, 7, 5)
            with torch.no_grad():
                y, taps = operator(x), operator.sampling(x)
            assert y.shape == (2, 4, -(-7 // stride), -(-5 // stride))
            assert bool((taps.weights >= 0).all())
            total = taps.weights.sum(-1)
            torch.testing.assert_close(total, torch.ones_like(total))
            if "weighted sum" not in operator.exemptions:
                sampled = (taps.weights * take(x, taps.index)).sum(-1).unflatten(2, y.shape[2:])
                torch.testing.assert_close(sampled, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_the_support_is_the_window_of_the_sampling(spec: str) -> None:
    for stride in (1, 2, 3):
        operator = built(spec, 2, stride, "zeros")
        assert operator.support() == sampled_support(operator)


@pytest.mark.parametrize("spec", SPECS)
def test_sampling_of_some_outputs(spec: str) -> None:
    operator = built(spec, 3, 2, "reflect")
    x = noise(2, 3, 7, 8)
    wanted = torch.tensor([15, 0, 6])
    every, some = operator.sampling(x), operator.sampling(x, wanted)
    assert torch.equal(some.index, every.index[wanted])
    weights = every.weights if every.weights.shape[2] == 1 else every.weights[:, :, wanted]
    torch.testing.assert_close(some.weights.expand(-1, -1, 3, -1), weights.expand(-1, -1, 3, -1))


@pytest.mark.parametrize("spec", SPECS)
def test_sampling_is_that_of_evaluation(spec: str) -> None:
    operator = built(spec, 3, 2, "circular")
    x = noise(2, 3, 6, 8)
    expected = operator.sampling(x)
    operator.train()
    before = {name: tensor.clone() for name, tensor in operator.state_dict().items()}
    assert torch.equal(operator.sampling(x).weights, expected.weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in operator.state_dict().items())
    assert operator.selection is None


@pytest.mark.parametrize("spec", ["aps", "aps(filter=3)", "lps", "tips(hard=true)"])
def test_a_given_selection_is_used(spec: str) -> None:
    operator = built(spec, 2, 2, "circular")
    x = noise(4, 2, 6, 6)
    selection = torch.tensor([3, 1, 0, 2])
    y = operator(x, selection=selection)
    source = blur(x, 3, 1, "circular") if "filter" in spec else x
    expected = torch.stack(
        [image[:, k // 2 :: 2, k % 2 :: 2] for image, k in zip(source, selection.tolist(), strict=True)]
    )
    assert torch.equal(y, expected)
    assert operator.selection is selection
    taps = operator.sampling(x, selection=selection)
    sampled = (taps.weights * take(x, taps.index)).sum(-1).unflatten(2, (3, 3))
    torch.testing.assert_close(sampled, expected)


def test_lp_sampling_weights() -> None:
    taps = build_operator("lp(2)", 1).sampling(torch.tensor([[[[1.0, 2.0, -1.0, -2.0], [0.0, -5.0, 0.0, -3.0]]]]))
    assert taps.weights.flatten().tolist() == pytest.approx([0.2, 0.8, 0, 0, 0.25, 0.25, 0.25, 0.25])
    huge = build_operator("lp(500)", 1).sampling(torch.tensor([[[[1.0, 200.0], [200.0, 3.0]]]]))
    assert huge.weights.flatten().tolist() == pytest.approx([0, 0.5, 0.5, 0])


@pytest.mark.parametrize("spec", SPECS)
def test_constants_stay(spec: str) -> None:
    level = torch.tensor([0.5, 2.0, 1.25, 3.0], dtype=torch.float64).view(1, 4, 1, 1)
    for stride in (2, 3):
        for mode in PADDING_MODES:
            operator = built(spec, 4, stride, mode)
            edge = max(operator.support()) // stride + 1
            rows = (2 * edge + 2) * stride
            for size in ((rows, rows + stride), (rows + 1, rows + stride - 1)):
                x = level.expand(2, 4, *size)
                y, taps = operator(x), operator.sampling(x)
                # All of what is inside: where padding has a weight, 0 takes part.
                weight = taps.weights.masked_fill(taps.index < 0, 0).sum(-1).expand(2, 4, -1).view_as(y)
                inside = weight > 1 - 1e-12
                assert bool(inside[..., edge:-edge, edge:-edge].all())
                torch.testing.assert_close(
                    y[inside], level.expand_as(y)[inside], rtol=0, atol=1e-5 if operator.exemptions else 1e-9
                )


@pytest.mark.parametrize(
    ("spec", "training"),
    [pytest.param(*each.values, False, marks=each.marks) for each in SPECS] + [(s, True) for s in LEARNED],
)
def test_gradients(spec: str, training: bool) -> None:
    operator = built(spec, 2, 2, "circular").train(training)
    names = list(dict(operator.named_parameters()))
    # Values far from each other and from 0: a kink within the step of the numeric derivative is no derivative.
    order = torch.randperm(60, generator=torch.Generator().manual_seed(4))
    x = ((order.double() - 29.75) / 10).view(2, 2, 3, 5).requires_grad_()

    def function(x: Tensor, *parameters: Tensor) -> Tensor:
        torch.manual_seed(0)
        return functional_call(operator, dict(zip(names, parameters, strict=True)), (x,))

    parameters = [p.detach().clone().requires_grad_() for p in operator.parameters()]
    assert torch.autograd.gradcheck(function, (x, *parameters), fast_mode=len(parameters) > 2)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, "channels_last"])
def test_number_formats(spec: str, kind: torch.dtype | str) -> None:
    dtype = torch.float32 if isinstance(kind, str) else kind
    exact = built(spec, 4, 2, "reflect").to(dtype).double()
    operator = copy.deepcopy(exact).to(dtype)
    x = noise(3, 4, 7, 8).to(dtype)
    expected = exact(x.double())
    if kind == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    # With close scores rounding decides the phase; the values are compared for the same one.
    y = operator(x, selection=exact.selection)
    assert y.dtype == dtype
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    assert operator(x).shape == y.shape


@pytest.mark.parametrize("spec", SPECS)
def test_what_follows_may_change_the_output_in_place(spec: str) -> None:
    """As a ReLU in place does, in training, in both memory formats."""
    module = built(spec, 3).float().train()
    x = noise(2, 3, 8, 8).float()
    for memory in (torch.contiguous_format, torch.channels_last):
        found = []
        for inplace in (False, True):
            leaf = x.detach().to(memory_format=memory).requires_grad_()
            torch.manual_seed(0)
            F.relu(module(leaf), inplace=inplace).sum().backward()
            found.append(leaf.grad)
        assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("spec", ["tips", "tips(phase)", "lps"])
def test_single_precision_gradients_are_the_double_ones(spec: str) -> None:
    gradients = []
    for dtype in (torch.float32, torch.float64):
        operator = built(spec, 4).to(dtype).train()
        x = noise(3, 4, 7, 8).to(dtype).requires_grad_()
        selection = noise(3, 4, seed=2).softmax(1).to(dtype) if spec == "lps" else None
        y = operator(x, selection=selection)
        (y**2).sum().backward()
        parameters = [] if spec == "lps" else [p.grad.double().flatten() for p in operator.parameters()]
        gradients.append(torch.cat([x.grad.double().flatten(), *parameters]))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("spec", SPECS)
def test_copies_after_a_training_forward(spec: str) -> None:
    operator = build_operator(spec, 4, 2, "circular").train()
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    operator(x)
    file = io.BytesIO()
    torch.save(operator, file)
    file.seek(0)
    copies = [
        copy.deepcopy(operator),
        pickle.loads(pickle.dumps(operator)),
        torch.load(file, weights_only=False),
        build_operator(spec, 4, 2, "circular"),
    ]
    copies[-1].load_state_dict(operator.state_dict())
    expected = operator.losses().keys()
    for copied in copies:
        assert copied.losses() == {}
        assert copied.selection is None
        assert torch.equal(copied.eval()(x), copy.deepcopy(operator).eval()(x))
    assert operator.losses().keys() == expected


@pytest.mark.parametrize("spec", SPECS)
def test_an_empty_batch(spec: str) -> None:
    assert build_operator(spec, 4).eval()(torch.zeros(0, 4, 6, 7)).shape == (0, 4, 3, 4)


def test_filters_are_not_in_the_state() -> None:
    for spec in ("blur(3)", "maxblur(3)", "aps(filter=3)"):
        assert build_operator(spec, 4).state_dict() == {}


def test_modules_are_their_functions() -> None:
    x = noise(2, 4, 7, 9)
    pairs = {
        "max(3)": max_pool(x, 3, 2, "reflect"),
        "avg(3)": avg_pool(x, 3, 2, "reflect"),
        "subsample": subsample(x, 2),
        "lp(3, 3)": lp_pool(x, 3, 3, 2, "reflect"),
        "soft(3, 3)": soft_pool(x, 3, 3, 2, "reflect"),
        "blur(4)": blur(x, 4, 2, "reflect"),
        "maxblur(4, 3)": max_blur(x, 4, 3, 2, "reflect"),
    }
    for spec, expected in pairs.items():
        assert torch.equal(built(spec, 4, 2, "reflect")(x), expected), spec
    even = x[..., :6, :8]
    assert torch.equal(built("aps(1)", 4)(even), aps(even, 2, 1)[0])
    ddac = built("ddac", 4, 2, "reflect")
    assert torch.equal(ddac(x), content_adaptive_blur(x, ddac.weights(x, False), 2, "reflect"))
    layer = built("tips", 4, 2, "reflect")
    psi = tips_psi(even, layer.depthwise.weight, "reflect")
    assert torch.equal(layer(even), tips(even, tips_logits(psi, layer.pointwise.weight, 2).softmax(2), 2))


# Limits of the two dose operators.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_soft_runs_from_average_to_maximum(dtype: torch.dtype) -> None:
    x = noise(2, 3, 7, 8).to(dtype)
    torch.testing.assert_close(soft_pool(x, 0.0), avg_pool(x))
    for beta in (1e5, 1e30, 1e38, math.inf):
        torch.testing.assert_close(soft_pool(x, beta), max_pool(x), rtol=0, atol=0)
    steps = torch.stack([soft_pool(x, beta).float().mean() for beta in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 32.0)])
    assert bool((steps.diff() > 0).all())


def test_soft_stays_finite() -> None:
    x = (1e30 * noise(1, 2, 5, 5).float()).requires_grad_()
    y = soft_pool(x, 1e38)
    y.sum().backward()
    assert torch.equal(y, max_pool(x))
    assert bool(x.grad.isfinite().all())
    assert float(x.grad.sum()) == pytest.approx(y.numel())


def test_lp_runs_from_average_to_maximum() -> None:
    x = noise(2, 3, 8, 8).abs()
    torch.testing.assert_close(lp_pool(x, 1.0), avg_pool(x))
    torch.testing.assert_close(lp_pool(x, math.inf), max_pool(x), rtol=0, atol=0)
    torch.testing.assert_close(lp_pool(x, 1e6), max_pool(x), rtol=1e-5, atol=0)
    steps = torch.stack([lp_pool(x, p).mean() for p in (1.0, 1.5, 2.0, 4.0, 16.0, 100.0)])
    assert bool((steps.diff() > 0).all())


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 8.0, 200.0, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lp_on_windows_without_a_positive_value(p: float, dtype: torch.dtype) -> None:
    x = torch.zeros(1, 2, 4, 5, dtype=dtype)
    x[0, 1] = -1.0
    x[0, 0, 0, 0] = 1e4
    x.requires_grad_()
    y = lp_pool(x, p)
    y.sum().backward()
    assert bool(y.isfinite().all())
    assert float(y.detach()[0, 1].max()) <= 1.01 * LP_FLOOR
    assert bool(x.grad.isfinite().all())
    assert float(x.grad[0, 1].abs().max()) == 0
    assert float(x.grad[0, 0, 0, 0]) == pytest.approx(0.25 ** (1 / p), rel=1e-5)
