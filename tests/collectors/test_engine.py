"""The engine: what is done is skipped, a failure is a row, values do not depend on how the work is cut up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from invariscope.base.errors import DataError, InputError
from invariscope.collectors.engine.run import CollectOutcome, collect
from invariscope.collectors.measure.invariance import Predictions, measure_accuracy, predict, score
from invariscope.collectors.measure.msb import measure_msb
from invariscope.collectors.measure.shifts import ShiftPlan, apply_shift
from invariscope.collectors.measure.swap import measure_swaps
from invariscope.collectors.options import Options
from invariscope.collectors.schema import COLLECTORS
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.loading import build_model, load_checkpoint

TASKS = {"checkpoints": 1, "layers": 1, "invariance": 4, "surface": 3, "predictions": 3, "swaps": 4, "robustness": 3}
"""The collectors that are counted, and the tasks of a checkpoint that each has with the options below."""

REPEATABLE = tuple(
    name for name in COLLECTORS.own if COLLECTORS[name].scores != "pixels" and not COLLECTORS[name].alone
)
"""Every collector that measures digits, which have no masks, and gives the same twice, which timings do not."""

EVERYTHING = Options(
    collect=REPEATABLE,
    shift=("circular", "zero", "crop"),
    msb_images=24,
    surface_images=16,
    surface_step=2,
    swap_to=("soft",),
    swap_images=8,
    norms=("linf",),
    eps_linf=(0.02,),
    attack_steps=2,
    corruptions=("fog",),
    severities=(1, 5),
    robust_images=8,
)
WITHOUT_SWAPS = replace(EVERYTHING, collect=tuple(name for name in TASKS if name != "swaps"))
OPERATORS = ("max", "avg", "aps")


def read(out: Path, table: str) -> pd.DataFrame:
    frame = ds.dataset(out / table, format="parquet").to_table().to_pandas()
    return frame.sort_values(["checkpoint", "task"], kind="stable").reset_index(drop=True)


def parts(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.parquet")}


class Measured(NamedTuple):
    """A zoo with everything measured, in one process; to be read only."""

    zoo: list[Checkpoint]
    out: Path
    outcome: CollectOutcome


@pytest.fixture(scope="module")
def measured(
    make_zoo: Callable[[Path], list[Checkpoint]], images: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> Measured:
    folder = tmp_path_factory.mktemp("measured")
    checkpoints = make_zoo(folder)
    return Measured(
        checkpoints, folder / "out", collect(checkpoints, images, folder / "out", EVERYTHING, progress=False)
    )


def test_every_task_is_a_part(measured: Measured) -> None:
    assert {table: len(list((measured.out / table).glob("*.parquet"))) for table in TASKS} == {
        table: 3 * count for table, count in TASKS.items()
    }
    assert (measured.outcome.found, measured.outcome.failures) == (0, [])
    assert measured.outcome.measured == sum(len(list((measured.out / table).glob("*.parquet"))) for table in REPEATABLE)


def test_rows_are_what_the_measuring_functions_give(measured: Measured, images: ImageSet) -> None:
    checkpoint, out = measured.zoo[0], measured.out
    model = load_checkpoint(checkpoint)
    prepared = PreparedImages(images, checkpoint.input)
    rows = read(out, "invariance").query("checkpoint == 'max'")
    plan = ShiftPlan.sampled(40, 4, n_shifts=9, kind="zero", seed=0)
    expected = score(predict(model, prepared, images.labels, plan), plan).set_index("score")["value"]
    stored = rows[rows["shift_kind"] == "zero"].set_index("score")["value"]
    pd.testing.assert_series_equal(stored.sort_index(), expected.sort_index())
    accuracy = measure_accuracy(model, prepared, images.labels)["value"][0]
    assert rows.loc[rows["shift_kind"] == "none", "value"].tolist() == [accuracy]
    whole = PreparedImages(images, checkpoint.input, 40)
    views = apply_shift(whole[:], np.zeros((len(images), 2), dtype=int), "crop", size=32)
    of_views = measure_accuracy(model, views, images.labels)["value"][0]
    found = rows[(rows["shift_kind"] == "crop") & (rows["score"] == "accuracy")]
    assert found["value"].tolist() == pytest.approx([of_views], abs=1e-12)
    assert not ((rows["shift_kind"] == "circular") & (rows["score"] == "accuracy")).any()

    layers = read(out, "layers").query("checkpoint == 'max'")
    assert layers["msb_corrected"].tolist() == [1.0, 1.0, 1.0]
    assert layers["flat_fraction"].tolist() == pytest.approx(
        measure_msb(model, PreparedImages(images.head(24), checkpoint.input))["flat_fraction"].tolist(), abs=1e-12
    )
    surface = read(out, "surface").query("checkpoint == 'max' and shift_kind == 'circular'")
    assert len(surface) == 25
    assert surface.query("dy == 0 and dx == 0")["agreement"].tolist() == [1.0]
    swaps = read(out, "swaps").query("checkpoint == 'max' and shift_kind in ('none', 'zero')")
    first = PreparedImages(images.head(8), checkpoint.input)
    plan = ShiftPlan.sampled(8, 4, n_shifts=9, kind="zero", seed=0)
    expected = measure_swaps(model, first, images.labels[:8], [plan], ["soft(beta=1)"])
    order = ["depth", "shift_kind", "measure", "scope"]
    stored_swaps, expected = (rows.sort_values(order)["change"].tolist() for rows in (swaps, expected))
    assert stored_swaps == pytest.approx(expected, abs=1e-12, nan_ok=True)
    predictions = read(out, "predictions").query("checkpoint == 'max' and shift_kind == 'zero'")
    agree = sum(a == b for row in predictions["prediction"] for i, a in enumerate(row) for b in row[i + 1 :])
    assert stored["consistency"] == pytest.approx(agree / (40 * 36), abs=1e-12)


def test_rows_carry_their_provenance(measured: Measured, images: ImageSet) -> None:
    zoo, out, _ = measured
    checkpoints = read(out, "checkpoints").set_index("checkpoint")
    assert checkpoints["n_params"]["max"] == sum(p.numel() for p in load_checkpoint(zoo[0]).parameters())
    assert checkpoints["factors"]["max"] == '{"note": "one", "operator": "max", "run": "r0", "seed": 0}'
    for table in ("layers", "invariance", "surface", "predictions", "swaps"):
        rows = read(out, table)
        assert set(rows["checkpoint"]) == set(OPERATORS)
        assert set(rows["data_fingerprint"]) == {PreparedImages(images, zoo[0].input).fingerprint}
        assert set(rows["torch_version"]) == {torch.__version__}
        names = {path.stem for path in (out / table).glob("*.parquet")}
        assert set(rows["task"]) == names


def test_a_second_run_does_nothing(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    collect(zoo, images, tmp_path / "out", WITHOUT_SWAPS, progress=False)
    before = parts(tmp_path / "out")
    outcome = collect(zoo, images, tmp_path / "out", WITHOUT_SWAPS, progress=False)
    assert (outcome.measured, outcome.found) == (0, 3 * (sum(TASKS.values()) - TASKS["swaps"]))
    assert parts(tmp_path / "out") == before


def test_values_depend_on_neither_jobs_nor_batch_size_nor_order(
    measured: Measured, images: ImageSet, tmp_path: Path
) -> None:
    zoo, out, _ = measured
    collect(zoo[::-1], images, tmp_path / "two", replace(EVERYTHING, batch_size=7), jobs=2, progress=False)
    for table in REPEATABLE:
        pd.testing.assert_frame_equal(read(out, table), read(tmp_path / "two", table), rtol=0, atol=1e-6)


def test_a_failure_is_a_row_and_the_others_go_on(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    options = Options(msb_images=8)
    good = zoo[1].weights.read_bytes()
    zoo[1].weights.write_bytes(good[:100])
    outcome = collect(zoo, images, tmp_path / "out", options, progress=False)
    assert {failure.checkpoint for failure in outcome.failures} == {"avg"}
    assert outcome.measured == 2 * 5
    failures = read(tmp_path / "out", "failures")
    assert set(failures["stage"]) == {"load"}
    assert set(failures["error"]) == {"WeightsError"}
    assert not failures["message"].str.contains("\n").any()
    assert "avg" not in set(read(tmp_path / "out", "invariance")["checkpoint"])

    wide = build_model("zoo:smallcnn?operator=avg&width=8&in_channels=1")
    save_file(wide.state_dict(), zoo[1].weights)
    assert "conv" in str(collect(zoo, images, tmp_path / "out", options, progress=False).failures[0])

    zoo[1].weights.write_bytes(good)
    outcome = collect(zoo, images, tmp_path / "out", options, progress=False)
    assert (outcome.measured, outcome.failures) == (5, [])
    assert not list((tmp_path / "out" / "failures").glob("*.parquet"))


def test_a_success_removes_the_failure_of_the_same_task(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(collect=("layers",), msb_images=8)

    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("broken\nin two lines")

    with monkeypatch.context() as patch:
        patch.setattr("invariscope.collectors.measure.msb.measure_msb", broken)
        outcome = collect(zoo[:1], images, tmp_path / "out", options, progress=False)
    assert [str(failure) for failure in outcome.failures] == ["max: layers: RuntimeError: broken in two lines"]
    assert len(read(tmp_path / "out", "failures")) == 1
    assert collect(zoo[:1], images, tmp_path / "out", options, progress=False).measured == 1
    assert not list((tmp_path / "out" / "failures").glob("*.parquet"))


def test_new_factors_replace_the_description_and_measure_nothing_again(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path
) -> None:
    options = Options(msb_images=8)
    collect(zoo, images, tmp_path / "out", options, progress=False)
    changed = [replace(zoo[0], factors={**zoo[0].factors, "note": "two"}), *zoo[1:]]
    outcome = collect(changed, images, tmp_path / "out", options, progress=False)
    assert (outcome.measured, outcome.found) == (1, 14)
    checkpoints = read(tmp_path / "out", "checkpoints")
    assert len(checkpoints) == 3
    assert '"note": "two"' in checkpoints.set_index("checkpoint")["factors"]["max"]


def test_what_changes_the_numbers_changes_the_task(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    options = Options(collect=("invariance",), shift=("circular",))
    out = tmp_path / "out"
    collect(zoo[:1], images, out, options, progress=False)

    def measured(checkpoint: Checkpoint = zoo[0], data: ImageSet = images, **changes: object) -> int:
        return collect([checkpoint], data, out, replace(options, **changes), progress=False).measured

    assert measured() == 0
    assert measured(batch_size=3) == 0
    assert measured(max_shift=2) == 1
    assert measured(n_shifts=3) == 1
    assert measured(seed=1) == 1
    assert measured(shift=("circular", "zero")) == 1
    assert measured(shift=("zero",), fill="black") == 1
    assert measured(data=images.head(39)) == 2
    assert measured(replace(zoo[0], input=InputSpec(32, (0.4,), (0.25,)))) >= 2


def test_two_names_of_one_network_are_both_described(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    twin = replace(zoo[0], name="twin")
    outcome = collect([zoo[0], twin], images, tmp_path / "out", Options(collect=("layers",), msb_images=8))
    assert outcome.measured == 3  # two descriptions, one measurement
    assert set(read(tmp_path / "out", "checkpoints")["checkpoint"]) == {"max", "twin"}


def test_replaced_weights_leave_only_their_own_rows(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    options = Options(msb_images=8)
    collect(zoo, images, tmp_path / "out", options, progress=False)
    torch.manual_seed(99)
    save_file(build_model(zoo[0].model).state_dict(), zoo[0].weights)
    outcome = collect(zoo, images, tmp_path / "out", options, progress=False)
    assert (outcome.measured, outcome.found, outcome.replaced) == (5, 10, ["max"])
    collect(zoo, images, tmp_path / "fresh", options, progress=False)
    for table in ("checkpoints", "layers", "invariance"):
        pd.testing.assert_frame_equal(read(tmp_path / "out", table), read(tmp_path / "fresh", table))


def test_a_name_that_stands_for_another_network_is_refused(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path
) -> None:
    options = Options(collect=("checkpoints",))
    collect(zoo[:1], images, tmp_path / "out", options, progress=False)
    before = parts(tmp_path / "out")
    with pytest.raises(DataError, match=r"max: .* holds another network of this name .*rename"):
        collect([replace(zoo[1], name="max")], images, tmp_path / "out", options, progress=False)
    assert parts(tmp_path / "out") == before


def test_one_image_has_values_and_no_errors(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    outcome = collect(zoo[:1], images.head(1), tmp_path / "out", EVERYTHING, progress=False)
    assert not outcome.failures
    surface = read(tmp_path / "out", "surface")
    assert surface["agreement_se"].isna().all()
    assert surface["agreement"].isin([0.0, 1.0]).all()


def test_no_jobs_are_refused(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="jobs is 0: give a whole number"):
        collect(zoo, images, tmp_path / "out", jobs=0, progress=False)
    assert not (tmp_path / "out").exists()


def test_parts_are_readable_with_their_schema(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    collect(zoo[:1], images, tmp_path / "out", EVERYTHING, progress=False)
    for path in (tmp_path / "out").rglob("*.parquet"):
        assert pq.read_schema(path).metadata[b"table"] == path.parent.name.encode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"collect": ("layer",)}, "unknown collector 'layer': did you mean 'layers'"),
        ({"shift": ("circle",)}, "unknown shift kind 'circle': did you mean 'circular'"),
    ],
)
def test_unknown_names_are_refused(options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Options(**options)


@pytest.mark.parametrize("name", ["msb_images", "surface_images"])
@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_images_below_one_is_refused(name: str, count: int) -> None:
    with pytest.raises(DataError, match=f"{name} is {count}: take at least 1"):
        Options(**{name: count})


def test_predictions_are_made_once_for_all_tables(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[str] = []

    def counted(*args: Any, **options: Any) -> Predictions:
        kinds.append(args[3].kind)
        return predict(*args, **options)

    monkeypatch.setattr("invariscope.collectors.measure.invariance.predict", counted)
    options = Options(collect=("invariance", "predictions"), shift=("circular", "zero"))
    outcome = collect(zoo[:1], images, tmp_path / "out", options, progress=False)
    assert outcome.measured == 1 + 3 + 2
    assert kinds == ["circular", "zero"]
