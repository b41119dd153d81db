"""What another package brings by its entry points works like ours, without a line of ours that names it."""

from __future__ import annotations

import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.dataset as ds
import pytest
import torch
from safetensors.torch import save_file

from invariscope.zoo.loading import build_model

ZOO = """
checkpoints:
  - name: plugged-s0
    model: zoo:smallcnn?operator=farcorner&classes=2
    weights: plugged-s0.safetensors
    input: {size: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
    labels: stripes
    factors: {operator: farcorner, architecture: smallcnn, seed: 0, run: r0}
"""


@pytest.fixture(scope="module")
def plugin(repository: Path) -> Path:
    return repository / "tests" / "plugin"


@pytest.fixture(scope="module")
def points(plugin: Path) -> dict[str, dict[str, str]]:
    """The entry points of the package: group -> name -> object."""
    parser = ConfigParser()
    parser.read(plugin / "plugged-1.0.dist-info" / "entry_points.txt")
    return {group: dict(parser[group]) for group in parser.sections()}


def run(plugin: Path, *arguments: str | Path, cwd: Path) -> str:
    """What a command prints in a process in which the package is installed."""
    environment = os.environ | {"PYTHONPATH": str(plugin)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def groups() -> dict[str, Any]:
    """Every registry that takes entry points, by its group."""
    import invariscope
    from invariscope.base import registry

    for name in invariscope.__all__:
        getattr(invariscope, name)
    return {group: found for group, found in registry._REGISTRIES.items() if group.startswith("invariscope.")}


def test_the_package_has_something_for_every_door_that_a_user_has(points: dict[str, dict[str, str]]) -> None:
    assert set(groups()) == set(points)


@pytest.fixture(scope="module")
def printed(plugin: Path, points: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What one process with the package prints: its objects, a line each, what its operator gives, and the help."""
    code = (
        "import invariscope as iv, torch; from invariscope.base import registry\n"
        "for name in iv.__all__: getattr(iv, name)\n"
        f"for group, names in {points!r}.items():\n"
        "    for name in names: print(registry._REGISTRIES[group][name])\n"
        "layer = iv.build_operator('farcorner', channels=1)\n"
        "print(layer(torch.arange(30.0).view(1, 1, 5, 6)).flatten().tolist())\n"
        "from invariscope import cli; cli.main(['--help'])"
    )
    return run(plugin, "-c", code, cwd=tmp_path_factory.mktemp("plugged")).splitlines()


def test_names_are_listed_and_objects_found(printed: list[str], points: dict[str, dict[str, str]]) -> None:
    found = sum(map(len, points.values()))
    assert all(printed[:found])
    listed = "\n".join(printed[found + 1 :])
    for group, names in points.items():
        for name in names:
            assert name in listed or group == "invariscope.frames"
            assert name not in groups()[group], "seen without the package"


def test_sites_measures_and_figures(plugin: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "zoo.yaml").write_text(ZOO)
    torch.manual_seed(0)
    same = build_model("zoo:smallcnn?operator=subsample&classes=2")  # as many weights: neither has any of its own
    save_file(same.state_dict(), zoo / "plugged-s0.safetensors")
    collected = "checkpoints,layers,invariance,logit_size"
    options = ("--data", "stripes", "--out", "tables", "--collect", collected, "--shift", "antipodal", "--jobs", "2")
    commands = [
        ["sites", "zoo:smallcnn?operator=farcorner"],
        ["collect", str(zoo), *options, "--logits-images", "6"],
        ["figures", "tables", "--out", "figures", "--only", "accuracy_bars,table_networks"],
        ["export", "tables", "--out", "all.names"],
    ]
    code = f"from invariscope import cli\nfor command in {commands!r}: assert cli.main(command) == cli.DONE"
    printed = run(plugin, "-c", code, cwd=tmp_path)
    assert "farcorner" in printed
    table = {name: ds.dataset(tmp_path / "tables" / name).to_table().to_pandas() for name in collected.split(",")}
    assert table["logit_size"]["n_images"].tolist() == [6]
    assert table["logit_size"]["mean_size"].item() > 0
    assert set(table["invariance"]["shift_kind"]) == {"none", "antipodal"}
    assert set(table["layers"]["site_kind"]) == {"farcorner"}
    assert (tmp_path / "all.names").read_text() == "plugged-s0\n"
    assert (tmp_path / "figures" / "accuracy_bars.png").stat().st_size > 1000
    table = pd.read_csv(tmp_path / "figures" / "table_networks.csv")
    assert table["operator"].tolist() == ["farcorner"]


def test_the_operator_samples_the_far_corner_of_each_cell(
    printed: list[str], points: dict[str, dict[str, str]]
) -> None:
    expected = [6 * row + column for row in (1, 3, 4) for column in (1, 3, 5)]
    assert printed[sum(map(len, points.values()))] == str([float(pixel) for pixel in expected])
