"""The passes over shifted images by OpenVINO: the same values, and torch where it cannot."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from invariscope.base.errors import InputError
from invariscope.cli.common import tell_outcome
from invariscope.collectors.engine.run import CollectOutcome, collect
from invariscope.collectors.engine.subject import Subject
from invariscope.collectors.measure import runtimes
from invariscope.collectors.measure.runtimes import Unconverted, by_openvino, faster
from invariscope.collectors.options import Options
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.loading import build_model, load_checkpoint
from invariscope.zoo.operators.ranked import Rank

N = 300
OPERATORS = ("max", "rank((0.5, 0.3, 0.15, 0.05))")
BEYOND = "rank((0.4, 0.3, 0.2, 0.1), 2)"
"""The operator of the network that is not converted, see :func:`beyond`."""


@pytest.fixture(scope="module", autouse=True)
def openvino() -> None:
    pytest.importorskip("torch")
    try:
        runtimes.import_openvino()
    except Exception as problem:  # no wheel for every platform
        pytest.skip(str(problem))


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_dataset("digits", limit=N)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    folder = tmp_path_factory.mktemp("zoo")
    made = []
    for number, operator in enumerate((*OPERATORS, BEYOND)):
        torch.manual_seed(number)
        model = f"zoo:smallcnn?operator={operator}&width=4&in_channels=1"
        network = build_model(model)
        with torch.no_grad():
            for _ in range(3):
                network.train()(torch.rand(64, 1, 32, 32))
        save_file(network.state_dict(), folder / f"{number}.safetensors")
        spec = InputSpec(32, (0.5,), (0.25,))
        made.append(Checkpoint(f"n{number}", model, folder / f"{number}.safetensors", spec, folder=folder))
    return made


def collected(zoo: list[Checkpoint], images: ImageSet, out: Path, **knobs: object) -> CollectOutcome:
    options = Options(("layers", "invariance"), n_shifts=3, msb_images=64, **knobs)
    outcome = collect(zoo, images, out, options, progress=False)
    assert outcome.failures == []
    return outcome


def read(folder: Path, table: str) -> pd.DataFrame:
    return ds.dataset(folder / table).to_table().to_pandas()


def scores(folder: Path) -> pd.Series:
    frame = read(folder, "invariance")
    return frame.set_index(["checkpoint", "shift_kind", "score"])["value"].sort_index()


def ran(folder: Path) -> dict[str, set[str]]:
    frame = read(folder, "timings").fillna({"runtime": "none"})
    return {name: set(rows["runtime"]) for name, rows in frame.groupby("collector")}


def test_the_same_scores_under_the_same_keys(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    zoo = zoo[: len(OPERATORS)]
    collected(zoo, images, tmp_path / "torch")
    outcome = collected(zoo, images, tmp_path / "openvino", runtime="openvino")
    assert outcome.by_torch == {}
    assert ran(tmp_path / "torch") == {"checkpoints": {"none"}, "layers": {"none"}, "invariance": {"torch"}}
    assert ran(tmp_path / "openvino") == {"checkpoints": {"none"}, "layers": {"none"}, "invariance": {"openvino"}}
    difference = (scores(tmp_path / "openvino") - scores(tmp_path / "torch")).abs()
    assert difference.median() <= 1e-6
    assert difference.max() <= 0.01  # an image in a tie may go either way
    again = collected(zoo, images, tmp_path / "openvino")
    assert (again.measured, again.found) == (0, 5 * len(zoo))


@pytest.mark.parametrize("operator", OPERATORS)
def test_any_number_of_images(operator: str) -> None:
    torch.manual_seed(0)
    network = build_model(f"zoo:smallcnn?operator={operator}&width=4&in_channels=1").eval()
    x = torch.rand(9, 1, 32, 32)
    other = by_openvino(network, x[:8])
    with torch.no_grad():
        for count in (1, 3, 9):
            for layout in (torch.contiguous_format, torch.channels_last):
                torch.testing.assert_close(other(x[:count].clone(memory_format=layout)), network(x[:count]))
        first = other(x[:2])
        kept = first.clone()
        other(x[2:4])
        assert torch.equal(first, kept)


class Counts(nn.Module):
    """Says something else of a single image: a recording of two does not."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)[:, :4]
        return self.last(flat if len(x) > 1 else 5 + flat)


class Looks(nn.Module):
    """Says something else of images in which a value is exactly 0, as in the strip of a zero shift."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        said = self.last(x.flatten(1))
        return said + 1 if bool((x == 0).any()) else said


class Masks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_network_that_is_not_what_was_recorded_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(Unconverted, match="says something else"):
        by_openvino(Counts(), torch.rand(8, 1, 2, 2))
    with pytest.raises(Unconverted, match="says something else"):
        by_openvino(Looks(), torch.rand(8, 1, 8, 8) + 0.1)
    with pytest.raises(Unconverted, match="does not return logits"):
        by_openvino(Masks(), torch.rand(8, 1, 2, 2))
    with pytest.raises(Unconverted, match="float32"):
        by_openvino(Counts().double(), torch.rand(8, 1, 2, 2).double())


@pytest.fixture
def beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators of this kind cannot be recorded."""
    pool = Rank.pool

    def stubborn(self: Rank, x: Tensor) -> Tensor:
        if torch.jit.is_tracing() and float(self.rank_weights()[0]) == pytest.approx(0.4):
            raise NotImplementedError("a first line\nno such operation")
        return pool(self, x)

    monkeypatch.setattr(Rank, "pool", stubborn)


@pytest.mark.usefixtures("beyond")
def test_what_cannot_be_converted_is_run_by_torch_and_said(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = collected(zoo[1:], images, tmp_path, runtime="openvino")
    (reason,) = outcome.by_torch.values()
    assert list(outcome.by_torch) == ["n2"]
    assert reason.startswith("torch: it cannot be converted (")
    assert reason.endswith("no such operation)")
    assert ran(tmp_path)["invariance"] == {reason, "openvino"}
    assert f"not run by openvino: n2: {reason}" in next(tmp_path.glob("logs/*")).read_text()
    tell_outcome(outcome, tmp_path)
    assert f"not run by openvino: 1 checkpoint (n2: {reason})" in capsys.readouterr().err


@pytest.mark.usefixtures("beyond")
def test_in_bfloat16_what_cannot_be_converted_is_a_failure(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path
) -> None:
    options = Options(("invariance",), n_shifts=3, precision="bf16", runtime="openvino")
    outcome = collect(zoo[2:], images, tmp_path, options, progress=False)
    assert outcome.measured == 1  # its description
    assert "OpenVINO does not run it in bf16 (it cannot be converted" in outcome.failures[0].message
    with pytest.raises(InputError, match="drift watches maps inside of networks"):
        Options(("invariance", "drift"), precision="bf16", runtime="openvino")


def test_watched_maps_need_torch(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    options = Options(("invariance", "drift"), n_shifts=3, runtime="openvino")
    outcome = collect(zoo[:1], images, tmp_path, options, progress=False)
    assert outcome.failures == []
    assert outcome.by_torch == {"n0": "torch: the maps inside of it are watched"}


class Slow(nn.Module):
    """A pass of it is so many passes of a linear layer."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.layer, self.times = nn.Linear(256, 256), times

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            found = self.layer(x.flatten(1))
        return found


def test_auto_takes_the_faster_one_of_enough_images(
    zoo: list[Checkpoint], images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(64, 1, 16, 16)
    assert faster(Slow(200), Slow(1), x)
    assert not faster(Slow(1), Slow(200), x)
    settings = {"precision": "fp32", "fold": True}
    for count, is_faster, expected in (
        (63, True, "torch: fewer than 64 images"),
        (64, True, "openvino"),
        (64, False, "torch: it is as fast"),
    ):
        monkeypatch.setattr(runtimes, "faster", lambda *_, found=is_faster: found)
        subject = Subject(zoo[0], load_checkpoint(zoo[0]), images.head(count), runtime="auto")
        subject.network(settings)
        assert subject.ran == expected


def test_bfloat16_of_each_runtime_has_keys_of_its_own(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    collected(zoo[:1], images, tmp_path, precision="bf16")
    outcome = collected(zoo[:1], images, tmp_path, precision="bf16", runtime="openvino")
    assert ran(tmp_path)["invariance"] == {"torch", "openvino"}
    assert (outcome.measured, outcome.found) == (3, 2)
    frame = read(tmp_path, "invariance")
    both = frame.groupby(["shift_kind", "score"])["value"].agg(["size", np.ptp])
    assert (both["size"] == 2).all()
    assert both["ptp"].max() < 0.2
    with pytest.raises(InputError, match="name one in place of runtime auto"):
        Options(precision="bf16", runtime="auto")


def test_memory_that_ran_out_is_no_reason_to_take_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(runtimes, "OpenVinoNetwork", full)
    with pytest.raises(RuntimeError, match="allocate"):
        by_openvino(Looks(), torch.rand(8, 1, 8, 8))


def test_refused_options(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="unknown runtime 'onnx'"):
        Options(runtime="onnx")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install 'invariscope\[openvino\]'"):
        Options(runtime="openvino")
    assert Options(runtime="auto")


@pytest.mark.usefixtures("beyond")
def test_the_callers_logger_is_as_before(caplog: pytest.LogCaptureFixture) -> None:
    """A failed conversion of OpenVINO's leaves the root logger at errors alone."""
    root = logging.getLogger()
    before = root.level, list(root.filters), list(root.handlers)
    network = build_model(f"zoo:smallcnn?operator={BEYOND}&width=4&in_channels=1").eval()
    with pytest.raises(Unconverted):
        by_openvino(network, torch.rand(8, 1, 32, 32))
    assert (root.level, list(root.filters), list(root.handlers)) == before
    logging.getLogger("invariscope.some").warning("heard")
    assert "heard" in caplog.messages


def test_it_does_not_report_to_its_makers() -> None:
    script = (
        "import sys; from invariscope.collectors.measure.runtimes import import_openvino; import_openvino();"
        "print([name for name in sys.modules if 'telemetry' in name and sys.modules[name] is not None "
        "and not name.startswith('openvino.tools.ovc')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
