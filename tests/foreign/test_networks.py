"""Odd but honest networks, each measured by the command from its YAML entry to the value of a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
import torch
import yaml

from invariscope import cli
from invariscope.collectors.engine.workers import SPARES
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.loading import build_model

NETS = """
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(8, 4, 1)

    def maps(self, x):
        return self.head(self.pool(torch.relu(self.b(self.a(x)))))

    def forward(self, x):
        return self.maps(x).mean((2, 3))

class Views(Plain):
    def forward(self, x):
        y = self.maps(x)
        return y.view(len(x), 4, -1).mean(2)

class ViewsOfTheImage(Plain):
    def forward(self, x):
        return super().forward(x.view(len(x), -1).reshape(-1, 3, 32, 32))

class Shadows(Plain):
    def __init__(self):
        super().__init__()
        self.modules = nn.ModuleList([self.a, self.b])

class Points(Plain):
    def forward(self, x):
        return super().forward(x)[:, :, None, None]

Said = namedtuple("Said", ["hidden", "logits"])

class Named(Plain):
    def forward(self, x):
        y = self.maps(x)
        return Said(y, y.mean((2, 3)))

@dataclass
class Output:
    logits: torch.Tensor
    loss: torch.Tensor = None

class Dataclass(Plain):
    def forward(self, x):
        return Output(super().forward(x))

class ModelOutput(OrderedDict):
    def __getattr__(self, name):
        if name in self:
            return self[name]
        raise AttributeError(name)

class Mapped(Plain):
    def forward(self, x):
        y = self.maps(x)
        return ModelOutput(logits=y.mean((2, 3)), hidden=y)
"""
ODD = ("Views", "ViewsOfTheImage", "Shadows", "Points", "Named", "Dataclass", "Mapped")
COLLECTED = "layers,invariance"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "nets.py").write_text(NETS)
    torch.manual_seed(0)
    network, data = build_model("python:nets.py:Plain", folder).eval(), load_dataset("shapes:32", limit=40)
    images = PreparedImages(data, InputSpec(32, (0.5,), (0.25,)))[:]
    with torch.no_grad():
        network.b.running_mean.normal_(0, 0.3)
        network.head.weight.mul_(30)
        network.head.bias -= network(images).mean(0)
    torch.save(network.state_dict(), folder / "a.pth")
    entries = []
    for name in ("Plain", *ODD):
        entry = {"name": name, "model": f"python:nets.py:{name}", "weights": "b.pth" if name == "Shadows" else "a.pth"}
        entries.append({**entry, "input": {"size": 32, "mean": 0.5, "std": 0.25}})
    shadow = dict(network.state_dict())
    shadow |= {f"modules.{'0' if k[0] == 'a' else '1'}{k[1:]}": v for k, v in shadow.items() if k[0] in "ab"}
    torch.save(shadow, folder / "b.pth")
    (folder / "zoo.yaml").write_text(yaml.safe_dump({"checkpoints": entries}))
    return folder


def run(zoo: Path, out: Path, *more: str) -> int:
    command = ["collect", str(zoo), "--data", "shapes:32", "--limit", "40", "--out", str(out), "--max-shift", "3"]
    return cli.main(
        [*command, "--allow-code", "--n-shifts", "3", "--shift", "circular,crop", "--msb-images", "8", *more]
    )


def read(out: Path, name: str) -> pd.DataFrame:
    return ds.dataset(out / name).to_table().to_pandas()


@pytest.fixture(scope="module")
def tables(zoo: Path) -> Path:
    assert run(zoo, zoo / "tables", "--collect", COLLECTED) == cli.DONE
    return zoo / "tables"


@pytest.mark.parametrize("name", ODD)
def test_odd_networks_are_measured_as_the_plain_one_is(name: str, tables: Path) -> None:
    for table, keys in (("invariance", ["shift_kind", "score"]), ("layers", ["depth", "site_kind"])):
        rows = read(tables, table).set_index(["checkpoint", *keys]).sort_index()
        value = "value" if table == "invariance" else "msb"
        plain, odd = (rows.loc[one, value].sort_index() for one in ("Plain", name))
        assert len(plain) > 0
        assert np.allclose(plain, odd, atol=1e-6, equal_nan=True), table


def test_the_plain_one_is_that_of_a_plain_loop(zoo: Path, tables: Path) -> None:
    network, data = build_model("python:nets.py:Plain", zoo).eval(), load_dataset("shapes:32", limit=40)
    network.load_state_dict(torch.load(zoo / "a.pth"))
    with torch.inference_mode():
        said = network((data.images.float() / 255 - 0.5) / 0.25).argmax(1)
    hits = (said == data.labels).double().mean().item()
    rows = read(tables, "invariance").query("checkpoint == 'Plain' and score == 'accuracy' and shift_kind == 'none'")
    assert rows["value"].item() == pytest.approx(hits, abs=1e-12)
    assert 0.05 < hits < 0.95


def test_contiguous_batches_are_told_of_once(zoo: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    SPARES.close()  # a new process, whose words are captured
    assert run(zoo, tmp_path, "--collect", "invariance", "--only", "ViewsOf*") == cli.DONE
    told = [line for line in capfd.readouterr().err.splitlines() if "measured contiguous" in line]
    assert [line.split(" does")[0] for line in told] == ["ViewsOfTheImage"]


def test_a_network_that_cannot_be_loaded_is_one_line(zoo: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("nets.py", "zoo.yaml"):
        (tmp_path / name).write_bytes((zoo / name).read_bytes())
    for name in ("a.pth", "b.pth"):
        torch.save({"nothing": torch.zeros(1)}, tmp_path / name)
    assert run(tmp_path, tmp_path / "tables", "--only", "Points") == cli.WITH_FAILURES
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1
    failures = read(tmp_path / "tables", "failures")
    assert len(failures) > 1
    assert set(failures["stage"]) == {"load"}
