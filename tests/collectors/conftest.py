"""A zoo of three small networks, forty images, and the tables of a folder as frames that can be compared."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pytest
import torch
from safetensors.torch import save_file

from invariscope.collectors.schema import TABLES
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.loading import build_model

_SHARED = ("msb_loops", "power_cuts", "rival_loops", "same_tables")
"""The modules beside this file that tests import, as ``invariscope_tests_msb_loops``."""

for _shared in _SHARED:
    if (_name := f"invariscope_tests_{_shared}") not in sys.modules:
        _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(f"{_shared}.py"))
        sys.modules[_name] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules[_name])

NETWORK = """
import ctypes, os, signal, torch

class Net(torch.nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.linear = torch.nn.Linear(1024, 10)

    def forward(self, x):
        if self.fault == "dies" or (self.fault == "dies_later" and len(x) > 2):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hangs" or (self.fault == "hangs_later" and len(x) > 2):
            ctypes.PyDLL(None).sleep(600)  # holds the interpreter's lock, as a hung kernel may
        if self.fault == "memory" and len(x) > 4:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
        if self.fault == "python_memory" and len(x) > 2:
            raise MemoryError
        if self.fault == "no_memory":
            raise MemoryError
        return self.linear(x.flatten(1))

def build(fault="none"):
    return Net(fault)
"""

OPERATORS = ("max", "avg", "aps")


@pytest.fixture(scope="session")
def images() -> ImageSet:
    return load_dataset("digits", limit=40)


@pytest.fixture(scope="session")
def make_zoo() -> Callable[[Path], list[Checkpoint]]:
    def make(folder: Path) -> list[Checkpoint]:
        checkpoints = []
        for seed, operator in enumerate(OPERATORS):
            model = f"zoo:smallcnn?operator={operator}&width=4&in_channels=1"
            torch.manual_seed(seed)
            network = build_model(model)
            weights = folder / f"{operator}.safetensors"
            save_file(network.state_dict(), weights)
            factors = {"operator": operator, "seed": seed, "run": f"r{seed}", "note": "one"}
            checkpoints.append(
                Checkpoint(operator, model, weights, InputSpec(32, (0.5,), (0.25,)), factors=factors, folder=folder)
            )
        return checkpoints

    return make


@pytest.fixture
def zoo(tmp_path: Path, make_zoo: Callable[[Path], list[Checkpoint]]) -> list[Checkpoint]:
    return make_zoo(tmp_path)


@pytest.fixture(scope="session")
def read_all() -> Callable[[Path], dict[str, pd.DataFrame]]:
    """Every table of a folder but the timings, its rows in a fixed order, read file by file and without our reader."""

    def read(out: Path) -> dict[str, pd.DataFrame]:
        tables = {}
        for name in set(TABLES) - {"timings"}:
            files = [str(file) for file in (out / name).glob("*.parquet")]
            if not files:
                continue
            rows = ds.dataset(files, schema=TABLES[name], format="parquet").to_table().to_pandas()
            keys = ["checkpoint", "task", "severity", "depth", "score", "shift_kind", "dy", "dx", "image", "message"]
            if name == "predictions":
                keys = ["checkpoint", "task", "image"]
            tables[name] = rows.sort_values([key for key in keys if key in rows]).reset_index(drop=True)
        return tables

    return read


@pytest.fixture
def faulty(tmp_path: Path) -> Callable[..., list[Checkpoint]]:
    """Checkpoints of the network above, one per fault; equal seeds, other weights each.

    A description runs the network on two images of noise: what comes ``later`` comes in the measurements alone.
    """
    (tmp_path / "net.py").write_text(NETWORK)

    def make(*faults: str) -> list[Checkpoint]:
        checkpoints = []
        for number, fault in enumerate(faults):
            torch.manual_seed(number)
            weights = tmp_path / f"{number}.safetensors"
            layer = torch.nn.Linear(1024, 10)
            save_file({"linear.weight": layer.weight, "linear.bias": layer.bias}, weights)
            spec = InputSpec(32, (0.5,), (0.25,))
            model = f"python:net.py:build?fault={fault}"
            checkpoints.append(Checkpoint(f"{fault}{number}", model, weights, spec, folder=tmp_path))
        return checkpoints

    return make
