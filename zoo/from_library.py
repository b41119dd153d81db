"""A zoo without a manifest: the pretrained networks of a library that are on this machine, by a pattern of names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from invariscope.base.errors import ModelError
from invariscope.base.words import counted
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.hub import hub_names
from invariscope.zoo.libraries import pretrained_file
from invariscope.zoo.loading import default_input
from invariscope.zoo.model_string import ModelString, is_library
from invariscope.zoo.optional import import_timm, import_torchvision

_NAMED = 40
"""So many networks that are not here are named."""

_log = logging.getLogger(__name__)


def zoo_from_library(pattern: str) -> list[Checkpoint]:
    """The networks of a library that a pattern names, with the pretrained weights that its cache on this machine holds.

    ``timm:resnet*`` are all of timm's pretrained networks of such a name with any tag, ``torchvision:resnet*``
    torchvision's with each of their weights, ``hf:ORG/*`` the image networks in the cache of the Hugging Face hub.
    Input and normalisation are those on record. What is not in the cache, or has no input on record, is listed in one
    line each (logged as a warning); nothing is downloaded.

    Raises:
        ModelError: an unknown library, a pattern that no network fits, or none of them on this machine.
    """
    scheme, _, wanted = pattern.partition(":")
    if not is_library(pattern):
        raise ModelError(
            f"{pattern!r} is no pattern of networks: write it like timm:resnet*, torchvision:* or hf:ORG/*"
        )
    found: list[Checkpoint] = []
    absent, unknown = list[str](), list[str]()
    for name, model, factors in _networks(scheme, wanted):
        parts = ModelString.parse(model)
        try:
            file = pretrained_file(parts)
        except ModelError:
            absent.append(name)
            continue
        spec = default_input(parts)
        if spec is None:
            unknown.append(name)
            continue
        found.append(Checkpoint(name, model, file, spec, factors=MappingProxyType(factors)))
    if not found and not absent and not unknown:
        what = "the hub's cache holds no image network of such a name, fetch one with `hf download ORG/NAME`"
        told = what if scheme == "hf" else "no pretrained network has such a name"
        raise ModelError(f"{pattern!r}: {told}: correct the pattern")
    if absent:
        _log.warning("not on this machine, and left out: %s", _listed(absent))
    if unknown:
        _log.warning("without an input on record, and left out (write them into a zoo.yaml): %s", _listed(unknown))
    if not found:
        how = (
            "timm.create_model(NAME, pretrained=True) fetches one" if scheme == "timm" else "fetch one with its library"
        )
        raise ModelError(f"{pattern!r}: none of {counted(len(absent + unknown), 'network')} is usable here: {how}")
    return found


def _networks(scheme: str, wanted: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, model string and factors of every network that fits."""
    if scheme == "timm":
        for name in import_timm().list_models(pretrained=True):
            architecture, _, tag = name.partition(".")
            if fnmatchcase(name, wanted) or fnmatchcase(architecture, wanted):
                yield name, f"timm:{name}", {"architecture": architecture, **({"tag": tag} if tag else {})}
    elif scheme == "torchvision":
        models = import_torchvision().models
        for name in models.list_models(module=models):
            for member in models.get_model_weights(name) if fnmatchcase(name, wanted) else ():
                model = f"torchvision:{name}?weights={member.name}"
                yield f"{name}-{member.name}", model, {"architecture": name, "tag": member.name}
    else:
        for name in hub_names(wanted):
            yield name, f"hf:{name}", {"architecture": name.rpartition("/")[2]}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
