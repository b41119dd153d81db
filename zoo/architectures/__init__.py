"""The architectures by name; every builder takes ``operator``, ``padding_mode``, ``in_channels`` and ``classes``."""

from __future__ import annotations

from invariscope.base.errors import ModelError
from invariscope.base.registry import Registry
from invariscope.zoo.model_string import ModelString

ARCHITECTURES = Registry(
    "architecture",
    {
        "smallcnn": "invariscope.zoo.architectures.smallcnn:SmallCNN",
        **{f"resnet{n}": f"invariscope.zoo.architectures.resnet:resnet{n}" for n in (8, 14, 20, 32, 44, 56, 110)},
        **{f"resnet{n}": f"invariscope.zoo.architectures.imagenet:resnet{n}" for n in (18, 34, 50, 101)},
        "unet": "invariscope.zoo.architectures.unet:UNet",
        "deeplabv3plus": "invariscope.zoo.architectures.deeplab:DeepLabV3Plus",
        **{f"vgg{n}": f"invariscope.zoo.architectures.vgg:vgg{n}" for n in (7, 8, 11, 13, 16, 19)},
    },
    ModelError,
)
"""Name -> builder ``(operator="max", padding_mode="zeros", in_channels=3, classes=10, ...) -> nn.Module``;
what :data:`SEGMENTERS` names gives a map of logits."""

SEGMENTERS = frozenset({"unet", "deeplabv3plus"})
"""The architectures that give a map of logits, ``(N, classes, H, W)`` of the image's size; the others ``(N, classes)``.
"""


def is_segmenter(model: str | ModelString) -> bool:
    """Whether an architecture's name (``unet``) or a model string (``zoo:unet?operator=aps``) is one of ``SEGMENTERS``.

    False for every network that is not of ``zoo:``: what those give is known only when they run.

    Raises:
        ModelError: for a text with a colon that is no model string.
    """
    if isinstance(model, str):
        if ":" not in model:
            return model in SEGMENTERS
        model = ModelString.parse(model)
    return model.scheme == "zoo" and model.target in SEGMENTERS


def takes_strided(model: ModelString) -> bool:
    """Whether ``operator=strided``, the published network without an operator, is there for a ``zoo:`` model."""
    encoder = str(model.arguments.get("encoder", ""))
    return model.target.startswith(("resnet", "deeplab")) or encoder.startswith("resnet")
