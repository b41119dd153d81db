"""The devices on which networks are trained and measured; checking the default one does not import torch."""

from __future__ import annotations

from invariscope.base.errors import InputError
from invariscope.base.names import unknown

DEVICES = ("cpu", "cuda", "mps")


def check_device(name: str) -> None:
    """Refuse a device that is unknown, or not there.

    Raises:
        InputError: naming what is there.
    """
    if name not in DEVICES:
        raise InputError(unknown("device", name, DEVICES))
    if name == "cpu":
        return
    import torch

    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not found[name]:
        there = " or ".join(["cpu", *(other for other, is_there in found.items() if is_there)])
        raise InputError(f"device {name} is not there for this build of torch ({torch.__version__}): take {there}")


def prepare_device(name: str) -> None:
    """Check a device, and make float32 mean float32 there.

    By default convolutions on ``cuda`` round their inputs to 10 bits (TF32), which moves logits by 1e-3 and would make
    a device one of the settings of a measurement.
    """
    check_device(name)
    if name == "cuda":
        import torch

        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
