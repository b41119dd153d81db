"""Networks in the Hugging Face hub's cache, by ``hf:ORG/NAME``: built by timm or transformers, read on this machine.

A repository says in its ``config.json`` which network it holds: of timm (``architecture``), or of transformers
(``architectures``). Code that lies in a repository is never run, and nothing is downloaded.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from invariscope.base.errors import InputError, ModelError, one_line
from invariscope.base.paths import unreadable
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.optional import import_optional, import_timm, prepare_torchvision
from invariscope.zoo.timm_config import config_input

CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Names of the weights of a repository, the one to prefer first."""

_TASKS = ("ForImageClassification", "ForSemanticSegmentation", "ForImageClassificationWithTeacher")
"""Ends of the names of transformers' classes that give logits of an image."""

_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's numbers of its interpolations."""

_OF_TIMM = ("pretrained", "checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay", "scriptable")
"""Arguments that a repository's ``model_args`` may not give: they would read files."""

WARPED = 384
"""Side from which on transformers' ConvNext processor resizes to a square instead of cropping."""

LARGEST_SETTINGS = 16 << 20
"""Bytes of a repository's JSON, at most."""


def hub_file(parts: ModelString, names: tuple[str, ...] = WEIGHTS) -> Path:
    """The first of some files of a repository that the cache holds.

    Raises:
        ModelError: it holds none of them, or huggingface_hub is not installed.
    """
    found = next((path for name in names if (path := _cached(parts, name)) is not None), None)
    if found is None:
        hub = _hub()
        repository = parts.target.partition("@")[0]
        raise ModelError(
            f"model {str(parts)!r}: {' or '.join(names)} is not in the cache {hub.constants.HF_HUB_CACHE}: nothing is "
            f"downloaded unasked, fetch it with `hf download {repository}`"
        )
    return found


def hub_builder(parts: ModelString, load: Callable[[Path], Any]) -> Callable[..., nn.Module]:
    """What builds the network of a repository; with ``pretrained`` its weights are read by ``load``.

    Raises:
        ModelError: the repository is not in the cache, says of no network that can be built, or wants code of its own.
    """
    config = _json(parts, CONFIG)

    def build(pretrained: bool = False, **arguments: Any) -> nn.Module:
        network = _of_timm(parts, config, arguments) if "architecture" in config else _of_transformers(parts, config)
        if pretrained:
            network.load_state_dict(load(hub_file(parts)))
        return network

    if "architecture" in config:
        return build
    return lambda pretrained=False: build(pretrained)


def hub_input(parts: ModelString) -> InputSpec | None:
    """Resize, crop and normalisation of a repository: timm's ``pretrained_cfg``, or transformers' preprocessor.

    Raises:
        ModelError: the repository is not in the cache, or a file of it is no JSON.
    """
    config = _json(parts, CONFIG)
    if "architecture" in config:
        known = config.get("pretrained_cfg")
        try:
            return config_input(known) if isinstance(known, dict) else None
        except (TypeError, ValueError, KeyError, IndexError, InputError):
            return None
    if _cached(parts, PREPROCESSING) is None:
        return None
    try:
        return processor_input(_json(parts, PREPROCESSING))
    except (TypeError, ValueError, KeyError, IndexError):
        return None


def processor_input(settings: dict[str, Any]) -> InputSpec | None:
    """The input of an image processor's settings as transformers writes them; None for what cannot be had.

    ``size`` (a number, ``shortest_edge``, or height and width), ``crop_size`` where ``do_center_crop``, ``resample``
    (Pillow's number), ``rescale_factor`` 1/255, ``image_mean`` and ``image_std``. With ``crop_pct`` the shorter side is
    ``int(size / crop_pct)`` before a crop of ``size``, and from 384 pixels on images are resized to a square.
    """
    if not settings.get("do_resize", True) or abs(settings.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        return None
    rescaled, normalised = settings.get("do_rescale", True), settings.get("do_normalize", True)
    mean, std = (settings["image_mean"], settings["image_std"]) if normalised else ([0.0], [1.0])
    values = tuple(map(float, mean)), tuple(map(float, std))
    more: dict[str, Any] = {"interpolation": _RESAMPLE[settings.get("resample", 2)], "range": 1 if rescaled else 255}
    size = settings["size"]
    if isinstance(size, int):
        size = {"shortest_edge": size} if "crop_pct" in settings else {"height": size, "width": size}
    if settings.get("crop_pct"):
        side = int(size["shortest_edge"])
        warped = side >= WARPED
        return InputSpec(side, *values, resize=(side, side) if warped else int(side / settings["crop_pct"]), **more)
    resize = int(size["shortest_edge"]) if "shortest_edge" in size else (int(size["height"]), int(size["width"]))
    if settings.get("do_center_crop"):
        crop = settings["crop_size"]
        crop = (crop, crop) if isinstance(crop, int) else (int(crop["height"]), int(crop["width"]))
        return InputSpec(crop, *values, resize=resize, **more)
    return None if isinstance(resize, int) else InputSpec(resize, *values, resize=resize, **more)


def hub_names(pattern: str) -> list[str]:
    """The repositories of the cache that hold an image network and whose name fits a pattern, sorted.

    Raises:
        ModelError: huggingface_hub is not installed.
    """
    hub = _hub()
    if not Path(hub.constants.HF_HUB_CACHE).is_dir():
        return []
    found = []
    for repository in hub.scan_cache_dir(hub.constants.HF_HUB_CACHE).repos:
        name = repository.repo_id
        if repository.repo_type != "model" or not fnmatchcase(name, pattern):
            continue
        try:
            config = _json(ModelString("hf", name), CONFIG)
        except ModelError:
            continue
        if "architecture" in config or _class_name(config):
            found.append(name)
    return sorted(found)


def _hub() -> ModuleType:
    """huggingface_hub with its constants, which it imports at their first use alone."""
    hub = import_optional("huggingface_hub")
    importlib.import_module("huggingface_hub.constants")
    return hub


def _cached(parts: ModelString, name: str) -> Path | None:
    repository, _, revision = parts.target.partition("@")
    hub = _hub()
    try:
        found = hub.try_to_load_from_cache(repository, name, revision=revision or None)
    except ValueError as problem:  # huggingface_hub's own check of names
        raise ModelError(f"model {str(parts)!r} names no repository: write it like hf:ORG/NAME") from problem
    return Path(found) if isinstance(found, str) else None


def _json(parts: ModelString, name: str) -> dict[str, Any]:
    file = hub_file(parts, (name,))
    try:
        if reason := unreadable(file, LARGEST_SETTINGS):
            raise ValueError(reason)
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise ModelError(f"model {str(parts)!r}: {file} is no JSON ({one_line(problem)}): fetch it again") from problem
    if not isinstance(content, dict):
        raise ModelError(f"model {str(parts)!r}: {file} holds no settings: fetch it again")
    return content


def _of_timm(parts: ModelString, config: dict[str, Any], arguments: dict[str, Any]) -> nn.Module:
    timm = import_timm()
    given = config.get("model_args") or {}
    if not isinstance(given, dict) or (wrong := [name for name in (*given, *arguments) if name in _OF_TIMM]):
        raise ModelError(f"model {str(parts)!r}: {wrong[0] if isinstance(given, dict) else 'model_args'} is refused")
    if not timm.is_model(str(config["architecture"])):
        raise ModelError(f"model {str(parts)!r}: timm has no network {config['architecture']!r}: install a newer timm")
    classes = {"num_classes": config["num_classes"]} if "num_classes" in config else {}
    given = {**classes, **given, **arguments}
    network: nn.Module = timm.create_model(config["architecture"], pretrained=False, **given)
    return network


def _of_transformers(parts: ModelString, config: dict[str, Any]) -> nn.Module:
    name = _class_name(config)
    if not name:
        raise ModelError(
            f"model {str(parts)!r} holds {config.get('architectures') or 'no network'}: take one whose class ends in "
            f"{' or '.join(_TASKS[:2])}"
        )
    if "auto_map" in config:
        raise ModelError(f"model {str(parts)!r} wants code of its own repository, which is never run: take another one")
    prepare_torchvision()
    kind = getattr(import_optional("transformers", "transformers"), name, None)
    if kind is None:
        raise ModelError(f"model {str(parts)!r}: transformers has no class {name}: install a newer transformers")
    network: nn.Module = kind(kind.config_class.from_dict(config))
    return network


def _class_name(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else ""
    return name if isinstance(name, str) and name.endswith(_TASKS) else ""
