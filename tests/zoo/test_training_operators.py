"""Training with operators: each is parsed once, a Python file's code counts, and workers know what was registered."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from invariscope.base.errors import RecipeError
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.operators import OPERATORS, OperatorSpec, register_operator, specification
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.run import Run
from invariscope.zoo.training import METADATA_KEY, train_recipe

FILE = (Path(__file__).parents[1] / "third_party" / "ops.py").read_text()

RECIPE = """
defaults: {epochs: 1, batch_size: 32, limit: 64, model: {width: 2}}
grid:
  operator: [OPERATORS]
  seed: [0, 1]
"""


@pytest.fixture(autouse=True)
def no_user_code_stays() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.startswith("invariscope_user_")]:
        del sys.modules[name]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of specifications that are read, one after the other."""
    texts: list[str] = []
    real = specification._read_specification
    monkeypatch.setattr(
        specification, "_read_specification", lambda text, folder: texts.append(text) or real(text, folder)
    )
    return texts


def recipe(folder: Path, operators: str, seeds: str = "0, 1") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.replace("OPERATORS", operators).replace("0, 1", seeds))
    (folder / "ops.py").write_text(FILE)
    return path


def test_every_specification_is_read_once_in_a_training(tmp_path: Path, parsed: list[str]) -> None:
    Run()
    parsed.clear()
    runs = read_recipe(recipe(tmp_path, "'blur(m=3)', tips"), allow_code=True)
    assert sorted(parsed) == ["blur(m=3)", "tips"]
    report = train_recipe(runs, tmp_path / "zoo", progress=False, allow_code=True)
    assert len(report.trained) == 4
    # The defaults that the factors are told apart by.
    assert sorted(parsed) == ["blur(m=3)", "max", "tips"]


@pytest.mark.parametrize(
    "architecture", ["smallcnn", "resnet8", "resnet18", "vgg8", "unet", "unet?encoder=resnet18", "deeplabv3plus"]
)
def test_every_network_reads_its_operator_once(architecture: str, parsed: list[str]) -> None:
    from invariscope.zoo.architectures import ARCHITECTURES

    name, _, encoder = architecture.partition("?encoder=")
    ARCHITECTURES[name](operator="blur(m=2)", width=2, **({"encoder": encoder} if encoder else {}))
    assert parsed == ["blur(m=2)"]


def test_a_recipe_trains_with_a_python_file(tmp_path: Path) -> None:
    path = recipe(tmp_path / "study", "'python:ops.py:Mine', 'python:ops.py:Mine(strength=1)'", seeds="0")
    first = read_recipe(path, allow_code=True)[0]
    assert isinstance(first.operator, OperatorSpec)
    assert first.id == "smallcnn-Mine-zeros-s0"
    assert first.settings["operator"] == "python:ops.py:Mine"
    assert len(train_recipe(path, tmp_path / "beside", jobs=2, progress=False, allow_code=True).trained) == 2
    checkpoints = read_manifest(tmp_path / "beside", allow_code=True)
    (kept,) = (tmp_path / "beside").glob("code-*/*")
    assert kept.read_text() == FILE
    wanted = f"zoo:smallcnn?operator=python:{kept.parent.name}/ops.py:Mine(strength=1)&padding_mode=zeros"
    assert any(checkpoint.model.startswith(wanted) for checkpoint in checkpoints)
    assert len(read_manifest(tmp_path / "beside", allow_outside=False, allow_code=True)) == 2
    factors = [checkpoint.factors for checkpoint in checkpoints]
    assert {(each["operator"], each["operator_spec"], each["strength"]) for each in factors} == {
        ("mine", f"python:ops.py:Mine(strength={text})", strength) for text, strength in (("0.5", 0.5), ("1", 1.0))
    }
    assert {load_checkpoint(checkpoint).stage1.down.strength for checkpoint in checkpoints} == {0.5, 1.0}
    assert train_recipe(path, tmp_path / "beside", progress=False, allow_code=True).trained == ()
    with safe_open(tmp_path / "beside" / "smallcnn-Mine-zeros-s0-e001.safetensors", "pt") as file:
        assert len(json.loads(file.metadata()[METADATA_KEY])["operator_code"]) == 64
    # Other code, other weights.
    (tmp_path / "study" / "ops.py").write_text(f"{FILE}\n# changed\n")
    with pytest.raises(RecipeError, match=r"trained with other settings \(operator_code\): delete it"):
        train_recipe(path, tmp_path / "beside", progress=False, allow_code=True)


def test_a_recipe_says_the_line_of_an_operator_that_is_none(tmp_path: Path) -> None:
    path = recipe(tmp_path, "max, 'python:ops.py:Gone'")
    with pytest.raises(RecipeError, match=r"recipe.yaml:4: operator 'python:ops.py:Gone': .*Gone"):
        read_recipe(path, allow_code=True)
    path = recipe(tmp_path, "max")
    path.write_text(path.read_text() + "  evaluate_as: [maxx]\n")
    with pytest.raises(RecipeError, match=r"recipe.yaml:6: unknown operator 'maxx': did you mean 'max'"):
        read_recipe(path, allow_code=True)


def test_workers_know_what_was_registered(tmp_path: Path) -> None:
    """A class that no module of the workers holds, as of a notebook's cell."""
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec(FILE + "\nclass Own(Mine):\n    name = 'own'\n", cell)
    quick = {"epochs": 1, "batch_size": 32, "limit": 64, "model": {"width": 2}}
    register_operator(cell["Own"])
    try:
        runs = [Run(operator="own", seed=seed, **quick) for seed in (0, 1)]
        for jobs in (1, 2):
            assert (
                len(train_recipe(runs, tmp_path / f"out{jobs}", jobs=jobs, progress=False, allow_code=True).trained)
                == 2
            )
    finally:
        OPERATORS.remove("own")
    names = sorted(path.name for path in (tmp_path / "out1").glob("*.safetensors"))
    assert names == ["smallcnn-own-zeros-s0-e001.safetensors", "smallcnn-own-zeros-s1-e001.safetensors"]
    for name in names:
        assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()
