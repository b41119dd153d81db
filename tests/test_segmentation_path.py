"""Segmentation from a recipe to figures: train, collect, analyse, draw, report; one line where it cannot be done."""

from __future__ import annotations

import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from invariscope import cli
from invariscope.collectors.measure.segmentation import measure_segmentation
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.collectors.schema import PIXEL_SCORES
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.datasets.inputs import PreparedImages
from invariscope.zoo.loading import load_checkpoint
from invariscope.zoo.manifest import read_manifest

RECIPE = """
defaults: {data: "DATA", architecture: unet, model: {width: 2, depth: 2}, epochs: 1, batch_size: 8, limit: 16}
grid:
  operator: [max, aps, subsample]
  padding_mode: [circular, zeros]
"""


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmenters")
    (folder / "recipe.yaml").write_text(RECIPE.replace("DATA", "shapes:16"))
    assert run("train", folder / "recipe.yaml", "--out", folder / "zoo") == cli.DONE
    return folder / "zoo"


@pytest.fixture(scope="module")
def tables(zoo: Path) -> Path:
    out = zoo.parent / "tables"
    command = ("collect", zoo, "--data", "shapes:16", "--out", out, "--limit", 12, "--msb-images", 4)
    assert run(*command, "--shift", "circular,zero,crop") == cli.DONE
    return out


def test_a_zoo_of_segmenters_is_measured_as_such_by_default(zoo: Path, tables: Path) -> None:
    rows = pq.read_table(tables / "segmentation").to_pandas()
    assert set(rows["shift_kind"]) == {"none", "circular", "zero", "crop"}
    assert list((tables / "invariance").glob("*.parquet")) == []
    layers = pq.read_table(tables / "layers").to_pandas()
    assert layers.groupby("checkpoint")["n_sites"].first().eq(2).all()
    checkpoint = next(entry for entry in read_manifest(zoo, allow_code=True) if entry.name == "unet-max-zeros-s0-e001")
    images = PreparedImages(load_dataset("shapes:16", limit=12), checkpoint.input)
    plan = ShiftPlan.sampled(12, 2, kind="zero")
    expected = measure_segmentation(load_checkpoint(checkpoint), images, plans=[plan]).set_index("score")["value"]
    mine = rows[(rows["checkpoint"] == checkpoint.name) & rows["shift_kind"].isin(["none", "zero"])]
    stored = mine.set_index("score")["value"]
    # Chance is 0.97 here, so that the corrected score moves thirty times as far as the plain one.
    corrected = ["consistency_pixel_corrected"]
    for names, within in (([*expected.index.drop(corrected)], 2e-3), (corrected, 0.06)):
        pd.testing.assert_series_equal(stored[names], expected[names], check_names=False, rtol=0, atol=within)
    aps = rows[rows["checkpoint"].str.startswith("unet-aps-circular") & (rows["score"] == "consistency_pixel")]
    assert aps.set_index("shift_kind")["value"]["circular"] > 0.9999


def without(tables: Path, *kinds: str) -> Path:
    """A copy of the tables that lacks these kinds of shifts."""
    folder = tables.parent / f"without_{'_'.join(kinds)}"
    shutil.copytree(tables, folder)
    for part in (folder / "segmentation").glob("*.parquet"):
        if set(pq.read_table(part)["shift_kind"].to_pylist()) & set(kinds):
            part.unlink()
    return folder


@pytest.fixture(scope="module")
def analysed(tables: Path) -> tuple[Path, str]:
    """The folder of the results, and what was printed."""
    with redirect_stdout(io.StringIO()) as printed:
        folder = without(tables, "crop")
        assert run("analyze", folder, "--out", tables.parent / "results", "--power") == cli.DONE
    return tables.parent / "results", printed.getvalue()


def test_tables_without_invariance_are_analysed(analysed: tuple[Path, str]) -> None:
    results, printed = analysed
    for shifts, score in (
        ("circular shifts (up to 2 px", "mASCC"),
        ("zero shifts (up to 2 px, fill background", "mASSC"),
    ):
        said = f"{shifts}, 9 shifts per image): msb_corrected against per-pixel consistency ({score})"
        assert said in printed
    correlations = pd.read_csv(results / "correlations.csv")
    assert set(correlations["y"]) == {"consistency_pixel", "consistency_pixel_corrected", "fidelity_pixel"}
    assert "miou" in set(correlations["x"])
    summary = (results / "summary.md").read_text()
    assert summary.startswith("# Does maximum-sampling bias go with shift invariance of segmentation?\n")
    assert "per-pixel consistency" in summary
    assert "`consistency_pixel`" in summary
    assert "accuracy" not in summary.lower()


def test_tables_without_invariance_are_drawn_and_reported(tables: Path, tmp_path: Path) -> None:
    few = without(tables, "crop", "circular")
    assert run("figures", few, "--out", tmp_path / "figures") == cli.DONE
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"segmentation.png", "msb_by_depth.png", "table_segmentation.md"} <= drawn
    assert run("report", few, "--out", tmp_path / "report.html") == cli.DONE
    assert "per-pixel consistency" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_correlation_is_that_of_the_tables(tables: Path, analysed: tuple[Path, str]) -> None:
    """Pearson over checkpoints, from the parquet files with numpy alone."""
    scores = pq.read_table(tables / "segmentation").to_pandas()
    scores = scores[(scores["score"] == "consistency_pixel") & (scores["shift_kind"] == "zero")]
    msb = pq.read_table(tables / "layers").to_pandas().groupby("checkpoint")["msb_corrected"].mean()
    x, y = msb.loc[scores["checkpoint"]].to_numpy(), scores["value"].to_numpy()
    found = pd.read_csv(analysed[0] / "correlations.csv").query(
        "x == 'msb_corrected' and y == 'consistency_pixel' and method == 'pearson' and level == 'checkpoints' "
        "and shift_kind == 'zero' and subset == 'all operators'"
    )
    assert found["r"].tolist() == pytest.approx([np.corrcoef(x, y)[0, 1]] * len(found), abs=1e-9)


def test_collectors_that_do_not_suit(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], repository: Path
) -> None:
    capsys.readouterr()
    command = ("--out", tmp_path / "t", "--limit", 4, "--collect")
    assert run("collect", zoo, "--data", "shapes:16", *command, "layers,invariance") == cli.BAD_INPUT
    error = one_line(capsys)
    assert "unet-max-circular-s0-e001 (zoo:unet) segments images, which `invariance` does not measure" in error
    assert "collect `segmentation` instead" in error
    assert run("collect", zoo, "--data", "digits", *command, "segmentation") == cli.BAD_INPUT
    assert "digits/test has no masks, which `segmentation` needs" in one_line(capsys)
    classifiers = repository / "data" / "zoo"
    only = ("--only", "smallcnn-max-*")
    assert run("collect", classifiers, "--data", "shapes:16", *command, "segmentation", *only) == cli.BAD_INPUT
    assert "(zoo:smallcnn) classifies images, which `segmentation` does not measure" in one_line(capsys)


def test_a_foreign_segmenter_fails_alone_where_images_are_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Conv2d(3, 5, 1))\n"
    )
    save_file({"2.weight": torch.randn(5, 3, 1, 1), "2.bias": torch.zeros(5)}, tmp_path / "w.safetensors")
    (tmp_path / "zoo.yaml").write_text(
        "checkpoints:\n  - {name: foreign, model: 'python:net.py:build', weights: w.safetensors, "
        "input: {size: 16, mean: 0.5, std: 0.25}}\n"
    )
    command = ("collect", tmp_path, "--data", "shapes:16", "--out", tmp_path / "t", "--limit", 4, "--shift", "zero")
    command = (*command, "--allow-code")
    assert run(*command, "--collect", "layers,invariance,segmentation") == cli.WITH_FAILURES
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1  # of two tasks, for the same reason
    assert "it segments; collect `segmentation`" in lines[0]
    assert pq.read_table(tmp_path / "t" / "failures").num_rows == 2
    rows = pq.read_table(tmp_path / "t" / "segmentation").to_pandas()
    assert set(rows["score"]) == set(PIXEL_SCORES)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.full)])
def test_values_depend_on_neither_jobs_nor_batch_size(zoo: Path, tables: Path, tmp_path: Path, jobs: int) -> None:
    command = ("collect", zoo, "--data", "shapes:16", "--out", tmp_path, "--limit", 12, "--collect", "segmentation")
    assert run(*command, "--shift", "circular,zero,crop", "--jobs", jobs, "--batch-size", 5) == cli.DONE
    keys = ["checkpoint", "shift_kind", "score"]
    one, two = (
        pq.read_table(folder / "segmentation").to_pandas().sort_values(keys, ignore_index=True)
        for folder in (tables, tmp_path)
    )
    assert one["task"].tolist() == two["task"].tolist()
    # A pixel in a thousand may lie on a tie that rounding decides; there are 12 x 256 x 9 of them.
    np.testing.assert_allclose(one["value"], two["value"], rtol=0, atol=1e-3)


def test_camvid(shared_data: Path, tmp_path: Path) -> None:
    """A part of a real data set that is not square, with a void class in its names."""
    place = shared_data / "camvid"
    if not place.is_dir():
        pytest.skip(f"no CamVid at {place}")
    recipe = RECIPE.replace("DATA", f"parquet:{place}/train.parquet").replace("limit: 16", "limit: 8")
    (tmp_path / "recipe.yaml").write_text(recipe.replace("[max, aps, subsample]", "aps"))
    assert run("train", tmp_path / "recipe.yaml", "--out", tmp_path / "zoo") == cli.DONE
    assert read_manifest(tmp_path / "zoo", allow_code=True)[0].input.size == (180, 240)
    command = ("collect", tmp_path / "zoo", "--data", f"parquet:{place}/test.parquet", "--out", tmp_path / "tables")
    assert run(*command, "--limit", 3, "--msb-images", 2, "--shift", "circular,crop") == cli.DONE
    rows = pq.read_table(tmp_path / "tables" / "segmentation").to_pandas()
    assert rows["max_shift"].max() == 22
    masks = load_dataset(f"parquet:{place}/test.parquet", limit=3).masks.numpy()
    unshifted = rows[rows["shift_kind"] == "none"]
    assert unshifted["void_share"].tolist() == pytest.approx([(masks == 255).mean()] * len(unshifted), abs=1e-12)
    circular = rows.query("checkpoint == 'unet-aps-circular-s0-e001' and score == 'consistency_pixel'")
    assert circular.set_index("shift_kind")["value"]["circular"] > 0.9999


def test_a_void_class_is_void_in_training_and_measuring(tmp_path: Path) -> None:
    """Class names in the file's metadata say which value is void."""
    import json

    from PIL import Image

    def encoded(array: np.ndarray) -> dict[str, bytes]:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        return {"bytes": buffer.getvalue()}

    generator = np.random.default_rng(0)
    images = [encoded(generator.integers(0, 255, (12, 16, 3), dtype=np.uint8)) for _ in range(8)]
    masks = [encoded(generator.integers(0, 3, (12, 16), dtype=np.uint8)) for _ in range(8)]
    features = {"info": {"features": {"classes": ["sky", "road", "void"]}}}
    table = pa.table({"image": images, "mask": masks}).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "part.parquet")
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("DATA", f"parquet:{tmp_path}/part.parquet"))
    assert run("train", tmp_path / "recipe.yaml", "--out", tmp_path / "zoo") == cli.DONE
    data = f"parquet:{tmp_path}/part.parquet"
    assert run("collect", tmp_path / "zoo", "--data", data, "--out", tmp_path / "t", "--only", "*max*") == cli.DONE
    rows = pq.read_table(tmp_path / "t" / "segmentation").to_pandas()
    assert (rows["void_share"].between(0.3, 0.37)).all()
    assert rows.loc[rows["score"] == "miou", "n_classes"].le(2).all()
