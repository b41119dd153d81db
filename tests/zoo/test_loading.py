from __future__ import annotations

import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from invariscope.base.errors import ModelError, OperatorError, WeightsError
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.loading import build_model, load_checkpoint, load_weights, sha256_file

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([0.5, -1.0])}


def checkpoint(model: str, weights: Path, folder: Path, prefix: str | None = None) -> Checkpoint:
    return Checkpoint("a", model, weights, InputSpec(8, (0.0,), (1.0,)), folder=folder, prefix=prefix)


@pytest.fixture
def linear(tmp_path: Path) -> str:
    """A model string for a file with networks to build."""
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def build(inputs=3, outputs=2):\n    return nn.Linear(inputs, outputs)\n"
        "def anything(**options):\n    return nn.Linear(options['inputs'], 2)\n"
        "def number():\n    return 3\n"
        "def broken(size):\n    raise RuntimeError('no such size\\nsecond line')\n"
        "constant = 3\n"
    )
    return "python:nets.py:build"


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.th", "a.pth.tar", "a.tar", "a.safetensors"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
def test_every_format_gives_the_same_tensors(tmp_path: Path, name: str, wrapper: str | None) -> None:
    if name == "a.safetensors":
        save_file(STATE, tmp_path / name)
    else:
        torch.save({wrapper: STATE, "epoch": 3} if wrapper else STATE, tmp_path / name)
    found = load_weights(tmp_path / name)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_prefix_is_stripped_where_it_stands(tmp_path: Path) -> None:
    torch.save({"module.weight": STATE["weight"], "bias": STATE["bias"]}, tmp_path / "a.pt")
    assert list(load_weights(tmp_path / "a.pt", "module.")) == ["weight", "bias"]
    with pytest.raises(WeightsError, match=r"no key starts with the prefix 'net\.', the first is 'module\.weight'"):
        load_weights(tmp_path / "a.pt", "net.")
    torch.save({"m.a": STATE["bias"], "a": STATE["bias"]}, tmp_path / "b.pt")
    with pytest.raises(WeightsError, match="two keys are the same"):
        load_weights(tmp_path / "b.pt", "m.")


class Hostile:
    """Unpickled without care, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["zip", "legacy", "bare pickle", "inside a state dict"])
@pytest.mark.parametrize("overridden", [False, True])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, overridden: bool
) -> None:
    if overridden:  # torch's own switch for this must not weaken an explicit choice
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    target, path = tmp_path / "touched", tmp_path / "a.pt"
    content: Any = Hostile(target)
    if how == "bare pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    elif how == "inside a state dict":
        torch.save({"state_dict": {**STATE, "extra": content}}, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(WeightsError, match="is refused: its pickle calls for ") as caught:
        load_weights(path)
    assert "mkdir" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    torch.load(path, weights_only=False) if how != "bare pickle" else pickle.loads(path.read_bytes())
    assert target.exists(), "the file was not hostile at all, so that the test shows nothing"


def test_a_newer_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "touched"), protocol=5))
    with pytest.warns(UserWarning, match="pickle protocol 5"), pytest.raises(WeightsError, match="cannot be read as"):
        load_weights(tmp_path / "a.pt")
    assert not (tmp_path / "touched").exists()


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2), tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"calls for torch\.nn\.modules\.linear\.Linear"):
        load_weights(tmp_path / "a.pt")


def test_the_third_party_file_that_names_an_allowed_class_is_read(shared_data: Path) -> None:
    state = load_weights(shared_data / "checkpoints" / "ai8x_cifar10" / "ai85-cifar10-qat8.pth.tar")
    assert len(state) == 88


def test_a_class_that_is_named_beside_the_weights_is_no_obstacle(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "kind": torch.optim.Adam}, tmp_path / "a.pt")
    assert load_weights(tmp_path / "a.pt").keys() == STATE.keys()
    torch.save({"state_dict": {**STATE, "kind": torch.optim.LBFGS}}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"calls for torch\.optim\.lbfgs\.LBFGS"):
        load_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_files_are_one_line(tmp_path: Path, name: str, kept: float) -> None:
    path = tmp_path / name
    save_file(STATE, path) if name.endswith("safetensors") else torch.save(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match=r"is no whole|cannot be read as weights alone") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", struct.pack("<Q", 2**62) + b"{}"),
        ("a.safetensors", struct.pack("<Q", 2) + b"[]"),
        ("a.safetensors", b"\x80\x04" + 30 * b"."),
        ("a.pt", b"PK\x03\x04" + bytes(64)),
        ("a.pt", b"not a pickle at all"),
        ("a.pt", b"\x80\x02" + bytes(range(256))),
        ("a.tar", bytes(1024)),
    ],
)
def test_foreign_files_are_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    cases = {
        "list": ([1, 2], "holds a list and no state dict"),
        "empty": ({}, "holds a dict and no state dict"),
        "tensor": (torch.zeros(3), "holds a Tensor and no state dict"),
        "number": ({"epoch": 3, **STATE}, "'epoch' is no tensor with a name"),
        "key": ({3: torch.zeros(3)}, "3 is no tensor with a name"),
    }
    for name, (content, message) in cases.items():
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(WeightsError, match=message):
            load_weights(tmp_path / f"{name}.pt")
    with pytest.raises(WeightsError, match="there is no such weights file"):
        load_weights(tmp_path / "no.pt")
    (tmp_path / "a.txt").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"weights must be a \.safetensors, .* file: convert it"):
        load_weights(tmp_path / "a.txt")


def test_a_checkpoint_is_loaded_for_evaluation(tmp_path: Path, linear: str) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    network = load_checkpoint(checkpoint(linear, tmp_path / "a.safetensors", tmp_path))
    assert isinstance(network, nn.Linear)
    assert not network.training
    assert torch.equal(network.weight, STATE["weight"])
    assert torch.equal(network.bias, STATE["bias"])


def test_weights_that_do_not_fit_name_the_keys(tmp_path: Path, linear: str) -> None:
    state = {
        "weight": torch.zeros(2, 5),
        "bias": torch.zeros(2, dtype=torch.int8),
        **{f"more{n}": torch.zeros(1) for n in range(5)},
    }
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(checkpoint(linear, tmp_path / "a.safetensors", tmp_path))
    message = str(caught.value)
    assert "5 keys (more0, more1, more2 and 2 more) unexpected" in message
    assert "1 key (weight (2, 5) instead of (2, 3)) of another shape" in message
    assert "1 key (bias torch.int8 instead of torch.float32) of another type" in message
    assert "missing" not in message
    save_file({"weight": STATE["weight"]}, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"1 key \(bias\) missing; correct the model string or the prefix"):
        load_checkpoint(checkpoint(linear, tmp_path / "b.safetensors", tmp_path))


def test_half_precision_weights_load_and_old_ones_lack_batch_counters(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("from torch import nn\nbuild = nn.BatchNorm2d\n")
    state = {
        key: torch.full((4,), 0.25, dtype=torch.float16) for key in ("weight", "bias", "running_mean", "running_var")
    }
    save_file(state, tmp_path / "a.safetensors")
    model = "python:nets.py:build?num_features=4"
    network = load_checkpoint(checkpoint(model, tmp_path / "a.safetensors", tmp_path))
    assert torch.equal(network.running_var, torch.full((4,), 0.25))


def test_python_models(tmp_path: Path, linear: str) -> None:
    network = build_model(linear + "?inputs=7&outputs=4", tmp_path)
    assert (network.in_features, network.out_features) == (7, 4)
    assert build_model("python:nets.py:anything?inputs=5", tmp_path).in_features == 5
    assert build_model(f"python:{tmp_path / 'nets.py'}:build").in_features == 3
    (tmp_path / "typo.py").write_text("import no_such_module_at_all\n")
    before = set(sys.modules)
    for model, message in {
        "python:nets.py:build?input=7": "unknown argument 'input': did you mean 'inputs'? known are inputs, outputs",
        "python:nets.py:build?inputs=seven": "cannot be built (TypeError",
        "python:nets.py:number": "gives a int: return a torch.nn.Module",
        "python:nets.py:constant": "constant is a int, and must be a function or class",
        "python:nets.py:broke": "unknown function or class 'broke': did you mean 'broken'? known are anything, broken",
        "python:nets.py:broken?size=1": "cannot be built (RuntimeError: no such size)",
        "python:nets.py:broken": "cannot be built (TypeError",
        "python:other.py:build": "there is no file",
        "python:typo.py:build": "cannot be run (ModuleNotFoundError",
    }.items():
        with pytest.raises(ModelError) as caught:
            build_model(model, tmp_path)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert set(sys.modules) == before


def test_zoo_models_name_what_they_would_accept() -> None:
    assert isinstance(build_model("zoo:smallcnn?width=4&in_channels=1"), nn.Module)
    with pytest.raises(ModelError, match="unknown argument 'widht': did you mean 'width'"):
        build_model("zoo:smallcnn?widht=4")
    with pytest.raises(ModelError, match="unknown architecture 'smalcnn': did you mean 'smallcnn'"):
        build_model("zoo:smalcnn")
    with pytest.raises(ModelError, match="width is 0, and must be an integer of at least 1"):
        build_model("zoo:smallcnn?width=0")
    with pytest.raises(OperatorError, match="unknown operator 'maxx': did you mean 'max'"):
        build_model("zoo:resnet20?operator=maxx")
    with pytest.raises(OperatorError, match="padding_mode is 'zero', and must be one of zeros"):
        build_model("zoo:resnet20?padding_mode=zero")
    with pytest.raises(ModelError, match="shortcut is 'C', and must be A or B"):
        build_model("zoo:resnet20?shortcut=C")


def test_sha256_of_a_known_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
