"""Bad input to every command: one line, exit code 2 or 3, nothing half-written, in little time and memory."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HERE = Path(__file__).parent
CASES = [line for line in (HERE / "cases.txt").read_text(encoding="utf-8").splitlines() if line.count(" | ") >= 3]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the cases run in forks with limits of their own")


def run(*wanted: str) -> list[dict[str, Any]]:
    """What came of the cases that are wanted, in one process that forks."""
    command = [sys.executable, str(HERE / "runner.py"), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def refused(found: list[dict[str, Any]]) -> None:
    """Say all that is wrong with any of them at once."""
    wrong = [
        f"{one['case']}\n    {'; '.join(one['problems'])}\n    {one['said'][-300:]!r}"
        for one in found
        if one["problems"]
    ]
    assert not wrong, f"{len(wrong)} of {len(found)}:\n" + "\n".join(wrong)


@pytest.mark.slow
def test_a_tenth_of_the_list_is_refused_in_one_line() -> None:
    found = run("quick")
    assert len(found) >= len(CASES) / 10
    assert len({one["kind"] for one in found}) >= 10
    refused(found)


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_the_whole_list_is_refused_in_one_line(part: int) -> None:
    found = run("full", str(part), "4")
    assert len(found) >= 250 / 4
    refused(found)


def test_the_judge_sees_what_is_no_refusal() -> None:
    spec = importlib.util.spec_from_file_location("invariscope_tests_judge", HERE / "judge.py")
    assert spec is not None
    assert spec.loader is not None
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    case = SimpleNamespace(kind="word", codes=(2,), word="--out", leaves=False)
    good = {
        "code": 2,
        "out": "",
        "err": "invariscope: --out is empty\n",
        "seconds": 1,
        "cpu": 1,
        "bytes": 1,
        "changed": [],
    }
    good["markup"] = []
    assert judge.problems(case, good) == []
    for change, words in (
        ({"code": 0}, "exit code 0"),
        ({"err": "Traceback --out\n"}, "a traceback"),
        ({"err": "--out\nmore\n"}, "2 lines"),
        ({"out": "--out"}, "output"),
        ({"err": "no\n"}, "no word '--out'"),
        ({"err": "--out \x1b[31m\n"}, "a control character"),
        ({"changed": ["out/a.csv"]}, "left out/a.csv"),
        ({"cpu": 11}, "1 s"),
        ({"bytes": 2 << 30}, "2.0 GiB"),
    ):
        assert words in judge.problems(case, {**good, **change}), change
