"""In which precision, and by which runtime, networks run; on what, ``invariscope.zoo.devices`` says."""

from __future__ import annotations

PRECISIONS = ("fp32", "bf16")
"""Of the passes over shifted images. ``fp32``: the network's own floating-point type; ``bf16``: weights and maps in
bfloat16."""

RUNTIMES = ("torch", "openvino", "auto")
"""Of the passes over shifted images. ``auto``: the faster one of a network's first batch, where there are passes enough
for a conversion to pay."""
