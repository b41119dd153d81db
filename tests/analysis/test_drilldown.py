"""Which images flip, at which shift: against loops over images and shifts."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from invariscope.analysis import TableError, class_stability, image_flips, shift_flips
from invariscope.collectors.schema import SCHEMA_VERSION, TABLES

N, K, CLASSES = 40, 6, 3


def predictions(name: str, seed: int, kind: str = "circular") -> pd.DataFrame:
    """Table ``predictions`` of one network, most of its images stable."""
    draw = np.random.default_rng(seed)
    label = np.random.default_rng(0).integers(CLASSES, size=N)
    clean = np.where(draw.random(N) < 0.8, label, draw.integers(CLASSES, size=N))
    moved = np.where(draw.random((N, K)) < 0.8, clean[:, None], draw.integers(CLASSES, size=(N, K)))
    plan = {"shift_kind": kind, "fill": "background" if kind == "zero" else None, "max_shift": 4, "n_shifts": K}
    about = {"checkpoint": name, "sha256": name, "model": "m", **plan, "plan": "sampled", "plan_hash": f"h-{kind}",
             "precision": "fp32", "data": "d/test", "data_fingerprint": "f"}  # fmt: skip
    return pd.DataFrame(
        {
            "image": range(N),
            "label": label,
            "clean_prediction": clean,
            "clean_probability": draw.random(N),
            "dy": list(draw.integers(-4, 5, size=(N, K))),
            "dx": list(draw.integers(-4, 5, size=(N, K))),
            "prediction": list(moved),
            "probability": list(draw.random((N, K))),
            "drift_probability": list(draw.random((N, K))),
        }
    ).assign(**about)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.concat([predictions("a", 1), predictions("b", 2), predictions("a", 3, "zero")], ignore_index=True)


def write(table: pd.DataFrame, folder: Path) -> Path:
    """The table as two parts of a folder."""
    schema = TABLES["predictions"]
    rest = {field.name: None if field.nullable else "x" for field in schema if field.name not in table}
    (folder / "predictions").mkdir(parents=True)
    for part in range(2):
        rows = pa.Table.from_pandas(table.assign(**rest).iloc[part::2], schema=schema, preserve_index=False)
        rows = rows.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})
        pq.write_table(rows, folder / "predictions" / f"part{part}.parquet")
    return folder


def test_images_are_those_of_a_loop_and_the_least_stable_come_first(table: pd.DataFrame) -> None:
    found = image_flips(table)
    assert len(found) == len(table)
    key = ["checkpoint", "plan_hash", "image"]
    by = found.set_index(key)
    for row in table.to_dict("records"):
        told = by.loc[tuple(row[name] for name in key)]
        flips = [k for k in range(K) if row["prediction"][k] != row["clean_prediction"]]
        assert told["n_shifts_flipped"] == len(flips)
        assert told["flip_rate"] == len(flips) / K
        pairs = list(combinations(row["prediction"], 2))
        assert told["consistency"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
        assert told["lowest_probability"] == min(row["drift_probability"])
        if not flips:
            assert told[["nearest_flip", "nearest_dy", "nearest_dx", "flips_to"]].isna().all()
            continue
        nearest = min(flips, key=lambda k: max(abs(row["dy"][k]), abs(row["dx"][k])))
        dy, dx = row["dy"][nearest], row["dx"][nearest]
        assert told[["nearest_flip", "nearest_dy", "nearest_dx"]].tolist() == [max(abs(dy), abs(dx)), dy, dx]
        goals = [row["prediction"][k] for k in flips]
        assert told["flips_to"] == min(set(goals), key=lambda goal: (-goals.count(goal), goal))
    for _, rows in found.groupby(["checkpoint", "plan_hash"]):
        order = list(zip(-rows["flip_rate"], rows["lowest_probability"], strict=True))
        assert order == sorted(order)


def test_shifts_are_the_lists_in_rows(table: pd.DataFrame) -> None:
    found = shift_flips(table, ["b"])
    assert set(found["checkpoint"]) == {"b"}
    assert len(found) == N * K
    rows = table[table["checkpoint"] == "b"]
    for name in ("dy", "dx", "prediction", "probability"):
        assert found[name].tolist() == [value for values in rows[name] for value in values]
    assert found["flipped"].tolist() == (found["prediction"] != found["clean_prediction"]).tolist()
    assert found.groupby("image")["flipped"].sum().tolist() == (
        image_flips(table, ["b"]).sort_values("image")["n_shifts_flipped"].tolist()
    )


def test_classes_have_the_means_and_intervals_of_their_images(table: pd.DataFrame) -> None:
    found = class_stability(table)
    assert len(found) == 3 * CLASSES
    images = image_flips(table)
    for row in found.to_dict("records"):
        same = (images["checkpoint"] == row["checkpoint"]) & (images["plan_hash"] == row["plan_hash"])
        mine = images[same & (images["label"] == row["label"])]
        values = mine["consistency"]
        low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        expected = [values.mean(), max(low, 0), min(high, 1), (mine["flip_rate"] == 0).mean()]
        assert [row[name] for name in ("consistency", "low", "high", "share_stable")] == pytest.approx(expected)
        assert row["accuracy"] == (mine["label"] == mine["clean_prediction"]).mean()
        goals = [
            goal
            for predicted, clean in table.loc[
                (table["checkpoint"] == row["checkpoint"])
                & (table["plan_hash"] == row["plan_hash"])
                & (table["label"] == row["label"]),
                ["prediction", "clean_prediction"],
            ].itertuples(index=False)
            for goal in predicted
            if goal != clean
        ]
        assert goals.count(row["flips_to"]) > 0


def test_classes_without_spread_and_of_one_image_say_so(table: pd.DataFrame) -> None:
    still = predictions("a", 1)
    still = still.assign(prediction=[np.full(K, c) for c in still["clean_prediction"]], label=[0] * (N - 1) + [1])
    many, one = class_stability(still).to_dict("records")
    assert (many["consistency"], many["low"], many["high"]) == (1, pytest.approx(1 - 3 / (N - 1)), 1)
    assert np.isnan(one["low"])
    assert one["reason"] == "one image has no interval"
    assert pd.isna(one["flips_to"])
    with pytest.raises(TableError, match="no image with a label"):
        class_stability(still.assign(label=-1))


def test_a_folder_gives_what_the_frame_gives(table: pd.DataFrame, tmp_path: Path) -> None:
    folder = write(table, tmp_path)
    pd.testing.assert_frame_equal(image_flips(folder), image_flips(table))
    pd.testing.assert_frame_equal(class_stability(folder, ["a"]), class_stability(table, ["a"]))
    with pytest.raises(TableError, match="unknown checkpoint of table predictions 'aa'"):
        image_flips(folder, ["a", "aa"])


def test_what_cannot_be_looked_into_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="holds a twice"):
        image_flips(pd.concat([table, table[table["checkpoint"] == "a"]]))
    with pytest.raises(TableError, match="holds b twice"):
        shift_flips(pd.concat([table, table[table["checkpoint"] == "b"]]))
    with pytest.raises(TableError, match="collect `predictions` first"):
        image_flips(table.iloc[:0])
    with pytest.raises(TableError, match="lacks the columns drift_probability"):
        image_flips(table.drop(columns="drift_probability"))
