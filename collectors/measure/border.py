"""The border's part of drift: what goes away where padding and shifts are circular."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from invariscope.base.errors import ModelError
from invariscope.collectors.measure.drift import LOGITS, DriftSums
from invariscope.collectors.measure.jackknife import jackknife_error
from invariscope.collectors.measure.passes import evaluating
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sampling import pad
from invariscope.zoo.unchanged import unshared


class CircularPool(nn.Module):
    """Pooling of a map that goes round, by a function: a module inside of it would be a site of another name."""

    def __init__(self, pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        height, width = _pair(pool.padding)
        self.edges = width, width, height, height
        how: dict[str, Any] = {"stride": pool.stride, "padding": 0, "ceil_mode": pool.ceil_mode}
        if isinstance(pool, nn.MaxPool2d):
            self.pool = partial(F.max_pool2d, kernel_size=pool.kernel_size, dilation=pool.dilation, **how)
        else:
            self.pool = partial(
                F.avg_pool2d, kernel_size=pool.kernel_size, divisor_override=pool.divisor_override, **how
            )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)``, padded around and pooled."""
        return self.pool(pad(x, *self.edges, "circular"))


def circularly_padded(model: nn.Module, example: Tensor) -> nn.Module:
    """A copy of a network whose convolutions, poolings and operators pad circularly; its weights stay.

    Args:
        example: images as it takes them; one is enough.

    Raises:
        ModelError: a part of it pads in a way that cannot be set: a padding layer, a call of a function, or more than
            the map is wide.
    """
    made = copy.deepcopy(model)
    for parent in list(nn.Module.modules(made)):
        for name, child in list(parent._modules.items()):
            if isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and _pads(child.padding):
                setattr(parent, name, CircularPool(child))
            elif type(child).__name__.endswith(("Pad1d", "Pad2d", "Pad3d")) and not isinstance(child, nn.CircularPad2d):
                raise ModelError(f"the padding of its layer {name} ({type(child).__name__}) cannot be set")
    for module in nn.Module.modules(made):
        if isinstance(module, Downsample) or (isinstance(module, nn.Conv2d) and _pads(module.padding)):
            module.padding_mode = "circular"
    try:
        with evaluating(made), torch.no_grad(), _Paddings() as seen:
            made(unshared(example, made))
    except RuntimeError as error:
        if "wrapping around" not in str(error):
            raise
        raise ModelError("a map is smaller than its padding, and cannot go round") from error
    if seen.other is not None:
        raise ModelError(f"the padding of a call of {seen.other} cannot be set")
    return made


class _Paddings(TorchFunctionMode):
    """Looks for padding that does not go round."""

    other: str | None = None
    """The function that pads so."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "pad":
            widths, mode = args[1], args[2] if len(args) > 2 else kwargs.get("mode", "constant")
            pads = any(widths[:4]) and mode != "circular"  # the others are of channels and images
        else:
            at = {"conv2d": 4, "max_pool2d": 3, "avg_pool2d": 3}.get(name, len(args))
            padding = args[at] if at < len(args) else kwargs.get("padding", 0)
            pads = padding == "same" or _pads(padding)
        if pads:
            self.other = name
        return func(*args, **kwargs)


def with_border(sums: DriftSums, circular: DriftSums | None, reason: str) -> pd.DataFrame:
    """The rows of :meth:`DriftSums.frame` with ``border``: ``drift_out`` minus that of the circular network."""
    frame = sums.frame()
    values, errors = [], []
    for site in frame["site"]:
        key = (site, "out") if isinstance(site, str) else LOGITS
        own, left = sums.drift_of(key)
        other, other_left = circular.drift_of(key) if circular else (np.nan, np.full(len(left), np.nan))
        values.append(own - other)
        errors.append(jackknife_error(left - other_left))
    at = list(frame.columns).index("n_images")
    frame.insert(at, "border", values)
    frame.insert(at + 1, "border_se", errors)
    lacks = frame["border"].isna()
    if reason:
        frame.loc[lacks, "reason"] = [
            "; ".join(filter(None, (old, f"border: {reason}"))) for old in frame.loc[lacks, "reason"]
        ]
    return frame


def _pads(padding: Any) -> bool:
    return not isinstance(padding, str) and any(_pair(padding))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))
