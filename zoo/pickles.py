"""Torch's pickled files, read as data alone: what is no tensor becomes an inert stand-in, and nothing is called."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from invariscope.base.errors import WeightsError, one_line

UNPACKED = 2
"""So many times the size of its file may a torch file unpack to; torch itself does not compress."""

MOST_CLASSES = 100
"""Classes that a file may name beside its tensors."""

_MODULES = ("os", "posix", "nt", "sys", "subprocess", "importlib", "runpy", "shutil", "socket", "pty", "ctypes", "pip")
_BUILTINS = ("eval", "exec", "compile", "__import__", "open", "input", "breakpoint")


class StandIn:
    """What stands for an object of a class that is not known: it keeps nothing, and only its class's name is left.

    The unpickler of ``torch.load(weights_only=True)`` calls nothing but torch's own short list and the classes that it
    is given. It is given a subclass of this one under every other name, so that a call is one of this ``__new__`` and
    a state goes into this ``__setstate__``: the module that the pickle names is never imported.
    """

    name = ""

    def __new__(cls, *args: object, **options: object) -> StandIn:
        return super().__new__(cls)

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_pickled(path: Path, *, bystanders: bool = True) -> Any:
    """What a torch file holds, with a :class:`StandIn` in the place of every object that is neither tensor nor plain.

    ``bystanders=False`` refuses such objects: for a file that a library will unpickle without a check.

    Raises:
        WeightsError: for a file that is cut off, would unpack to far more than its size, or whose pickle calls for what
            runs commands (``os``, ``subprocess``, ``eval``, ...), although nothing of it would be run.
    """
    known: dict[str, Any] = {}
    try:
        _refuse_bomb(path)
        while True:
            try:
                named: list[Any] = [(stand_in, name) for name, stand_in in known.items()]
                with torch.serialization.safe_globals(named), warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message=".*looks like a TorchScript archive")
                    return torch.load(path, map_location="cpu", weights_only=True)
            except Exception as problem:
                new = [name for name in _unknown_names(path, problem) if name not in known]
                if not bystanders or not new or len(known) > MOST_CLASSES:
                    raise
                for name in new:
                    known[name] = _stand_in(name, path)
    except WeightsError:
        raise
    except Exception as problem:  # a hostile or truncated file makes the unpickler raise nearly anything
        if names := re.findall(r"GLOBAL (\S+)", str(problem)):
            raise refused(path, names[0]) from problem
        if "torchscript" in str(problem).lower():
            raise WeightsError(
                f"{path} is a TorchScript archive, which holds code: save model.state_dict() of the network "
                "that it was made from"
            ) from problem
        raise WeightsError(
            f"{path} cannot be read as weights alone ({one_line(problem)}): fetch it again, or save "
            "model.state_dict() anew"
        ) from problem


def refused(path: Path, name: str) -> WeightsError:
    """The error about a file whose pickle calls for something that is no tensor."""
    return WeightsError(
        f"{path} is refused: its pickle calls for {name}, which is no tensor and could run code; "
        "save model.state_dict() alone, best as .safetensors"
    )


def _unknown_names(path: Path, problem: Exception) -> list[str]:
    """The names that the unpickler stopped at: those that it said, or of a zip file all that its pickle holds."""
    found = re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.<>]+)", str(problem))
    if found is None:
        return []
    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # an older format: one name at a time
        name = found.group(1)
        return [name if "." in name else f"builtins.{name}"]


def _stand_in(name: str, path: Path) -> type[StandIn]:
    module, _, attribute = name.rpartition(".")
    if module.partition(".")[0] in _MODULES or (module in ("builtins", "__builtin__") and attribute in _BUILTINS):
        raise refused(path, name)
    return type("StandIn", (StandIn,), {"name": name})


def _refuse_bomb(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > UNPACKED * path.stat().st_size:
        raise WeightsError(
            f"{path} is refused: it has {path.stat().st_size} bytes and would unpack to {unpacked}; "
            "torch does not compress, so save model.state_dict() anew"
        )
