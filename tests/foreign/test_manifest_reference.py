"""Every key of a manifest stands in the reference with an example that is read; bad manifests are one line each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from invariscope import cli
from invariscope.base.errors import ManifestError
from invariscope.zoo.checkpoint import WEIGHT_SUFFIXES
from invariscope.zoo.datasets.inputs import INTERPOLATIONS
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.manifest_entries import ENTRY_KEYS
from invariscope.zoo.manifest_input import INPUT_KEYS

INPUT = {"size": 32, "mean": 0.5, "std": 0.25}
GOOD: dict[str, Any] = {"model": "zoo:smallcnn?classes=5", "weights": "a.pth", "input": INPUT}


def table(repository: Path, heading: str) -> dict[str, dict[str, Any]]:
    """The examples of a table of the reference, by key."""
    section = (repository / "docs" / "manifest.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| `([^|]+)` \| .+ \|$", section, re.MULTILINE)
    return {key: yaml.safe_load(example) for key, example in rows}


def write(folder: Path, *entries: Any) -> Path:
    (folder / "a.pth").write_bytes(b"")
    (folder / "zoo.yaml").write_text(yaml.safe_dump({"checkpoints": list(entries)}))
    return folder


def test_every_key_has_an_example_that_is_read(repository: Path, tmp_path: Path) -> None:
    examples = table(repository, "Keys of an entry")
    assert tuple(sorted(examples)) == tuple(sorted(ENTRY_KEYS))
    for key, example in examples.items():
        assert list(example) == [key]
        (checkpoint,) = read_manifest(write(tmp_path, {**GOOD, **example}), allow_code=True)
        found = getattr(checkpoint, key)
        if key in ("key", "prefix", "labels", "name", "model"):
            assert found == example[key]
        assert found, key


def test_every_key_of_the_input_has_an_example_that_is_read(repository: Path, tmp_path: Path) -> None:
    examples = table(repository, "Keys of `input`")
    assert tuple(sorted(examples)) == tuple(sorted(INPUT_KEYS))
    for key, example in examples.items():
        assert list(example) == [key]
        more = {"resize": 64} if key in ("crop", "interpolation", "antialias") else {}
        (checkpoint,) = read_manifest(write(tmp_path, {**GOOD, "input": {**INPUT, **more, **example}}), allow_code=True)
        if key != "crop":
            value = getattr(checkpoint.input, key)
            assert (list(value) if isinstance(value, tuple) else value) == example[key]


def test_the_reference_names_every_suffix_and_interpolation(repository: Path) -> None:
    text = (repository / "docs" / "manifest.md").read_text()
    assert [suffix for suffix in WEIGHT_SUFFIXES if suffix not in text] == []
    assert [name for name in INTERPOLATIONS if f"`{name}`" not in text] == []


def given(**change: Any) -> dict[str, Any]:
    return {key: value for key, value in {**GOOD, **change}.items() if value is not None}


def image(**change: Any) -> dict[str, Any]:
    return given(input={key: value for key, value in {**INPUT, **change}.items() if value is not None})


BAD: list[tuple[Any, str]] = [
    (given(model=None), "lacks 'model': add it"),
    (given(model="smallcnn"), "write it like zoo:"),
    (given(model="zoo:"), "write it like zoo:"),
    (given(model="zoo:smalcnn"), "did you mean 'smallcnn'"),
    (given(model="zoo:smallcnn?classes=ten"), "must be a whole number"),
    (given(model="zoo:smallcnn?clases=5"), "did you mean 'classes'"),
    (given(model="python:nets.py"), "write it like python:my_nets.py:build"),
    (given(weights=None), "lacks 'weights': add it"),
    (given(weights="b.pth"), "put it there or correct the path"),
    (given(weights="*.ckpt"), "correct the pattern"),
    (given(weights="../a.pth"), "move it inside"),
    (given(weights="a.h5"), "tf2onnx"),
    (given(weights="a.tflite"), "tf2onnx --tflite"),
    (given(weights="a.pb"), "tf2onnx"),
    (given(weights="a.npz"), "torch.save"),
    (given(weights="a.txt"), "convert it"),
    (given(weights=3), "must be text"),
    (given(weights="pretrained"), "name a weights file"),
    (given(key=3), "must be text"),
    (given(key=["a"]), "must be text"),
    (given(prefix=""), "must be text"),
    (given(prefx="module."), "did you mean 'prefix'"),
    (given(rename={}), "write it like {downsample.: shortcut.}"),
    (given(rename="a"), "must be a mapping"),
    (given(rename={"a": 3}), "write it like {downsample.: shortcut.}"),
    (given(rename={"regex": "(", "to": "a"}), "is no regular expression"),
    (given(rename={"regex": "a"}), "write a pattern as {regex: PATTERN, to: TEXT}"),
    (given(rename={"regex": "a", "to": r"\1"}), "names a group that regex has not"),
    (given(ignore=[]), "a list of at least one item"),
    (given(ignore=[3]), "must be text"),
    (given(classes=3), "write {offset: 1}"),
    (given(classes=[0, 1, 1]), "name it once"),
    (given(classes=[-1]), "an integer of at least 0"),
    (given(classes={"ofset": 1}), "did you mean 'offset'"),
    (given(classes={"offset": -1}), "an integer of at least 0"),
    (given(classes={"count": 0}), "an integer of at least 1"),
    (given(input=None), "add size, mean and std"),
    (given(input=32), "must be a mapping"),
    (image(size=None), "lacks 'size': add it"),
    (image(size=0), "an integer of at least 1"),
    (image(size=[32, 32, 3]), "or [height, width]"),
    (image(mean="grey"), "must be a number"),
    (image(std=0), "1 leaves the values as they are"),
    (image(mean=[0.5, 0.5], std=[1, 1, 1]), "give one per channel to both"),
    (image(resize=16), "give a resize of at least that size"),
    (image(resize="big"), "an integer of at least 1"),
    (image(resize=[40]), "one for the shorter side, or [height, width]"),
    (image(crop="centre"), "add resize"),
    (image(resize=40, crop=32), "how large the crop is, says size"),
    (image(resize=40, crop="left"), "write centre"),
    (image(interpolation="bicubic"), "add resize"),
    (image(resize=40, interpolation="cubic"), "did you mean 'bicubic'"),
    (image(resize=40, interpolation="lanczos", antialias=False), "leave antialias out"),
    (image(resize=40, antialias="no"), "must be true or false"),
    (image(order="rgba"), "did you mean 'rgb'"),
    (image(range=256), "255 for one that takes values from 0 to 255"),
    (image(sizes=32), "did you mean 'size'"),
    (given(factors=[1]), "must be a mapping"),
    (given(factors={"seed": "first"}), "must be a whole number"),
    (given(labels=[1]), "must be text"),
    (given(metrics={"top1": "high"}), "must be a number"),
    (given(metrics=[1]), "must be a mapping"),
    (given(metrics={"loss": float("nan")}), "must be a finite number"),
    (given(model="onnx:a.onnx"), "leave weights out"),
    (given(model="onnx:b.onnx", weights=None), "put it there or correct the path"),
    (given(model="onnx:a.pth", weights=None), "name a file that ends in .onnx"),
    (given(weights="a.onnx"), "model: onnx:FILE"),
    (given(weights="a.keras"), "tf2onnx"),
    (given(model="hf:absent/absent", weights="pretrained"), "hf download absent/absent"),
]


def test_there_are_enough_bad_ones() -> None:
    assert len(BAD) >= 40


@pytest.mark.parametrize(("entry", "remedy"), BAD)
def test_bad_manifests_are_one_line_each_which_says_what_to_write(entry: Any, remedy: str, tmp_path: Path) -> None:
    folder = write(tmp_path, entry)
    with pytest.raises(ManifestError) as caught:
        read_manifest(folder, allow_code=True)
    assert re.match(rf"{re.escape(str(folder / 'zoo.yaml'))}:\d+: ", str(caught.value))
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_says_the_line_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, image(resize=16))
    assert cli.main(["collect", str(folder), "--data", "digits", "--out", str(tmp_path / "out")]) == cli.BAD_INPUT
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert "give a resize of at least that size" in said[0]
    assert not (tmp_path / "out").exists()
