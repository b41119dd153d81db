"""In which precision networks run, beside what ``zoo.devices`` says of the devices."""

from __future__ import annotations

from zoo.devices import DEVICES, check_device, prepare_device

__all__ = ["DEVICES", "PRECISIONS", "check_device", "prepare_device"]

PRECISIONS = ("fp32", "bf16")
"""Of the passes over shifted images. ``fp32``: the network's own floating-point type; ``bf16``: weights and maps in
bfloat16."""
