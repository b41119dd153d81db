"""Weights as other people's scripts save them, each loaded by its YAML entry alone, to the network that they are of."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from invariscope import cli
from invariscope.base.errors import ManifestError, WeightsError
from invariscope.base.files import sha256_file
from invariscope.collectors.engine.known import Known
from invariscope.collectors.store.parts import Store
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest, write_manifest
from invariscope.zoo.pickles import StandIn, read_pickled
from invariscope.zoo.weights import load_weights

State = dict[str, Tensor]
IMAGES = torch.linspace(-2, 2, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


def same(checkpoint: Checkpoint, network: nn.Module) -> bool:
    with torch.inference_mode():
        return torch.equal(load_checkpoint(checkpoint)(IMAGES), network(IMAGES))


def zeros(state: State) -> State:
    return {name: torch.zeros_like(value) for name, value in state.items()}


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


class Averager:
    """A class that this file alone has: nobody who reads the weights can import it."""

    def __init__(self) -> None:
        self.decay = 0.99


BYSTANDERS: dict[str, Callable[[], Any]] = {
    "namespace": lambda: argparse.Namespace(lr=0.1, device=torch.device("cpu")),
    "numpy scalar": lambda: {"best": np.float64(0.9), "epochs": np.int64(3)},
    "numpy array": lambda: np.arange(4),
    "optimiser class": lambda: torch.optim.LBFGS,
    "path": lambda: Path("runs/3"),
    "a class of their own": Averager,
    "a whole network": lambda: nn.Linear(2, 2),
}

LAYOUTS: dict[str, tuple[Callable[[State], Any], dict[str, Any]]] = {
    "net": (lambda s: {"net": s, "acc": 91.2, "epoch": 7}, {}),
    "network": (lambda s: {"network": s, "optimizer": {"state": {}, "param_groups": []}}, {}),
    "beside the state of a generator": (lambda s: {"model": s, "rng": {"torch": torch.zeros(8)}}, {}),
    "a name of their own": (lambda s: {"generator": s, "step": 3}, {}),
    "one of two by its key": (lambda s: {"generator": s, "teacher": zeros(s)}, {"key": "generator"}),
    "averaged by its key": (lambda s: {"state_dict": zeros(s), "state_dict_ema": s}, {"key": "state_dict_ema"}),
    "deeper": (lambda s: {"state": {"student": s, "teacher": zeros(s)}}, {"key": "state.student"}),
    "compiled": (lambda s: prefixed(s, "_orig_mod."), {}),
    "compiled inside": (lambda s: prefixed(s, "module._orig_mod."), {"prefix": "module."}),
    "in a list": (lambda s: [s], {}),
    "in a list under a key": (lambda s: {"model": [s]}, {}),
    "averaged by torch": (
        lambda s: {"n_averaged": torch.tensor(3), **prefixed(s, "module.")},
        {"ignore": ["n_averaged"], "prefix": "module."},
    ),
    "counted by thop": (
        lambda s: {
            **s,
            "total_ops": torch.zeros(1),
            "head.total_ops": torch.zeros(1),
            "head.total_params": torch.zeros(1),
        },
        {"ignore": ["total_ops", "*.total_params"]},
    ),
    "something beside the tensors": (lambda s: {**s, "epoch": 3}, {"ignore": "epoch"}),
    "renamed": (
        lambda s: {name.replace("weight", "kernel"): value for name, value in s.items()},
        {"rename": {"kernel": "weight"}},
    ),
    "renamed by a pattern": (
        lambda s: {f"stem{name.count('.')}_{name}": value for name, value in s.items()},
        {"rename": {"regex": r"^stem\d_(.*)$", "to": r"\1"}},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path, entry: Any, state: State, network: nn.Module) -> None:
    make, more = LAYOUTS[layout]
    torch.save(make(state), tmp_path / "a.pth")
    checkpoint = entry("a.pth", **more)
    assert same(checkpoint, network)
    write_manifest(tmp_path / "again.yaml", [checkpoint])
    assert same(read_manifest(tmp_path / "again.yaml")[0], network)


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".model", ".th", ".pth.tar"])
def test_suffixes(suffix: str, tmp_path: Path, entry: Any, state: State, network: nn.Module) -> None:
    torch.save({"state_dict": state}, tmp_path / f"a{suffix}")
    assert same(entry(f"a{suffix}"), network)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("bystander", BYSTANDERS)
def test_bystanders_are_no_obstacle(
    bystander: str, legacy: bool, tmp_path: Path, entry: Any, state: State, network: nn.Module
) -> None:
    content = {"args": BYSTANDERS[bystander](), "state_dict": state, "epoch": 3}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    if legacy and bystander == "a whole network":  # whose source that format stores: there is no reading past it
        with pytest.raises(WeightsError, match=r"save model\.state_dict\(\) anew"):
            load_checkpoint(entry("a.pth"))
        return
    assert same(entry("a.pth"), network)


class Calls:
    """Unpickled with care for nothing, it calls a function with an argument and gives its result a state."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments, {"a": 1}

    def __reduce__(self) -> Any:
        return self.reduced


def test_bystanders_are_not_imported_called_or_given_a_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that would leave a mark when imported, and one that is there and would leave one when called."""
    (tmp_path / "marks_import.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nclass A: pass\n")
    (tmp_path / "marks_call.py").write_text(
        f"class B:\n"
        f"    def __init__(self, *a): open({str(tmp_path / 'called')!r}, 'w')\n"
        f"    def __setstate__(self, s): open({str(tmp_path / 'state')!r}, 'w')\n"
        f"def f(*a):\n    open({str(tmp_path / 'called')!r}, 'w')\n    return B.__new__(B)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import marks_call
    import marks_import

    weights = {"w": torch.ones(2)}
    content = {"state_dict": weights, "a": marks_import.A(), "b": [Calls(marks_call.f, 1), Calls(marks_call.B, 2)]}
    for legacy in (False, True):
        torch.save(content, tmp_path / f"{legacy}.pt", _use_new_zipfile_serialization=not legacy)
    for path in (tmp_path / "False.pt", tmp_path / "True.pt"):
        for name in ("imported", "called", "state"):
            (tmp_path / name).unlink(missing_ok=True)
        monkeypatch.delitem(sys.modules, "marks_import", raising=False)
        assert load_weights(path).keys() == {"w"}
        read = read_pickled(path)
        assert [type(item).__mro__[1] for item in (read["a"], *read["b"])] == [StandIn] * 3
        assert [item.name for item in read["b"]] == ["marks_call.f", "marks_call.B"]
        assert not any((tmp_path / name).exists() for name in ("imported", "called", "state"))
        assert "marks_import" not in sys.modules
        torch.load(path, weights_only=False)
        assert all((tmp_path / name).exists() for name in ("imported", "called", "state")), "the file is harmless"


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("function", "argument"), [(eval, "1 + 1"), (exec, "1"), (__import__, "this"), (sys.exit, 3)], ids=str
)
def test_what_would_run_commands_is_refused_wherever_it_lies(
    function: Any, argument: Any, legacy: bool, tmp_path: Path
) -> None:
    content = {"state_dict": {"w": torch.ones(1)}, "beside": Calls(function, argument)}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=rf"is refused: its pickle calls for .*{function.__name__}"):
        load_weights(tmp_path / "a.pt")


def test_a_file_that_a_library_unpickles_may_hold_weights_alone(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(1)}, "args": argparse.Namespace()}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"calls for argparse\.Namespace"):
        read_pickled(tmp_path / "a.pt", bystanders=False)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(kind: str, tmp_path: Path, entry: Any, state: State, network: nn.Module) -> None:
    stem = "model" if kind == "safetensors" else "pytorch_model"
    names = list(state)
    files = {f"{stem}-0000{i + 1}-of-00002.{kind}": names[i::2] for i in range(2)}
    for file, part in files.items():
        held = {name: state[name] for name in part}
        save_file(held, tmp_path / file) if kind == "safetensors" else torch.save(held, tmp_path / file)
    where = {name: file for file, part in files.items() for name in part}
    index = tmp_path / f"{stem}.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    checkpoint = entry(index.name)
    assert same(checkpoint, network)
    assert entry("*").weights == index, "a pattern takes the shards for one checkpoint"
    known = Known(Store(tmp_path / "tables"))
    before, other = known.network(checkpoint), tmp_path / next(iter(files))
    assert before == known.network(checkpoint)
    held = {name: state[name] * 2 for name in names[0::2]}
    save_file(held, other) if kind == "safetensors" else torch.save(held, other)
    assert known.network(checkpoint) != before, "another shard is another network"
    other.unlink()
    with pytest.raises(WeightsError, match=r"-00001-of-00002\.\w+, which is not there: put all of its files beside it"):
        load_checkpoint(checkpoint)
    index.write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    with pytest.raises(WeightsError, match="must be weights in its own folder"):
        load_checkpoint(checkpoint)


def test_two_networks_of_one_file_are_two(tmp_path: Path, entry: Any, state: State) -> None:
    torch.save({"state_dict": state, "state_dict_ema": zeros(state)}, tmp_path / "a.pth")
    known = Known(Store(tmp_path / "tables"))
    raw, averaged = (known.network(entry("a.pth", key=key)) for key in ("state_dict", "state_dict_ema"))
    assert raw != averaged
    torch.save(state, tmp_path / "b.pth")
    assert known.network(entry("b.pth")) == sha256_file(tmp_path / "b.pth")


def test_raw_and_averaged_weights_are_never_chosen_between(tmp_path: Path, entry: Any, state: State) -> None:
    torch.save({"model": state, "model_ema": zeros(state)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="several sets of weights: name one of 'model', 'model_ema' as key"):
        load_checkpoint(entry("a.pth"))


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda s: prefixed(s, "module."), {"prefix": "module."}),
        (lambda s: prefixed(s, "model.net."), {"prefix": "model.net."}),
        (lambda s: {n.replace("weight", "kernel"): v for n, v in s.items()}, {"rename": {"kernel": "weight"}}),
        (lambda s: {n.replace("conv", "c"): v for n, v in s.items()}, {"rename": {"c.": "conv."}}),
        (lambda s: {**s, "a.total_ops": torch.zeros(1)}, {"ignore": ["total_ops"]}),
    ],
)
def test_a_mismatch_proposes_what_would_make_it_fit(
    make: Callable[[State], State], remedy: dict[str, Any], tmp_path: Path, entry: Any, state: State, network: nn.Module
) -> None:
    torch.save(make(state), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="it would fit") as caught:
        load_checkpoint(entry("a.pth"))
    assert "\n" not in str(caught.value)
    import re

    import yaml

    said = [yaml.safe_load(text) for text in re.findall(r"`([^`]+)`", str(caught.value))]
    assert said
    assert same(entry("a.pth", **{key: value for part in said for key, value in part.items()}), network)


def test_a_mismatch_that_nothing_mends_says_so(tmp_path: Path, entry: Any, state: State) -> None:
    state.popitem()
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="correct the model string or the prefix"):
        load_checkpoint(entry("a.pth"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"key": "modle"}, "did you mean 'model'"),
        ({"key": "epoch"}, "no state dict: name another entry"),
        ({"prefix": "net."}, "no key starts with the prefix 'net.'"),
        ({"rename": {"downsample.": "shortcut."}}, "no key has 'downsample.'"),
        ({"ignore": ["total_ops"]}, "no key is 'total_ops'"),
        ({"ignore": ["*"]}, "nothing is left of the weights"),
        ({"rename": {"regex": ".*", "to": "a"}}, "two keys are the same"),
    ],
)
def test_what_fits_nothing_is_refused(
    more: dict[str, Any], message: str, tmp_path: Path, entry: Any, state: State
) -> None:
    torch.save({"model": state, "epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(entry("a.pth", **more))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("a.h5", "tf2onnx"),
        ("a.tflite", "tf2onnx --tflite"),
        ("a.keras", "model.export"),
        ("a.pb", "onnx:FILE"),
        ("a.npz", "torch.save"),
    ],
)
def test_files_of_others_are_refused_with_the_way_to_convert_them(
    name: str, remedy: str, tmp_path: Path, entry: Any
) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ManifestError, match=remedy):
        entry(name)


def test_a_torchscript_archive_is_refused(tmp_path: Path, entry: Any) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"TorchScript archive.*: save model\.state_dict\(\)"):
        load_checkpoint(entry("a.pt"))


def test_a_hostile_pattern_has_an_end(tmp_path: Path, entry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``(a+)+$`` takes 2^n steps on n letters and another one."""
    monkeypatch.setattr("invariscope.zoo.bounded_regex.SECONDS", 0.5)
    torch.save({"a" * 60 + "!": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"it takes more than 0\.5 seconds: write it without a repeat inside"):
        load_checkpoint(entry("a.pth", rename={"regex": "(a+)+$", "to": "b"}))
    with pytest.raises(WeightsError, match="it has 501 characters, and may have 500"):
        load_weights(tmp_path / "a.pth", rename={"regex": "a" * 501, "to": "b"})


def sharded(folder: Path, state: State) -> tuple[Path, Path]:
    """An index and one of its two shards."""
    names = list(state)
    files = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, part in files.items():
        save_file({name: state[name] for name in part}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, part in files.items() for name in part}}))
    return index, folder / next(iter(files))


@pytest.mark.parametrize("changed", ["shard", "index"])
def test_shards_that_are_replaced_during_a_run_are_a_failure(
    changed: str, tmp_path: Path, entry: Any, state: State, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    index, shard = sharded(tmp_path, state)
    checkpoint = entry(index.name)

    def load(one: Checkpoint) -> nn.Module:
        network = load_checkpoint(one)
        touched = index if changed == "index" else shard
        touched.write_bytes(touched.read_bytes() + b" " * (changed == "index"))
        return network

    monkeypatch.setattr("invariscope.zoo.loading.load_checkpoint", load)
    command = ["collect", str(tmp_path), "--data", "shapes:32", "--limit", "4", "--out", str(tmp_path / "t")]
    assert cli.main([*command, "--shift", "", "--collect", "invariance"]) == cli.WITH_FAILURES
    assert "was replaced during the run: run again" in capsys.readouterr().err
    monkeypatch.undo()
    assert cli.main([*command, "--shift", "", "--collect", "invariance"]) == cli.DONE
    assert cli.main(["status", str(tmp_path / "t"), str(tmp_path)]) == cli.DONE
    assert "invariance: shapes/test, none: 1 done\n" in capsys.readouterr().out
    assert Known(Store(tmp_path / "t")).network(checkpoint)
