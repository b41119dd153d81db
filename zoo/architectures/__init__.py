"""The architectures by name; every builder takes ``operator``, ``padding_mode``, ``in_channels`` and ``classes``."""

from __future__ import annotations

from zoo.errors import ModelError
from zoo.registry import Registry

ARCHITECTURES = Registry(
    "architecture",
    {
        "smallcnn": "zoo.architectures.smallcnn:SmallCNN",
        **{f"resnet{n}": f"zoo.architectures.resnet:resnet{n}" for n in (8, 14, 20, 32, 44, 56, 110)},
        **{f"vgg{n}": f"zoo.architectures.vgg:vgg{n}" for n in (8, 11, 13, 16, 19)},
    },
    ModelError,
)
"""Name -> builder ``(operator="max", padding_mode="zeros", in_channels=3, classes=10, ...) -> nn.Module``."""
