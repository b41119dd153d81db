"""Optional libraries for the tests of ``zoo``; tests that ask for one are skipped where it is not installed."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

_DECLARED: list[torch.library.Library] = []


@pytest.fixture(scope="session")
def torchvision() -> ModuleType:
    """torchvision, also beside a build of torch that its compiled operators do not fit: they are declared here."""
    if not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
    return pytest.importorskip("torchvision")


@pytest.fixture(scope="session")
def timm(torchvision: ModuleType) -> ModuleType:
    return pytest.importorskip("timm")


@pytest.fixture(scope="session")
def kornia() -> ModuleType:
    return pytest.importorskip("kornia")


@pytest.fixture(scope="session")
def antialiased_cnns(torchvision: ModuleType) -> ModuleType:
    return pytest.importorskip("antialiased_cnns")
