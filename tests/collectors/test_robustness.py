"""The collector ``robustness``: its rows against plain computations, resume, independence, second data, bad input."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from invariscope import cli
from invariscope.base.errors import DataError, InputError
from invariscope.collectors.engine.run import collect
from invariscope.collectors.measure.attack import Attack
from invariscope.collectors.measure.attacks import PixelModel, attack_images
from invariscope.collectors.measure.corruptions import CORRUPTIONS, corrupt
from invariscope.collectors.options import Options
from invariscope.collectors.tables import robustness
from invariscope.collectors.tables.robustness import RobustnessOptions
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.loading import load_checkpoint

Read = Callable[[Path], dict[str, pd.DataFrame]]
FEW = RobustnessOptions(
    norms=("linf",),
    eps_linf=(0.0, 4 / 255),
    attack_steps=3,
    corruptions=("fog", "frost"),
    severities=(1, 5),
    robust_images=20,
)
CHOSEN = Options(("robustness",), [FEW])


def table(read_all: Read, out: Path) -> pd.DataFrame:
    keys = ["checkpoint", "condition_kind", "condition", "norm", "severity"]
    return read_all(out)["robustness"].sort_values(keys, ignore_index=True)


def test_rows_are_those_of_plain_computations(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, read_all: Read
) -> None:
    robustness._KEPT.clear()
    outcome = collect(zoo[:1], images, tmp_path / "out", CHOSEN, progress=False)
    kept = {made.tobytes() for made in robustness._KEPT.values()}
    wanted = [corrupt(images.images[:20].numpy(), name, severity) for name in ("fog", "frost") for severity in (1, 5)]
    assert kept == {made.tobytes() for made in wanted}
    assert (outcome.measured, outcome.failures) == (1 + 1 + 2 + 2, [])
    rows = table(read_all, tmp_path / "out").set_index(["condition_kind", "condition", "severity"])["accuracy"]
    model, labels = load_checkpoint(zoo[0]), images.labels[:20]
    pixels = images.images[:20].float() / 255

    def share(some: torch.Tensor) -> float:
        with torch.no_grad():
            return float((model((some - 0.5) / 0.25).argmax(1) == labels).double().mean())

    assert rows["clean", "clean"].item() == share(pixels)
    assert rows["adversarial", "pgd", 0.0] == share(pixels)
    attack = Attack("pgd", "linf", 4 / 255, steps=3)
    (made,) = attack_images(PixelModel(model, (0.5,), (0.25,)), pixels, labels, attack)
    assert rows["adversarial", "pgd", 4 / 255] == pytest.approx(share(made.images), abs=1e-12)
    for name in ("fog", "frost"):
        for severity in (1, 5):
            corrupted = torch.from_numpy(corrupt(images.images[:20].numpy(), name, severity))
            assert rows["corruption", name, severity] == pytest.approx(share(corrupted.float() / 255), abs=1e-12)
    found = table(read_all, tmp_path / "out")
    p, n = found["accuracy"], found["n_images"]
    np.testing.assert_allclose(found["se"], np.sqrt(p * (1 - p) / (n - 1)), atol=1e-9)
    frost = found.loc[found["condition"] == "frost", "note"]
    assert frost.str.contains("constants of cifar-10-c; procedural frost: not comparable").all()


def test_what_is_done_is_skipped_and_a_new_budget_is_one_task(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, read_all: Read
) -> None:
    out = tmp_path / "out"
    collect(zoo[:1], images, out, CHOSEN, progress=False)
    before = table(read_all, out)
    assert collect(zoo[:1], images, out, CHOSEN, progress=False).measured == 0
    more = dataclasses.replace(FEW, eps_linf=(0.0, 2 / 255, 4 / 255), corruptions=("fog", "frost", "contrast"))
    again = collect(zoo[:1], images, out, Options(("robustness",), [more]), progress=False)
    assert again.measured == 2
    after = table(read_all, out)
    assert len(after) == len(before) + 3
    kept = after[after["task"].isin(before["task"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)


def test_values_depend_on_no_batch_size_order_or_memory_of_images(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, read_all: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(zoo, images, tmp_path / "a", CHOSEN, progress=False)
    robustness._KEPT.clear()
    monkeypatch.setattr(robustness, "KEPT_BYTES", 0)
    collect(zoo[::-1], images, tmp_path / "b", dataclasses.replace(CHOSEN, batch_size=7), progress=False)
    assert not robustness._KEPT
    first, second = (table(read_all, tmp_path / name) for name in "ab")
    assert first["checkpoint"].nunique() == 3
    pd.testing.assert_frame_equal(first, second)
    notes = first[first["condition_kind"] == "adversarial"].groupby("checkpoint")["note"].first()
    assert notes["aps"].startswith("gradients see only the chosen phase")
    assert notes[["max", "avg"]].isna().all()


def write_parquet(path: Path, labels: list[int]) -> Path:
    records = []
    for label in labels:
        path.with_suffix(".png").unlink(missing_ok=True)
        Image.fromarray(np.full((32, 32), 20 * label, dtype=np.uint8)).save(path.with_suffix(".png"))
        records.append({"image": {"bytes": path.with_suffix(".png").read_bytes(), "path": None}, "label": label})
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def test_second_data_by_path(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, read_all: Read) -> None:
    file = write_parquet(tmp_path / "other.parquet", [0, 3, 9, 3, 1])
    none = dataclasses.replace(FEW, attacks=(), corruptions=())
    options = dataclasses.replace(none, second_data=(f"parquet:{file}",))
    collect(zoo[:1], images, tmp_path / "out", Options(("robustness",), [options]), progress=False)
    row = table(read_all, tmp_path / "out").query("condition_kind == 'data'").iloc[0]
    other = load_dataset(f"parquet:{file}")
    with torch.no_grad():
        logits = load_checkpoint(zoo[0])((other.images.float() / 255 - 0.5) / 0.25)
    assert row["accuracy"] == float((logits.argmax(1) == other.labels).double().mean())
    assert row["n_images"] == 5
    assert row["condition"] == other.name
    assert row["data"] == "digits/test"


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"robust_images": 0}, DataError, "robust_images is 0: take at least 1"),
        ({"norms": ("linf", "l7")}, InputError, "unknown norm 'l7'"),
        ({"attacks": ("pgd2",)}, InputError, "unknown attack 'pgd2'"),
        ({"eps_linf": (3.0,)}, InputError, "epsilon is 3 in linf"),
        ({"corruptions": ("snoww",)}, InputError, "unknown corruption 'snoww'"),
        ({"severities": (0,)}, InputError, "severity 0 of"),
        ({"severities": ()}, InputError, "corruptions without severities"),
        ({"second_data": ("parquet:nowhere.parquet",)}, DataError, "nowhere.parquet"),
        ({"second_data": ("nonsense",)}, DataError, "unknown data set 'nonsense'"),
        ({"second_data": ("python:mine.py:load",)}, InputError, r"runs the code of mine.py: .*allow_code=True"),
    ],
)
def test_bad_options(options: dict, error: type[Exception], line: str) -> None:
    with pytest.raises(error, match=line):
        Options(("robustness",), **options)


def test_the_bundled_zoo_from_the_command_line(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], read_all: Read
) -> None:
    """Accuracies fall with the budget and, over the corruptions, with the severity; figure and table are made."""
    out = tmp_path / "out"
    command = ["collect", str(repository / "data" / "zoo"), "--data", "digits", "--out", str(out)]
    command += [
        "--collect",
        "robustness",
        "--only",
        "smallcnn-[am][apv][xgs]-circular-s40000-e020",
        "--robust-images",
        "24",
    ]
    command += ["--eps-linf", "2/255,8/255", "--eps-l2", "0.5", "--attack-steps", "5", "--severities", "1,5"]
    assert cli.main([*command, "--corruptions", "fog,contrast,pixelate"]) == cli.DONE
    rows = table(read_all, out)
    n = rows["checkpoint"].nunique()
    assert n == 3
    assert len(rows) == n * (1 + 3 + 6)
    linf = rows[rows["norm"] == "linf"].pivot(index="checkpoint", columns="severity", values="accuracy")
    clean = rows[rows["condition_kind"] == "clean"].set_index("checkpoint")["accuracy"]
    assert (linf[2 / 255] <= clean).all()
    assert (linf[8 / 255] <= linf[2 / 255]).all()
    assert linf[8 / 255].mean() < 0.3
    severe = rows[rows["condition_kind"] == "corruption"].groupby("severity")["accuracy"].mean()
    assert severe[5] < severe[1] <= clean.mean() + 1e-9
    figures = ["figures", str(out), "--out", str(tmp_path / "figures"), "--only", "robustness,table_robustness"]
    assert cli.main(figures) == cli.DONE
    text = (tmp_path / "figures" / "table_robustness.md").read_text()
    assert "mCE: errors summed over severities as a share of those of smallcnn-max-circular-s40000-e020" in text
    assert "pgd: 5 steps, steps of 0.5 ε, random starts: 1; each ε attacked afresh." in text
    assert re.search(r"Gradients see only the chosen phase at \d sites: aps\.", text)
    capsys.readouterr()
    for option, line in (
        (["--eps-linf", "1/255,a/255"], "'a/255' is no number such as 8/255 or 0.5: correct it in '1/255,a/255'"),
        (["--severities", "x"], "'x' is no whole number: correct it in 'x'"),
        (["--attacks", "fgsm"], "unknown attack 'fgsm'"),
    ):
        assert cli.main([*command, *option]) == cli.BAD_INPUT
        assert line in capsys.readouterr().err


def test_all_corruptions_are_the_default() -> None:
    assert RobustnessOptions().corruptions == Options()[RobustnessOptions].corruptions == CORRUPTIONS
