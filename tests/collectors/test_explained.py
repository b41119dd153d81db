"""From networks to tables and means: how sites were read, and which checkpoints are not fully measured, by name."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from invariscope import cli
from invariscope.analysis import join, load
from invariscope.collectors.measure.msb import measure_msb
from invariscope.zoo.loading import build_model
from invariscope.zoo.sites import find_sites

NETWORKS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, shrink):
        super().__init__()
        self.shrink, self.stem, self.head = shrink, nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3, 10)

    def forward(self, x):
        return self.head(self.shrink(self.stem(x)).mean((2, 3)))


def split(x):
    return x.view(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2)


def gated(x):
    weights = nn.functional.interpolate(nn.functional.avg_pool2d(x, 4), scale_factor=4.0).sigmoid()
    return nn.functional.max_pool2d(x * weights, 2)


def calls(): return Net(nn.MaxPool2d(2))
def views(): return Net(lambda x: split(x).amax((3, 5)))
def gates(): return Net(gated)
def none(): return Net(lambda x: x)
def odd(): return Net(lambda x: split(nn.functional.max_pool2d(x, 2)).std((3, 5)))
"""

NAMES = ("calls", "views", "gates", "none", "odd")


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    folder = tmp_path / "zoo"
    folder.mkdir()
    (folder / "nets.py").write_text(NETWORKS)
    entries = []
    for name in NAMES:
        save_file(build_model(f"python:{folder / 'nets.py'}:{name}").state_dict(), folder / f"{name}.safetensors")
        entries.append(
            f"  - {{name: {name}, model: 'python:nets.py:{name}', weights: {name}.safetensors, labels: digits,\n"
            f"     input: {{size: 32, mean: 0.5, std: 0.25}}, factors: {{operator: {name}, run: {name}}}}}\n"
        )
    (folder / "zoo.yaml").write_text("checkpoints:\n" + "".join(entries))
    return folder


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.full)])
def test_collect_names_what_is_not_fully_measured(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    out = tmp_path / "tables"
    given = (zoo, "--data", "digits", "--out", out, "--limit", 12, "--msb-images", 4, "--jobs", jobs, "--allow-code")
    assert cli.main(["collect", *map(str, given), "--collect", "checkpoints,layers,invariance"]) == cli.DONE
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("layers:")]
    assert line == (
        "layers: 2 checkpoints not fully measured, kept out of means (none: no downsampling site; odd: 1 of 2 shrinks "
        "not explained: unexplained (16×16 → 8×8, not explained: it gives some pixels a negative weight))"
    )
    (log,) = (out / "logs").glob("*.log")
    assert "remark: none: layers: no downsampling site" in log.read_text()

    tables = load(out)
    read = tables.layers.fillna({"explained": "null"}).groupby("checkpoint")["explained"].agg(list)
    assert read.to_dict() == {
        "calls": ["reader"], "views": ["behaviour"], "gates": ["reader"] * 2, "none": ["null"], "odd": ["reader", "no"],
    }  # fmt: skip
    rows = join(tables).query("shift_kind == 'circular'").set_index("checkpoint")
    assert rows["n_sites"].to_dict() == {"calls": 1, "views": 1, "gates": 1, "none": 0, "odd": 2}
    assert rows["n_sites_unmeasured"].to_dict() == {"calls": 0, "views": 0, "gates": 0, "none": 0, "odd": 1}
    assert rows["msb_corrected"].isna().to_dict() == {name: name in ("none", "odd") for name in NAMES}


def test_tables_without_the_column_are_read(zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "tables"
    given = (zoo, "--data", "digits", "--out", out, "--limit", 12, "--msb-images", 4, "--only", "calls")
    assert cli.main(["collect", *map(str, given), "--allow-code"]) == cli.DONE
    (part,) = (out / "layers").glob("*.parquet")
    rows = pq.read_table(part)
    pq.write_table(rows.drop_columns("explained"), part)
    assert load(out).layers["explained"].isna().all()
    assert join(load(out))["msb_corrected"].eq(1).all()


def test_side_branches_come_last_and_do_not_count() -> None:
    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            gate = nn.functional.interpolate(nn.functional.avg_pool2d(x, 4), scale_factor=4.0).sigmoid()
            return nn.functional.max_pool2d(x * gate, 2)

    assert [site.name for site in find_sites(Late(), torch.randn(2, 3, 16, 16))] == ["max", "avg"]
    frame = measure_msb(Late(), torch.randn(2, 3, 16, 16))
    assert frame["site"].tolist() == ["max", "avg"]
    assert frame["depth"].tolist() == [0, 1]
    assert frame["n_sites"].tolist() == [1, 1]
    assert frame["reason"][1].startswith("side branch")
