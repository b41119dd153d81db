"""What a network says, as other people's networks say it: the logits out of whatever it returns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn

_log = logging.getLogger(__name__)

_CONTIGUOUS: WeakSet[nn.Module] = WeakSet()
"""Networks that do not take images whose channels lie last in memory."""

_VIEW = "view size is not compatible"
"""What torch says of ``x.view(-1, n)`` of such a map."""


def logits_of(output: Any) -> Any:
    """The logits of an output: its field or entry ``logits``, without two trailing sides of one pixel.

    So are read the outputs of the library transformers, named tuples and dataclasses with such a field, and
    ``(N, C, 1, 1)`` of a network that ends in a pooling. All else is given back as it is.
    """
    named = getattr(output, "logits", None)
    if isinstance(named, Tensor):
        output = named
    elif isinstance(output, dict) and isinstance(output.get("logits"), Tensor):
        output = output["logits"]
    is_point = isinstance(output, Tensor) and output.ndim == 4 and tuple(output.shape[2:]) == (1, 1)
    return output.flatten(1) if is_point else output


def said(model: Callable[[Tensor], Any], batch: Tensor) -> Any:
    """:func:`logits_of` what a network returns; of a contiguous batch where it fails on one whose channels lie last.

    That is said once for a network. A batch of images of one pixel is no map, and stays as it is.
    """
    network = _network(model)
    if network is not None and network in _CONTIGUOUS:
        batch = batch.contiguous()
    try:
        output = model(batch)
    except RuntimeError as problem:
        if not is_view_problem(problem) or batch.is_contiguous():
            raise
        output = model(batch.contiguous())
        if network is not None:
            _CONTIGUOUS.add(network)
        _log.warning(
            "%s does not take images whose channels lie last in memory (x.view in its forward): measured contiguous",
            type(network or model).__name__,
        )
    return output if tuple(batch.shape[2:]) == (1, 1) and not hasattr(output, "logits") else logits_of(output)


def is_view_problem(problem: RuntimeError) -> bool:
    """Whether a network failed because it takes a view that needs a contiguous map."""
    return _VIEW in str(problem)


def _network(model: Callable[[Tensor], Any]) -> nn.Module | None:
    if isinstance(model, partial):
        return next((one for one in model.args if isinstance(one, nn.Module)), None)
    return model if isinstance(model, nn.Module) else None
