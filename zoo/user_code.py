"""Objects of a user's Python files."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from invariscope.base.errors import InputError


def find_code(place: str, folder: Path) -> Path:
    """The file that a specification names, below the folder."""
    return folder / place


def load_user_object(path: Path, name: str, *, root: Path | None = None, error: type[InputError] = InputError) -> Any:
    """The object of this name in a Python file, whose code runs.

    Raises:
        error: for a file that is missing or cannot be run, or that has no such object.
    """
    path = path.resolve()
    if not path.is_file():
        raise error(f"there is no file {path}: correct the path")
    module_name = f"invariscope_user_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise error(f"{path} is no Python file: give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as problem:  # foreign code
        del sys.modules[module_name]
        line = " ".join(str(problem).split())
        raise error(f"{path} cannot be run ({type(problem).__name__}: {line}): correct it") from problem
    if not hasattr(module, name):
        raise error(f"{path} has nothing named {name!r}: correct the name")
    return getattr(module, name)
