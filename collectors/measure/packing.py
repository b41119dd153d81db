"""1 x 1 convolutions with their weights laid out for oneDNN once, in place of once per pass: float32 on processors.

torch lays the weights of a convolution out anew in every pass, and for 1 x 1 convolutions of channels-last maps takes a
slower algorithm where it does. The same numbers up to rounding: that is for the caller to check.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn


def pack_pointwise(network: nn.Module) -> nn.Module:
    """A copy of a network whose 1 x 1 convolutions hold packed weights; all weights are shared with it.

    Convolutions with hooks, with groups, of other types than float32, or whose class or forward pass is another than
    :class:`torch.nn.Conv2d`'s stay as they are.

    Returns:
        The copy; the network itself where there is nothing to pack, or where torch or the network do not let it be
        done.
    """
    if not torch.backends.mkldnn.is_available() or not any(map(_suits, nn.Module.modules(network))):
        return network
    try:
        shared = {id(tensor): tensor for tensor in chain(network.parameters(), network.buffers())}
        made = copy.deepcopy(network, shared)
        instead = {module: PackedConv2d(module) for module in nn.Module.modules(made) if _suits(module)}
    except Exception:  # foreign code, or a torch without these functions
        return network
    for parent in list(nn.Module.modules(made)):
        for name, child in list(parent._modules.items()):  # `named_children` leaves out a second name
            if child in instead:
                setattr(parent, name, instead[child])
    return made


class PackedConv2d(nn.Conv2d):
    """A convolution that shares everything with ``conv`` and keeps its weights packed as well.

    Where gradients are recorded, or the pass is watched or traced, it runs as ``conv`` does.
    """

    def __init__(self, conv: Any) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(conv.__dict__)
        self._packed = _Packed(conv)

    def forward(self, input: Tensor) -> Tensor:
        usual = input.ndim == 4 and input.dtype == torch.float32 and input.device.type == "cpu"
        if not usual or torch.is_grad_enabled() or torch.jit.is_tracing() or torch._C._len_torch_function_stack():
            return super().forward(input)
        return self._packed(input, self.bias)


class _Packed:
    """Packed weights, which no copy of a network need copy."""

    def __init__(self, conv: Any) -> None:
        self._how = conv.padding, conv.stride, conv.dilation, conv.groups
        weight = conv.weight.detach().contiguous().to_mkldnn()
        self._weight: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(weight, *self._how)

    def __deepcopy__(self, memo: object) -> _Packed:
        return self

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self._weight, bias, *self._how, "none", [], "")
        return made


def _suits(conv: object) -> bool:
    """Whether a module is a 1 x 1 convolution like any other."""
    if type(conv) is not nn.Conv2d or conv.kernel_size != (1, 1) or conv.groups != 1:
        return False
    weight = conv._parameters.get("weight")
    hooked = conv._forward_hooks or conv._forward_pre_hooks or "forward" in vars(conv)
    plain = weight is not None and weight.dtype == torch.float32 and weight.device.type == "cpu"
    return plain and not hooked and not isinstance(conv.padding, str) and conv.padding_mode == "zeros"
