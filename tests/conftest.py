"""What the tests share: the folder of real data, optional libraries, one thread per test process."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

# Two test processes on two cores: more threads only get into each other's way, and a forked process waits for them for
# ever. Here and not in a hook: a folder's own conftest.py imports torch before any hook runs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]


def _package(name: str) -> None:
    """Make one folder of the repository importable, and nothing beside it: the others would hide what is installed."""
    folder = REPOSITORY / name
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules.setdefault(name, importlib.util.module_from_spec(spec))


_package("reference")
_package("benchmarks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long variants are for the full run; what takes longest comes first: no process waits for it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    if not os.environ.get("INVARISCOPE_FULL"):
        for item in items:
            if item.get_closest_marker("full"):
                item.add_marker(pytest.mark.skip(reason="a long variant: INVARISCOPE_FULL=1 (make test-full)"))


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that use it are skipped where it is not there."""
    folder = Path(os.environ.get("INVARISCOPE_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no folder of real data at {folder} (INVARISCOPE_SHARED_DATA names another)")
    return folder


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """torchvision as the package itself imports it; tests are skipped where it is not installed."""
    # Not above: torch reads the number of threads when it is imported.
    from invariscope.zoo.optional import import_torchvision

    _skip_unless_installed("torchvision")
    return import_torchvision()


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    from invariscope.zoo.optional import import_timm

    _skip_unless_installed("timm")
    return import_timm()


def _skip_unless_installed(name: str) -> None:
    # Not importorskip: what is installed and cannot be imported is no reason to skip.
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


@pytest.fixture(autouse=True)
def no_code_has_run() -> None:
    """Each test is a process that has run no Python of the user's yet: what others ran is no concern of its runs."""
    from invariscope.zoo import user_code

    user_code._loaded = False
