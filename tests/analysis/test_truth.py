"""Every entry of the analysis sees each network once: measured again, listed twice, equal to another, or no function.

A folder with all of these gives what a folder without them gives: every frame, figure, table of the paper, statistic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from invariscope import cli
from invariscope.analysis import Frames, TableError, Tables, analyze, analyze_tables, correlate, draw, load, report_page
from invariscope.analysis.designs.assigned import Settings, admitted
from invariscope.analysis.drawing import Drawn, draw_figures
from invariscope.analysis.figures import FIGURES, FigureEntry, render
from invariscope.analysis.publication import PAPER_TABLES
from invariscope.analysis.publication.writers import files
from invariscope.analysis.results import Results
from invariscope.analysis.tables.frames import FRAMES
from invariscope.collectors.schema import TABLES

FEW = {"resamples": 20, "permutations": 20}
BRIEF = {**FEW, "scores": ["consistency"], "settings": Settings(draws=19, resamples=19)}
ADDED = ("zz-copy", "zz-dropout", "zz-same")


def write(tables: dict[str, pd.DataFrame], folder: Path) -> Path:
    for name, rows in tables.items():
        if len(rows):
            (folder / name).mkdir(parents=True, exist_ok=True)
            data = pa.Table.from_pandas(rows[TABLES[name].names], schema=TABLES[name], preserve_index=False)
            pq.write_table(data, folder / name / "part.parquet")
    return folder


def timings(times: dict[str, int]) -> pd.DataFrame:
    rows = [
        {
            "task": task,
            "checkpoint": "any",
            "collector": "any",
            "started": datetime(2026, 1, day, tzinfo=UTC),
            "seconds": 1,
            "runtime": None,
        }
        for task, day in times.items()
    ]
    return pd.DataFrame(rows).astype({"seconds": float})


def known(tables: Tables) -> dict[str, pd.DataFrame]:
    """The tables by name, with what tells equal networks."""
    found = {field.name: getattr(tables, field.name) for field in dataclasses.fields(Tables)}
    rows = found["checkpoints"]
    probes = [[float(place), 1.0, -2.0] for place in range(len(rows))]
    return found | {"checkpoints": rows.assign(tensors_sha256=rows["sha256"], probe=probes)}


def polluted(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    names = sorted(tables["checkpoints"]["checkpoint"])
    measured = [name for name in tables if "task" in tables[name] and name not in ("checkpoints", "failures")]
    made = dict(tables)
    times = {}

    def add(name: str, rows: pd.DataFrame) -> None:
        made[name] = pd.concat([rows, made[name]], ignore_index=True)  # in front, where `first` would take them

    def under(name: str, source: str, **columns: Any) -> pd.DataFrame:
        rows = tables[name][tables[name]["checkpoint"] == source]
        return rows.assign(**{key: value for key, value in columns.items() if key in rows.columns})

    for name in measured:
        times |= {name: 2, f"{name}-old": 1}
        numbers = [
            one for one in ("value", "accuracy", "agreement", "msb_corrected", "msb", "after") if one in tables[name]
        ]
        if "data_fingerprint" in tables[name]:
            old = tables[name][tables[name]["checkpoint"].isin(names[::3])]
            old = old.assign(**{one: 1 - old[one] for one in numbers})
            add(name, old.assign(data_fingerprint="old", task=f"{name}-old"))
        add(name, under(name, names[1], checkpoint="zz-same", sha256="5" * 64, model="zoo:other"))
        if name != "cost":  # which does not depend on what a network says
            no_function = {"sha256": "d" * 64, "model": "zoo:dropout", "deterministic": False}
            add(
                name,
                under(name, names[2], checkpoint="zz-dropout", **no_function).assign(**dict.fromkeys(numbers, 0.5)),
            )
    add("checkpoints", under("checkpoints", names[0], checkpoint="zz-copy"))
    same = under("checkpoints", names[1], checkpoint="zz-same", sha256="5" * 64, model="zoo:other", operator="lp")
    close = [[number * (1 + 1e-6) for number in probe] for probe in same["probe"]]
    add("checkpoints", same.assign(probe=close, run="another"))
    lost = under("checkpoints", names[2], checkpoint="zz-dropout", sha256="d" * 64, model="zoo:dropout")
    add("checkpoints", lost.assign(tensors_sha256="d" * 64))
    return {**made, "timings": timings(times)}


@pytest.fixture(scope="module")
def clean_tables(simulate: ModuleType, conditions: ModuleType) -> Tables:
    zoo = simulate.Zoo(seeds=1, epochs=(8.0,), padding_modes=("zeros",), surface_shift=1, swap_slope=-0.2)
    return conditions.with_conditions(simulate.simulate_tables(zoo))


@pytest.fixture(scope="module")
def folders(clean_tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    tables = known(clean_tables)
    folder = tmp_path_factory.mktemp("truth")
    return write(tables, folder / "clean"), write(polluted(tables), folder / "polluted")


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path]) -> tuple[Frames, Frames]:
    clean, dirty = map(load, folders)
    return Frames(clean), Frames(dirty)


@pytest.fixture(scope="module")
def found(pair: tuple[Frames, Frames]) -> tuple[Results, Results]:
    """The whole analysis of both."""
    clean, dirty = (analyze_tables(frames, **BRIEF) for frames in pair)
    return clean, dirty


def sorted_rows(frame: pd.DataFrame) -> pd.DataFrame:
    keys = [name for name in frame.columns if frame[name].map(lambda value: isinstance(value, str | int)).any()]
    texts = frame[keys].astype(str)
    return frame.loc[texts.sort_values(keys).index].reset_index(drop=True)


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_is_that_of_a_clean_folder(pair: tuple[Frames, Frames], name: str) -> None:
    clean, dirty = pair
    assert len(clean[name])
    pd.testing.assert_frame_equal(sorted_rows(dirty[name]), sorted_rows(clean[name]), check_like=True)


def test_what_was_left_out_is_named(pair: tuple[Frames, Frames]) -> None:
    clean, dirty = pair
    assert clean.tables.notes == ()
    for field in dataclasses.fields(Tables):
        assert list(getattr(dirty.tables, field.name).columns) == TABLES[field.name].names
    again, no_functions = dirty.tables.notes
    assert again.startswith(f"{len(sorted(set(clean['joined']['checkpoint']))[::3])} checkpoints (")
    assert no_functions.startswith("1 checkpoint (zz-dropout) gives other logits on a second pass")
    assert dirty["joined"].attrs["copies"] == ["zz-copy", "zz-same"]


@pytest.mark.parametrize("registry", [FIGURES, PAPER_TABLES])
def test_every_figure_and_table_of_the_paper_is_made_of_frames_alone(registry: Mapping[str, Any]) -> None:
    for name in registry:
        entry = FigureEntry.of(registry[name])
        assert entry.frames, name
        assert set(entry.frames) <= set(FRAMES), name


@pytest.mark.parametrize(
    "name", [name if name == "confounding" else pytest.param(name, marks=pytest.mark.full) for name in FIGURES]
)
def test_every_figure_is_that_of_a_clean_folder(pair: tuple[Frames, Frames], name: str) -> None:
    pictures = [render(draw(name, frames), "svg") for frames in pair]
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("name", PAPER_TABLES)
def test_every_table_of_the_paper_is_that_of_a_clean_folder(pair: tuple[Frames, Frames], name: str) -> None:
    made = [draw_figures(frames, [name]) for frames in pair]
    assert made[0].reasons == made[1].reasons
    if made[0].tables:
        assert files(made[0].tables[name])["csv"] == files(made[1].tables[name])["csv"]


def test_every_statistic_is_that_of_a_clean_folder(pair: tuple[Frames, Frames], found: tuple[Results, Results]) -> None:
    clean, dirty = found
    for field in dataclasses.fields(clean):
        table = getattr(clean, field.name)
        if isinstance(table, pd.DataFrame):
            pd.testing.assert_frame_equal(table, getattr(dirty, field.name), obj=field.name)
    assert clean.headline == dirty.headline
    assert "## Left out" not in clean.summary
    for note in pair[1].tables.notes:
        assert dirty.summary.count(note) == 1
    assert "zz-same" in dirty.summary
    chosen = (["msb_corrected"], ["consistency"])
    counts = [correlate(frames["joined"], *chosen, clusters={"all": None}, **FEW)["n"].tolist() for frames in pair]
    assert counts[0] == counts[1]


def test_the_report_knows_the_added_names_from_sentences_alone(
    pair: tuple[Frames, Frames], found: tuple[Results, Results], pages: ModuleType
) -> None:
    page = report_page(pair[1], results=found[1], drawn=Drawn({}, {}, {}))
    packed = pages.payloads(pages.read(page))
    assert not [name for name in ADDED if name in packed]
    for name in ADDED:
        assert name in page
        for line in page.splitlines():
            if name in line:
                assert any(words in line for words in ("not counted", "gives other logits")), line[:300]


def test_networks_of_equal_weights_that_say_different_things_are_two(clean_tables: Tables, tmp_path: Path) -> None:
    tables = polluted(known(clean_tables))
    rows = tables["checkpoints"]
    other = [
        [*probe[:-1], 5.0] if name == "zz-same" else probe
        for name, probe in zip(rows["checkpoint"], rows["probe"], strict=True)
    ]
    found = Frames(load(write({**tables, "checkpoints": rows.assign(probe=other)}, tmp_path)))["joined"]
    assert "zz-same" in set(found["checkpoint"])
    assert found.attrs["copies"] == ["zz-copy"]


def test_what_is_no_function_is_taken_in_where_that_is_asked(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Frames(load(folders[1], keep_nondeterministic=True))
    for name in ("joined", "pixels", "sites", "surface"):
        frame = kept[name]
        marks = frame["deterministic"].where(frame["checkpoint"] == "zz-dropout")
        assert frame.loc[marks.notna(), "checkpoint"].unique().tolist() == ["zz-dropout"]
        assert not marks.dropna().any()
    told = "1 checkpoint gives other logits on a second pass or in other batches, and was taken in as asked: zz-dropout"
    undrawn = kept["joined"].drop(columns="factor_population")
    undrawn = undrawn[(undrawn["shift_kind"] == "zero") & (undrawn["operator"] != "subsample")]
    assert analyze(undrawn, **BRIEF).summary.count(told) == 1
    assert "no function of the image" in set(admitted(kept["joined"], Settings())[1]["reason"])
    note = "Taken in as asked, though other logits on a second pass or in other batches: zz-dropout."
    assert note in draw("confounding", kept).caption.splitlines()
    for more, expected in (([], 2), (["--keep-nondeterministic"], 1)):
        command = ["figures", str(folders[1]), "--out", str(tmp_path), "--only", "confounding", *more]
        assert cli.main(command) == cli.DONE
        assert capsys.readouterr().err.count("note: ") == expected


def test_what_any_table_says_of_a_function_holds_for_the_network(clean_tables: Tables) -> None:
    """True and nothing make true, anything and false make false, and what none was asked of is not known."""
    first, second, third = sorted(clean_tables.checkpoints["checkpoint"])[:3]

    def marked(rows: pd.DataFrame, marks: dict[str, bool]) -> pd.DataFrame:
        return rows.assign(deterministic=rows["checkpoint"].map(marks).astype(object))

    tables = dataclasses.replace(
        clean_tables,
        layers=marked(clean_tables.layers, {first: True, second: False}),
        invariance=marked(clean_tables.invariance, {second: True}),
        surface=marked(clean_tables.surface, {}),
    )
    for name in ("joined", "surface", "cost"):
        found = Frames(tables)[name].groupby("checkpoint")["deterministic"].agg(lambda values: values.tolist()[0])
        assert (found[first], found[second], found[third]) == (True, False, None), name


def test_a_folder_of_nothing_else_is_refused_in_one_line(clean_tables: Tables, tmp_path: Path) -> None:
    tables = known(clean_tables)
    for name in ("invariance", "layers", "surface", "swaps", "robustness", "segmentation"):
        tables[name] = tables[name].assign(deterministic=np.zeros(len(tables[name]), dtype=bool))
    with pytest.raises(TableError, match=r"every network that was measured .* give --keep-nondeterministic"):
        load(write(tables, tmp_path))
