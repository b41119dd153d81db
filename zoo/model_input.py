"""Which images a network takes, said once and kept with the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.timm_config import config_input

_KEPT = "_invariscope_input"

Network = TypeVar("Network", bound=nn.Module)


def set_input(model: Network, spec: InputSpec) -> Network:
    """Say which images a network takes: size, resize, normalisation. Images of 0 to 255 are then prepared so.

    ``load_checkpoint`` has said it of its networks, and ``build_model`` of those whose library has it on record.

    Returns:
        The same network.
    """
    object.__setattr__(model, _KEPT, spec)
    return model


def input_of(model: nn.Module | None) -> InputSpec | None:
    """What :func:`set_input` said of a network, else timm's configuration that lies with it; else None."""
    kept = getattr(model, _KEPT, None)
    if isinstance(kept, InputSpec):
        return kept
    config: Any = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    return config_input(config) if isinstance(config, Mapping) else None
