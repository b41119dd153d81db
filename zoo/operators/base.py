"""What every downsampling operator is: one signature, one output size, and the weights that it samples with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.values import Specification, spell
from invariscope.zoo.sampling import PADDING_MODES, Taps, pad

COMMON = ("channels", "stride", "padding_mode")
"""The first arguments of every operator, which a specification does not give."""


def output_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Output height and width of every operator: ``ceil(H / s), ceil(W / s)``."""
    return -(-size[0] // stride), -(-size[1] // stride)


class Downsample(nn.Module):
    """Base of the operators: ``(N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s))`` for any integer stride ``s >= 1``.

    Args:
        channels: ``C`` of the input.
        stride: ``s``, the same along both axes.
        padding_mode: how the operator continues the map at its border: ``zeros``, ``reflect``, ``replicate`` or
            ``circular``. The pooling operators (max, avg, soft, lp) take ``zeros`` as "no value there".

    An operator writes :meth:`forward` and :meth:`sampling`, and states its :meth:`support` where it knows it. Further
    arguments of its own have a default and a type that a text can be read as, and stand in attributes of their names,
    where surgery, swaps and ``repr`` find them.

    Raises:
        OperatorError: for a stride below 1, no channels or an unknown padding mode.
    """

    name: ClassVar[str]
    """Name in the registry and in the tables."""

    strength_argument: ClassVar[str | None] = None
    """Name of the one knob whose value is the ``strength`` column, where there is one."""

    examples: ClassVar[Sequence[Mapping[str, Any]]] = ()
    """Arguments besides the defaults with which the class is checked: ``({"kernel": 3}, {"beta": 8.0})``."""

    exempt: ClassVar[Mapping[str, str]] = {}
    """What of the check does not hold for this class, and why: ``weighted sum`` (:meth:`forward` is another mean than
    the sum of the input under the weights of :meth:`sampling`), ``gradient`` (it is not the derivative of the values,
    as of a straight-through estimate)."""

    keeps_max: ClassVar[bool] = False
    """Whether a max pooling stays before the operator, at stride 1, where surgery puts it in: for those that stand for
    the stride alone."""

    shares_selection: bool = False
    """Whether a residual block's shortcut must sample with the ``selection`` of the main branch."""

    _kept: ClassVar[tuple[str, ...]] = ("selection",)
    """Attributes that hold tensors of the last forward pass; copies and pickles of the module leave them out."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: str = "zeros") -> None:
        super().__init__()
        if channels < 1:
            raise OperatorError(f"{type(self).__name__}: channels is {channels}, and must be at least 1")
        if stride < 1 or int(stride) != stride:
            raise OperatorError(f"{type(self).__name__}: stride is {stride}, and must be an integer of at least 1")
        if padding_mode not in PADDING_MODES:
            known = ", ".join(PADDING_MODES)
            raise OperatorError(f"{type(self).__name__}: padding_mode is {padding_mode!r}, and must be one of {known}")
        self.channels = channels
        self.stride = int(stride)
        self.padding_mode = padding_mode
        self.selection: Tensor | None = None

    def forward(self, x: Tensor, selection: Tensor | None = None) -> Tensor:
        """Downsample ``x``.

        ``selection`` is what another operator of the same kind chose (its :attr:`selection` after its forward pass);
        operators whose ``shares_selection`` is false ignore it. After the call, :attr:`selection` holds the choice
        that was used: ``(N,)`` phase indices or ``(N, s*s)`` phase weights, or ``None``.
        """
        raise NotImplementedError

    def sampling(self, x: Tensor, outputs: Tensor | None = None, selection: Tensor | None = None) -> Taps:
        """The sampling weights with which ``forward(x, selection)`` makes its outputs (in evaluation mode).

        ``outputs``: flat indices ``h' * W' + w'`` of the outputs wanted; all by default. ``selection``: as in
        :meth:`forward`; pass the :attr:`selection` of the forward pass to read a shortcut that shares its phase.
        """
        raise NotImplementedError

    def support(self) -> tuple[int, int]:
        """Height and width of the window that an output samples, in pixels of the input, away from the border.

        Here it is read off :meth:`sampling` on a map of zeros; a class that knows its window states it: that is faster.
        """
        return sampled_support(self)

    def multiply_adds(self, size: tuple[int, int], *, chosen: bool = False) -> int:
        """Multiply-adds of one image of ``size`` (height, width) in evaluation mode: 0 where nothing is weighed.

        One for each term of a weighted sum, whether its weights are fixed, learned or computed, and of a plain sum or
        mean. Comparisons, powers, exponentials and what is done once per output or phase are not counted.
        ``chosen``: with the ``selection`` of another operator, where this one uses it. Here it is the window of
        :meth:`support` per output, and nothing where that is one pixel; a class that does more, or compares only,
        says so.
        """
        height, width = self.support()
        return self.outputs(size) * height * width if height * width > 1 else 0

    def losses(self) -> dict[str, Tensor]:
        """The operator's own training losses, by name, for the last forward pass if that was in training mode."""
        return {}

    def set_progress(self, fraction: float) -> None:
        """Tell the operator how far training has come (0 to 1), for what it anneals; nothing by default."""

    def set_input_size(self, size: tuple[int, int]) -> None:
        """Tell the operator height and width of the network's input, for losses that need them; nothing by default."""

    @property
    def site(self) -> Downsample:
        """The operator whose window is the downsampling site's: this one, unless it filters its map before that."""
        return self

    def site_input(self, x: Tensor) -> Tensor:
        """The map that :attr:`site` samples from, for this operator's input: ``x`` itself, or the filtered map."""
        return x

    @property
    def exemptions(self) -> Mapping[str, str]:
        """:attr:`exempt`, with what holds for these arguments alone."""
        return type(self).exempt

    @classmethod
    def arguments(cls) -> dict[str, inspect.Parameter]:
        """The arguments that a specification can give, in the order of its positional values."""
        signature = inspect.signature(cls, eval_str=True)
        return {name: parameter for name, parameter in signature.parameters.items() if name not in COMMON}

    def settings(self) -> dict[str, Any]:
        """The values of these arguments, as the attributes of their names hold them: defaults are filled in."""
        return {name: getattr(self, name) for name in self.arguments() if hasattr(self, name)}

    def does_as(self, other: nn.Module) -> bool:
        """Whether another operator is of this class, with the same arguments."""
        if type(other) is not type(self) or not isinstance(other, Downsample):
            return False
        alike = all(getattr(self, name) == getattr(other, name) for name in COMMON)
        settings, others = ({name: spell(value) for name, value in each.settings().items()} for each in (self, other))
        return alike and settings == others and len(settings) == len(self.arguments())

    def at_least(self, least: float, remark: str = "", **values: float) -> None:
        """Refuse arguments below a value (OperatorError)."""
        for name, value in values.items():
            if not value >= least:
                raise OperatorError(f"{type(self).__name__}: {name} is {value}, and must be at least {least:g}{remark}")

    def check(self, x: Tensor) -> None:
        """Refuse what is no ``(N, channels, H, W)`` batch (OperatorError)."""
        if x.ndim != 4 or x.shape[1] != self.channels or 0 in x.shape[2:]:
            raise OperatorError(
                f"{type(self).__name__}: input is {tuple(x.shape)}, and must be (N, {self.channels}, H, W): "
                "build the operator for the channels of its input"
            )

    def outputs(self, size: tuple[int, int]) -> int:
        """Values of one image's output, over all channels."""
        height, width = output_size(size, self.stride)
        return self.channels * height * width

    def padded(self, size: tuple[int, int]) -> int:
        """Values of one image's input, over all channels, padded to a multiple of the stride."""
        return self.outputs(size) * self.stride**2

    def __getstate__(self) -> dict[str, Any]:
        # A training forward keeps tensors of the graph, which can neither be deep-copied nor pickled.
        return {**self.__dict__, **{name: None for name in self._kept if name in self.__dict__}}

    def extra_repr(self) -> str:
        own = "".join(
            f", {name}={spell(value) if isinstance(value, Specification) else repr(value)}"
            for name, value in self.settings().items()
        )
        return f"{self.channels}, stride={self.stride}, padding_mode={self.padding_mode!r}{own}"


def sampled_support(operator: Downsample) -> tuple[int, int]:
    """Height and width of the window of an output in the middle of a map, as ``operator.sampling`` gives it.

    The stride cell for an operator without sampling; the whole map for one that samples from everywhere.
    """
    if type(operator).sampling is Downsample.sampling:
        return operator.stride, operator.stride
    floats = (each for each in chain(operator.parameters(), operator.buffers()) if each.is_floating_point())
    like = next(floats, torch.zeros(()))
    reach, side = (0, 0), 0
    for cells_per_side in (8, 32, 64):
        side = cells_per_side * operator.stride
        middle = (cells_per_side + 1) * (cells_per_side // 2)
        with torch.no_grad():
            index = operator.sampling(like.new_zeros(1, operator.channels, side, side)).index[middle]
        inside = index[index >= 0]
        rows, columns = inside // side, inside % side
        reach = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        if 2 * max(reach) <= side:
            break
    return reach


def pad_to_multiple(x: Tensor, stride: int, mode: str) -> Tensor:
    """Pad at the right and the bottom up to the next multiple of the stride."""
    height, width = x.shape[-2:]
    return pad(x, 0, -width % stride, 0, -height % stride, mode)


def windows(x: Tensor, kernel: int, stride: int, size: tuple[int, int]) -> Tensor:
    """The taps of every window of an already padded map: ``(N, C, H, W) -> (k*k, N, C, H', W')``, row-major."""
    height, width = (stride * (length - 1) + 1 for length in size)
    starts = [(row, column) for row in range(kernel) for column in range(kernel)]
    return torch.stack([x[..., r : r + height : stride, c : c + width : stride] for r, c in starts])


def cells(x: Tensor, stride: int) -> Tensor:
    """View ``(N, C, s*u, s*v)`` as ``(N, C, u, s, v, s)``: ``[:, :, :, i, :, j]`` is the polyphase component ``ij``."""
    return x.unflatten(3, (-1, stride)).unflatten(2, (-1, stride))


def phases(x: Tensor, stride: int) -> Tensor:
    """Polyphase components, row-major: ``(N, C, s*u, s*v) -> (N, C, s*s, u, v)``.

    Component ``i*s + j`` is ``x[..., i::s, j::s]``.
    """
    return cells(x, stride).permute(0, 1, 3, 5, 2, 4).flatten(2, 3)


def mix_phases(x: Tensor, weights: Tensor, stride: int) -> Tensor:
    """Weighted sum of the polyphase components of ``(N, C, s*u, s*v)``: ``y = sum_k weights_k P_k x``.

    ``weights`` broadcasts to ``(N, C, s*s)``, row-major.
    """
    n, c, height, width = x.shape
    weights = weights.expand(n, c, stride * stride)
    if n and x.device.type == "cpu" and x.dtype == weights.dtype == torch.float32:
        # One group per image and channel: forward and backward take half the time of the sum over slices on one core
        # (64 x 64 x 32 x 32: 32 against 60 ms). In float64 the grouped convolution has no fast kernel.
        flat = x.reshape(1, n * c, height, width)
        kernels = weights.reshape(n * c, 1, stride, stride)
        return F.conv2d(flat, kernels, stride=stride, groups=n * c).view(n, c, height // stride, width // stride)
    return (phases(x, stride) * weights[..., None, None]).sum(2)


def select_phase(x: Tensor, index: Tensor, stride: int) -> Tensor:
    """One polyphase component per image: ``index (N,)``, ``(N, C, s*u, s*v) -> (N, C, u, v)``."""
    image = torch.arange(len(x), device=x.device)
    return cells(x, stride)[image, :, :, index // stride, :, index % stride]
