from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import ModelError, OperatorError
from invariscope.zoo.architectures.levels import Level, UpChain, upsampling_for
from invariscope.zoo.operators import build_operator
from invariscope.zoo.operators.base import select_phase
from invariscope.zoo.operators.upsampling import UPSAMPLINGS, Upsample, interpolate, place, polyphase_upsample


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def placed_slowly(x: Tensor, weights: Tensor, stride: int) -> Tensor:
    """Pixel by pixel: value ``(u, v)`` times weight ``k = i s + j`` at ``(s u + i, s v + j)``."""
    count, channels, height, width = x.shape
    out = torch.zeros(count, channels, stride * height, stride * width, dtype=x.dtype)
    for n in range(count):
        for k in range(stride * stride):
            for u in range(height):
                for v in range(width):
                    row, column = stride * u + k // stride, stride * v + k % stride
                    out[n, :, row, column] = weights[n, k] * x[n, :, u, v]
    return out


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_place_puts_values_where_a_loop_puts_them(data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, 3))
    x = noise(*(data.draw(st.integers(1, 3)) for _ in range(4)))
    index = torch.tensor([data.draw(st.integers(0, stride**2 - 1)) for _ in x])
    assert torch.equal(place(x, index, stride), placed_slowly(x, F.one_hot(index, stride**2), stride))
    weights = noise(len(x), stride**2, seed=1).softmax(1)
    torch.testing.assert_close(place(x, weights, stride), placed_slowly(x, weights, stride), rtol=1e-15, atol=0)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_chosen_phase_comes_back_and_the_others_are_zero(data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, 4))
    count, channels, height, width = (data.draw(st.integers(1, 4)) for _ in range(4))
    x = noise(count, channels, height, width)
    index = torch.tensor([data.draw(st.integers(0, stride**2 - 1)) for _ in range(count)])
    up = place(x, index, stride)
    assert torch.equal(select_phase(up, index, stride), x)
    assert int((up != 0).sum()) == int((x != 0).sum())


@pytest.mark.parametrize("spec", ["aps", "lps", "tips(pool=phase, hard=true)", "aps(p=1)"])
@pytest.mark.parametrize("stride", [2, 3])
def test_what_an_operator_took_goes_back_to_where_it_was(spec: str, stride: int) -> None:
    torch.manual_seed(0)
    operator = build_operator(spec, 3, stride, "circular").double().eval()
    x = noise(8, 3, 4 * stride, 3 * stride)
    y = operator(x)
    assert operator.selection is not None
    assert len(set(operator.selection.tolist())) > 1
    up = place(y, operator.selection, stride)
    taken = up != 0
    assert torch.equal(up[taken], x[taken])
    assert int(taken.sum()) == y.numel()
    # As a second downsampling would take it: the same phase, the same values.
    assert torch.equal(operator(up, selection=operator.selection), y)


def test_three_taps_interpolate_linearly_and_the_phase_keeps_its_values() -> None:
    x = noise(2, 3, 4, 5)
    index = torch.tensor([0, 3])
    up = polyphase_upsample(x, index, 2, 3, "circular")
    torch.testing.assert_close(select_phase(up, index, 2), x)
    beside = (x + x.roll(-1, 3)) / 2
    below = (x + x.roll(-1, 2)) / 2
    torch.testing.assert_close(up[0, :, ::2, 1::2], beside[0])
    torch.testing.assert_close(up[0, :, 1::2, ::2], below[0])
    torch.testing.assert_close(up[1, :, 1::2, ::2], beside.roll(1, 3)[1])
    torch.testing.assert_close(up[0, :, 1::2, 1::2], ((beside + beside.roll(-1, 2)) / 2)[0])


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_the_mean_is_kept(stride: int, m: int) -> None:
    x = noise(3, 2, 4, 4)
    for selection in (torch.tensor([0, 1, 2]) % stride**2, noise(3, stride**2, seed=1).softmax(1)):
        up = polyphase_upsample(x, selection, stride, m, "circular")
        assert up.shape == (3, 2, 4 * stride, 4 * stride)
        torch.testing.assert_close(up.mean((2, 3)), x.mean((2, 3)))


@pytest.mark.parametrize("m", [2, 3, 4, 5])
@pytest.mark.parametrize("mode", ["circular", "reflect"])
def test_constants_stay_constant_at_stride_2(m: int, mode: str) -> None:
    ones = torch.ones(4, 1, 5, 5, dtype=torch.float64)
    up = polyphase_upsample(ones, torch.arange(4), 2, m, mode)
    torch.testing.assert_close(up, torch.ones_like(up))


@pytest.mark.parametrize("spec", ["aps", "lps", "tips(pool=phase, hard=true)"])
@pytest.mark.parametrize("stride", [2, 3])
def test_down_and_up_roll_along_with_the_map(spec: str, stride: int) -> None:
    torch.manual_seed(0)
    operator = build_operator(spec, 3, stride, "circular").double().eval()
    up = Upsample(stride, "polyphase", "circular").double()
    x = noise(4, 3, 4 * stride, 4 * stride)

    def both(x: Tensor) -> Tensor:
        return up(operator(x), (x.shape[2], x.shape[3]), operator.selection)

    y = both(x)
    for dy in range(stride):
        for dx in range(stride):
            again = both(x.roll((dy, dx), (2, 3))).roll((-dy, -dx), (2, 3))
            assert float((again - y).abs().max() / y.abs().max()) <= 1e-12
            fixed = interpolate(operator(x.roll((dy, dx), (2, 3))), (x.shape[2], x.shape[3])).roll((-dy, -dx), (2, 3))
            assert (dy, dx) == (0, 0) or float((fixed - y).abs().max()) > 1e-3


@pytest.mark.parametrize("size", [(7, 8), (8, 5), (1, 3)])
def test_odd_sizes_are_cut_at_the_right_and_the_bottom(size: tuple[int, int]) -> None:
    operator = build_operator("aps", 2, 2, "circular")
    x = noise(3, 2, *size)
    y = operator(x)
    assert y.shape[2:] == ((size[0] + 1) // 2, (size[1] + 1) // 2)
    up = Upsample(2, "polyphase", "circular", m=1)(y, size, operator.selection)
    assert up.shape == x.shape
    assert torch.equal(up, 4 * place(y, operator.selection, 2)[..., : size[0], : size[1]])


def test_gradients_of_the_map_and_of_the_weights() -> None:
    x = noise(2, 2, 3, 2).requires_grad_()
    weights = noise(2, 4, seed=1).softmax(1).detach().requires_grad_()
    index = torch.tensor([1, 2])
    assert torch.autograd.gradcheck(lambda x: polyphase_upsample(x, index, 2, 3, "circular"), (x,))
    assert torch.autograd.gradcheck(lambda x, w: polyphase_upsample(x, w, 2, 3, "reflect"), (x, weights))


def test_lps_trains_through_the_soft_upsampling() -> None:
    torch.manual_seed(0)
    operator = build_operator("lps", 3, 2, "circular").double().train()
    x = noise(4, 3, 8, 8)
    y = operator(x)
    assert operator.selection is not None
    assert operator.selection.shape == (4, 4)
    up = Upsample(2, "auto", "circular").double()(y, (8, 8), operator.selection)
    up.square().sum().backward()
    for parameter in operator.parameters():
        assert parameter.grad is not None
    assert float(operator.conv1.weight.grad.abs().max()) > 0


def test_auto_is_polyphase_with_a_selection_and_bilinear_without() -> None:
    x, index = noise(2, 3, 4, 4), torch.tensor([1, 2])
    up = Upsample(2, "auto", "circular").double()
    assert torch.equal(up(x, (8, 8), index), Upsample(2, "polyphase", "circular").double()(x, (8, 8), index))
    linear = F.interpolate(x, size=(8, 8), mode="bilinear", align_corners=False)
    assert torch.equal(up(x, (8, 8)), linear)
    for mode in ("bilinear", "nearest"):
        expected = linear if mode == "bilinear" else x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        assert torch.equal(Upsample(2, mode)(x, (8, 8), index), expected)


def test_a_chain_undoes_the_last_downsampling_first() -> None:
    x = noise(2, 3, 8, 8)
    first, second = (build_operator("aps", 3, 2, "circular") for _ in range(2))
    y = first(x)
    z = second(y)
    levels = [Level(x), Level(y, first.selection), Level(z, second.selection)]
    chain = UpChain([first, second], "auto", "circular").double()
    once = polyphase_upsample(z, second.selection, 2, 3, "circular")
    torch.testing.assert_close(chain(z, levels), polyphase_upsample(once, first.selection, 2, 3, "circular"))
    unknown = [Level(x), Level(y), Level(z)]
    assert torch.equal(chain(z, unknown), F.interpolate(z, size=(8, 8), mode="bilinear", align_corners=False))
    assert torch.equal(UpChain([], "auto", "circular")(z, levels[:1]), z)


def test_what_cannot_be_paired_is_refused() -> None:
    x = noise(2, 3, 4, 4)
    with pytest.raises(OperatorError, match=r"selection is \(3,\), and must be \(2,\) indices or \(2, 4\) weights"):
        place(x, torch.tensor([0, 1, 2]), 2)
    with pytest.raises(OperatorError, match="polyphase upsampling has no selection"):
        Upsample(2, "polyphase")(x, (8, 8))
    with pytest.raises(OperatorError, match="did you mean 'bilinear'"):
        Upsample(2, "bilinaer")
    with pytest.raises(OperatorError, match="m is 0, and must be at least 1"):
        Upsample(2, m=0)
    with pytest.raises(OperatorError, match="unknown padding mode 'same'"):
        Upsample(2, padding_mode="same")
    for spec in ("max", "tips", "tips(pool=phase)"):
        with pytest.raises(ModelError, match=f"upsampling is polyphase, and {spec[:4]}.* take aps, lps"):
            upsampling_for(build_operator(spec, 3), "polyphase", "zeros")
    with pytest.raises(ModelError, match=f"known are {', '.join(sorted(UPSAMPLINGS))}"):
        upsampling_for(None, "cubic", "zeros")
    assert isinstance(upsampling_for(None, "polyphase", "zeros"), nn.Module)
