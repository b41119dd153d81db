"""Files that a recipe names: code and data are found from its folder, and a zoo keeps the code that it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from invariscope import cli
from invariscope.base.errors import RecipeError
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.training import train_recipe
from invariscope.zoo.training.local_files import keep_code, located

OPERATORS = (Path(__file__).parents[1] / "third_party" / "ops.py").read_text()
NETWORK = """
from torch import nn
from invariscope.zoo.operators import build_operator
{imports}

def Tiny(operator="max", padding_mode="zeros", in_channels=3, classes=10, width=2):
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, padding_mode=padding_mode),
        {operator},
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )
"""
PLAIN = NETWORK.format(imports="", operator="build_operator(operator, width, 2, padding_mode)")
DATA = """
from invariscope.zoo.datasets import load_dataset

def load(path, split="train", limit=None, size=None):
    return load_dataset("digits", split=split, limit=limit)
"""


def recipe(folder: Path, grid: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(f"defaults: {{epochs: 1, batch_size: 32, limit: 64, model: {{width: 2}}}}\ngrid: {{{grid}}}\n")
    return path


def collected(zoo: Path, tables: Path) -> int:
    options = ["--data", "digits", "--limit", "20", "--collect", "checkpoints,layers"]
    return cli.main(["collect", str(zoo), "--out", str(tables), "--allow-code", *options])


def test_a_zoo_with_an_operator_of_the_recipes_folder_is_collected_wherever_it_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path / "study", "operator: 'mix(0.3, max, python:ops.py:Mine)'")
    (path.parent / "ops.py").write_text(f"import helpers\n{OPERATORS}")
    (path.parent / "helpers.py").write_text("")
    zoo = tmp_path / "study" / "out" / "zoo"
    assert cli.main(["train", str(path), "--out", str(zoo), "--allow-code"]) == cli.DONE
    assert "allow_outside" not in (zoo / "zoo.yaml").read_text()
    shutil.move(zoo, tmp_path / "moved")
    shutil.rmtree(tmp_path / "study")
    assert collected(tmp_path / "moved", tmp_path / "tables") == cli.DONE, capsys.readouterr().err
    rows = pq.read_table(tmp_path / "tables" / "checkpoints").to_pandas()
    assert list(rows["operator"]) == ["mix"]
    (folder,) = (tmp_path / "moved").glob("code-*")
    assert sorted(file.name for file in folder.glob("*.py")) == ["helpers.py", "ops.py"]


def test_a_file_of_a_package_keeps_its_package(tmp_path: Path) -> None:
    path = recipe(tmp_path / "study", "operator: 'python:mine/ops.py:Mine'")
    (path.parent / "mine").mkdir()
    (path.parent / "mine" / "__init__.py").write_text("")
    (path.parent / "mine" / "ops.py").write_text(f"from . import blocks\n{OPERATORS}")
    (path.parent / "mine" / "blocks.py").write_text("from mine import more")
    (path.parent / "mine" / "more.py").write_text("")
    train_recipe(path, tmp_path / "zoo", progress=False, allow_code=True)
    (checkpoint,) = read_manifest(tmp_path / "zoo", allow_outside=False, allow_code=True)
    shutil.rmtree(tmp_path / "study")
    assert load_checkpoint(checkpoint)(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
    kept = sorted(file.name for file in (tmp_path / "zoo").glob("code-*/mine/*.py"))
    assert kept == ["__init__.py", "blocks.py", "more.py", "ops.py"]


def test_code_is_kept_once_and_in_its_place(tmp_path: Path) -> None:
    path = recipe(tmp_path / "zoo", "operator: ['python:ops.py:Mine', 'python:ops.py:Mine(strength=1)']")
    (path.parent / "ops.py").write_text(OPERATORS)
    assert keep_code(read_recipe(path, allow_code=True), tmp_path / "zoo") == {}  # it lies there already
    other = tmp_path / "other"
    other.mkdir()
    written = keep_code(read_recipe(path, allow_code=True), other)
    (kept,) = other.rglob("*.py")
    assert written == {"python:../zoo/ops.py:": f"python:{kept.parent.name}/ops.py:"}
    before = kept.stat().st_mtime_ns
    keep_code(read_recipe(path, allow_code=True), other)
    assert kept.stat().st_mtime_ns == before
    (path.parent / "ops.py").write_text(f"{OPERATORS}\n# changed\n")
    keep_code(read_recipe(path, allow_code=True), other)
    assert len(list(other.glob("code-*"))) == 2


def test_code_whose_imports_the_zoo_would_not_find_is_refused_before_training(tmp_path: Path) -> None:
    path = recipe(tmp_path / "study", "operator: 'python:mine/ops.py:Mine'")
    (path.parent / "mine").mkdir()
    (path.parent / "mine" / "ops.py").write_text(f"import above\n{OPERATORS}")
    (path.parent / "above.py").write_text("")
    with pytest.raises(
        RecipeError, match=r"mine/ops.py imports .*above.py, which the zoo could not find: put both into"
    ):
        train_recipe(path, tmp_path / "zoo", progress=False, allow_code=True)
    assert not list((tmp_path / "zoo").iterdir())


def test_an_architecture_of_a_python_file_is_trained_and_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path / "study", "architecture: 'python:nets.py:Tiny', operator: [max, soft(beta=2)]")
    (path.parent / "nets.py").write_text(PLAIN)
    assert [run.id for run in read_recipe(path, allow_code=True)] == ["Tiny-max-zeros-s0", "Tiny-soft-beta2-zeros-s0"]
    assert cli.main(["train", str(path), "--out", str(tmp_path / "zoo"), "--jobs", "2", "--allow-code"]) == cli.DONE
    assert collected(tmp_path / "zoo", tmp_path / "tables") == cli.DONE, capsys.readouterr().err
    rows = pq.read_table(tmp_path / "tables" / "checkpoints").to_pandas().set_index("operator")
    assert set(rows["architecture"]) == {"Tiny"}
    assert rows["n_params"].to_dict() == {"max": 20 + 30, "soft": 20 + 30}
    msb = pq.read_table(tmp_path / "tables" / "layers").to_pandas()
    assert len(msb) == 2
    train_recipe(path, tmp_path / "zoo", progress=False, allow_code=True)
    (path.parent / "nets.py").write_text(f"{PLAIN}# changed\n")
    with pytest.raises(RecipeError, match=r"trained with other settings \(architecture_code\)"):
        train_recipe(path, tmp_path / "zoo", progress=False, allow_code=True)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("architecture: 'python:gone.py:Tiny'", "there is no file .*gone.py: correct the path"),
        ("architecture: 'python:nets.py'", "names no callable: write it like python:my_nets.py:build"),
        (
            "architecture: 'python:nets.py:Tiny', operator: 'python:ops.py:Mine'",
            "cannot find the file of the operator python:ops.py:Mine: let the architecture's file import",
        ),
    ],
)
def test_an_architecture_that_cannot_be_is_named_with_its_line(tmp_path: Path, grid: str, message: str) -> None:
    path = recipe(tmp_path / "study", grid)
    (path.parent / "nets.py").write_text(PLAIN)
    (path.parent / "ops.py").write_text(OPERATORS)
    with pytest.raises(RecipeError, match=rf"recipe.yaml:2: architecture .*{message}"):
        read_recipe(path, allow_code=True)


def test_data_is_found_from_the_recipes_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(tmp_path / "study", "operator: 'python:ops.py:Mine', data: 'python:mydata.py:load'")
    (path.parent / "ops.py").write_text(OPERATORS)
    (path.parent / "mydata.py").write_text(DATA)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["train", str(path), "--out", "first", "--allow-code"]) == cli.DONE, capsys.readouterr().err
    (checkpoint,) = read_manifest(Path("first"), allow_code=True)
    assert checkpoint.factors["training_data"] == "python:mydata.py:load"


def test_paths_of_data_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "cifar").mkdir()
    (tmp_path / "load.py").write_text("")
    for spec, wanted in {
        "digits": "digits",
        "parquet:cifar": f"parquet:{tmp_path}/cifar",
        "parquet:mnist": "parquet:mnist",
        "shapes:64": "shapes:64",
        "python:load.py:read": f"python:{tmp_path}/load.py:read",
        "python:load.py:read:cifar": f"python:{tmp_path}/load.py:read:{tmp_path}/cifar",
        "python:load.py:read:gone": f"python:{tmp_path}/load.py:read:gone",
        "python:gone.py:read:cifar": f"python:gone.py:read:{tmp_path}/cifar",
        "python:load:read": f"python:{tmp_path}/load.py:read",
        "python:json.decoder:read": "python:json.decoder:read",
    }.items():
        assert located(spec, tmp_path) == wanted
        assert located(spec, None) == spec
