"""ONNX files, measured by their YAML entry as the network of torch is from which each was exported."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from invariscope import cli
from invariscope.analysis.tables.load import load
from invariscope.base.errors import InputError, ManifestError, ModelError
from invariscope.collectors.engine.known import Known
from invariscope.collectors.store.parts import Store
from invariscope.zoo.exchange import build_onnx, data_files
from invariscope.zoo.loading import build_model, load_checkpoint
from invariscope.zoo.manifest import read_manifest, write_manifest

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.pool, self.c = nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.mean, self.head = nn.AvgPool2d(2), nn.Linear(8 * 16, 5)

    def forward(self, x):
        x = self.mean(torch.relu(self.c(self.pool(torch.relu(self.b(self.a(x)))))))
        return self.head(x.flatten(1))

class Says(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x.permute(0, 3, 1, 2)).softmax(1)
"""
INPUT = {"size": 32, "mean": 0.5, "std": 0.25}


@pytest.fixture(scope="module")
def onnx() -> ModuleType:
    from invariscope.zoo.optional import prepare_torchvision

    prepare_torchvision()
    pytest.importorskip("onnx2torch")
    return pytest.importorskip("onnx")


def export(network: nn.Module, file: Path, shape: tuple[int, ...] = (2, 3, 32, 32)) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        how: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"], "opset_version": 17, "dynamo": False}
        torch.onnx.export(network, (torch.zeros(shape),), str(file), dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}, **how)


@pytest.fixture(scope="module")
def folder(onnx: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a.onnx``; ``b.onnx`` as Keras's are: channels last, a softmax at the end; the same network of torch."""
    place = tmp_path_factory.mktemp("onnx")
    (place / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    network = build_model("python:nets.py:Net", place).eval()
    network.b.running_mean.normal_(0, 0.3)
    with torch.no_grad():
        network.head.bias -= network(torch.randn(64, 3, 32, 32)).mean(0)
        network.head.weight *= 20
    torch.save(network.state_dict(), place / "a.pth")
    export(network, place / "a.onnx")
    export(build_model("python:nets.py:Net", place).eval(), place / "other.onnx")
    from invariscope.zoo.user_code import load_user_object

    says = load_user_object(place / "nets.py", "Says")
    export(says(network).eval(), place / "b.onnx", (2, 32, 32, 3))
    entries: list[dict[str, Any]] = [{"name": "torch", "model": "python:nets.py:Net", "weights": "a.pth"}]
    entries += [{"name": name, "model": f"onnx:{name}.onnx"} for name in "ab"]
    (place / "zoo.yaml").write_text(yaml.safe_dump({"checkpoints": [{**entry, "input": INPUT} for entry in entries]}))
    return place


def test_sites_msb_and_consistency_are_those_of_the_network_of_torch(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = [
        "collect",
        str(folder),
        "--allow-code",
        "--data",
        "shapes:32",
        "--limit",
        "40",
        "--out",
        str(tmp_path),
        "--max-shift",
        "3",
    ]
    with caplog.at_level(logging.WARNING):
        assert (
            cli.main([*command, "--max-shift", "3", "--shift", "circular,zero", "--collect", "layers,invariance"])
            == cli.DONE
        )
    assert [record.message for record in caplog.records if "softmax, which is left out: logits" in record.message]
    tables = load(tmp_path)
    layers = tables.layers.set_index(["checkpoint", "depth"])
    readings = ["msb", "msb_corrected", "msb_weight", "selectivity", "see"]
    assert layers.loc["torch", "site_kind"].tolist() == ["max", "conv", "avg"]
    scores = tables.invariance.set_index(["checkpoint", "shift_kind", "score"])["value"].sort_index()
    assert 0.05 < scores["torch", "none", "accuracy"] < 0.95
    assert scores["torch", "circular", "consistency"] < 1
    for name in "ab":
        assert layers.loc[name, "site_kind"].tolist() == ["max", "conv", "avg"]
        assert np.allclose(layers.loc[name, readings], layers.loc["torch", readings], atol=1e-5)
        assert np.allclose(scores[name], scores["torch"], atol=1e-6, equal_nan=True)


def test_a_pattern_names_each_file_and_the_manifest_reads_back(folder: Path) -> None:
    (folder / "all.yaml").write_text(yaml.safe_dump({"checkpoints": [{"model": "onnx:*.onnx", "input": INPUT}]}))
    found = read_manifest(folder / "all.yaml")
    assert [(one.name, one.model) for one in found] == [(name, f"onnx:{name}.onnx") for name in ("a", "b", "other")]
    write_manifest(folder / "again.yaml", found)
    assert read_manifest(folder / "again.yaml") == found
    known = Known(Store(folder / "known"))
    assert len({known.network(one) for one in found}) == 3


def test_weights_in_a_file_beside_it(onnx: ModuleType, folder: Path, tmp_path: Path) -> None:
    proto = onnx.load(str(folder / "a.onnx"))
    large = {"save_as_external_data": True, "all_tensors_to_one_file": True, "location": "a.data", "size_threshold": 0}
    onnx.save_model(proto, str(tmp_path / "a.onnx"), **large)
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"checkpoints": [{"model": "onnx:a.onnx", "input": INPUT}]}))
    (checkpoint,) = read_manifest(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(load_checkpoint(checkpoint)(images), build_onnx(folder / "a.onnx")(images))
    known = Known(Store(tmp_path / "tables"))
    before = known.network(checkpoint)
    (tmp_path / "a.data").write_bytes((tmp_path / "a.data").read_bytes()[::-1])
    assert known.network(checkpoint) != before, "other weights are another network"
    (tmp_path / "a.data").unlink()
    with pytest.raises(ModelError, match=r"keeps weights in a\.data, which is not there: put it beside"):
        load_checkpoint(checkpoint)
    for tensor in (outside := onnx.load(str(tmp_path / "a.onnx"), load_external_data=False)).graph.initializer:
        for one in tensor.external_data:
            if one.key == "location":
                one.value = "../a.data"
    (tmp_path / "out.onnx").write_bytes(outside.SerializeToString())
    with pytest.raises(ModelError, match="must lie in its own folder"):
        build_onnx(tmp_path / "out.onnx")


def test_files_of_constants_and_inner_graphs_belong_to_the_network(onnx: ModuleType, tmp_path: Path) -> None:
    """A constant's weights, and those inside of a branch, may lie in files of their own as well."""
    helper = onnx.helper

    def beside(name: str) -> Any:
        tensor = onnx.TensorProto(name=name, data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value=f"{name}.data")
        (tmp_path / f"{name}.data").write_bytes(np.float32(1).tobytes())
        return tensor

    constant = helper.make_node("Constant", [], ["c"], value=beside("constant"))
    inner = helper.make_graph([], "inner", [], [helper.make_tensor_value_info("inside", 1, [1])], [beside("inside")])
    branch = helper.make_node("If", ["q"], ["z"], then_branch=inner, else_branch=inner)
    inputs, outputs = ([helper.make_tensor_value_info(name, 1, [None, 3, 8, 8])] for name in "xz")
    graph = helper.make_graph([constant, branch], "g", inputs, outputs, [beside("weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert [path.name for path in data_files(tmp_path / "a.onnx")] == ["constant.data", "inside.data", "weight.data"]
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"checkpoints": [{"model": "onnx:a.onnx", "input": INPUT}]}))
    (checkpoint,) = read_manifest(tmp_path)
    hashes = {Known(Store(tmp_path / "tables")).network(checkpoint)}
    for name in ("constant", "inside", "weight"):
        (tmp_path / f"{name}.data").write_bytes(np.float32(2).tobytes())
        hashes.add(Known(Store(tmp_path / "tables")).network(checkpoint))
    assert len(hashes) == 4


def test_a_fixed_number_of_images_is_refused_where_it_is_one(onnx: ModuleType, tmp_path: Path) -> None:
    helper = onnx.helper
    inputs, outputs = (
        [helper.make_tensor_value_info(name, 1, shape)] for name, shape in (("x", [1, 3, 4, 4]), ("z", [1, 48]))
    )
    shape = helper.make_tensor("shape", 7, [2], [1, 48])
    nodes = {
        "one": [helper.make_node("Reshape", ["x", "shape"], ["z"])],
        "any": [helper.make_node("Flatten", ["x"], ["z"])],
    }
    for name, made in nodes.items():
        model = helper.make_model(
            helper.make_graph(made, name, inputs, outputs, [shape] if name == "one" else []),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    assert build_model("onnx:any.onnx", tmp_path)(torch.zeros(3, 3, 4, 4)).shape == (3, 48)
    with pytest.raises(ModelError, match=r"takes 1 image at a time: export it with a batch axis that is open"):
        build_model("onnx:one.onnx", tmp_path)


def test_refusals_say_what_to_write(onnx: ModuleType, folder: Path, tmp_path: Path) -> None:
    def two(x: Tensor, y: Tensor) -> Tensor:
        return x + y

    (tmp_path / "cut.onnx").write_bytes((folder / "a.onnx").read_bytes()[:1000])
    (tmp_path / "empty.onnx").write_bytes(b"")
    helper = onnx.helper
    value = [helper.make_tensor_value_info(name, 1, [None, 3, 8, 8]) for name in "xyz"]
    graphs = {"two": ([helper.make_node("Add", ["x", "y"], ["z"])], value[:2], value[2:])}
    graphs["odd"] = ([helper.make_node("Wrong", ["x"], ["z"], domain="mine")], value[:1], value[2:])
    for name, (nodes, inputs, outputs) in graphs.items():
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
        model = helper.make_model(helper.make_graph(nodes, name, inputs, outputs), opset_imports=opsets, ir_version=8)
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    for name, message in {
        "cut": "is no whole ONNX file",
        "empty": "is no whole ONNX file",
        "two": "has 2 inputs: export a network that takes images alone",
        "odd": "cannot be converted by onnx2torch .*: export it with another opset",
        "absent": "there is no ONNX file .*: correct the path",
    }.items():
        with pytest.raises(ModelError, match=message) as caught:
            build_model(f"onnx:{name}.onnx", tmp_path)
        assert "\n" not in str(caught.value)


def test_entries_are_checked(tmp_path: Path) -> None:
    """Without onnx installed too."""
    (tmp_path / "a.onnx").write_bytes(b"")
    for entry, message in (
        ({"model": "onnx:a.onnx"}, "add size, mean and std"),
        ({"model": "onnx:a.onnx", "weights": "a.onnx"}, "holds its weights: leave weights out"),
        ({"model": "onnx:a.onnx", "prefix": "net."}, "holds its weights: leave prefix out"),
        ({"model": "onnx:b.onnx"}, "there is no ONNX file"),
        ({"model": "onnx:*.onx"}, "no ONNX file matches"),
        ({"model": "onnx:../a.onnx"}, "lies outside of the zoo's folder"),
        ({"model": "zoo:smallcnn", "weights": "a.onnx"}, "name it as the model, model: onnx:FILE"),
        ({"model": "zoo:smallcnn", "weights": "a.keras"}, r"export it to ONNX \(tf2onnx"),
    ):
        made = {"input": INPUT, **entry} if message != "add size, mean and std" else entry
        (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"checkpoints": [made]}))
        with pytest.raises(ManifestError, match=message):
            read_manifest(tmp_path)


def test_without_the_extra_one_line_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(InputError, match=r"pip install 'invariscope\[onnx\]'"):
        build_model("onnx:a.onnx", tmp_path)
