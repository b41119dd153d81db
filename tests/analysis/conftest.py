"""The simulated zoos, as fixtures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def simulate() -> ModuleType:
    """The module ``simulate.py`` beside this file."""
    return _beside("simulate")


@pytest.fixture(scope="session")
def conditions() -> ModuleType:
    """The module ``simulate_conditions.py`` beside this file."""
    return _beside("simulate_conditions")


def _beside(stem: str) -> ModuleType:
    name = f"shiftscope_tests_{stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{stem}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
