"""One truth per checkpoint: a second measurement with other images, preprocessing or code replaces the first."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pytest
import torch
from safetensors.torch import save_file

import invariscope as iv
from invariscope import cli
from invariscope.base.errors import TableError
from invariscope.collectors.engine.run import CollectOutcome, collect
from invariscope.collectors.options import Options
from invariscope.collectors.store.compaction import compact
from invariscope.collectors.store.newest import Variant, stale_variants
from invariscope.collectors.store.pruning import find_stale, prune
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.loading import build_model

OPTIONS = Options(("checkpoints", "layers", "invariance"), shift=("circular", "crop"), msb_images=8, n_shifts=2)


def run(zoo: list[Checkpoint], images: ImageSet, out: Path) -> CollectOutcome:
    outcome = collect(zoo, images, out, OPTIONS, progress=False)
    assert outcome.failures == []
    return outcome


def frame(out: Path) -> pd.DataFrame:
    return iv.join(iv.load(out)).drop(columns="plan_hash")


def stored(out: Path, table: str) -> set[str]:
    return set(ds.dataset(out / table, format="parquet").to_table(["task"])["task"].to_pylist())


@pytest.mark.parametrize("compacted", [pytest.param(False, marks=pytest.mark.full), True])
def test_more_images_replace_fewer(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, compacted: bool) -> None:
    out = tmp_path / "t"
    run(zoo, images.head(20), out)
    run(zoo, images.head(30), out)
    run(zoo, images.head(30), tmp_path / "fresh")
    pd.testing.assert_frame_equal(frame(out), frame(tmp_path / "fresh"))
    tables = iv.load(out)
    assert len(tables.notes) == 1
    for words in ("3 checkpoints (aps, avg, max) measured again", "layers 9", "invariance", "invariscope prune"):
        assert words in tables.notes[0]
    assert iv.load(tmp_path / "fresh").notes == ()
    assert len(iv.analysis.load(out, keep_older=True).layers) == 18

    if compacted:
        compact(out)
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.parquet")}
    found = find_stale(out)
    assert {item.table: len(item.tasks) for item in found} == {"layers": 3, "invariance": 9}
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.parquet")} == before
    assert prune(out) == found
    assert find_stale(out) == prune(out) == []
    for table in ("layers", "invariance", "timings", "checkpoints"):
        assert stored(out, table) == stored(tmp_path / "fresh", table)
    assert iv.load(out).notes == ()
    pd.testing.assert_frame_equal(frame(out), frame(tmp_path / "fresh"))
    assert run(zoo, images.head(30), out).measured == 0


def test_the_last_measurement_counts_and_not_the_largest(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path
) -> None:
    run(zoo, images.head(30), tmp_path / "t")
    run(zoo[:1], images.head(20), tmp_path / "t")
    counted = frame(tmp_path / "t").groupby("checkpoint")["n_images"].unique().map(list).to_dict()
    assert counted == {zoo[0].name: [20], zoo[1].name: [30], zoo[2].name: [30]}


def test_a_corrected_mean_replaces_the_wrong_one(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    run(zoo, images, tmp_path / "t")
    right = [dataclasses.replace(checkpoint, input=InputSpec(32, (0.25,), (0.25,))) for checkpoint in zoo]
    run(right, images, tmp_path / "t")
    run(right, images, tmp_path / "fresh")
    pd.testing.assert_frame_equal(frame(tmp_path / "t"), frame(tmp_path / "fresh"))


def test_changed_code_replaces_the_old(
    faulty: Callable[..., list[Checkpoint]], images: ImageSet, tmp_path: Path
) -> None:
    checkpoints = faulty("none")
    run(checkpoints, images, tmp_path / "t")
    net = tmp_path / "net.py"
    net.write_text(net.read_text().replace("x.flatten(1)", "x.flip(-1).flatten(1)"))
    assert run(checkpoints, images, tmp_path / "t").measured == 5
    run(checkpoints, images, tmp_path / "fresh")
    pd.testing.assert_frame_equal(frame(tmp_path / "t"), frame(tmp_path / "fresh"))
    assert {item.reason for item in prune(tmp_path / "t")} == {
        "measured again since, with other images, preprocessing or code"
    }


def test_two_folders_with_models_of_one_name_each_have_their_own(images: ImageSet, tmp_path: Path) -> None:
    text = "from torch import nn\ndef build():\n    return nn.Sequential(nn.{pool}, nn.Flatten(), nn.Linear(256, 10))\n"
    checkpoints = []
    spec, model = InputSpec(32, (0.5,), (0.25,)), "python:nets.py:build"
    for name, pool in (("a", "MaxPool2d(2)"), ("b", "AvgPool2d(2)")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "nets.py").write_text("from models import build\n")
        (folder / "models.py").write_text(text.format(pool=pool))
        torch.manual_seed(0)
        layer = torch.nn.Linear(256, 10)
        save_file({"2.weight": layer.weight, "2.bias": layer.bias}, folder / "w.safetensors")
        checkpoints.append(Checkpoint(name, model, folder / "w.safetensors", spec, folder=folder))
    for checkpoint in checkpoints:
        collect([checkpoint], images, tmp_path / "t" / checkpoint.name, Options(("layers",)), progress=False)
    readings = [iv.load(tmp_path / "t" / name).layers["msb_weight"].iloc[0] for name in "ab"]
    assert readings[0] == 1.0
    assert readings[1] < 0.9


def test_a_corrected_model_string_leaves_nothing_of_the_wrong_one(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path
) -> None:
    run(zoo, images, tmp_path / "t")
    other = dataclasses.replace(zoo[0], model=zoo[0].model + "&padding_mode=circular")
    outcome = run([other, *zoo[1:]], images, tmp_path / "t")
    assert outcome.replaced == [zoo[0].name]
    assert set(frame(tmp_path / "t")["model"]) == {other.model, zoo[1].model, zoo[2].model}


def test_rows_of_networks_that_nothing_describes_are_pruned(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path
) -> None:
    out = tmp_path / "t"
    run(zoo, images, out)
    for file in (out / "checkpoints").glob("*.parquet"):
        if ds.dataset(file).to_table()["checkpoint"][0].as_py() == zoo[0].name:
            file.unlink()
    with pytest.raises(TableError, match="invariscope prune"):
        frame(out)
    assert {item.table for item in prune(out)} == {"layers", "invariance"}
    assert set(frame(out)["checkpoint"]) == {zoo[1].name, zoo[2].name}


def test_without_timings_it_is_refused(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    run(zoo, images.head(20), tmp_path / "t")
    run(zoo, images.head(30), tmp_path / "t")
    shutil.rmtree(tmp_path / "t" / "timings")
    with pytest.raises(TableError, match="no timings say when: load one with where="):
        iv.load(tmp_path / "t")
    fingerprint = sorted(ds.dataset(tmp_path / "t" / "layers").to_table()["data_fingerprint"].unique().to_pylist())[0]
    assert len(iv.load(tmp_path / "t", where={"data_fingerprint": fingerprint}).layers) == 9


def test_what_competes_and_what_does_not() -> None:
    one = Variant("w", "m", "d", True, "f1", "c1")
    times = {"t1": 1, "t2": 2, "t3": 3, "t4": 4}

    def stale(**found: Variant) -> set[Variant]:
        return set(stale_variants({variant: [task] for task, variant in found.items()}, lambda: times))  # type: ignore

    assert stale(t1=one, t2=one._replace(fingerprint="f2")) == {one}
    assert stale(t2=one, t1=one._replace(fingerprint="f2")) == {one._replace(fingerprint="f2")}
    assert stale(t1=one, t2=one._replace(code="c2")) == {one}
    assert stale(t1=one._replace(code=""), t2=one) == set()
    assert stale(t1=one, t2=one._replace(code="c2"), t3=one._replace(fingerprint="f2")) == {
        one,
        one._replace(code="c2"),
    }
    for other in ({"sha256": "v"}, {"model": "n"}, {"data": "e"}, {"keeps_size": False}):
        assert stale(t1=one, t2=one._replace(fingerprint="f2", **other)) == set()
    assert stale(t9=one, t1=one._replace(fingerprint="f2")) == {one}


def test_the_command_lists_and_removes_on_demand(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t"
    run(zoo, images.head(20), out)
    run(zoo, images.head(30), out)
    files = set(out.rglob("*.parquet"))
    assert cli.main(["prune", str(out)]) == cli.DONE
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "stale: layers: 3 tasks on digits/test (aps, avg, max): measured again since, with other images, preprocessing "
        "or code"
    )
    assert printed[-1] == f"tables: {out} (nothing was removed: give --yes to remove what is listed)"
    assert set(out.rglob("*.parquet")) == files
    assert cli.main(["prune", str(out), "--yes"]) == cli.DONE
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed] == ["removed", "removed", "tables"]
    assert len(files) - len(set(out.rglob("*.parquet"))) == 2 * (3 + 9)  # with their timings
    assert cli.main(["prune", str(out)]) == cli.DONE
    assert capsys.readouterr().out == f"tables: {out} (nothing is stale)\n"
    assert cli.main(["prune", str(tmp_path / "nothing")]) == cli.BAD_INPUT
    assert "holds no tables" in capsys.readouterr().err


def test_networks_of_equal_weights_and_function_count_once(images: ImageSet, tmp_path: Path) -> None:
    zoo = []
    for number, operator in enumerate(("soft(beta=0)", "avg", "lp(p=1)", "soft(beta=2)", "max")):
        model = f"zoo:smallcnn?operator={operator}&width=4&in_channels=1"
        torch.manual_seed(0)
        weights = tmp_path / f"{number}.safetensors"
        save_file(build_model(model).state_dict(), weights, metadata={"operator": operator})
        name, spec = operator.partition("(")[0] + str(number), InputSpec(32, (0.5,), (0.25,))
        zoo.append(Checkpoint(name, model, weights, spec, factors={"operator": operator}, folder=tmp_path))
    assert len({checkpoint.weights.read_bytes() for checkpoint in zoo}) == len(zoo)  # the files differ
    run(zoo, images, tmp_path / "t")
    found = frame(tmp_path / "t")
    assert set(found["checkpoint"]) == {"avg1", "soft3", "max4"}
    assert iv.join(iv.load(tmp_path / "t")).attrs["copies"] == ["lp2", "soft0"]
    assert iv.load(tmp_path / "t").layers["checkpoint"].nunique() == len(zoo)  # measured and kept all the same
