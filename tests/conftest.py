"""What the tests share: the folder of real data, optional libraries, one thread per test process."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

# Two test processes on two cores: more threads only get into each other's way, and a forked process waits for them for
# ever. Here and not in a hook: a folder's own conftest.py imports torch before any hook runs.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).resolve().parents[1]
_DECLARED: list[object] = []
"""Libraries of operators live as long as they are referred to."""


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
    """torchvision, also beside a build of torch that its compiled operators do not fit: they are declared here."""
    # Not above: torch reads the number of threads when it is imported.
    import torch

    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
    return pytest.importorskip("torchvision")


@pytest.fixture(scope="session")
def timm(torchvision: ModuleType) -> ModuleType:
    return pytest.importorskip("timm")
