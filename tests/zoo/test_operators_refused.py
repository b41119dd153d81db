"""What registration refuses: classes that are nearly operators, each with one fault, and the line that says which."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators import OPERATORS, register_operator
from invariscope.zoo.operators.base import Downsample, pad_to_multiple, phases
from invariscope.zoo.operators.polyphase import phase_taps
from invariscope.zoo.sampling import Taps


class Mean(Downsample):
    """The mean of the stride cell: a class as a user writes it, from which the faulty ones derive."""

    name = "mean_of_cell"
    factor = 1.0

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return self.factor * phases(pad_to_multiple(x, self.stride, self.padding_mode), self.stride).mean(2)

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        weights = x.new_full((1, 1, self.stride**2), 1 / self.stride**2)
        return phase_taps((x.shape[-2], x.shape[-1]), self.stride, self.padding_mode, weights, outputs)


class Doubling(Mean):
    factor = 2.0


class DoublingExempt(Doubling):
    exempt: ClassVar = {"weighted sum": "it says so"}


class Detached(Mean):
    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return super().forward(x.detach())


class DetachedInTraining(Mean):
    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return super().forward(x.detach() if self.training else x)


class HalfDetached(Mean):
    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return super().forward((x + x.detach()) / 2)


class SumsToThree(Mean):
    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        taps = super().sampling(x, outputs)
        return Taps(taps.index, 3 * taps.weights)


class Negative(Mean):
    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        taps = super().sampling(x, outputs)
        index = torch.cat([taps.index, taps.index[:, :1], taps.index[:, :1]], 1)
        two = torch.tensor([1.0, -1.0], dtype=x.dtype).view(1, 1, 1, 2)
        return Taps(index, torch.cat([taps.weights, two], 3))


class OtherOrder(Mean):
    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        return super().sampling(x, outputs if outputs is None else outputs.sort().values)


class OtherPixels(Mean):
    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        taps = super().sampling(x, outputs)
        return Taps(taps.index.flip(0), taps.weights)


class Floored(Mean):
    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        return y[..., : x.shape[-2] // self.stride, : x.shape[-1] // self.stride]


class Single(Mean):
    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return super().forward(x).float()


class Batched(Mean):
    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        return y + y.mean(0, keepdim=True) - y.mean(0, keepdim=True).mean() if len(x) > 1 else y


class Random(Mean):
    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return super().forward(x) + 1e-3 * torch.rand(())


class InPlace(Mean):
    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        if not x.requires_grad:
            x.add_(1)
        return y


class NotFinite(Mean):
    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return super().forward(x) / (x.shape[-1] - 5)


class Root(Mean):
    exempt: ClassVar = {"weighted sum": "a power mean"}

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return super().forward(x**2).sqrt()


class NoSelection(Mean):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


class NoSampling(Downsample):
    name = "no_sampling"

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        return x[..., :: self.stride, :: self.stride]


class Narrow(Mean):
    def support(self) -> tuple[int, int]:
        return 1, 1


class NotKept(Mean):
    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", size: int = 3) -> None:
        super().__init__(channels, stride, padding_mode)


class NoDefault(Mean):
    def __init__(self, channels: int, stride: int, padding_mode: str, size: int) -> None:
        super().__init__(channels, stride, padding_mode)


class OtherSignature(Mean):
    def __init__(self, stride: int = 2, channels: int = 3) -> None:
        super().__init__(channels, stride)


class Listed(Mean):
    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", size: list[int] | int = 3) -> None:
        super().__init__(channels, stride, padding_mode)


class Keywords(Mean):
    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", **rest: int) -> None:
        super().__init__(channels, stride, padding_mode)


class OnlySquare(Mean):
    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros") -> None:
        if stride == 3:
            raise ValueError("three is\ntoo many")
        super().__init__(channels, stride, padding_mode)


class Nameless(Mean):
    name = "two words"


class Unknown(Mean):
    exempt: ClassVar = {"shape": "it is what it is"}


class Knob(Mean):
    strength_argument = "strength"


class WithoutPhase(Mean):
    shares_selection = True


REFUSED: list[tuple[Any, str]] = [
    (Doubling, r"off its output by .*: let sampling give the weights that forward uses"),
    (DoublingExempt, "a constant map does not stay constant: scale"),
    (Detached, "no gradient reaches the input, in evaluation: do not detach"),
    (DetachedInTraining, "no gradient reaches the input, in training: do not detach"),
    (HalfDetached, "not the derivative of its values, in evaluation: detach nothing"),
    (SumsToThree, "sampling weights sum to 3 over a window: let them sum to 1"),
    (Negative, "a sampling weight is -1: give weights of at least 0"),
    (OtherOrder, "gives others for some outputs than for all: give the rows of `outputs`"),
    (OtherPixels, "off its output by"),
    (Floored, r"its output is \(2, 4, 3, 2\), not \(2, 4, 4, 3\): give ceil"),
    (Single, "its output is torch.float32 for torch.float64: keep the data type"),
    (Batched, "its output is another for an image alone: let no image depend on its batch"),
    (Random, "its output is another on a second pass: draw nothing at random"),
    (InPlace, "it changes its input: work on a copy"),
    (NotFinite, "its output is not finite: "),
    (Root, "its gradient is not finite, in evaluation, on a map of zeros: keep roots"),
    (NoSelection, r"its forward\(x, selection=None\) fails \(TypeError: .*: mend it"),
    (NoSampling, r"its sampling.* fails \(NotImplementedError"),
    (Narrow, r"support\(\) is \(1, 1\), and sampling reaches 2 x 2: let support\(\) return"),
    (NotKept, "the argument 'size' is not kept: set self.size in __init__"),
    (NoDefault, "the argument 'size' has no default: give it one"),
    (OtherSignature, "its arguments are stride, channels: let the first be channels, stride, padding_mode"),
    (Listed, "the argument 'size' is annotated as .*: take int, float"),
    (Keywords, r"it takes \*\*rest.*: write each argument out"),
    (OnlySquare, r"at stride 3, .*: its __init__ fails \(ValueError: three is too many\): mend it"),
    (Nameless, "has the name 'two words': set name in the class"),
    (Unknown, "exempt names shape: name of weighted sum and gradient alone"),
    (Knob, "name 'strength', which is no argument: correct"),
    (WithoutPhase, r"it shares a selection, which is None: set self.selection"),
    (nn.MaxPool2d, "is no operator: give a class that derives from invariscope's Downsample"),
    (Downsample, "is no operator"),
    (Mean(3), "is no operator"),
]


@pytest.mark.parametrize(("operator", "said"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_class_that_is_no_operator_is_refused_in_one_line(operator: Any, said: str) -> None:
    with pytest.raises(OperatorError, match=said) as caught:
        register_operator(operator)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("operator ") or "is no operator" in line
    assert OPERATORS.added == {}


def test_an_argument_that_breaks_the_weights_is_refused_when_it_is_given() -> None:
    from functools import partial

    from invariscope.zoo.operators import build_operator
    from invariscope.zoo.operators.pooling import Max

    class Gained(Max):
        """Right with its default alone."""

        name = "gained"
        examples = ()

        def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros", gain: float = 1.0) -> None:
            super().__init__(channels, stride, padding_mode)
            self.gain = gain

        def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
            return self.gain * super().forward(x, selection)

    build_operator(Gained, 4)
    with pytest.raises(OperatorError, match="gained"):
        build_operator(partial(Gained, gain=3.0), 4)
