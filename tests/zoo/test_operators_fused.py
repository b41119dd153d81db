"""TIPS with a hand-written gradient: values, first and second derivatives of the formula, and when it steps aside."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from invariscope.zoo.operators import TIPS, build_operator, fused, tips
from invariscope.zoo.operators.fused import Form, fused_tips
from invariscope.zoo.operators.tips import failure_loss, undo_loss

FORMS = [("quadrant", "row"), ("quadrant", "official"), ("phase", "row")]
MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reference(
    x: Tensor, around: Tensor | None, depthwise: Tensor, pointwise: Tensor, stride: int, pool: str, phase_order: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition with the slices of each phase and the mean of each region, one by one."""
    source = F.pad(x, (1, 1, 1, 1)) if around is None else around
    psi = F.conv2d(source, depthwise, groups=x.shape[1]).clamp(min=0)
    u, v = x.shape[2] // stride, x.shape[3] // stride
    order = [(i, j) for i in range(stride) for j in range(stride)]
    regions = order if phase_order == "row" else [(j, i) for i, j in order]
    if pool == "phase":
        means = [psi[..., i::stride, j::stride].mean((2, 3)) for i, j in order]
    else:
        means = [psi[..., i * u : (i + 1) * u, j * v : (j + 1) * v].mean((2, 3)) for i, j in regions]
    tau = (torch.stack(means, 2) * pointwise.view(1, -1, 1)).softmax(2)
    parts = torch.stack([x[..., i::stride, j::stride] for i, j in order], 2)
    return (parts * tau[..., None, None]).sum(2), psi, tau


def inputs(
    channels: int = 4, stride: int = 2, size: tuple[int, int] = (3, 2), mode: str = "zeros"
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    x = noise(2, channels, stride * size[0], stride * size[1])
    around = None if mode == "zeros" else F.pad(x, (1, 1, 1, 1), mode=MODES[mode])
    return x, around, noise(channels, 1, 3, 3, seed=1), 3 * noise(channels, 1, 1, 1, seed=2)


def formed(stride: int, pool: str, phase_order: str) -> Form:
    return Form(stride, pool, phase_order, partial(reference, stride=stride, pool=pool, phase_order=phase_order))


def gradients(outputs: tuple[Tensor, ...], given: tuple[Tensor | None, ...]) -> list[Tensor]:
    total = sum(((i + 1) * output**2).sum() for i, output in enumerate(outputs))
    return list(torch.autograd.grad(total, [each for each in given if each is not None]))


@pytest.mark.parametrize(("pool", "phase_order"), FORMS)
@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_the_definition(
    pool: str, phase_order: str, mode: str, stride: int, layout: torch.memory_format
) -> None:
    x, *others = inputs(stride=stride, mode=mode)
    given = [None if each is None else each.requires_grad_() for each in (x.contiguous(memory_format=layout), *others)]
    actual = fused_tips(*given, formed(stride, pool, phase_order))
    expected = reference(*given, stride, pool, phase_order)
    pairs = [*zip(actual, expected, strict=True)]
    pairs += zip(gradients(actual, given), gradients(expected, given), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert actual[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    ("pool", "phase_order", "mode"), [("quadrant", "official", "zeros"), ("phase", "row", "replicate")]
)
def test_first_and_second_derivatives_are_differences(pool: str, phase_order: str, mode: str) -> None:
    given = tuple(None if each is None else each.requires_grad_() for each in inputs(2, 2, (2, 1), mode))
    form = formed(2, pool, phase_order)
    assert torch.autograd.gradcheck(partial(fused_tips, form=form), given)
    assert torch.autograd.gradgradcheck(partial(fused_tips, form=form), given)


def test_second_derivatives_through_the_padding() -> None:
    x, _, *weights = (None if each is None else each.requires_grad_() for each in inputs(2, 2, (2, 1)))
    form = formed(2, "quadrant", "row")

    def call(x: Tensor, depthwise: Tensor, pointwise: Tensor) -> tuple[Tensor, ...]:
        return fused_tips(x, F.pad(x, (1, 1, 1, 1), mode="circular"), depthwise, pointwise, form)

    assert torch.autograd.gradcheck(call, (x, *weights))
    assert torch.autograd.gradgradcheck(call, (x, *weights))
    # What flows through the padding counts once, whether the gradient is differentiated again or not.
    x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    once, again = (
        torch.autograd.grad(call(x, *weights)[0].square().sum(), x, create_graph=create)[0] for create in (False, True)
    )
    torch.testing.assert_close(again, once, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wanted", range(3))
@pytest.mark.parametrize("output", range(3))
def test_each_gradient_alone(output: int, wanted: int) -> None:
    """One output differentiated in one input, the others frozen: what is not needed is left out, nothing else."""
    x, _, depthwise, pointwise = inputs()
    free = (x, depthwise, pointwise)[wanted].requires_grad_()
    actual = fused_tips(x, None, depthwise, pointwise, formed(2, "quadrant", "row"))[output]
    expected = reference(x, None, depthwise, pointwise, 2, "quadrant", "row")[output]
    if not expected.requires_grad:
        return
    found, known = (
        torch.autograd.grad((each**3).sum(), free, allow_unused=True, materialize_grads=True)[0]
        for each in (actual, expected)
    )
    torch.testing.assert_close(found, known, rtol=1e-12, atol=1e-12)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the layer went the fused way."""
    seen: list[int] = []

    def counted(*arguments: object) -> object:
        seen.append(1)
        return fused_tips(*arguments)

    monkeypatch.setattr(tips, "fused_tips", counted)
    return seen


def layer(spec: str = "tips", padding_mode: str = "zeros", channels: int = 8) -> TIPS:
    torch.manual_seed(0)
    return build_operator(spec, channels, 2, padding_mode)


@pytest.mark.parametrize("spec", ["tips", "tips(phase_order=official)", "tips(phase)"])
@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("size", [(16, 16), (7, 10)])
def test_the_layer_in_float32_is_that_in_float64(spec: str, mode: str, size: tuple[int, int], calls: list[int]) -> None:
    single = layer(spec, mode)
    double = layer(spec, mode).double()
    x = noise(3, 8, *size)
    found = []
    for operator, each in ((single, x.float()), (double, x)):
        each.requires_grad_()
        y = operator(each)
        loss = (y**2).mean() + failure_loss(operator.tau, "both") + undo_loss(operator.psi, operator.source, (1, -1))
        loss.backward()
        found.append([y, operator.psi, operator.tau, each.grad, *(p.grad for p in operator.parameters())])
    assert len(calls) == 1
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-6 * max(float(other.detach().abs().max()), 1))


def test_the_gradients_of_its_losses_alone(calls: list[int]) -> None:
    single, double = layer(), layer().double()
    x = noise(2, 8, 8, 8)
    for operator, each in ((single, x.float()), (double, x)):
        operator(each)
        torch.manual_seed(3)
        sum(operator.losses().values()).backward()
    assert len(calls) == 1
    for one, other in zip(single.parameters(), double.parameters(), strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-6)


def test_it_steps_aside_for_transforms_and_other_number_formats(calls: list[int]) -> None:
    operator, x = layer().eval(), noise(2, 8, 8, 8).float()
    weights = dict(operator.named_parameters())
    tangent = noise(2, 8, 8, 8, seed=4).float()
    call = partial(functional_call, operator, weights)
    step = 1e-2
    differences = (operator(x + step * tangent) - operator(x - step * tangent)) / (2 * step)
    calls.clear()
    torch.testing.assert_close(jvp(lambda each: call((each,)), (x,), (tangent,))[1], differences, rtol=0.05, atol=0.01)
    per_image = vmap(lambda each: operator(each[None])[0])(x)
    total = grad(lambda given: functional_call(operator, given, (x,)).square().sum())(weights)
    with torch.autograd.forward_ad.dual_level():
        dual = operator(torch.autograd.forward_ad.make_dual(x, tangent))
        forward = torch.autograd.forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(forward, differences, rtol=0.05, atol=0.01)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(operator(x)).all()
    assert copy.deepcopy(operator).to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    assert not calls
    torch.testing.assert_close(operator(x), per_image)
    operator.zero_grad()
    operator(x).square().sum().backward()
    assert len(calls) == 2
    for name, parameter in operator.named_parameters():
        torch.testing.assert_close(parameter.grad, total[name], rtol=1e-4, atol=1e-5)


def test_empty_batches_and_few_channels_take_the_plain_way(calls: list[int]) -> None:
    assert layer()(torch.zeros(0, 8, 6, 6)).shape == (0, 8, 3, 3)
    few = fused.LEAST_CHANNELS - 1
    assert layer(channels=few)(torch.zeros(2, few, 6, 6)).shape == (2, few, 3, 3)
    assert not calls


def test_a_compiled_and_a_traced_layer_take_the_plain_way(calls: list[int]) -> None:
    operator, x = layer().eval(), noise(2, 8, 8, 8).float()
    expected = operator(x)
    calls.clear()
    with torch.no_grad():
        traced = torch.jit.trace(operator, x, check_trace=False)
        compiled = torch.compile(operator, backend="eager")
        torch.testing.assert_close(traced(x), expected)
        torch.testing.assert_close(compiled(x), expected)
    assert not calls


def test_the_gradient_comes_in_the_layout_of_the_map() -> None:
    operator = nn.Sequential(layer())
    for layout in (torch.contiguous_format, torch.channels_last):
        x = noise(2, 8, 6, 4).float().contiguous(memory_format=layout).requires_grad_()
        operator(x).sum().backward()
        assert x.grad.is_contiguous(memory_format=layout)
