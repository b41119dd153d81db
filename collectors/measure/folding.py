"""Convolution and batch norm as one convolution, in a copy of the network: found by watching a pass, not by tracing."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode


def fold_batch_norms(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a network in which every batch norm directly behind a convolution is part of that convolution.

    ``W' = W g / sqrt(v + eps)``, ``b' = (b - m) g / sqrt(v + eps) + beta`` per output channel, with the batch norm's
    running mean ``m`` and variance ``v``, its weight ``g`` and bias ``beta``. A pair is folded where, in one pass over
    ``example``, the convolution ran once with its own weights, its output went into the batch norm and nowhere else,
    and the batch norm was in evaluation mode and ran once. The copy runs the network's own ``forward``, whatever
    control flow that has, and shares all other weights with it. That it computes the same is for the caller to check:
    on other images a network may do something else.

    Args:
        model: the network, in evaluation mode.
        example: images as it takes them; one is enough.

    Returns:
        The copy; the network itself where there is nothing to fold, or where it cannot be watched or copied.
    """
    if not any(isinstance(module, _BatchNorm) for module in nn.Module.modules(model)):
        return model
    try:
        with torch.no_grad(), _Watch(model) as watch:
            model(example.clone())
        return _folded(model, watch.pairs()) if watch.pairs() else model
    except Exception:  # foreign code: the passes proper run the network as it is, and say what is wrong with it
        return model


class _Watch(TorchFunctionMode):
    """Follows which convolution's output is which batch norm's input, and what else is done with it.

    Nothing of it is left on the network after the context, whatever happens.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._hooks = ExitStack()
        self._made: dict[int, tuple[Tensor, Tensor]] = {}
        self._of: dict[int, tuple[str, nn.Conv2d]] = {}
        self._into: dict[int, tuple[str, _BatchNorm]] = {}
        self._runs: Counter[int] = Counter()
        self._uses: Counter[int] = Counter()

    def __enter__(self) -> Self:
        with ExitStack() as hooks:
            for path, module in self._model.named_modules():
                if _has_hooks(module):
                    continue
                if isinstance(module, nn.Conv2d):
                    hooks.callback(module.register_forward_hook(partial(self._left, path)).remove)
                elif isinstance(module, _BatchNorm):
                    hooks.callback(module.register_forward_pre_hook(partial(self._entered, path)).remove)
            super().__enter__()
            self._hooks = hooks.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            super().__exit__(*exception)
        finally:
            self._hooks.close()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not _only_asks(func):
            self._uses.update(id(tensor) for tensor in _tensors((*args, *kwargs.values())) if id(tensor) in self._made)
        if func is torch.conv2d:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self._runs[id(weight)] += 1
            self._made[id(result)] = result, weight
        return result

    def _left(self, path: str, conv: nn.Conv2d, args: Any, output: Any) -> None:
        _, weight = self._made.get(id(output), (None, None))
        if weight is not None and weight is conv.weight:
            self._of[id(output)] = path, conv

    def _entered(self, path: str, norm: _BatchNorm, args: Sequence[Any]) -> None:
        self._runs[id(norm)] += 1
        if args and id(args[0]) in self._made:
            self._into[id(args[0])] = path, norm

    def pairs(self) -> list[tuple[str, str]]:
        """Paths of the convolutions and batch norms that can be folded."""
        found = []
        for made, (conv_path, conv) in self._of.items():
            norm_path, norm = self._into.get(made, ("", None))
            once = self._uses[made] == 1 and self._runs[id(conv.weight)] == 1 and self._runs[id(norm)] == 1
            if norm is not None and once and _is_fixed(norm) and _rest(norm) is not None:
                found.append((conv_path, norm_path))
        return found


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_fixed(norm: _BatchNorm) -> bool:
    """Whether a batch norm takes its running statistics."""
    return not norm.training and norm.running_mean is not None and norm.running_var is not None


def _rest(norm: Any) -> nn.Module | None:
    """What a batch norm does beyond normalising; None where that is not known."""
    if type(norm).forward is _BatchNorm.forward:
        return nn.Identity()
    # timm's batch norm that holds the activation, told by its name: timm need not be installed.
    if (type(norm).__module__, type(norm).__name__) == ("timm.layers.norm_act", "BatchNormAct2d"):
        return nn.Sequential(norm.drop, norm.act)
    return None


def _folded(model: nn.Module, pairs: Sequence[tuple[str, str]]) -> nn.Module:
    """A copy of the network with these pairs folded; weights that stay are shared with it."""
    network = sharing_copy(model)
    instead: dict[nn.Module, nn.Module] = {}
    for conv_path, norm_path in pairs:
        norm = network.get_submodule(norm_path)
        _fold(network.get_submodule(conv_path), norm)
        rest = _rest(norm)
        if rest is not None:
            instead[norm] = rest.train(False)
    replace_modules(network, instead)
    return network


def sharing_copy(model: nn.Module) -> nn.Module:
    """A copy of a network with modules of its own, whose weights are the network's."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def replace_modules(network: nn.Module, instead: Mapping[nn.Module, nn.Module]) -> None:
    """Put other modules in the place of some, under each of their names."""
    for parent in list(nn.Module.modules(network)):
        for name, child in list(parent._modules.items()):  # `named_children` leaves out a second name
            if child is not None and child in instead:
                setattr(parent, name, instead[child])


def _fold(conv: Any, norm: Any) -> None:
    """Give a convolution the weights that it and the batch norm have together."""
    statistics = norm.running_mean, norm.running_var, norm.eps
    with torch.no_grad():
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics, norm.weight, norm.bias)
    conv.weight = nn.Parameter(weight.clone(memory_format=torch.channels_last), requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _only_asks(func: Callable[..., Any]) -> bool:
    """Whether a call only asks for an attribute or a size."""
    return getattr(func, "__name__", "") in ("__get__", "__len__", "size", "dim", "is_floating_point")
