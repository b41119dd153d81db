from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from invariscope.base.errors import ManifestError, ModelError, WeightsError
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.loading import build_model, default_input, load_checkpoint
from invariscope.zoo.manifest import read_manifest, write_manifest
from invariscope.zoo.optional import import_optional

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TINY = "timm:test_resnet"
"""One of timm's own networks for tests: 0.5 million parameters."""


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of torch.hub and of the Hugging Face hub; and any use of the network fails."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub.file_download.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the network was used")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    return tmp_path


def put_in_hub(cache: Path, repository: str, state: dict[str, torch.Tensor]) -> Path:
    """Lay a weights file where the hub's client would have put it."""
    folder = cache / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    file = folder / "snapshots" / "abc" / "model.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    return file


def test_timm_networks_are_built_with_their_arguments(timm: ModuleType) -> None:
    network = build_model(f"{TINY}?num_classes=7&in_chans=1")
    assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 7)
    assert isinstance(build_model(f"{TINY}.r160_in1k?pretrained=false"), nn.Module)
    for model, message in {
        "timm:resnet81": r"timm has no such network: did you mean 'resnet.*timm\.list_models\(\) names them all",
        "timm:qqqqqqqqqq": r"timm has no such network: timm\.list_models",
        "timm:hf-hub:someone/something": "outside of timm",
        f"{TINY}?nonsense=3": r"cannot be built \(TypeError",
        f"{TINY}?pretrained=3": "pretrained is 3, and must be true or false",
    }.items():
        with pytest.raises(ModelError, match=message) as caught:
            build_model(model)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("argument", ["checkpoint_path", "cache_dir", "pretrained_cfg"])
def test_timm_reads_no_file_itself(timm: ModuleType, argument: str) -> None:
    with pytest.raises(ModelError, match=f"{argument} goes past the checks of weights"):
        build_model(f"{TINY}?{argument}=evil.pth")


def test_torchvision_networks_are_built_without_weights(torchvision: ModuleType, caches: Path) -> None:
    assert build_model("torchvision:squeezenet1_1?num_classes=7")(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    network = build_model("torchvision:lraspp_mobilenet_v3_large?num_classes=4").eval()
    assert network(torch.zeros(1, 3, 64, 64))["out"].shape == (1, 4, 64, 64)
    for model, message in {
        "torchvision:resnet81": "torchvision has no such network: did you mean 'resnet",
        "torchvision:resnet18?weights=V9": r"unknown weights 'V9': .*known are DEFAULT, IMAGENET1K_V1",
        "torchvision:fcn_resnet50?weights_backbone=DEFAULT": "weights_backbone would download",
        "torchvision:resnet18?nonsense=3": r"cannot be built \(TypeError",
    }.items():
        with pytest.raises(ModelError, match=message) as caught:
            build_model(model)
        assert "\n" not in str(caught.value)


def test_pretrained_weights_that_are_not_here_are_refused(
    timm: ModuleType, torchvision: ModuleType, caches: Path
) -> None:
    for model, source in {
        "timm:resnet18?pretrained": "https://huggingface.co/timm/resnet18.a1_in1k",
        f"{TINY}?pretrained=true": "https://huggingface.co/timm/test_resnet.r160_in1k",
        "torchvision:resnet18?pretrained": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "torchvision:resnet18?weights=DEFAULT": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    }.items():
        with pytest.raises(ModelError) as caught:
            build_model(model)
        message = str(caught.value)
        assert "its pretrained weights are not on this machine" in message
        assert f"would download them from {source} to {caches}" in message
        assert "download=True" in message
        assert "\n" not in message
        with pytest.raises(ModelError, match=r"the download .* failed \(OSError: the network was used\)"):
            build_model(model, download=True)


def test_timms_weights_come_from_the_hubs_cache(timm: ModuleType, caches: Path) -> None:
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    put_in_hub(caches, "timm/test_resnet.r160_in1k", state)
    torch.manual_seed(4)
    found = build_model(f"{TINY}?pretrained").state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)
    other = build_model(f"{TINY}?pretrained&num_classes=3")
    assert other(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    first = next(iter(state))
    assert torch.equal(other.state_dict()[first], state[first])


def test_torchvisions_weights_come_from_torchs_cache(torchvision: ModuleType, caches: Path) -> None:
    url = torchvision.models.get_model_weights("shufflenet_v2_x0_5").DEFAULT.url
    file = caches / "torch" / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.manual_seed(3)
    state = torchvision.models.shufflenet_v2_x0_5().state_dict()
    torch.save(state, file)
    found = build_model("torchvision:shufflenet_v2_x0_5?pretrained").state_dict()
    assert all(torch.equal(found[key], state[key]) for key in state)
    torch.save({"weight": nn.Linear(1, 1)}, file)
    with pytest.raises(WeightsError, match="is refused: its pickle calls for"):
        build_model("torchvision:shufflenet_v2_x0_5?weights=DEFAULT")


def test_the_input_that_a_library_has_on_record(timm: ModuleType, torchvision: ModuleType, tmp_path: Path) -> None:
    assert default_input("timm:resnet18") == InputSpec(224, *IMAGENET, resize=235, interpolation="bicubic")
    squashed = InputSpec(384, *IMAGENET, resize=(384, 384), interpolation="bicubic")
    assert default_input("timm:convnext_tiny.in12k_ft_in1k_384?pretrained") == squashed
    assert default_input("timm:inception_v4") == InputSpec(299, (0.5,) * 3, (0.5,) * 3, 341, "bicubic")
    assert default_input("timm:vit_tiny_patch16_224?img_size=96").size == 96
    assert default_input("timm:resnet18?in_chans=1") is None
    assert default_input("torchvision:resnet18") == InputSpec(224, *IMAGENET, resize=256)
    assert default_input("torchvision:inception_v3") == InputSpec(299, *IMAGENET, resize=342)
    assert default_input("torchvision:regnet_y_16gf?weights=IMAGENET1K_SWAG_E2E_V1").size == 384
    assert default_input("torchvision:fcn_resnet50") == InputSpec(520, *IMAGENET)
    assert default_input("torchvision:fasterrcnn_resnet50_fpn") is None
    assert default_input("torchvision:r3d_18") is None
    assert default_input("zoo:resnet20") is None
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def bare():\n    return nn.Identity()\n"
        "def known():\n    return nn.Identity()\n"
        "known.default_cfg = {'input_size': (1, 28, 28), 'mean': (0.1,), 'std': (0.3,)}\n"
    )
    assert default_input("python:nets.py:bare", tmp_path) is None
    assert default_input("python:nets.py:known", tmp_path) == InputSpec(28, (0.1,), (0.3,))
    with pytest.raises(ModelError, match="timm has no such network"):
        default_input("timm:resnet81")


def manifest(folder: Path, **entry: Any) -> Path:
    (folder / "zoo.yaml").write_text(json.dumps({"checkpoints": [entry]}))
    return folder


def test_a_manifest_may_leave_the_input_out(timm: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "a.safetensors")
    (checkpoint,) = read_manifest(manifest(tmp_path, model=TINY, weights="a.safetensors"), allow_code=True)
    assert checkpoint.input == default_input(TINY)
    assert checkpoint.input.size == 160
    given = {"size": 64, "mean": 0.5, "std": 0.5}
    (other,) = read_manifest(manifest(tmp_path, model=TINY, weights="a.safetensors", input=given), allow_code=True)
    assert other.input.size == 64
    for model, message in {
        "zoo:resnet20": "input is missing, and 'zoo:resnet20' does not say which images it takes",
        "timm:resnet18?in_chans=1": "input is missing",
        "timm:resnet81": "timm has no such network.*; or add input",
    }.items():
        with pytest.raises(ManifestError, match=message) as caught:
            read_manifest(manifest(tmp_path, model=model, weights="a.safetensors"), allow_code=True)
        assert "zoo.yaml:1" in str(caught.value)


def test_a_manifest_may_ask_for_pretrained_weights(timm: ModuleType, caches: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zoo"
    folder.mkdir()
    entry = {"name": "tiny", "model": TINY, "weights": "pretrained"}
    with pytest.raises(ManifestError, match=r"'tiny': weights: .* are not on this machine"):
        read_manifest(manifest(folder, **entry), allow_code=True)
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    file = put_in_hub(caches, "timm/test_resnet.r160_in1k", state)
    (checkpoint,) = read_manifest(manifest(folder, **entry), allow_code=True)
    assert checkpoint.weights == file
    found = load_checkpoint(checkpoint).state_dict()
    assert all(torch.equal(found[key], state[key]) for key in state)
    write_manifest(folder, [checkpoint])
    (again,) = read_manifest(folder, allow_outside=True, allow_code=True)
    assert again.weights.resolve() == file.resolve()
    assert again.input == checkpoint.input
    with pytest.raises(ManifestError, match="has no pretrained weights: name a weights file"):
        read_manifest(
            manifest(folder, model="zoo:resnet20", weights="pretrained", input={"size": 8, "mean": 0, "std": 1}),
            allow_code=True,
        )


@pytest.mark.parametrize("call", [build_model, default_input])
@pytest.mark.parametrize("name", ["timm", "torchvision"])
def test_packages_that_are_not_installed_get_one_line(monkeypatch: pytest.MonkeyPatch, call: Any, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelError) as caught:
        call(f"{name}:resnet18")
    reason = f"ModuleNotFoundError: import of {name} halted; None in sys.modules"
    assert str(caught.value) == f"{name} cannot be imported ({reason}): pip install 'invariscope[{name}]'"


def test_what_a_package_lacks_or_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half_there.py").write_text("import what_it_needs.part\n")
    (tmp_path / "misfit.py").write_text("raise ImportError('undefined symbol: _ZN3c10')\n")
    with pytest.raises(ModelError) as caught:
        import_optional("half_there", "timm")
    reason = "ModuleNotFoundError: No module named 'what_it_needs'; half_there needs what_it_needs"
    assert str(caught.value) == f"half_there cannot be imported ({reason}): pip install 'invariscope[timm]'"
    with pytest.raises(ModelError) as caught:
        import_optional("misfit")
    message = str(caught.value)
    assert message.startswith(
        "misfit cannot be imported (ImportError: undefined symbol: _ZN3c10; here are torchvision "
    )
    assert f"torch {torch.__version__}" in message
    assert message.endswith("install the release of misfit that belongs to this torch")


FRESH = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="log: %(message)s")
from invariscope.zoo.optional import declared_operators, import_timm, import_torchvision
assert declared_operators() == ()
first, second = (import_timm, import_torchvision) if sys.argv[1] == "timm" else (import_torchvision, import_timm)
first(), second(), first()
import torch, torchvision
print(torchvision.extension._has_ops(), declared_operators())
try:
    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    print("ran")
except NotImplementedError as problem:
    print(str(problem)[:50])
"""


@pytest.mark.parametrize("first", [pytest.param("timm", marks=pytest.mark.full), "torchvision"])
def test_operators_that_are_not_compiled_are_declared_and_not_made_up(
    timm: ModuleType, torchvision: ModuleType, first: str
) -> None:
    """In a process of its own, as the tests of this one share their imports."""
    done = subprocess.run([sys.executable, "-c", FRESH, first], capture_output=True, text=True, check=True)
    compiled = torchvision.extension._has_ops()
    logged = [line for line in done.stderr.splitlines() if "torchvision" in line]
    if compiled:
        assert done.stdout.splitlines() == ["True ()", "ran"]
        assert not logged
        return
    declared = "('torchvision::nms', 'torchvision::qnms')"
    assert done.stdout.splitlines() == [f"False {declared}", "Could not run 'torchvision::nms' with arguments fr"]
    (line,) = logged
    assert line.startswith("log: the compiled operators of torchvision do not fit this torch (torchvision ")
    assert f"torch {torch.__version__}" in line


def test_another_error_of_torchvision_is_told_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('compiled with another CUDA. Reinstall')\n")
    code = "from invariscope.zoo.loading import build_model; from invariscope.zoo import optional\n"
    code += "try:\n    build_model('torchvision:resnet18')\nexcept ValueError as problem:\n    print(problem)\n"
    code += "print(optional.declared_operators())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    message, declared = done.stdout.splitlines()
    reason = "RuntimeError: compiled with another CUDA; here are torchvision "
    assert message.startswith(f"torchvision cannot be imported ({reason}")
    assert message.endswith("install the release of torchvision that belongs to this torch")
    assert declared == "()"


@pytest.mark.parametrize(
    "line", ["from timm import create_model", pytest.param("import torchvision.ops as o", marks=pytest.mark.full)]
)
def test_research_code_may_import_them_itself(
    timm: ModuleType, torchvision: ModuleType, tmp_path: Path, line: str
) -> None:
    (tmp_path / "nets.py").write_text(f"from torch import nn\ndef build():\n    {line}\n    return nn.Identity()\n")
    code = (
        "import sys; from invariscope.zoo.loading import build_model; build_model('python:nets.py:build', sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
