"""What a class must do to be a downsampling operator: the check of those from outside, and of ours in the tests."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Never
from weakref import WeakSet

import torch
from torch import Tensor

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.base import COMMON, Downsample, output_size, sampled_support
from invariscope.zoo.operators.values import kinds_of, spell
from invariscope.zoo.sampling import PADDING_MODES, Taps, take

SIZES = ((6, 6), (7, 5), (4, 9))
"""Height and width of the maps."""

STRIDES = (1, 2, 3)

EXEMPTIONS = ("weighted sum", "gradient")
"""What a class can declare not to hold for it, see :attr:`Downsample.exempt`."""

CHANNELS, IMAGES = 4, 2

TOLERANCE = 1e-6
"""Between the forward pass and the sum under the sampling weights, in float64: room for filters kept in float32."""

_STEP = 1e-6
_GRADIENT_TOLERANCE = 1e-4

_CHECKED: WeakSet[type] = WeakSet()


def check_operator(operator: Any, name: str | None = None) -> None:
    """Refuse a class that does not do what a downsampling operator does; once per class and process.

    It derives from ``Downsample``, has a name (``name``, where one is given) and the common signature. With its default
    arguments and each of its ``examples``, at several strides and sizes and under every padding mode, in evaluation:

    * ``forward`` gives ``(N, C, ceil(H/s), ceil(W/s))`` of the data type that it got, finite, the same alone as in a
      batch and for the selection that it chose itself, and leaves its input as it is;
    * ``sampling`` gives weights that are not negative and sum to 1, whose weighted sum of the input is the output (for
      a class that is exempt from this, a constant map stays constant), within the window that ``support`` states;
    * in training too, the gradient reaches the input, is finite, and is the derivative of the values.

    Raises:
        OperatorError: one line, which names the operator, what fails, and the remedy.
    """
    if operator not in _CHECKED:
        check_declaration(operator)
        for arguments in ({}, *operator.examples):
            check_behaviour(operator, arguments)
        _CHECKED.add(operator)
    if name is not None and operator.name != name:
        raise OperatorError(
            f"operator {operator.name!r} is registered under the name {name!r}: register it under its own"
        )


def check_behaviour(
    operator: type[Downsample],
    arguments: Mapping[str, Any],
    sizes: Sequence[tuple[int, int]] = SIZES,
    tolerance: float = TOLERANCE,
) -> None:
    """The part of :func:`check_operator` that runs the operator, for one set of its arguments."""
    with _apart():
        for stride in STRIDES:
            for padding_mode in PADDING_MODES:
                trial = _Trial(operator, arguments, stride, padding_mode, tolerance)
                built = trial.build()
                _check_support(trial, built)
                for size in sizes:
                    _check_evaluation(trial.on(size), built, size)
                for training in (False, True):
                    _check_gradient(trial.on(sizes[1]), built.train(training), sizes[1])
                _check_single_precision(trial, built.eval().float(), sizes[1])


@contextmanager
def _apart() -> Iterator[None]:
    """Gradients on, and random numbers of its own: the caller's are afterwards what they were."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@dataclass(frozen=True)
class _Trial:
    """What is being tried, for the line of a refusal."""

    operator: type[Downsample]
    arguments: Mapping[str, Any]
    stride: int
    padding_mode: str
    tolerance: float
    size: tuple[int, int] | None = None

    def on(self, size: tuple[int, int]) -> _Trial:
        """The same on maps of one size."""
        return _Trial(self.operator, self.arguments, self.stride, self.padding_mode, self.tolerance, size)

    def build(self) -> Downsample:
        """The operator in float64 and evaluation mode, its parameters off their initial values, its statistics made."""
        with self.runs("__init__"):
            built = self.operator(CHANNELS, self.stride, self.padding_mode, **self.arguments).double()
        missing = next((name for name in built.arguments() if not hasattr(built, name)), None)
        if missing is not None:
            self.refuse(f"the argument {missing!r} is not kept", f"set self.{missing} in __init__")
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        self.forward(built.train(), torch.randn(IMAGES, CHANNELS, 6, 6, dtype=torch.float64))
        return built.eval()

    @contextmanager
    def runs(self, method: str) -> Iterator[None]:
        """Says which method failed."""
        try:
            yield
        except Exception as problem:  # foreign code
            line = " ".join(f"{type(problem).__name__}: {problem}".split())[:300]
            self.refuse(f"its {method} fails ({line})", "mend it")

    def forward(self, built: Downsample, x: Tensor, selection: Tensor | None = None) -> Tensor:
        """The output of a forward pass."""
        with self.runs("forward(x, selection=None)"):
            y = built(x, selection=selection)
        if not isinstance(y, Tensor):
            self.refuse(f"its forward gives a {type(y).__name__}", "return the tensor alone")
        return y

    def sampling(self, built: Downsample, x: Tensor, outputs: Tensor | None = None) -> Taps:
        """The sampling weights of a map, for the selection that the last forward pass chose."""
        selection = built.selection if built.shares_selection else None
        with self.runs("sampling(x, outputs=None, selection=None)"):
            taps = built.sampling(x, outputs, selection=selection)
        if not isinstance(taps, Taps):
            self.refuse(f"its sampling gives a {type(taps).__name__}", "return Taps(index, weights)")
        return taps

    def refuse(self, fact: str, remedy: str) -> Never:
        """Raises the line."""
        shown = ", ".join(f"{name}={spell(value)}" for name, value in self.arguments.items())
        where = f", on a map of {self.size[0]} x {self.size[1]}" if self.size else ""
        raise OperatorError(
            f"operator {self.operator.name!r}{f' ({shown})' if shown else ''} at stride {self.stride}, padding mode "
            f"{self.padding_mode}{where}: {fact}: {remedy}"
        ) from None


def check_declaration(operator: Any) -> None:
    """The part of :func:`check_operator` that does not run the operator: base class, name, signature, exemptions."""
    if not isinstance(operator, type) or not issubclass(operator, Downsample) or operator is Downsample:
        raise OperatorError(f"{operator!r} is no operator: give a class that derives from invariscope's Downsample")
    name = getattr(operator, "name", None)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name) or name == "strided":
        raise OperatorError(
            f"operator {operator.__qualname__} has the name {name!r}: set name in the class, to one word other than "
            "strided"
        )

    def refuse(fact: str, remedy: str) -> Never:
        raise OperatorError(f"operator {name!r}: {fact}: {remedy}")

    try:
        arguments, signature = operator.arguments(), inspect.signature(operator)
    except (NameError, TypeError, ValueError) as problem:
        refuse(f"its signature cannot be read ({problem})", "annotate its arguments with int, float, str or bool")
    if tuple(signature.parameters)[: len(COMMON)] != COMMON:
        refuse(f"its arguments are {', '.join(signature.parameters)}", f"let the first be {', '.join(COMMON)}")
    for parameter in arguments.values():
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            refuse(f"it takes {parameter}", "write each argument out, with a default")
        if parameter.default is inspect.Parameter.empty:
            refuse(f"the argument {parameter.name!r} has no default", "give it one")
        try:
            kinds_of(parameter)
        except OperatorError as problem:
            raise OperatorError(f"operator {name!r}: {problem}") from None
    named = [operator.strength_argument or "", *(key for each in operator.examples for key in each)]
    unknown = next((key for key in named if key and key not in arguments), None)
    if unknown is not None:
        refuse(f"strength_argument or examples name {unknown!r}, which is no argument", "correct them")
    if set(operator.exempt) - set(EXEMPTIONS):
        refuse(f"exempt names {', '.join(operator.exempt)}", f"name of {' and '.join(EXEMPTIONS)} alone")


def _check_support(trial: _Trial, built: Downsample) -> None:
    with trial.runs("sampling"):
        reached = sampled_support(built)
    with trial.runs("support"):
        stated = built.support()
    if tuple(max(pair) for pair in zip(reached, stated, strict=True)) != tuple(stated):
        reach = f"{reached[0]} x {reached[1]}"
        trial.refuse(f"support() is {tuple(stated)}, and sampling reaches {reach}", "let support() return that window")


def _check_evaluation(trial: _Trial, built: Downsample, size: tuple[int, int]) -> None:
    x = torch.randn(IMAGES, CHANNELS, *size, dtype=torch.float64)
    with torch.no_grad():
        for images in (x, x.round()):  # with ties
            y = _check_forward(trial, built, images)
            _check_sampling(trial, built, images, y)
        if "weighted sum" in built.exemptions:
            _check_constant(trial, built, size)


def _check_forward(trial: _Trial, built: Downsample, x: Tensor) -> Tensor:
    """Shape, type, values and the independence of images of a forward pass; its output."""
    given = x.clone()
    y = trial.forward(built, x)
    wanted = (*x.shape[:2], *output_size((x.shape[2], x.shape[3]), trial.stride))
    if tuple(y.shape) != wanted:
        trial.refuse(f"its output is {tuple(y.shape)}, not {wanted}", "give ceil(H/s) x ceil(W/s)")
    if y.dtype != x.dtype:
        trial.refuse(f"its output is {y.dtype} for {x.dtype}", "keep the data type of the input")
    if not bool(y.isfinite().all()):
        trial.refuse("its output is not finite", "divide by nothing that can be 0")
    if not torch.equal(x, given):
        trial.refuse("it changes its input", "work on a copy")
    selection = built.selection
    if built.shares_selection:
        phases = None if selection is None else tuple(selection.shape)
        if phases not in ((len(x),), (len(x), trial.stride**2)):
            trial.refuse(f"it shares a selection, which is {phases}", "set self.selection to (N,) or (N, s*s)")
        _same(trial, trial.forward(built, x, selection), y, "with its own selection given", "use the selection")
    _same(trial, trial.forward(built, x), y, "on a second pass", "draw nothing at random in evaluation")
    alone = trial.forward(built, x[1:])
    _same(trial, alone, y[1:], "for an image alone", "let no image depend on its batch")
    return trial.forward(built, x)


def _same(trial: _Trial, found: Tensor, expected: Tensor, when: str, remedy: str) -> None:
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-9, atol=1e-9):
        trial.refuse(f"its output is another {when}", remedy)


def _check_sampling(trial: _Trial, built: Downsample, x: Tensor, y: Tensor) -> None:
    taps = trial.sampling(built, x)
    pixels, outputs = x.shape[2] * x.shape[3], y.shape[2] * y.shape[3]
    index, weights = taps.index, taps.weights
    if index.ndim != 2 or len(index) != outputs or int(index.max()) >= pixels or int(index.min()) < -1:
        shape = tuple(index.shape)
        trial.refuse(f"the index of its sampling is {shape}", f"give ({outputs}, K) pixels from -1 to {pixels - 1}")
    try:
        weights = weights.expand(*x.shape[:2], *index.shape)
    except RuntimeError:
        shape = tuple(weights.shape)
        trial.refuse(f"its sampling weights are {shape}", f"let them broadcast to (N, C, L, K) = {y.shape[:2]} x L x K")
    total = weights.sum(-1)
    if float(weights.min()) < 0:
        trial.refuse(f"a sampling weight is {float(weights.min()):.3g}", "give weights of at least 0")
    if not torch.allclose(total, torch.ones_like(total), rtol=0, atol=trial.tolerance):
        worst = float(total.flatten()[(total - 1).abs().argmax()])
        trial.refuse(f"its sampling weights sum to {worst:.6g} over a window", "let them sum to 1")
    if "weighted sum" not in built.exemptions:
        summed = (weights * take(x, index)).sum(-1).view_as(y)
        if not torch.allclose(summed, y, rtol=trial.tolerance, atol=trial.tolerance):
            off = float((summed - y).abs().max())
            trial.refuse(
                f"the sum of its input under its sampling weights is off its output by {off:.3g}",
                "let sampling give the weights that forward uses, or declare exempt = {'weighted sum': why}",
            )
    wanted = torch.tensor([outputs - 1, 0])
    some = trial.sampling(built, x, wanted)
    chosen = weights[:, :, wanted]
    agree = some.index.shape == index[wanted].shape and torch.equal(some.index, index[wanted])
    if not agree or not torch.allclose(some.weights.expand_as(chosen), chosen, rtol=1e-9, atol=1e-9):
        trial.refuse("sampling gives others for some outputs than for all", "give the rows of `outputs`, in its order")


def _check_constant(trial: _Trial, built: Downsample, size: tuple[int, int]) -> None:
    """What is no weighted sum is a mean all the same: a constant map stays, where no padding takes part."""
    level = torch.linspace(0.5, 3.0, CHANNELS, dtype=torch.float64).view(1, CHANNELS, 1, 1)
    x = level.expand(1, CHANNELS, *size)
    y = trial.forward(built, x)
    taps = trial.sampling(built, x)
    weights = taps.weights.expand(1, CHANNELS, *taps.index.shape)
    inside = (weights.masked_fill(taps.index >= 0, 0).sum(-1) == 0).view_as(y)
    if not torch.allclose(y[inside], level.expand_as(y)[inside], rtol=1e-5, atol=1e-5):
        trial.refuse("a constant map does not stay constant", "scale the output, so that it is a mean")


def _check_gradient(trial: _Trial, built: Downsample, size: tuple[int, int]) -> None:
    """Against central differences along two directions, in float64, with the same random numbers at every pass."""
    mode = "in training" if built.training else "in evaluation"
    # Values far from each other and from 0: a kink within the step of the difference is no derivative.
    count = IMAGES * CHANNELS * size[0] * size[1]
    x = ((torch.randperm(count).double() - count / 2 + 0.25) * (10 / count)).view(IMAGES, CHANNELS, *size)
    weight = torch.randn(IMAGES, CHANNELS, *output_size(size, trial.stride), dtype=torch.float64)

    def value(images: Tensor) -> Tensor:
        torch.manual_seed(1)
        return (trial.forward(built, images) * weight).sum()

    gradient = _gradient(trial, value, x, mode)
    if not bool(gradient.any()):
        trial.refuse(f"the gradient in the input is 0 everywhere, {mode}", "do not detach, and do not use .data")
    if "gradient" not in built.exemptions:
        for _ in range(2):
            direction = torch.randn_like(x)
            with torch.no_grad():
                slope = (value(x + _STEP * direction) - value(x - _STEP * direction)) / (2 * _STEP)
            if abs(float(slope - (gradient * direction).sum())) > _GRADIENT_TOLERANCE * float(gradient.norm()) + 1e-7:
                trial.refuse(
                    f"its gradient is not the derivative of its values, {mode}",
                    "detach nothing, or declare exempt = {'gradient': why}",
                )
    _gradient(trial, value, torch.zeros_like(x), f"{mode}, on a map of zeros")


def _gradient(trial: _Trial, value: Any, x: Tensor, mode: str) -> Tensor:
    x = x.clone().requires_grad_()
    y = value(x)
    if not y.requires_grad:
        trial.refuse(f"no gradient reaches the input, {mode}", "do not detach, and do not use .data or no_grad")
    with trial.runs(f"backward pass, {mode},"):
        (gradient,) = torch.autograd.grad(y, x, allow_unused=True)
    if gradient is None:
        trial.refuse(f"no gradient reaches the input, {mode}", "do not detach, and do not use .data or no_grad")
    if not bool(gradient.isfinite().all()):
        trial.refuse(f"its gradient is not finite, {mode}", "keep roots, logarithms and quotients away from 0")
    found: Tensor = gradient
    return found


def _check_single_precision(trial: _Trial, built: Downsample, size: tuple[int, int]) -> None:
    with torch.no_grad():
        y = trial.forward(built, torch.randn(IMAGES, CHANNELS, *size))
    if y.dtype != torch.float32:
        trial.refuse(f"its output is {y.dtype} for torch.float32", "keep the data type of the input")
