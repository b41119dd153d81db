"""The networks of timm and torchvision: how they are built, which images they take, where their weights lie.

Both are optional, and are imported when a model string names them. Nothing is downloaded unless that is asked for.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

import torch

from invariscope.base.errors import ModelError, one_line
from invariscope.base.flushing import make_folder
from invariscope.base.names import nearest, unknown
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.hub import hub_file
from invariscope.zoo.model_string import Argument, ModelString
from invariscope.zoo.optional import import_optional, import_timm, import_torchvision
from invariscope.zoo.pickles import read_pickled
from invariscope.zoo.timm_config import config_input
from invariscope.zoo.weights import load_weights

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights file in a repository of the Hugging Face hub, the one to prefer first."""

_TIMM_FILES = ("checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay")
"""Arguments by which timm would read files itself, in its older releases by running their pickle."""

_TORCHVISION_WEIGHTS = ("weights", "weights_backbone")


def timm_builder(parts: ModelString, download: bool) -> Callable[..., Any]:
    """What builds a network of timm, with its pretrained weights where the model string says ``pretrained``.

    Raises:
        ModelError: when timm is not installed, has no such network, or its weights are not on this machine.
    """
    timm = import_timm()
    _timm_name(parts, timm)
    for name in _TIMM_FILES:
        if name in parts.arguments:
            raise ModelError(f"model {str(parts)!r}: {name} goes past the checks of weights: name it as the weights")
    build = functools.partial(timm.create_model, parts.target, pretrained=False)
    if not _flag(parts, "pretrained"):
        return build
    state = load_weights(_timm_file(parts, timm, download))
    return lambda pretrained, **arguments: timm.create_model(
        parts.target, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **arguments
    )


def torchvision_builder(parts: ModelString, download: bool) -> Callable[..., Any]:
    """What builds a network of torchvision, with the weights that ``pretrained`` or ``weights=NAME`` asks for.

    Raises:
        ModelError: when torchvision is not installed, has no such network or weights, or they are not on this machine.
    """
    models = import_torchvision().models
    builder = _torchvision_network(parts, models)
    fixed: dict[str, Any] = dict.fromkeys(
        name for name in _TORCHVISION_WEIGHTS if name in inspect.signature(builder).parameters
    )
    if "weights_backbone" in parts.arguments:
        raise ModelError(f"model {str(parts)!r}: weights_backbone would download: give the whole network's weights")
    member = _torchvision_weights(parts, models)
    if member is not None:
        # Reading them here shows that they are weights alone: torchvision unpickles the file without a check.
        read_pickled(_hub_file(parts, member.url, download), bystanders=False)
        fixed["weights"] = member

    def build(pretrained: bool = False, weights: Any = None, **arguments: Any) -> Any:
        return builder(**fixed, **arguments)

    return build


def timm_input(parts: ModelString) -> InputSpec | None:
    """Resize, crop and normalisation that timm has on record for a network; ``img_size`` of the model string wins."""
    timm = import_timm()
    _timm_name(parts, timm)
    config = timm.models.get_pretrained_cfg(parts.target)
    spec = config_input(config.to_dict()) if config is not None else None
    if spec is None or parts.arguments.get("in_chans", len(spec.mean)) != len(spec.mean):
        return None
    size = parts.arguments.get("img_size", config.input_size[1])
    return config_input({**config.to_dict(), "input_size": (len(spec.mean), size, size)}) if _is_side(size) else None


def torchvision_input(parts: ModelString) -> InputSpec | None:
    """Resize, crop and normalisation of the transforms that belong to a network's weights (its default ones)."""
    models = import_torchvision().models
    _torchvision_network(parts, models)
    member = _torchvision_weights(parts, models)
    if member is None:
        known = list(models.get_model_weights(parts.target))
        member = models.get_model_weights(parts.target).DEFAULT if known else None
    transforms = member.transforms() if member is not None else None
    if type(transforms).__name__ not in ("ImageClassification", "SemanticSegmentation"):
        return None
    size = getattr(transforms, "crop_size", None) or getattr(transforms, "resize_size", None)
    mean, std = getattr(transforms, "mean", None), getattr(transforms, "std", None)
    if not size or not mean or not std or len(set(size)) != 1:
        return None
    resize = getattr(transforms, "resize_size", None) if getattr(transforms, "crop_size", None) else None
    if transforms is None or not resize:
        return InputSpec(int(size[0]), tuple(mean), tuple(std))
    return InputSpec(
        int(size[0]),
        tuple(mean),
        tuple(std),
        int(resize[0]) if len(resize) == 1 else (int(resize[0]), int(resize[1])),
        transforms.interpolation.value,
    )


def _is_side(size: Any) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size > 0


def pretrained_file(parts: ModelString, download: bool = False) -> Path:
    """The file of a network's pretrained weights on this machine.

    Raises:
        ModelError: when it is not there (and ``download`` is false), or the scheme has no pretrained weights.
    """
    if parts.scheme == "timm":
        timm = import_timm()
        _timm_name(parts, timm)
        return _timm_file(parts, timm, download)
    if parts.scheme == "hf":
        return hub_file(parts)
    if parts.scheme != "torchvision":
        raise ModelError(f"model {str(parts)!r} has no pretrained weights: name a weights file")
    models = import_torchvision().models
    _torchvision_network(parts, models)
    asked = ModelString(parts.scheme, parts.target, {"pretrained": True, **parts.arguments})
    return _hub_file(parts, _torchvision_weights(asked, models).url, download)


def _timm_name(parts: ModelString, timm: ModuleType) -> None:
    """Refuse what is no network of timm itself."""
    if not re.fullmatch(r"[\w.-]+", parts.target):
        raise ModelError(f"model {str(parts)!r} names a network outside of timm: give the name of one of timm's")
    if not timm.is_model(parts.target):
        hint = nearest(parts.target, timm.list_models(), 3)
        raise ModelError(f"model {str(parts)!r}: timm has no such network: {hint}timm.list_models() names them all")


def _timm_file(parts: ModelString, timm: ModuleType, download: bool) -> Path:
    config = timm.models.get_pretrained_cfg(parts.target)
    repository, url = getattr(config, "hf_hub_id", None), getattr(config, "url", None)
    if not repository:
        if not url:
            raise ModelError(f"model {str(parts)!r}: timm has no pretrained weights for it: leave out pretrained")
        return _hub_file(parts, url, download)
    hub = import_optional("huggingface_hub")
    names = [config.hf_hub_filename] if getattr(config, "hf_hub_filename", None) else list(_HUB_FILES)
    for name in names:
        found = hub.try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    if url and _hub_cache(url).is_file():
        return _hub_cache(url)
    if not download:
        raise _refusal(parts, f"https://huggingface.co/{repository}", hub.constants.HF_HUB_CACHE)
    try:
        return Path(hub.hf_hub_download(repository, names[0]))
    except Exception as problem:  # many kinds: no network, no such file, no room
        raise ModelError(
            f"model {str(parts)!r}: the download from {repository} failed ({one_line(problem)})"
        ) from problem


def _hub_cache(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlparse(url).path)


def _hub_file(parts: ModelString, url: str, download: bool) -> Path:
    """The file that ``torch.hub`` keeps for an address."""
    file = _hub_cache(url)
    if not file.is_file():
        if not download:
            raise _refusal(parts, url, file.parent)
        make_folder(file.parent)
        try:
            torch.hub.download_url_to_file(url, str(file), progress=False)
        except Exception as problem:  # many kinds: no network, no room
            raise ModelError(f"model {str(parts)!r}: the download of {url} failed ({one_line(problem)})") from problem
    return file


def _refusal(parts: ModelString, source: str, cache: str | Path) -> ModelError:
    return ModelError(
        f"model {str(parts)!r}: its pretrained weights are not on this machine, and {parts.scheme} would download them "
        f"from {source} to {cache}: allow that with invariscope.zoo.loading.build_model({str(parts)!r}, download=True)"
    )


def _torchvision_network(parts: ModelString, models: ModuleType) -> Callable[..., Any]:
    try:
        builder: Callable[..., Any] = models.get_model_builder(parts.target)
    except ValueError as problem:
        hint = nearest(parts.target, models.list_models(), 3)
        every = "torchvision.models.list_models() names them all"
        raise ModelError(f"model {str(parts)!r}: torchvision has no such network: {hint}{every}") from problem
    return builder


def _torchvision_weights(parts: ModelString, models: ModuleType) -> Any:
    """The member of a network's enumeration of weights that the model string asks for; None without one."""
    name: Argument = parts.arguments.get("weights", "DEFAULT" if _flag(parts, "pretrained") else "none")
    if str(name).lower() == "none":
        return None
    known = models.get_model_weights(parts.target)
    if str(name) not in known.__members__:
        raise ModelError(f"model {str(parts)!r}: {unknown('weights', str(name), known.__members__)}")
    return known[str(name)]


def _flag(parts: ModelString, name: str) -> bool:
    value = parts.arguments.get(name, False)
    if not isinstance(value, bool):
        raise ModelError(f"model {str(parts)!r}: {name} is {value!r}, and must be true or false")
    return value
