"""Doors: collectors, shift kinds and operators of others are measured, resumed, compacted and read like ours."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from invariscope import cli
from invariscope.analysis import load, load_table, scan
from invariscope.base import registry
from invariscope.base.errors import InputError, ShiftError
from invariscope.collectors import Collector, Options, ShiftKind, register_collector, register_shift_kind
from invariscope.collectors.engine.run import collect
from invariscope.collectors.engine.status import status
from invariscope.collectors.options import option_groups
from invariscope.collectors.schema import COLLECTORS, SHIFT_KINDS, TABLES
from invariscope.collectors.store.compaction import compact
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.loading import build_model
from invariscope.zoo.manifest import write_manifest
from invariscope.zoo.operators import OPERATORS


def make_collector(**changes: Any) -> Collector:
    """How much of the images is bright. Made in a function, so that it reaches workers by its value."""

    @dataclass(frozen=True)
    class InkOptions:
        """Ink: how much of the images is bright."""

        ink_level: float = 0.5
        """Level from which a pixel is ink."""
        ink_rows: tuple[int, ...] = (0, 1)
        """Rows looked at."""

        def __post_init__(self) -> None:
            if self.ink_level < 0:
                raise InputError(f"ink_level is {self.ink_level}: take at least 0")

    def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
        chosen = options[InkOptions]
        return [{"row": row, "level": chosen.ink_level} for row in chosen.ink_rows]

    def rows(subject: Any, settings: dict[str, Any]) -> pd.DataFrame:
        pixels = subject.images.images[:, :, settings["row"]].double() / 255
        return pd.DataFrame([{"row": settings["row"], "ink": float((pixels >= settings["level"]).double().mean())}])

    columns = (pa.field("row", pa.int64(), nullable=False), pa.field("ink", pa.float64()))
    return dataclasses.replace(Collector("ink", columns, settings, rows, InkOptions, conditions=("row",)), **changes)


@pytest.fixture
def ink() -> Iterator[Collector]:
    collector = make_collector()
    register_collector("ink", collector)
    yield collector
    COLLECTORS.remove("ink")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_collector_is_measured_resumed_compacted_and_read(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, ink: Collector, jobs: int
) -> None:
    options = Options(("ink",), ink_level=0.25, ink_rows=(3, 16))
    outcome = collect(zoo, images, tmp_path / "t", options, jobs=jobs, progress=False)
    assert (outcome.measured, outcome.failures) == (3 + 3 * 2, [])
    assert collect(zoo, images, tmp_path / "t", options, jobs=jobs, progress=False).measured == 0
    assert collect(zoo, images, tmp_path / "t", Options(("ink",), ink_rows=(3,)), progress=False).measured == 3
    pixels = images.images.numpy() / 255
    for compacted in (False, True):
        rows = load_table(tmp_path / "t", "ink")
        assert list(rows.columns) == TABLES["ink"].names
        assert len(rows) == 9
        found = rows.groupby(["checkpoint", "row"])["ink"].max()
        assert found["aps", 16] == pytest.approx((pixels[:, :, 16] >= 0.25).mean(), abs=1e-12)
        assert set(rows["data"]) == {"digits/test"}
        some = pd.concat(scan(tmp_path / "t", "ink", columns=["row"], where={"row": 16}))
        assert some["row"].tolist() == [16] * 3
        assert len(load(tmp_path / "t").checkpoints) == 3
        lines = [str(line) for line in status(tmp_path / "t", zoo).conditions]
        assert lines == ["checkpoints: 3 done", "ink: digits/test, row 16: 3 done", "ink: digits/test, row 3: 3 done"]
        if not compacted:
            assert {done.table: done.after for done in compact(tmp_path / "t")}["ink"] == 1
    torch.manual_seed(7)
    save_file(build_model(zoo[0].model).state_dict(), zoo[0].weights)
    outcome = collect(zoo, images, tmp_path / "t", options, progress=False)
    assert (outcome.measured, outcome.replaced) == (3, ["max"])
    assert len(load_table(tmp_path / "t", "ink")) == 8  # the rows of the old weights are gone


def test_a_collectors_options_are_flags(
    zoo: list[Checkpoint], tmp_path: Path, ink: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    write_manifest(tmp_path / "zoo.yaml", zoo)
    command = ["collect", str(tmp_path), "--data", "digits", "--limit", "9", "--out", str(tmp_path / "t")]
    command += ["--collect", "ink", "--ink-rows", "5,6,7"]
    assert cli.main([*command, "--ink-level", "0.75"]) == cli.DONE
    assert set(load_table(tmp_path / "t", "ink")["row"]) == {5, 6, 7}
    capsys.readouterr()
    assert cli.main([*command, "--ink-level", "-1"]) == cli.BAD_INPUT
    assert capsys.readouterr().err == "invariscope: --ink-level is -1.0: take at least 0\n"
    assert cli.main([*command, "--ink-rows", "5,x"]) == cli.BAD_INPUT
    assert capsys.readouterr().err == "invariscope: 'x' is no whole number: correct it in '5,x'\n"
    with pytest.raises(SystemExit):
        cli.main(["collect", "--help"])
    printed = capsys.readouterr().out
    assert "- ink: ink" in printed
    assert "ink options" in printed
    assert "Level from which a pixel is ink. (default: 0.5)" in printed


def test_a_collector_whose_new_rows_replace_the_old_ones(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path
) -> None:
    register_collector("ink", make_collector(replaces=True, of_data=False))
    try:
        for level, measured in ((0.25, 6), (0.5, 3), (0.5, 0)):
            options = Options(("ink",), ink_level=level, ink_rows=(16,))
            assert collect(zoo, images, tmp_path / "t", options, progress=False).measured == measured
            compact(tmp_path / "t")
        rows = load_table(tmp_path / "t", "ink")
        assert list(rows.columns) == [name for name in TABLES["ink"].names if not name.startswith("data")]
        assert rows["ink"].tolist() == [pytest.approx((images.images.numpy()[:, :, 16] / 255 >= 0.5).mean())] * 3
        zoo[0].weights.write_bytes(zoo[1].weights.read_bytes())
        collect(zoo[:1], images, tmp_path / "t", Options(("checkpoints",)), progress=False)
        assert set(load_table(tmp_path / "t", "ink")["checkpoint"]) == {"avg", "aps"}
    finally:
        COLLECTORS.remove("ink")


def test_options_made_before_a_collector_do_not_hold_its_own() -> None:
    before, group = Options(), make_collector().options
    with pytest.raises(InputError, match="unknown group of options 'InkOptions'"):
        before[group]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": (pa.field("task", pa.string()),)}, "the column 'task' is there already"),
        ({"columns": (pa.field("a", pa.string()), pa.field("a", pa.string()))}, "the column 'a' is there already"),
        ({"conditions": ("nothing",)}, "its condition 'nothing' is none of its columns"),
        ({"options": int}, "its options are no frozen dataclass"),
        ({"options": dataclasses.make_dataclass("O", ["x"], frozen=True)}, "its option 'x' has no default"),
        (
            {"options": dataclasses.make_dataclass("O", [("seed", int, 0)], frozen=True)},
            "ink and passes both have an option 'seed'",
        ),
    ],
)
def test_a_collector_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        register_collector("ink", make_collector(**changes))
    assert "ink" not in COLLECTORS
    assert "ink" not in TABLES


@pytest.mark.parametrize(
    ("name", "what", "message"),
    [
        ("layers", None, "collector 'layers' is there already"),
        ("failures", None, "'failures' cannot name a collector"),
        ("../x", None, "cannot name a collector"),
        ("ink", 3, "collector 'ink' is a int: give a Collector"),
    ],
)
def test_names_and_objects_that_are_none_are_refused(name: str, what: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        register_collector(name, what or make_collector())


def test_an_option_of_the_command_is_not_a_collectors(capsys: pytest.CaptureFixture[str]) -> None:
    options = dataclasses.make_dataclass("O", [("jobs", int, 0)], frozen=True)
    register_collector("ink", make_collector(options=options))
    try:
        assert cli.main(["collect", "zoo", "--data", "digits", "--out", "t"]) == cli.BAD_INPUT
        assert "ink: --jobs is an option of the command" in capsys.readouterr().err
    finally:
        COLLECTORS.remove("ink")


PLUGIN = """
import pyarrow as pa
from invariscope.collectors import Collector, ShiftKind

def settings(checkpoint, options):
    return [{}]

def rows(subject, settings):
    import pandas as pd
    return pd.DataFrame([{"answer": 42}])

ANSWER = Collector("the answer", (pa.field("answer", pa.int64()),), settings, rows)
DARK = ShiftKind(lambda position, size: position * ((position >= 0) & (position < size)), "dark shift", "#123456")
"""


def test_entry_points_are_collectors_and_shift_kinds(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "answering.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    points = {"invariscope.collectors": ("answer", "ANSWER"), "invariscope.shift_kinds": ("dark", "DARK")}

    def found(group: str) -> dict[str, list[EntryPoint]]:
        name, attribute = points.get(group, ("", ""))
        return {name: [EntryPoint(name, f"answering:{attribute}", group)]} if name else {}

    monkeypatch.setattr(registry, "_entry_points", found)
    options = Options(("answer", "invariance"), shift=("dark",))
    outcome = collect(zoo[:1], images.head(5), tmp_path / "t", options, progress=False)
    assert (outcome.measured, outcome.failures) == (1 + 1 + 2, [])
    assert load_table(tmp_path / "t", "answer")["answer"].tolist() == [42]
    assert set(load(tmp_path / "t").invariance["shift_kind"]) == {"none", "dark"}


def test_a_shift_kind_and_an_operator_reach_the_workers(
    images: ImageSet, tmp_path: Path, zoo: list[Checkpoint]
) -> None:
    class Mine(OPERATORS["avg"]):
        name = "mine"

    def border(position: Any, size: int) -> Any:
        return position.clip(0, size - 1)

    OPERATORS.add("mine", Mine)
    register_shift_kind("border", ShiftKind(border, "border shift", "#123456"))
    try:
        avg = zoo[1]
        mine = dataclasses.replace(avg, name="mine", model=avg.model.replace("operator=avg", "operator=mine"))
        options = Options(("invariance",), shift=("border", "replicate"))
        outcome = collect([mine, avg], images, tmp_path / "t", options, jobs=2, progress=False)
        assert (outcome.measured, outcome.failures) == (2 * 4, [])
    finally:
        OPERATORS.remove("mine")
        SHIFT_KINDS.remove("border")
    rows = load(tmp_path / "t").invariance
    wide = rows[rows["shift_kind"] != "none"].pivot(index="score", columns=["checkpoint", "shift_kind"], values="value")
    expected = wide["avg", "replicate"]
    for column in wide:
        pd.testing.assert_series_equal(wide[column], expected, check_names=False)


def test_options_take_groups_and_single_knobs() -> None:
    groups = option_groups()
    layers, shifts = groups["layers"], groups["shifts"]
    options = Options(("layers",), [layers(msb_images=7, windows_per_image=3)], msb_images=8, shift=("zero",))
    assert options[layers] == layers(msb_images=8, windows_per_image=3)
    assert options[shifts].shift == ("zero",)
    again = dataclasses.replace(options, collect=("surface",), msb_images=9)
    assert again.collect == ("surface",)
    assert again[layers] == layers(msb_images=9, windows_per_image=3)
    with pytest.raises(InputError, match="unknown option 'msb_image': did you mean 'msb_images'"):
        Options(msb_image=3)
    with pytest.raises(InputError, match="unknown group of options 'str'"):
        Options(("layers",), ["zero"])


def test_no_code_runs_unasked_whatever_holds_its_name(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "e.py").write_text(f"open({str(ran)!r}, 'w')\n")
    name, swaps = f"python:{tmp_path / 'e.py'}:X", option_groups()["swaps"]
    held: list[Any] = [{name}, {name: 1}, {1: name}, (one for one in [name]), iter([name]), [["max"], ({name},)]]
    held += [Path(name), np.array([name]), np.array(name, dtype=object)[None], pd.Series([name]), map(str, [name])]
    for value in held:
        with pytest.raises(InputError, match=r"runs the code of .*e\.py"):
            Options(("swaps",), swap_to=value)
    with pytest.raises(InputError, match="runs the code of"):
        Options(("swaps",), [swaps(swap_to=iter([name]))])
    assert not ran.exists()


def test_an_iterator_of_names_is_read_once() -> None:
    swaps = option_groups()["swaps"]
    assert Options(("swaps",), swap_to=(one for one in ["max", "avg"]))[swaps].swap_to == ("max", "avg")
    assert Options(("swaps",), [swaps(swap_to=iter(["avg"]))], allow_code=True)[swaps].swap_to == ("avg",)
    assert Options(("invariance",), shift=iter(["zero"]))[option_groups()["shifts"]].shift == ("zero",)


def test_every_knob_is_a_flag_with_a_meaning_and_is_there_once() -> None:
    code = "import sys; from invariscope import cli; cli.main(['collect', '--help'])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    lines = [line.strip("│ ").rstrip() for line in printed.splitlines()]
    for name, group in option_groups().items():
        assert f"{name.replace('_', '-')} options" in printed
        for knob in dataclasses.fields(group):
            flag = f"--{knob.name.replace('_', '-')}"
            (line,) = [number for number, text in enumerate(lines) if text.split(" ")[0].rstrip(",") == flag]
            assert any("(default" in text for text in lines[line : line + 6]), flag


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (3, "is a int: give a ShiftKind"),
        (ShiftKind(lambda position, size: position, "x", "k"), "is no pixel of 0 to 1"),
        (ShiftKind(lambda position, size: 0 * position, "x", "k"), "moves pixels that lie inside"),
        (dataclasses.replace(SHIFT_KINDS["zero"], reversible=True), "does not undo"),
    ],
)
def test_a_shift_kind_that_is_none_is_refused(kind: Any, message: str) -> None:
    with pytest.raises(ShiftError, match=message):
        register_shift_kind("rotate", kind)
    assert "rotate" not in SHIFT_KINDS


@pytest.mark.parametrize("name", ["none", "two words", "zero"])
def test_a_shift_kind_needs_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ShiftError):
        register_shift_kind(name, SHIFT_KINDS["reflect"])
