"""Python of the user's that runs in this process for one purpose reaches no network that is measured for another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from invariscope import cli
from invariscope.collectors.engine.run import collect
from invariscope.collectors.options import Options
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.datasets.source import DataSource
from invariscope.zoo.loading import build_model
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.packs import pack, predicted
from invariscope.zoo.run import Run
from invariscope.zoo.training import train_recipe
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


def test_code_of_swaps_reaches_no_other_network_nor_table(
    folder: Path, images: ImageSet, read_all: ReadAll, tmp_path: Path
) -> None:
    two = read_manifest(folder, only="other"), read_manifest(folder, only="plain")
    collect(two[1], images, tmp_path / "alone", OPTIONS, progress=False)
    swaps = Options(
        collect=("swaps", "invariance"),
        shift=("circular",),
        n_shifts=3,
        swap_to=("python:op.py:Op",),
        swap_images=4,
        allow_code=True,
    )
    outcome = collect([*two[0], *two[1]], images, tmp_path / "swaps", swaps, progress=False)
    assert has_run()
    assert outcome.failures == []
    assert set(read_all(tmp_path / "swaps")["swaps"]["checkpoint"]) == {"other", "plain"}
    pd.testing.assert_frame_equal(plain_rows(read_all(tmp_path / "swaps")), plain_rows(read_all(tmp_path / "alone")))


def test_a_loader_of_images_reaches_no_network(folder: Path, read_all: ReadAll, tmp_path: Path) -> None:
    checkpoints = read_manifest(folder, only="plain")
    collect(checkpoints, load_dataset("digits", limit=20), tmp_path / "alone", OPTIONS, progress=False)
    source = DataSource("python:data.py:load", limit=20, allow_code=True)
    outcome = collect(checkpoints, source, tmp_path / "loaded", OPTIONS, progress=False)
    assert outcome.failures == []
    pd.testing.assert_frame_equal(plain_rows(read_all(tmp_path / "loaded")), plain_rows(read_all(tmp_path / "alone")))


def test_a_usage_of_arguments_is_in_the_error_and_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "parses.py"
    file.write_text("import argparse\nargparse.ArgumentParser().parse_args(['--no-such'])\n")
    with pytest.raises(ValueError, match=r"\(SystemExit: its argparse: unrecognized arguments: --no-such\)"):
        load_user_object(file, "build")
    assert capsys.readouterr().err == ""
    file.write_text("import sys\nsys.stderr.write('why\\n')\nsys.exit(1)\n")
    with pytest.raises(ValueError, match="SystemExit: 1"):
        load_user_object(file, "build")
    assert capsys.readouterr().err == "why\n"


def test_runs_of_a_recipe_with_code_are_trained_as_they_are_alone(folder: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"epochs": 1, "limit": 64, "model": {"width": 2}}
    plain = Run(operator="avg", **small)
    train_recipe([plain], tmp_path / "alone", progress=False)
    (folder / "recipe.yaml").write_text(
        "grid: {operator: ['python:op.py:Op', avg], epochs: 1, limit: 64, model: {width: 2}}\n"
    )
    report = train_recipe(folder / "recipe.yaml", tmp_path / "beside", progress=False, allow_code=True)
    assert len(report.trained) == 2
    one, two = (load_file(tmp_path / where / f"{plain.snapshot_name(1)}.safetensors") for where in ("alone", "beside"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_network_is_halved_only_by_predictions_of_its_own(folder: Path, tmp_path: Path) -> None:
    images = load_dataset("digits", limit=20)
    alone = pack(folder, tmp_path / "alone", predict=predicted(images), allow_code=True)
    half = {held.file: held.half for _, some in alone for held in some}
    assert has_run()
    assert half["net.safetensors"] is False  # `coded` ran before it, and shares the weights of `plain`
    again = pack(folder, tmp_path / "again", predict=predicted(images), allow_code=True)
    assert not any(held.half for _, some in again for held in some)


def test_weights_beyond_half_precision_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = build_model(PLAIN).state_dict()
    state = {key: value * 1e6 if value.is_floating_point() else value for key, value in state.items()}
    save_file(state, tmp_path / "large.safetensors")
    (tmp_path / "zoo.yaml").write_text(
        f"checkpoints:\n- {{name: large, model: '{PLAIN}', weights: large.safetensors, {KNOWN}}}\n"
    )
    ((_, held),) = pack(tmp_path, tmp_path / "packs", predict=lambda network, checkpoint: torch.zeros(1))
    assert [one.half for one in held] == [False]


def test_what_is_said_of_an_operator_does_not_depend_on_code_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("max_pool2d", "avg_pool2d"):
        monkeypatch.setattr(torch.nn.functional, name, getattr(torch.nn.functional, name))
    patch = "import torch\nfor name in ('max_pool2d', 'avg_pool2d'):\n    setattr(torch.nn.functional, name, None)\n"
    (tmp_path / "op.py").write_text(patch + OPERATOR)
    assert cli.main(["operators", "--only", "max", "--json"]) == 0
    (alone,) = json.loads(capsys.readouterr().out)
    cli.main(["operators", "--only", "python:op.py:Op,max", "--json", "--allow-code"])
    said = capsys.readouterr()
    assert json.loads(said.out)[1] == alone if said.out else "op.py" in said.err
