"""Packs: what is unpacked is what was packed, packs are only added to, and hostile ones write nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from invariscope import cli
from invariscope.base.errors import WeightsError
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.loading import build_model, load_checkpoint
from invariscope.zoo.manifest import read_manifest, write_manifest
from invariscope.zoo.packs import FORMAT, contents, pack, predicted, unpack


def made(folder: Path, *operators: str) -> Path:
    """A zoo of untrained networks, written as training writes them; its first network has two entries."""
    folder.mkdir(exist_ok=True)
    entries = []
    for seed, operator in enumerate(operators):
        torch.manual_seed(seed)
        model, weights = f"zoo:smallcnn?operator={operator}&in_channels=1&width=4", folder / f"{operator}.safetensors"
        save_file(build_model(model).state_dict(), weights, {"invariscope": json.dumps({"seed": seed})})
        spec = InputSpec(32, (0.3,), (0.3,))
        entries.append(Checkpoint(operator, model, weights, spec, "digits", {"operator": operator, "seed": seed}))
    again = entries[0]
    entries.append(Checkpoint("again", again.model, again.weights, again.input, factors={"operator": "max"}))
    write_manifest(folder, entries)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def weights(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(folder).items() if name != "zoo.yaml"}


def described(folder: Path) -> dict[str, tuple[object, ...]]:
    found = {
        one.name: (one.model, one.weights.name, one.input, one.labels, one.factors)
        for one in read_manifest(folder, allow_code=True)
    }
    assert len(found) > 1
    return found


def test_what_is_unpacked_is_what_was_packed_and_packs_are_only_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo, packs = made(tmp_path / "zoo", "max", "avg"), tmp_path / "packs"
    assert cli.main(["pack", str(zoo), "--out", str(packs)]) == cli.DONE
    assert cli.main(["unpack", str(packs), "--out", str(tmp_path / "back")]) == cli.DONE
    assert weights(tmp_path / "back") == weights(zoo)
    assert described(tmp_path / "back") == described(zoo)
    first = files(packs)
    assert list(first) == ["pack-000.safetensors"]
    made(zoo, "max", "avg", "aps", "tips")
    monkeypatch.setattr("invariscope.zoo.packs.LARGEST", 1)  # a pack for each
    assert [[found.file for found in held] for _, held in pack(zoo, packs)] == [
        ["aps.safetensors"],
        ["tips.safetensors"],
    ]
    assert pack(zoo, packs) == []
    assert files(packs) == first | {f"pack-00{n}.safetensors": files(packs)[f"pack-00{n}.safetensors"] for n in (1, 2)}
    unpack(packs, tmp_path / "back")
    assert weights(tmp_path / "back") == weights(zoo)
    assert described(tmp_path / "back") == described(zoo)


@pytest.mark.parametrize("name", ["run[1]", "a b", "r*x" if os.name == "posix" else "r+x"])
def test_files_of_any_name_come_back(tmp_path: Path, name: str) -> None:
    zoo = made(tmp_path / "zoo", "max")
    (zoo / "max.safetensors").rename(zoo / f"{name}.safetensors")
    text = (zoo / "zoo.yaml").read_text()
    (zoo / "zoo.yaml").write_text(text.replace("weights: max.safetensors", f"weights: '{name}.safetensors'"))
    pack(zoo, tmp_path / "packs")
    assert len(unpack(tmp_path / "packs", tmp_path / "back")) == 2
    assert weights(tmp_path / "back") == weights(zoo)


def test_half_precision_where_no_prediction_moves(tmp_path: Path) -> None:
    zoo, images = made(tmp_path / "zoo", "max", "avg"), load_dataset("digits", limit=60)
    predict = predicted(images)
    ((path, held),) = pack(zoo, tmp_path / "half", predict=predict)
    ((whole, _),) = pack(zoo, tmp_path / "whole")
    assert [found.half for found in held] == [True, True]
    assert all(value.dtype != torch.float32 for value in load_file(path).values())
    unpack(path, tmp_path / "back")
    before, after = read_manifest(zoo, allow_code=True), read_manifest(tmp_path / "back", allow_code=True)
    assert len(before) == 3
    for old in before:
        (new,) = (one for one in after if one.name == old.name)
        x = (images.images.float() / 255 - 0.3) / 0.3
        with torch.inference_mode():
            wanted, found = load_checkpoint(old)(x), load_checkpoint(new)(x)
        assert not torch.equal(wanted, found)
        assert torch.equal(wanted.argmax(1), found.argmax(1))
    # A prediction that rounding moves: the weights stay as they are.
    moved = pack(zoo, tmp_path / "moved", predict=lambda network, _: next(network.parameters()).detach().clone())
    assert [found.half for found in moved[0][1]] == [False, False]
    assert moved[0][0].read_bytes() == whole.read_bytes()


def replaced(about: dict[str, str], old: str, new: str) -> None:
    assert old in about[FORMAT]
    about[FORMAT] = about[FORMAT].replace(old, new)


def spoilt(path: Path, change: Callable[[dict[str, str], dict[str, torch.Tensor]], None]) -> Path:
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        about = dict(file.metadata())
    change(about, tensors)
    save_file(tensors, path, about)
    return path


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda about, _: replaced(about, '"file": "max.safe', '"file": "../max.safe'), "lies outside"),
        (lambda about, _: replaced(about, '"file": "max.safetensors', '"file": "zoo.yaml'), "no weights file"),
        (lambda about, tensors: next(iter(tensors.values())).add_(1), "does not unpack to what was packed"),
        (lambda about, _: about.update({FORMAT: "]"}), "no whole pack"),
        (lambda about, _: about.pop(FORMAT), "is no pack"),
        (lambda about, _: replaced(about, '"weights": "max.safe', '"weights": "../max.safe'), "outside"),
        (lambda about, _: replaced(about, '"file": "max.safetensors"', '"file": 5'), "no whole pack"),
        (lambda about, _: replaced(about, '"entries": [', '"entries": ["a", '), "no whole pack"),
        (lambda about, _: about.update({FORMAT: "[" * 100_000}), "no whole pack"),
        (lambda about, _: replaced(about, '"input": {', '"output": {'), "has no input"),
        (
            lambda about, _: replaced(about, "zoo:smallcnn?operator=max&in_channels=1&width=4", "python:m.py:net"),
            "m.py",
        ),
        (
            lambda about, _: replaced(about, "zoo:smallcnn?operator=max&in_channels=1&width=4", "python:../m.py:net"),
            "lies outside",
        ),
        (lambda about, _: replaced(about, "zoo:smallcnn?operator=max&in_channels=1&width=4", "abc"), "zoo.yaml"),
        (
            lambda about, _: replaced(
                about, "zoo:smallcnn?operator=max&in_channels=1&width=4", f"python:{'a' * 5000}.py:net"
            ),
            "aaa.py",
        ),
    ],
)
def test_hostile_packs_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[..., None], line: str
) -> None:
    ((path, _),) = pack(made(tmp_path / "zoo", "max"), tmp_path / "packs")
    spoilt(path, change)
    assert cli.main(["unpack", str(path), "--out", str(tmp_path / "in" / "out")]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert line in error
    assert not (tmp_path / "in" / "out" / "zoo.yaml").exists()
    assert [found.name for found in tmp_path.glob("in/*")] in ([], ["out"])


def test_a_zoo_of_own_code_is_packed_without_running_it_and_its_code_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo, back = made(tmp_path / "zoo", "max"), tmp_path / "back"
    own = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\n"
    own += "from invariscope.zoo.loading import build_model\n"
    own += "def net():\n    return build_model('zoo:smallcnn?operator=max&in_channels=1&width=4')\n"
    (zoo / "nets.py").write_text(own)
    text = (zoo / "zoo.yaml").read_text()
    (zoo / "zoo.yaml").write_text(text.replace("zoo:smallcnn?operator=max&in_channels=1&width=4", "python:nets.py:net"))
    halved = ["pack", str(zoo), "--out", str(tmp_path / "half"), "--half", "digits", "--limit", "50"]
    assert cli.main(["pack", str(zoo), "--out", str(tmp_path / "packs")]) == cli.DONE
    assert cli.main(halved) == cli.BAD_INPUT
    assert "--allow-code" in capsys.readouterr().err
    assert not (zoo / "ran").exists()
    assert cli.main([*halved, "--allow-code"]) == cli.DONE
    assert (zoo / "ran").exists()
    unpacked = ["unpack", str(tmp_path / "packs"), "--out", str(back)]
    capsys.readouterr()
    assert cli.main(unpacked) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert f"runs the code of {back / 'nets.py'}, which a pack does not hold: put it there and unpack again" in error
    assert error.count("\n") == 1
    assert not back.exists()
    back.mkdir()
    (back / "nets.py").write_text(own)
    assert cli.main(unpacked) == cli.DONE
    assert not (back / "ran").exists()
    assert (back / "max.safetensors").read_bytes() == (zoo / "max.safetensors").read_bytes()
    assert {one.model for one in read_manifest(back, listed=True, operators=False)} == {"python:nets.py:net"}


def test_other_files_are_not_replaced_and_other_weights_not_packed(tmp_path: Path) -> None:
    zoo = made(tmp_path / "zoo", "max")
    pack(zoo, tmp_path / "packs")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "max.safetensors").write_bytes(b"mine")
    with pytest.raises(WeightsError, match="another file"):
        unpack(tmp_path / "packs", tmp_path / "back")
    assert (tmp_path / "back" / "max.safetensors").read_bytes() == b"mine"
    with pytest.raises(WeightsError, match="no pack-"):
        unpack(zoo, tmp_path / "out")
    with pytest.raises(WeightsError, match="no whole pack"):
        contents(tmp_path / "back" / "max.safetensors")


def test_a_pack_that_is_gone_gives_its_number_to_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("invariscope.zoo.packs.LARGEST", 1)
    packs = tmp_path / "packs"
    pack(made(tmp_path / "zoo", "max", "avg"), packs)
    (packs / "pack-000.safetensors").unlink()
    kept = files(packs)
    written = [path.name for path, _ in pack(made(tmp_path / "zoo", "max", "avg", "aps"), packs)]
    assert written == ["pack-002.safetensors", "pack-003.safetensors"]
    assert {name: data for name, data in files(packs).items() if name in kept} == kept


def test_another_checkpoint_of_a_name_is_told(tmp_path: Path) -> None:
    pack(made(tmp_path / "zoo", "max"), tmp_path / "packs")
    other = made(tmp_path / "other", "avg")
    text = (other / "zoo.yaml").read_text()
    (other / "zoo.yaml").write_text(text.replace("name: avg", "name: max"))
    with pytest.raises(WeightsError, match="another checkpoint 'max'"):
        unpack(tmp_path / "packs", other)
