"""Optional libraries for the tests of ``zoo``; tests that ask for one are skipped where it is not installed."""

from __future__ import annotations

from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def kornia() -> ModuleType:
    return pytest.importorskip("kornia")


@pytest.fixture(scope="session")
def antialiased_cnns(torchvision: ModuleType) -> ModuleType:
    return pytest.importorskip("antialiased_cnns")
