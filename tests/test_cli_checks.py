"""The command line: what is refused before anything is measured, and plug-ins that do not work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import invariscope as iv
from invariscope import cli
from invariscope.base import registry
from invariscope.base.errors import InputError
from invariscope.zoo.loading import build_model

MODEL = "zoo:smallcnn?operator=max&width=4&in_channels=1"


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    folder = tmp_path / "zoo"
    folder.mkdir()
    torch.manual_seed(0)
    save_file(build_model(MODEL).state_dict(), folder / "max.safetensors")
    (folder / "zoo.yaml").write_text(
        f"checkpoints:\n  - name: max\n    model: {MODEL}\n    weights: max.safetensors\n"
        "    input: {size: 32, mean: [0.5], std: [0.25]}\n    factors: {operator: max, seed: 0}\n"
    )
    return folder


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-shift", -3], "--max-shift is -3: give whole pixels, or a part of the input size such as 1/8"),
        (["--seed", -1], "--seed is -1: take at least 0"),
        (["--windows-per-image", 0], "--windows-per-image is 0: take at least 1"),
        (
            ["--shift", "crop", "--crop-size", 33],
            "max: crop_size is 33, and a window of 32 pixels that moves by 4 needs 40",
        ),
        (["--max-shift", 32], "max: max_shift is 32 and its images have 32 pixels: take less than 32"),
        (["--max-shift", 1, "--n-shifts", 10], "max: n_shifts is 10 and shifts of up to 1 pixels are 9: take fewer"),
        (["--collect", "surface", "--surface-step", 3], "max: surface_step is 3 and does not divide max_shift, 4"),
        (["--out", ""], "--out is empty: name a folder for the tables"),
        (["--out", "  "], "--out is empty: name a folder for the tables"),
    ],
)
def test_options_are_checked_before_anything_is_measured(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[object], message: str
) -> None:
    out = [] if "--out" in options else ["--out", tmp_path / "t"]
    assert run("collect", zoo, "--data", "digits", "--limit", 8, *out, *options) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.startswith(f"invariscope: {message}")
    assert error.count("\n") == 1
    assert not (tmp_path / "t").exists()


def test_a_misspelt_command_has_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, right in (("colect", "collect"), ("analyse", "analyze"), ("purne", "prune")):
        assert run(wrong, "x") == cli.BAD_INPUT
        assert f"unknown command '{wrong}': did you mean '{right}'?" in capsys.readouterr().err


def test_a_text_is_one_name_and_not_its_letters() -> None:
    assert iv.Options("layers").collect == ("layers",)
    groups = {
        type(group).__name__: group for group in iv.Options(("layers", "swaps"), shift="zero", swap_to="avg").groups
    }
    assert groups["ShiftOptions"].shift == ("zero",)
    assert groups["SwapsOptions"].swap_to == ("avg",)
    from invariscope.collectors.options import ShiftOptions

    with pytest.raises(InputError, match=r"'zero' stands where names of a shift kind are wanted: write \('zero',\)"):
        ShiftOptions(shift="zero")  # type: ignore[arg-type]


def test_train_runs_no_code_that_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ops.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()\nMine = None\n")
    for text in ("grid: {operator: [max, 'python:ops.py:Mine']}", "defaults: {data: 'python:ops.py:Mine'}\ngrid: {}"):
        (tmp_path / "recipe.yaml").write_text(text)
        assert run("train", tmp_path / "recipe.yaml", "--out", tmp_path / "zoo") == cli.BAD_INPUT
        error = capsys.readouterr().err
        assert "runs the code of ops.py: read it, then give --allow-code" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "ran").exists()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packages whose entry points cannot be imported, have names of ours, or are no such objects: one in each group."""
    real = registry._entry_points

    def points(group: str) -> dict[str, list[EntryPoint]]:
        found = {"broken": [EntryPoint("broken", "no_such_module_anywhere:x", group)]}
        found["nothing"] = [EntryPoint("nothing", "math:pi", group)]
        taken = {"invariscope.collectors": "layers", "invariscope.operators": "max", "invariscope.figures": "cost"}
        if group in taken:
            found[taken[group]] = [EntryPoint(taken[group], "math:pi", group)]
        return found | real(group)

    monkeypatch.setattr(registry, "_entry_points", points)
    registry.tell.cache_clear()
    yield
    registry.tell.cache_clear()


def test_broken_plug_ins_are_a_line_each_and_everything_else_works(
    broken: None, zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["collect", zoo, "--data", "digits", "--limit", 8, "--out", tmp_path / "t", "--msb-images", 4]
    assert run(*command) == cli.DONE
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if "collector 'broken' of the package" in line and "(left out)" in line]
    assert [line for line in told if "collector 'layers' is given by" in line and "uninstall one" in line]
    assert len(told) == len(set(told))
    assert run("status", tmp_path / "t", zoo) == cli.DONE
    assert run("compact", tmp_path / "t") == cli.DONE
    assert run("prune", tmp_path / "t") == cli.DONE
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    capsys.readouterr()
    assert run(*command, "--collect", "broken") == cli.BAD_INPUT
    assert "cannot be imported (ModuleNotFoundError" in capsys.readouterr().err
    assert iv.load(tmp_path / "t").layers["site_kind"].eq("max").all()


def test_status_tells_of_tables_whose_collector_is_not_installed(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t"
    assert run("collect", zoo, "--data", "digits", "--limit", 8, "--out", out, "--collect", "layers") == cli.DONE
    (out / "ink").mkdir()
    (out / "empty").mkdir()
    for name in "ab":
        (out / "ink" / f"{name}.parquet").write_bytes(next((out / "layers").glob("*.parquet")).read_bytes())
    capsys.readouterr()
    assert run("status", out) == cli.DONE
    printed = capsys.readouterr().out
    assert "ink: 2 parts of a collector that is not installed: install its package\n" in printed
    assert "empty" not in printed
    assert "logs:" not in printed


def test_without_torch_every_name_of_the_collectors_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules.update(torch=None)\n"
        "import importlib, invariscope.collectors as c\n"
        "for name in c.__all__:\n"
        "    try: getattr(c, name)\n"
        "    except ImportError as e: assert \"pip install 'invariscope[measure]'\" in str(e), (name, e)\n"
        "try:\n    from invariscope.collectors import measure_msb\n"
        "except ImportError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "invariscope.collectors.measure_msb needs torch, which is not installed: pip install" in done.stdout
