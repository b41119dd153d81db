"""What is told while something runs: bars of what takes long, notes, the log; and how to hear less or more."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import invariscope as iv
from invariscope import cli
from invariscope.base import progress
from invariscope.base.progress import bar, each, quiet
from invariscope.base.terminal import note, warn, without_notes


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The bars that are shown on a terminal, by what they are of, with their steps."""
    shown: list[tuple[str, int]] = []

    class Bar:
        def __init__(self, *, desc: str, total: int, delay: float, **_: Any) -> None:
            assert delay == progress.SECONDS == 2
            shown.append((desc, total))
            self.left = total

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, kind: object, *_: object) -> None:
            assert kind is not None or self.left == 0, f"{shown[-1]}: {self.left} steps were not told"

        def update(self, count: int) -> None:
            self.left -= count

    monkeypatch.setattr("tqdm.tqdm", Bar)
    monkeypatch.setattr(progress, "_is_watched", lambda: True)
    return shown


def test_each_shows_one_bar_and_none_inside(bars: list[tuple[str, int]]) -> None:
    for _ in each("outer", range(3), "thing"):
        assert list(each("inner", "ab", "thing")) == ["a", "b"]
    assert bars == [("outer", 3)]
    with pytest.raises(ZeroDivisionError):
        [1 / number for number in each("broken", [1, 0, 2], "thing")]
    assert list(each("after", "ab", "thing")) == ["a", "b"]
    assert [what for what, _ in bars] == ["outer", "broken", "after"]


def test_figures_have_bars(bars: list[tuple[str, int]], repository: Path, tmp_path: Path) -> None:
    tables = iv.load(repository / "data" / "reference" / "published")
    iv.save_figures(tables, tmp_path, only=["msb_by_depth", "table_classification"])
    assert bars == [("draw", 2), ("write", 1)]


@pytest.mark.full
def test_the_analysis_has_bars(bars: list[tuple[str, int]], repository: Path) -> None:
    tables = iv.load(repository / "data" / "reference" / "published")
    frame = iv.join(tables)
    frame = frame[(frame["architecture"] == "smallcnn") & (frame["shift_kind"] == "circular")]
    iv.analyze(frame, resamples=20, permutations=9, rivals="none")
    assert [what for what, _ in bars][:3] == ["correlations", "regressions", "influence"]


def test_quiet_silences_bars_and_notes_alone(bars: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: Any) -> int:
        list(each("work", range(2), "thing"))
        note("note: nothing of weight")
        warn("failed: a network")
        return cli.DONE

    monkeypatch.setattr(cli.COMMANDS["verify"], "run", run)
    for flags, notes, shown in (([], True, [("work", 2)]), (["--quiet"], False, [])):
        del bars[:]
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        assert cli.main(["verify", "tables", *flags]) == cli.DONE
        assert ("nothing of weight" in terminal.getvalue()) == notes
        assert "failed: a network" in terminal.getvalue()
        assert bars == shown
    with quiet(), without_notes(), bar("none", 1) as step:
        step()
        note("none")
    assert bars == []


def test_quiet_tells_of_figures_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = {"cost": "no rows", "robustness": "no rows"}
    drawn = SimpleNamespace(figures={"a": 1}, tables={}, reasons=reasons, ignored={}, write=lambda *_: [])
    monkeypatch.setattr("invariscope.cli.figures.load_tables", lambda *_, **__: None)
    monkeypatch.setattr("invariscope.analysis.drawing.draw_figures", lambda *_, **__: drawn)
    line = "skipped cost, robustness: no rows\n"
    for flags, told in (
        (["--only", "a,cost,robustness", "--quiet"], line),
        (["--only", "a,cost,robustness"], line),
        (["--quiet"], ""),
        ([], line),
    ):
        assert cli.main(["figures", "tables", "--out", str(tmp_path), *flags]) == cli.DONE
        assert capsys.readouterr().err == told, flags


def test_the_log_is_told_from_the_level_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(self: Any) -> int:
        log = logging.getLogger("invariscope.zoo.somewhere")
        log.info("read \x1b[31m%s", "a file")
        log.debug("more")
        return cli.DONE

    monkeypatch.setattr(cli.COMMANDS["verify"], "run", run)
    assert cli.main(["verify", "tables"]) == cli.DONE
    assert capsys.readouterr().err == ""
    assert cli.main(["verify", "tables", "--log-level", "info"]) == cli.DONE
    assert capsys.readouterr().err == "info: invariscope.zoo.somewhere: read \\x1b[31ma file\n"
    assert logging.getLogger("invariscope").handlers == []
    assert cli.main(["verify", "tables", "--log-level", "loud"]) == cli.BAD_INPUT
    assert "--log-level" in capsys.readouterr().err
