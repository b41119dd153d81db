"""Watch and measure what somebody hands in without changing it: networks that write to their input or to themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from invariscope.zoo.datasets.inputs import place

_OWN = ("_parameters", "_buffers", "_modules")
"""Where a module keeps its tensors and its parts."""


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Whatever a network does to itself inside, it is afterwards what it was.

    That is every parameter and buffer by its values, also of networks that go on averaging in evaluation mode; the
    gradients; every module's training flag; and which attributes, parts and tensors the modules have. What a network
    keeps in lists or dictionaries of its own stays as it left it. Costs a copy of the weights: 0.5 ms for a ResNet-20,
    whose pass over 64 images takes 90 ms.
    """
    undo = [_attributes(module) for module in nn.Module.modules(model)]
    undo += [_values(tensor) for tensor in _tensors(model)]
    try:
        yield
    finally:
        for restore in undo:
            restore()


def unshared(images: Tensor, model: nn.Module) -> Tensor:
    """Images as a network takes them (:func:`place`), in memory of their own: it may write to them."""
    placed = place(images, model)
    return placed.clone() if placed.data_ptr() == images.data_ptr() else placed


def _tensors(model: nn.Module) -> list[Tensor]:
    """The tensors of a network, each once; those of a plain attribute too."""
    plain = (
        value for module in nn.Module.modules(model) for value in vars(module).values() if isinstance(value, Tensor)
    )
    found = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers(), plain)}
    return [tensor for tensor in found.values() if tensor.layout == torch.strided and tensor.device.type != "meta"]


def _attributes(module: nn.Module) -> Callable[[], None]:
    """Gives a module back the attributes that it has now, each the same object."""
    if isinstance(module, torch.jit.ScriptModule):  # which keeps them where Python does not reach
        return lambda: None
    own = vars(module)
    before = dict(own)
    parts = {name: dict(own[name]) for name in _OWN}

    def restore() -> None:
        if not _are_same(own, before):
            own.clear()
            own.update(before)
        for name, entries in parts.items():
            if not _are_same(own[name], entries):
                own[name].clear()
                own[name].update(entries)

    return restore


def _are_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return len(one) == len(other) and all(name in one and one[name] is value for name, value in other.items())


def _values(tensor: Tensor) -> Callable[[], None]:
    """Gives a tensor back the values and the gradient that it has now."""
    kept, gradient = tensor.detach().clone(), tensor.grad if tensor.is_leaf else None
    if gradient is not None:
        tensor.grad = None  # so that nothing is added to it

    def restore() -> None:
        if tensor.shape != kept.shape or tensor.dtype != kept.dtype or tensor.device != kept.device:
            tensor.data = kept
        elif not torch.equal(tensor.detach(), kept):
            with torch.no_grad():
                tensor.copy_(kept)
        if tensor.is_leaf and tensor.grad is not gradient:
            tensor.grad = gradient

    return restore
