"""What makes a map smaller and is not understood: it is listed, with its sizes and the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.base.explained import UNEXPLAINED
from invariscope.zoo.sites.rearranging import VIEWS
from invariscope.zoo.sites.uses import Use, map_size, unmeasured

OTHERWISE = "it makes the map smaller by a function whose sampling is not known here"


def unknown_use(func: Any, args: Sequence[Any], result: Any) -> Use | None:
    """What any other function did that at least halves a map, in height and in width: listed, never dropped."""
    if not isinstance(result, Tensor):
        return None
    x = next((arg for arg in args if isinstance(arg, Tensor)), None)
    if x is None:
        return None
    before, after = x.shape, result.shape
    if before == after or len(before) != 4 or len(after) != 4 or before[0] != after[0] or func in _NO_MAPS:
        return None
    if not result.is_floating_point() or map_size(result) == (1, 1):
        return None
    if any(2 * small > large + 1 or large == 1 for large, small in zip(map_size(x), map_size(result), strict=True)):
        return None
    name = str(getattr(func, "__name__", "function")).strip("_")
    return unmeasured(name, x, result, OTHERWISE, explained=UNEXPLAINED)


_NO_MAPS = {
    torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.einsum, F.linear, F.scaled_dot_product_attention,
    Tensor.__getitem__, Tensor.expand, Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, Tensor.new_full,
    torch.narrow, Tensor.narrow, *VIEWS,
}  # fmt: skip
"""Functions whose four dimensions are mostly those of attention (N, heads, tokens, channels), or that only cut."""


def unexplained(x: Tensor, y: Tensor, why: str) -> Use:
    """A use that makes a map smaller in a way that is not explained."""
    before, after = (f"{size[0]}×{size[1]}" for size in (map_size(x), map_size(y)))
    return unmeasured("unexplained", x, y, f"{before} → {after}, not explained: {why}", explained=UNEXPLAINED)
