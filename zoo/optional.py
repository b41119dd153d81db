"""timm and torchvision, which need not be installed, imported when they are asked for.

The compiled operators of a torchvision fit one build of torch. Beside another one (such as a build for the CPU beside
the torchvision of PyPI) they are not there, and torchvision's import then fails at the first operator to which it adds
something, although no network but those for detection calls one. Those operators are declared here, without an
implementation: the import succeeds, and a network that calls one fails with torch's or torchvision's own words.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import torch

from invariscope.base.errors import ModelError, one_line

_SUPPRESSIONS = ("nms", "qnms")
"""The operators that torchvision's import speaks of; both take boxes, scores and a threshold, and give indices."""

_DECLARED: list[torch.library.Library] = []
"""Declarations live as long as they are referred to."""

_log = logging.getLogger(__name__)


def import_timm() -> ModuleType:
    """timm, also where torchvision's compiled operators do not fit this torch.

    Raises:
        ModelError: it cannot be imported; the line says why and what to do.
    """
    prepare_torchvision()
    return import_optional("timm", "timm")


def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled operators do not fit this torch (:func:`declared_operators`).

    Raises:
        ModelError: it cannot be imported; the line says why and what to do.
    """
    prepare_torchvision()
    return import_optional("torchvision", "torchvision")


def declared_operators() -> tuple[str, ...]:
    """The operators that this process declared in torchvision's place, for want of its compiled ones."""
    return tuple(f"torchvision::{name}" for name in _SUPPRESSIONS) if _DECLARED else ()


def import_optional(name: str, extra: str | None = None) -> ModuleType:
    """Import a package that need not be installed.

    Args:
        name: the package.
        extra: the extra of this package that installs it; none where it is installed by its own name.

    Raises:
        ModelError: it cannot be imported; the line says why, and ends in the command that installs it where it or
            something that it needs is missing, or in what does not fit.
    """
    install = f"pip install 'invariscope[{extra}]'" if extra else f"pip install {name}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        missing = (problem.name or name).partition(".")[0]
        needs = "" if missing == name else f"; {name} needs {missing}"
        raise ModelError(f"{name} cannot be imported ({one_line(problem)}{needs}): {install}") from problem
    except Exception as problem:  # foreign code
        raise ModelError(
            f"{name} cannot be imported ({one_line(problem)}; here are {_versions((name, 'torchvision', 'torch'))}): "
            f"install the release of {name} that belongs to this torch"
        ) from problem


def prepare_torchvision() -> None:
    """Declare the operators without which torchvision cannot be imported, where its own are not there."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as problem:
        if _DECLARED or not re.search(r"operator torchvision::\w+ does not exist", str(problem)):
            return  # what is asked for is imported next, and says it
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in _SUPPRESSIONS:
            if not hasattr(torch.ops.torchvision, name):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
        _log.info(
            "the compiled operators of torchvision do not fit this torch (%s): %s are declared without an "
            "implementation, and networks that call one fail (those for detection)",
            _versions(("torchvision", "torch")),
            " and ".join(declared_operators()),
        )
    except Exception:  # foreign code; what is asked for is imported next, and says it
        return


def _versions(names: Sequence[str]) -> str:
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
