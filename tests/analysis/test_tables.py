"""Loading and joining tables: values against loops, and one clear line for every folder that cannot be used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from invariscope.analysis import TableError, analyze, join, load
from invariscope.analysis.say.summary import _material
from invariscope.analysis.tables.frames import site_frame
from invariscope.analysis.tables.joined import with_sites
from invariscope.collectors.schema import MSB_READINGS, TABLES


@pytest.fixture(scope="module")
def tables(simulate):
    return simulate.simulate_tables(simulate.Zoo(seeds=1, surface_shift=1))


def test_load_reads_all_parts_of_every_table(simulate, tables, tmp_path):
    folder = simulate.write_tables(tables, tmp_path, parts=3)
    loaded = load(folder)
    for name in ("checkpoints", "layers", "invariance", "surface"):
        keys = [
            column for column in ("sha256", "shift_kind", "score", "depth", "dy", "dx") if column in TABLES[name].names
        ]
        expected = getattr(tables, name).sort_values(keys, ignore_index=True)
        pd.testing.assert_frame_equal(getattr(loaded, name).sort_values(keys, ignore_index=True), expected)


def test_load_gives_an_empty_frame_for_a_table_without_parts(simulate, tables, tmp_path):
    loaded = load(simulate.write_tables(replace(tables, surface=tables.surface.iloc[:0]), tmp_path))
    assert loaded.surface.empty
    assert list(loaded.surface.columns) == TABLES["surface"].names


def test_load_ignores_temporary_files_and_further_columns(simulate, tables, tmp_path):
    folder = simulate.write_tables(tables, tmp_path, parts=1)
    (folder / "layers" / ".part9.0.1.tmp").write_bytes(b"half a part")
    part = folder / "checkpoints" / "part0.parquet"
    data = pq.read_table(part)
    pq.write_table(data.append_column("note", pa.array(["x"] * len(data))), part)
    assert "note" not in load(folder).checkpoints


@pytest.mark.parametrize("make", [False, True])
def test_an_absent_or_empty_folder_is_refused(tmp_path, make):
    folder = tmp_path / "tables"
    if make:
        (folder / "layers").mkdir(parents=True)
    with pytest.raises(TableError, match="invariscope collect") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_a_part_without_a_column_is_refused(simulate, tables, tmp_path):
    folder = simulate.write_tables(tables, tmp_path, parts=1)
    part = folder / "invariance" / "part0.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["plan_hash", "value"]), part)
    with pytest.raises(TableError, match=r"part0.parquet: table invariance lacks the columns plan_hash, value"):
        load(folder)


def test_a_part_older_than_a_column_is_read_with_nulls(simulate, tables, tmp_path):
    folder = simulate.write_tables(tables, tmp_path, parts=2)
    part = folder / "invariance" / "part0.parquet"
    older = pq.read_table(part).drop_columns(["precision"])
    pq.write_table(older, part)
    rows = load(folder).invariance
    assert rows["precision"].isna().sum() == len(older)
    assert set(rows["precision"].dropna()) == {"fp32"}


def test_another_schema_version_is_refused(simulate, tables, tmp_path):
    with pytest.raises(TableError, match="schema version 99, this package reads version 1"):
        load(simulate.write_tables(tables, tmp_path, version=99))


def test_an_unreadable_part_is_refused(simulate, tables, tmp_path):
    folder = simulate.write_tables(tables, tmp_path)
    (folder / "layers" / "part0.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(TableError, match=r"part0.parquet: is cut off, or no parquet file: run collect again"):
        load(folder)


def test_a_column_of_another_type_is_refused(simulate, tables, tmp_path):
    folder = simulate.write_tables(tables, tmp_path, parts=1)
    part = folder / "layers" / "part0.parquet"
    data = pq.read_table(part)
    words = pa.array(["many"] * len(data))
    pq.write_table(data.set_column(data.schema.get_field_index("msb"), "msb", words), part)
    with pytest.raises(TableError, match="cannot be read as parts of this table"):
        load(folder)


def test_join_against_a_loop(tables):
    frame = join(tables)
    checkpoints = tables.checkpoints.set_index("checkpoint")
    shifted = tables.invariance[tables.invariance["shift_kind"] != "none"]
    assert len(frame) == len(shifted[["checkpoint", "shift_kind"]].drop_duplicates())
    for row in frame.iloc[::7].itertuples():
        layers = tables.layers[tables.layers["checkpoint"] == row.checkpoint]
        for name in (*MSB_READINGS, "flat_fraction"):
            assert getattr(row, name) == pytest.approx(sum(layers[name]) / 3, abs=1e-12)
            assert getattr(row, f"{name}_se") == pytest.approx(sum(layers[f"{name}_se"]) / 3, abs=1e-12)
        mine = tables.invariance[tables.invariance["checkpoint"] == row.checkpoint]
        for score in ("consistency", "fidelity", "kappa"):
            cell = mine[(mine["score"] == score) & (mine["shift_kind"] == row.shift_kind)].iloc[0]
            assert (getattr(row, score), getattr(row, f"{score}_se")) == (cell["value"], cell["se"])
        assert row.accuracy == mine[mine["score"] == "accuracy"]["value"].iloc[0]
        described = checkpoints.loc[row.checkpoint]
        assert (row.operator, row.operator_spec, row.seed) == tuple(described[["operator", "operator_spec", "seed"]])
        assert row.cluster == f"{described['operator']}|{described['run']}"
        assert row.final == (described["epoch"] == 24)
    assert (frame["factor_width"] == 8).all()
    assert (frame["n_sites"] == 3).all()
    assert (frame["n_sites_unmeasured"] == 0).all()
    assert set(frame.loc[frame["shift_kind"] == "zero", "fill"]) == {"background"}
    assert frame.loc[frame["shift_kind"] == "circular", "fill"].isna().all()


def test_a_site_without_a_number_is_counted_and_left_out_of_the_mean(tables):
    layers = tables.layers.copy()
    name = layers["checkpoint"].iloc[0]
    lost = (layers["checkpoint"] == name) & (layers["depth"] == 1)
    layers.loc[lost, [*MSB_READINGS]] = np.nan
    row = join(replace(tables, layers=layers)).query("checkpoint == @name").iloc[0]
    kept = layers[(layers["checkpoint"] == name) & ~lost]
    assert row["n_sites_unmeasured"] == 1
    assert row["msb_corrected"] == pytest.approx(kept["msb_corrected"].mean(), abs=1e-12)


def cropped(tables, *, own):
    """The tables with crop shifts, of larger images as older versions had them; with their own accuracy or without."""
    zero = tables.invariance[tables.invariance["shift_kind"] == "zero"]
    columns = {"shift_kind": "crop", "fill": None, "data_fingerprint": "larger", "plan_hash": "plan-crop"}
    parts = [tables.invariance, zero.assign(**columns)]
    if own:
        plain = tables.invariance[tables.invariance["score"] == "accuracy"]
        plan = {name: zero[name].iloc[0] for name in ("max_shift", "n_shifts", "plan")}
        parts.append(plain.assign(value=plain["value"] * 0.85, se=0.01, **plan, **columns))
    return replace(tables, invariance=pd.concat(parts, ignore_index=True))


def test_readings_of_the_same_data_set_serve_where_the_same_images_were_not_measured(tables):
    pairs = join(cropped(tables, own=False)).pivot(index="checkpoint", columns="shift_kind", values="msb_corrected")
    assert (pairs["crop"] == pairs["zero"]).all()


@pytest.mark.parametrize("own", [True, False])
def test_views_of_another_scale_never_have_the_accuracy_of_the_images(tables, own):
    frame = join(cropped(tables, own=own))
    accuracy = frame.pivot(index="checkpoint", columns="shift_kind", values="accuracy")
    assert (accuracy["circular"] == accuracy["zero"]).all()
    if own:
        assert accuracy["crop"].to_numpy() == pytest.approx(0.85 * accuracy["zero"].to_numpy(), abs=1e-12)
        assert frame.loc[frame["shift_kind"] == "crop", "accuracy_se"].eq(0.01).all()
    else:
        assert accuracy["crop"].isna().all()
        assert frame.loc[frame["shift_kind"] == "crop", "consistency"].notna().all()


def test_side_branches_are_no_sites_of_the_network(tables):
    name = tables.layers["checkpoint"].iloc[0]
    aside = tables.layers[tables.layers["checkpoint"] == name].iloc[:1]
    aside = aside.assign(depth=3, site="gate", reason="side branch: x")
    aside[[*MSB_READINGS]] = np.nan
    more = replace(tables, layers=pd.concat([tables.layers, aside], ignore_index=True))
    pd.testing.assert_frame_equal(join(more), join(tables))
    columns = [column for column in with_sites(join(more), more) if column.startswith("site_")]
    assert columns == ["site_0", "site_1", "site_2"]
    assert "gate" not in set(site_frame(more)["site"])


def test_a_network_with_a_shrink_that_is_not_explained_has_no_mean(tables):
    layers = tables.layers.copy()
    name, other = layers["checkpoint"].unique()[:2]
    lost = (layers["checkpoint"] == name) & (layers["depth"] == 1)
    layers.loc[lost, [*MSB_READINGS]] = np.nan
    layers.loc[lost, ["explained", "reason"]] = "no", "16×16 → 8×8, not explained"
    none = layers["checkpoint"] == other
    layers = layers[~none | (layers["depth"] == 0)]
    layers.loc[none, [*MSB_READINGS, "site"]] = np.nan
    layers.loc[none, "n_sites"] = 0
    found = join(replace(tables, layers=layers))
    before = join(tables)
    row = found.query("checkpoint == @name").iloc[0]
    assert (row["n_sites"], row["n_sites_unmeasured"], row["n_sites_unexplained"]) == (3, 1, 1)
    without = found["checkpoint"].isin([name, other])
    assert found.loc[without, "msb_corrected"].isna().all()
    pd.testing.assert_frame_equal(found[~without], before[~without])
    assert _material(found).endswith(
        "2 checkpoints have no MSB, for want of a measured downsampling site or because a shrink is not explained, and "
        f"take part in no mean of it: {', '.join(sorted([name, other]))}."
    )
    assert "MSB" not in _material(before)


def test_without_layers_the_readings_are_missing(tables):
    frame = join(replace(tables, layers=tables.layers.iloc[:0]))
    assert frame[[*MSB_READINGS]].isna().all(axis=None)
    assert frame["consistency"].notna().all()


def test_checkpoints_without_factors_have_clusters_of_their_own(tables):
    bare = tables.checkpoints.assign(operator=None, run=None, epoch=np.nan)
    frame = join(replace(tables, checkpoints=bare))
    assert (frame["cluster"] == "not given|" + frame["checkpoint"]).all()
    assert frame["final"].all()


def _twice(tables, name):
    rows = getattr(tables, name)
    return replace(tables, **{name: pd.concat([rows, rows.iloc[[0]]], ignore_index=True)})


def test_a_network_of_two_names_counts_once_and_is_told(tables):
    first = tables.checkpoints.sort_values("checkpoint").iloc[[0]]
    twin = first.assign(checkpoint="zz-copy")
    frame = join(replace(tables, checkpoints=pd.concat([twin, tables.checkpoints], ignore_index=True)))
    pd.testing.assert_frame_equal(frame, join(tables))
    assert frame.attrs["copies"] == ["zz-copy"]
    told = "1 further checkpoint is a copy of another (the same weights and function) and not counted: zz-copy."
    few = frame[frame["final"] & (frame["shift_kind"] == "zero") & (frame["operator"] != "subsample")]
    assert told in analyze(few, scores=["consistency"], resamples=50, permutations=0).summary


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: replace(t, checkpoints=t.checkpoints.iloc[:0]), "table checkpoints is empty"),
        (lambda t: replace(t, invariance=t.invariance[t.invariance["shift_kind"] == "none"]), "holds no shifts"),
        (
            lambda t: replace(t, checkpoints=t.checkpoints.iloc[1:]),
            "1 of the networks in table invariance is not in table",
        ),
        (lambda t: _twice(t, "checkpoints"), "describes 'smallcnn-.*' twice"),
        (lambda t: _twice(t, "layers"), "table layers holds two measurements of checkpoint 'smallcnn-max"),
        (lambda t: _twice(t, "invariance"), "table invariance holds two measurements"),
        (lambda t: replace(t, checkpoints=t.checkpoints.assign(factors="{")), "factors are not JSON"),
    ],
)
def test_contradictory_tables_are_refused_in_one_line(tables, change, message):
    with pytest.raises(TableError, match=message) as error:
        join(change(tables))
    assert "\n" not in str(error.value)
