"""``invariscope train``: its options, and an interrupted run that is noted and trained anew."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from invariscope import cli

RECIPE = "grid: {data: digits, epochs: 1, batch_size: 32, limit: 64, model: {width: 2}}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_a_state_of_no_use_is_one_line(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "zoo"
    out.mkdir()
    state = out / ".smallcnn-max-zeros-s0.training"
    state.write_bytes(b"half")
    assert cli.main(["train", str(recipe), "--out", str(out), "--threads", "2", "--save-every", "0"]) == 0
    output = capsys.readouterr()
    reason = "starts anew: it is no whole state of a training"
    assert output.err == f"{state} was not used, smallcnn-max-zeros-s0 {reason}\n"
    assert "1 runs trained, 0 were done, 0 failed" in output.out
    assert not state.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threads", "0"], "--threads is 0: give a whole number of at least 1"),
        (["--threads", "2", "--jobs", "2"], "--threads is for one job: leave out --jobs or --threads"),
        (["--device", "tpu"], "unknown device 'tpu'"),
        pytest.param(
            ["--device", "cuda"],
            "device cuda is not there for this build of torch",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_bad_options_are_one_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert cli.main(["train", str(recipe), "--out", str(tmp_path / "zoo"), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"invariscope: {message}")
    assert error.count("\n") == 1
    assert not (tmp_path / "zoo").exists()


def test_train_writes_a_zoo_that_can_be_collected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("defaults: {data: digits, epochs: 1, model: {width: 2}}\ngrid: {operator: [max, soft(4)]}\n")
    assert cli.main(["train", str(recipe), "--out", str(tmp_path / "zoo")]) == cli.DONE
    assert "2 runs trained, 0 were done, 0 failed" in capsys.readouterr().out
    command = ["collect", str(tmp_path / "zoo"), "--data", "digits", "--out", str(tmp_path / "t"), "--limit", "20"]
    assert cli.main([*command, "--collect", "checkpoints"]) == cli.DONE
    rows = pq.read_table(tmp_path / "t" / "checkpoints").to_pandas().set_index("operator")
    assert rows["strength"]["soft"] == 4
    assert rows["operator_spec"].to_dict() == {"max": "max", "soft": "soft(beta=4)"}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("defaults: {data: digits, epochs: 1, model: {width: 2}}\ngrid: {operator: max}\n")
    assert cli.main(["train", str(recipe), "--out", str(recipe / "zoo")]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{recipe} is a file: name a folder" in error
