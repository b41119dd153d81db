"""Python of the user's that runs in this process for one purpose reaches no network that is measured for another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from invariscope.collectors.engine.run import collect
from invariscope.collectors.options import Options
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.datasets.source import DataSource
from invariscope.zoo.loading import build_model
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.user_code import has_run, load_user_object

ReadAll = Callable[[Path], dict[str, pd.DataFrame]]

PATCH = """
import torch
torch.nn.functional.conv2d = lambda x, w, *rest, **more: torch.zeros(len(x), len(w), *x.shape[2:])
"""

OPERATOR = "from invariscope.zoo.operators import OPERATORS\nclass Op(OPERATORS['avg']):\n    pass\n"

NETWORK = """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 10)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))

def build():
    return Net()

build.default_cfg = {"input_size": (1, 32, 32), "mean": (0.5,), "std": (0.25,)}
"""

LOADER = """
from invariscope.zoo.datasets import load_dataset

def load(path=None, split="test", limit=None, size=None):
    return load_dataset("digits", split=split, limit=limit)
"""

KNOWN = "input: {size: 32, mean: [0.5], std: [0.25]}"
PLAIN = "zoo:smallcnn?operator=avg&width=2&in_channels=1"
CODED = "zoo:smallcnn?operator=python:op.py:Op&width=2&in_channels=1"
OPTIONS = Options(collect=("invariance",), shift=("circular",), n_shifts=3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of two plain networks, behind two that run code which replaces a function of torch."""
    monkeypatch.setattr(torch.nn.functional, "conv2d", torch.nn.functional.conv2d)  # as it was, after the test
    monkeypatch.chdir(tmp_path)
    for name, text in {"op": PATCH + OPERATOR, "net": PATCH + NETWORK, "data": PATCH + LOADER}.items():
        (tmp_path / f"{name}.py").write_text(text)
    torch.manual_seed(0)
    for name in ("plain", "other"):
        save_file(build_model(PLAIN).state_dict(), tmp_path / f"{name}.safetensors")
    save_file({"linear.weight": torch.ones(10, 1), "linear.bias": torch.zeros(10)}, tmp_path / "net.safetensors")
    (tmp_path / "zoo.yaml").write_text(
        f"checkpoints:\n- {{name: coded, model: '{CODED}', weights: plain.safetensors, {KNOWN}}}\n"
        f"- {{name: net, model: 'python:net.py:build', weights: net.safetensors}}\n"
        f"- {{name: other, model: '{PLAIN}', weights: other.safetensors, {KNOWN}}}\n"
        f"- {{name: plain, model: '{PLAIN}', weights: plain.safetensors, {KNOWN}}}\n"
    )
    return tmp_path


def plain_rows(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows = tables["invariance"].query("checkpoint == 'plain'")
    return rows[["score", "shift_kind", "value", "n_images"]].reset_index(drop=True)


def test_a_network_beside_code_is_measured_as_it_is_alone(
    folder: Path, images: ImageSet, read_all: ReadAll, tmp_path: Path
) -> None:
    checkpoints = read_manifest(folder, only="plain")
    collect(checkpoints, images, tmp_path / "alone", OPTIONS, progress=False)
    assert not has_run()
    expected = plain_rows(read_all(tmp_path / "alone"))
    assert expected["value"].notna().any()

    zoo = read_manifest(folder, allow_code=True)  # which asks `net` for its input, and looks at the operator of `coded`
    assert has_run()
    outcome = collect(zoo, images, tmp_path / "zoo", OPTIONS, progress=False)
    assert outcome.failures == []
    pd.testing.assert_frame_equal(plain_rows(read_all(tmp_path / "zoo")), expected)

    swaps = Options(
        collect=("swaps", "invariance"),
        shift=("circular",),
        n_shifts=3,
        swap_to=("python:op.py:Op",),
        swap_images=4,
        allow_code=True,
    )
    two = [*read_manifest(folder, only="other"), *checkpoints]
    outcome = collect(two, images, tmp_path / "swaps", swaps, progress=False)
    assert outcome.failures == []
    pd.testing.assert_frame_equal(plain_rows(read_all(tmp_path / "swaps")), expected)


def test_a_loader_of_images_reaches_no_network(folder: Path, read_all: ReadAll, tmp_path: Path) -> None:
    checkpoints = read_manifest(folder, only="plain")
    collect(checkpoints, load_dataset("digits", limit=20), tmp_path / "alone", OPTIONS, progress=False)
    source = DataSource("python:data.py:load", limit=20, allow_code=True)
    outcome = collect(checkpoints, source, tmp_path / "loaded", OPTIONS, progress=False)
    assert outcome.failures == []
    pd.testing.assert_frame_equal(plain_rows(read_all(tmp_path / "loaded")), plain_rows(read_all(tmp_path / "alone")))


def test_a_usage_that_code_prints_before_it_ends_is_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "parses.py"
    file.write_text("import argparse\nargparse.ArgumentParser().parse_args(['--no-such'])\n")
    with pytest.raises(ValueError, match=r"cannot be run \(SystemExit: 2\)"):
        load_user_object(file, "build")
    file.write_text(
        "import sys\nsys.stderr.write('told\\n')\nkept = sys.stderr\ndef build():\n    kept.write('later\\n')\n"
    )
    load_user_object(file, "build")()
    assert capsys.readouterr().err == "told\nlater\n"
