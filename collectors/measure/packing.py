"""1 x 1 convolutions with their weights laid out for oneDNN once, in place of once per pass: float32 on processors.

torch lays the weights of a convolution out anew in every pass, and for 1 x 1 convolutions of channels-last maps takes a
slower algorithm where it does. The same numbers up to rounding: that is for the caller to check.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from invariscope.collectors.measure.folding import replace_modules, sharing_copy


def pack_pointwise(network: nn.Module) -> nn.Module:
    """A copy of a network whose 1 x 1 convolutions hold packed weights; all weights are shared with it.

    Convolutions with hooks, with groups, of other types than float32, or whose class or forward pass is another than
    :class:`torch.nn.Conv2d`'s stay as they are. The copy is for passes without gradients; it cannot be saved.

    Returns:
        The copy; the network itself where there is nothing to pack, or where torch or the network do not let it be
        done.
    """
    if not torch.backends.mkldnn.is_available() or not any(map(_suits, nn.Module.modules(network))):
        return network
    try:
        made = sharing_copy(network)
        replace_modules(made, {module: PackedConv2d(module) for module in nn.Module.modules(made) if _suits(module)})
    except Exception:  # foreign code, or a torch or a processor without these functions
        return network
    return made


class PackedConv2d(nn.Conv2d):
    """A convolution that shares everything with ``conv`` and keeps its weights packed as well.

    It runs as ``conv`` does where its weights are no longer those that were packed, where gradients are recorded, under
    autocast, where torch's functions are followed or traced, and on maps that are not channels-last, whose layout the
    packed one would change.
    """

    def __init__(self, conv: Any) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(conv.__dict__)
        self._packed = _Packed(conv)

    def forward(self, input: Tensor) -> Tensor:
        if self._packed.holds(self.weight) and _is_usual(input):
            return self._packed(input, self.bias)
        return super().forward(input)


def _is_usual(x: Tensor) -> bool:
    """Whether a pass is one of many over shifted images."""
    return (
        x.ndim == 4
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not torch._C._len_torch_function_stack()
        and not torch._C._len_torch_dispatch_stack()
    )


class _Packed:
    """Packed weights, which no copy of a network need copy.

    Raises:
        Exception: torch or the processor cannot do it; tried on a map of four pixels.
    """

    def __init__(self, conv: Any) -> None:
        self._how = conv.padding, conv.stride, conv.dilation, conv.groups
        self._source, self._version = conv.weight, conv.weight._version
        weight = conv.weight.detach().contiguous().to_mkldnn()
        self._weight: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(weight, *self._how)
        with torch.no_grad():
            self(torch.zeros(1, 2, 2, conv.in_channels).permute(0, 3, 1, 2), conv.bias)

    def holds(self, weight: Tensor) -> bool:
        """Whether these are the weights that were packed, and have not been written to since."""
        return weight is self._source and weight._version == self._version and weight.dtype == torch.float32

    def __deepcopy__(self, memo: object) -> _Packed:
        return self

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self._weight, bias, *self._how, "none", [], "")
        return made


def _suits(conv: object) -> bool:
    """Whether a module is a 1 x 1 convolution like any other."""
    if type(conv) is not nn.Conv2d or conv.kernel_size != (1, 1) or conv.groups != 1:
        return False
    hooked = conv._forward_hooks or conv._forward_pre_hooks or {"forward", "_conv_forward"} & vars(conv).keys()
    bias = conv._parameters.get("bias")
    if hooked or not _is_plain(conv._parameters.get("weight")) or not (bias is None or _is_plain(bias)):
        return False
    return conv.bias is bias and not isinstance(conv.padding, str) and conv.padding_mode == "zeros"


def _is_plain(tensor: Tensor | None) -> bool:
    """Whether a weight can be packed, and told later whether it has been written to."""
    if tensor is None or tensor.is_inference():
        return False
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
