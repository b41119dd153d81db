"""What these tests share: a small network with weights, and manifests written as YAML beside them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.loading import build_model
from invariscope.zoo.manifest import read_manifest

MODEL = "zoo:smallcnn?classes=5"
INPUT = {"size": 32, "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.2, 0.3]}

Entry = Callable[..., Checkpoint]


@pytest.fixture(scope="session")
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_model(MODEL).eval()


@pytest.fixture
def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """Writes a manifest of one entry to the test's folder, and reads it."""

    def write(weights: str, **more: Any) -> Checkpoint:
        made = {"name": "one", "model": MODEL, "weights": weights, "input": INPUT, **more}
        (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"checkpoints": [made]}))
        (checkpoint,) = read_manifest(tmp_path)
        return checkpoint

    return write


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hugging Face hub and of torch.hub; and any use of the network fails."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    constants = importlib.import_module(f"{hub.__name__}.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.getaddrinfo", _refuse)
    return tmp_path / "hub"


def _refuse(*arguments: Any, **options: Any) -> Any:
    raise OSError("the network was used")
