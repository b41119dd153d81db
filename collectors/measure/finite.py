"""Whether everything in a tensor is finite."""

from __future__ import annotations

import torch
from torch import Tensor


def all_finite(x: Tensor) -> bool:
    """Whether no value is NaN or infinite.

    A sum of them is finite only then, and takes a thirtieth of the time; finite values whose sum is too large for their
    type are looked at one by one.
    """
    return bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x).all())
