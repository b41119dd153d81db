"""Modules that the tests of the analysis share, as fixtures."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _beside(name: str) -> ModuleType:
    """The module ``name.py`` beside this file."""
    full = f"invariscope_tests_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, Path(__file__).with_name(f"{name}.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


@pytest.fixture(scope="session")
def simulate() -> ModuleType:
    """The simulated zoos."""
    return _beside("simulate")


@pytest.fixture(scope="session")
def conditions() -> ModuleType:
    """Simulated tables of robustness, segmentation and cost."""
    return _beside("simulate_conditions")


@pytest.fixture(scope="session")
def studies() -> ModuleType:
    """Simulated studies with assigned MSB."""
    return _beside("simulate_held_out")


@pytest.fixture(scope="session")
def pages() -> ModuleType:
    """Pages of the report and their elements."""
    return _beside("pages")


@pytest.fixture(scope="session")
def seen() -> ModuleType:
    """What a figure shows, read off its axes."""
    return _beside("drawn_values")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium for the tests of a process; tests are skipped where there is none."""
    found = _beside("browsing").started(tmp_path_factory.mktemp("profile"))
    yield found
    found.driver.quit()
