"""Data sets of other people: registered, of installed packages, and of a Python file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import torch

from invariscope import cli
from invariscope.base import registry
from invariscope.base.errors import DataError
from invariscope.zoo.datasets import DATASETS, ImageSet, load_dataset, register_dataset
from invariscope.zoo.datasets.source import DataSource

LOADER = """
import torch
from invariscope.zoo.datasets import ImageSet
from invariscope.base.errors import DataError
from shades import shade

def load(path, *, split, limit, size):
    if split != "test":
        raise DataError(f"ramps has the split test, not {split!r}: use it")
    side = size or 8
    images = torch.full((6, 1, side, side), shade(path), dtype=torch.uint8)
    return ImageSet("ramps/test", images, torch.arange(6) % 2, ("a", "b"))

def few(path, split, limit, size):
    return load(path, split=split, limit=limit, size=size).head(2)

def wrong(path, split, limit, size):
    return [1, 2]

def broken(path, **options):
    return {}["images"]

def other(path):
    return load(path, split="test", limit=None, size=None)
"""


@pytest.fixture
def ramps(tmp_path: Path) -> str:
    """A specification of a data set in a file that imports its neighbour; a path is a number of grey."""
    (tmp_path / "ramps.py").write_text(LOADER)
    (tmp_path / "shades.py").write_text("def shade(path):\n    return int(path or 7)\n")
    return f"python:{tmp_path}/ramps.py"


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    yield
    for name in DATASETS.added:
        DATASETS.remove(name)


def grey(path: str | None, *, split: str, limit: int | None, size: int | None, value: int = 3) -> ImageSet:
    images = torch.full((4, 1, size or 8, size or 8), value, dtype=torch.uint8)
    return ImageSet(f"grey/{split}", images, torch.zeros(4, dtype=torch.int64), ("a",))


def test_a_data_set_of_a_file_is_loaded_like_any_other(ramps: str) -> None:
    images = load_dataset(f"{ramps}:load", allow_code=True)
    assert (images.name, len(images), images.images.unique().tolist()) == ("ramps/test", 6, [7])
    assert load_dataset(f"{ramps}:load:200", allow_code=True).images.unique().tolist() == [200]
    assert load_dataset(f"{ramps}:load", size=5, allow_code=True).images.shape == (6, 1, 5, 5)
    assert len(load_dataset(f"{ramps}:load", limit=4, allow_code=True)) == 4  # of which the loader knows nothing
    assert len(load_dataset(f"{ramps}:few", limit=4, allow_code=True)) == 2
    assert images.fingerprint == DataSource(f"{ramps}:load", allow_code=True).images.fingerprint
    assert images.fingerprint != load_dataset(f"{ramps}:load:8", allow_code=True).fingerprint
    assert "shades" not in sys.modules


def test_a_module_is_found_from_the_working_folder(ramps: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for spec in ("python:ramps.py:load", "python:ramps:load", "python:ramps:load:7"):
        assert load_dataset(spec, allow_code=True).images.unique().tolist() == [7]


def test_what_was_loaded_once_is_never_taken_for_what_is_there_now(ramps: str, tmp_path: Path) -> None:
    """Neither a file that the loader imports nor one that it reads stands in the specification."""
    source = DataSource(f"{ramps}:load", allow_code=True)
    assert source.signatures() != source.signatures()
    before = source.images.fingerprint
    (tmp_path / "shades.py").write_text("def shade(path):\n    return 9\n")
    assert DataSource(f"{ramps}:load", allow_code=True).images.fingerprint != before
    register_dataset("grey", grey)
    assert DataSource("grey").signatures() != DataSource("grey").signatures()
    assert DataSource("digits").signatures() == []


def test_a_file_is_run_only_where_that_is_allowed(ramps: str, tmp_path: Path) -> None:
    (tmp_path / "ramps.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + LOADER)
    refusal = r"runs the code of .*ramps\.py: read it, then give --allow-code"
    with pytest.raises(DataError, match=refusal):
        load_dataset(f"{ramps}:load")
    with pytest.raises(DataError, match=refusal):
        _ = DataSource(f"{ramps}:load").images
    assert not (tmp_path / "ran").exists()
    assert DataSource(f"{ramps}:load", allow_code=True).images
    assert (tmp_path / "ran").exists()
    assert DataSource("digits", limit=1).images


@pytest.mark.parametrize(
    ("rest", "options", "message"),
    [
        ("", {}, "write it like python:my_data.py:load or python:my_data.py:load:PATH"),
        (":lod", {}, "unknown function or class 'lod': did you mean 'load'?"),
        (":wrong", {}, "its loader gives a list: return an ImageSet"),
        (":broken", {}, "cannot be loaded (KeyError: 'images') at {folder}/ramps.py:21: mend its loader"),
        (":other", {}, "'other' cannot be loaded as loader(path, split=..., limit=..., size=...) ("),
        (":load", {"split": "train"}, "ramps has the split test, not 'train': use it"),
        (":load:black", {}, "cannot be loaded (ValueError: invalid literal for int() with base 10: 'black')"),
    ],
)  # fmt: skip
def test_loaders_that_fail_get_one_line(
    ramps: str, tmp_path: Path, rest: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(ramps + rest, allow_code=True, **options)
    assert message.format(folder=tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data set ")


def test_a_registered_data_set_is_known_by_its_name() -> None:
    register_dataset("grey", grey)
    register_dataset("grey", grey)
    assert "grey" in DATASETS
    assert load_dataset("grey", split="any", size=3).images.shape == (4, 1, 3, 3)
    assert len(load_dataset("grey", limit=1)) == 1
    with pytest.raises(DataError, match="data set 'grey' is there already"):
        register_dataset("grey", partial(grey, value=4))
    with pytest.raises(DataError, match="unknown data set 'gray': did you mean 'grey'"):
        load_dataset("gray")


@pytest.mark.parametrize(
    ("name", "loader", "message"),
    [
        ("python", grey, "a data set cannot be named 'python'"),
        ("a:b", grey, "a data set cannot be named 'a:b'"),
        ("digits", grey, "data set 'digits' is there already"),
        ("mine", "digits", "the loader is a str: give a function"),
        ("mine", 3, "the loader is a int: give a function, loader(path, split=..., limit=..., size=...)"),
        ("mine", lambda: None, "(too many positional arguments)"),
        ("mine", lambda path, split: None, "(got an unexpected keyword argument 'limit')"),
        ("mine", lambda path, *, split, limit, size, fold: None, "(missing a required argument: 'fold')"),
    ],
)
def test_what_is_no_loader_is_refused_when_it_is_registered(name: str, loader: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        register_dataset(name, loader)
    assert message in str(caught.value)
    assert "mine" not in DATASETS


@pytest.mark.parametrize("name", sorted(DATASETS.own))
def test_our_own_loaders_pass_the_check(name: str) -> None:
    register_dataset(f"again-{name}", DATASETS[name])
    assert DATASETS[f"again-{name}"] is DATASETS[name]


def test_a_data_set_of_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("pixels", f"{__name__}:grey", DATASETS.group or "")
    wrong = EntryPoint("wrong", "math:sqrt", DATASETS.group or "")
    monkeypatch.setattr(registry, "_entry_points", lambda group: {"pixels": [point], "wrong": [wrong]})
    assert load_dataset("pixels", size=2).name == "grey/test"
    with pytest.raises(DataError, match="data set 'wrong' cannot be loaded as"):
        load_dataset("wrong")


def test_a_zoo_is_measured_on_the_data_of_a_file(ramps: str, repository: Path, tmp_path: Path) -> None:
    command = [
        "collect",
        str(repository / "data" / "zoo"),
        "--data",
        f"{ramps}:load",
        "--out",
        str(tmp_path / "t"),
        "--allow-code",
    ]
    command += ["--only", "smallcnn-max-*", "--collect", "invariance", "--shift", "circular", "--n-shifts", "1"]
    assert cli.main([*command, "--limit", "3"]) == cli.DONE
    rows = ds.dataset(tmp_path / "t" / "invariance", format="parquet").to_table().to_pylist()
    assert {row["data"] for row in rows} == {"ramps/test"}
    assert {row["n_images"] for row in rows} == {3}
