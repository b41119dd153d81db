"""Networks that are no function of the image are found, marked and told of; others are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import invariscope as iv
from invariscope import cli
from invariscope.collectors.engine.measuring import builders
from invariscope.collectors.engine.run import collect
from invariscope.collectors.measure.determinism import is_function_of_image
from invariscope.collectors.options import Options
from invariscope.collectors.schema import COLLECTORS
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.manifest import write_manifest

NETS = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4, affine=False, track_running_stats=kind != "batch")
        self.head = nn.Linear(4, 10)
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def forward(self, x):
        x = self.conv(x)
        if self.kind == "adapts":
            self.mean.mul_(0.5).add_(x.mean(), alpha=0.5)
            x = x - self.mean
        x = F.relu(self.norm(x))
        x = F.dropout(x, 0.5, training=self.kind == "dropout")
        return self.head(F.max_pool2d(x, 2).mean((2, 3)))

def build(kind="plain"):
    return Net(kind)
"""


class Flat(nn.Module):
    """Logits by a function of the batch."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def logits(x: Tensor) -> Tensor:
    return x.flatten(1)[:, :10]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (logits, True),
        (lambda x: {"out": x, "aux": [logits(x)]}, True),
        (lambda x: logits(x) * (1 + 1e-6 * torch.rand(())), True),  # rounding
        (lambda x: F.dropout(logits(x), 0.1), False),
        (lambda x: logits(x) + 1e-2 * torch.randn(len(x), 1), False),
        (lambda x: {"out": x, "aux": [logits(x) + torch.randn(1)]}, False),
        (lambda x: F.batch_norm(x, None, None, training=True).flatten(1), False),
        (lambda x: logits(x) - x.mean(), False),
        (lambda x: logits(x) + len(x), False),
        (lambda x: "words", None),
        (lambda x: logits(x) * float("nan"), None),
    ],
)
@pytest.mark.parametrize("count", [32, 9, 40])
def test_two_passes_and_two_batch_sizes_are_compared(
    function: Callable[[Tensor], Any], expected: bool | None, count: int
) -> None:
    torch.manual_seed(0)
    assert is_function_of_image(Flat(function), torch.rand(count, 1, 6, 6)) is expected


def test_a_second_pass_alone_is_enough_to_tell() -> None:
    calls = iter(range(100))
    odd = Flat(lambda x: logits(x) + (next(calls) == 1))
    assert is_function_of_image(odd, torch.rand(32, 1, 4, 4)) is False


@pytest.mark.parametrize(("given", "allowed"), [(24, 1), (256, 2)])
def test_a_tie_in_one_image_is_rounding_and_in_many_is_not(given: int, allowed: int) -> None:
    images = torch.rand(given, 1, 4, 4)

    def tied(count: int) -> Callable[[Tensor], Tensor]:
        calls = iter(range(100))

        def function(x: Tensor) -> Tensor:
            flips = (x[:, None] == images).all((2, 3, 4))[:, :count].any(1) & bool(next(calls) % 2)
            return torch.where(flips[:, None], -logits(x), logits(x))

        return function

    assert is_function_of_image(Flat(tied(allowed)), images) is True
    assert is_function_of_image(Flat(tied(allowed + 1)), images) is False


@pytest.fixture
def kinds(tmp_path: Path) -> list[Checkpoint]:
    (tmp_path / "nets.py").write_text(NETS)
    made = []
    for seed, kind in enumerate(("plain", "dropout", "batch", "adapts")):
        torch.manual_seed(seed)
        state = {"conv.weight": torch.randn(4, 1, 3, 3), "conv.bias": torch.zeros(4)}
        state |= {"head.weight": torch.randn(10, 4), "head.bias": torch.zeros(10)}
        if kind != "batch":
            state |= {"norm.running_mean": torch.zeros(4), "norm.running_var": torch.ones(4)}
            state |= {"norm.num_batches_tracked": torch.tensor(1)}
        save_file(state, tmp_path / f"{kind}.safetensors")
        made.append(
            Checkpoint(
                kind,
                f"python:nets.py:build?kind={kind}",
                tmp_path / f"{kind}.safetensors",
                InputSpec(32, (0.5,), (0.25,)),
                factors={"operator": "max", "seed": seed},
                folder=tmp_path,
            )
        )
    return made


OPTIONS = Options(("checkpoints", "layers", "invariance"), shift=("circular",), msb_images=8, n_shifts=2)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.full)])
def test_rows_are_marked_and_collect_says_whose(
    kinds: list[Checkpoint], images: ImageSet, tmp_path: Path, jobs: int, read_all: Callable[[Path], Any]
) -> None:
    outcome = collect(kinds, images, tmp_path / "t", OPTIONS, jobs=jobs, progress=False)
    assert (outcome.failures, outcome.no_functions) == ([], ["adapts", "batch", "dropout"])
    tables = read_all(tmp_path / "t")
    for name in ("layers", "invariance"):
        marks = tables[name].groupby("checkpoint")["deterministic"].unique().map(list).to_dict()
        assert marks == {"plain": [True], "dropout": [False], "batch": [False], "adapts": [False]}
    assert "deterministic" not in tables["checkpoints"]
    assert tables["layers"]["code_sha256"].str.len().eq(64).all()


def test_the_command_says_it_in_one_line(
    kinds: list[Checkpoint], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(tmp_path / "zoo.yaml", kinds)
    out = ["--out", str(tmp_path / "t"), "--limit", "12", "--collect", "layers", "--msb-images", "8"]
    assert cli.main(["collect", str(tmp_path), "--data", "digits", "--allow-code", *out]) == cli.DONE
    lines = [line for line in capsys.readouterr().err.splitlines() if "no function of the image" in line]
    assert len(lines) == 1
    assert "adapts, batch, dropout" in lines[0]
    assert "plain" not in lines[0]


def test_no_collector_of_data_leaves_the_mark_out() -> None:
    from invariscope.collectors.schema import TABLES

    for name in COLLECTORS:
        assert ("deterministic" in TABLES[name].names) is COLLECTORS[name].of_data, name


def test_versions_of_the_libraries_that_built_a_network(timm: Any, torchvision: Any) -> None:
    assert builders(iv.build_model("zoo:smallcnn?operator=max")) == {"timm_version": None, "torchvision_version": None}
    assert builders(timm.create_model("resnet10t")) == {"timm_version": timm.__version__, "torchvision_version": None}
    found = builders(nn.Sequential(torchvision.models.resnet18()))
    assert found == {"timm_version": None, "torchvision_version": torchvision.__version__}


def test_tables_from_before_the_columns_are_read(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from invariscope.collectors.schema import LATER_COLUMNS

    out = tmp_path / "t"
    collect(zoo, images, out, OPTIONS, progress=False)
    for file in out.glob("*/*.parquet"):
        rows = pq.read_table(file)
        pq.write_table(rows.drop_columns([name for name in rows.column_names if name in LATER_COLUMNS]), file)
    frame = iv.join(iv.load(out))
    assert len(frame) == len(zoo)
