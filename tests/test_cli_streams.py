"""Exit codes and what is said where standard output has no reader, no room, or is not there."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from invariscope.collectors.store.parts import Store

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX closes the streams")

COMMAND = f"{shlex.quote(sys.executable)} -m invariscope"


def run(line: str) -> subprocess.CompletedProcess[str]:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=buffered)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of one part, which is damaged."""
    folder = tmp_path_factory.mktemp("tables")
    store = Store(folder)
    store.prepare()
    row = {"task": "t", "checkpoint": "a", "collector": "layers", "seconds": 1.0, "runtime": None}
    path = Path(store.write("timings", "t", pd.DataFrame([{**row, "started": pd.Timestamp("2026-01-01", tz="UTC")}])))
    content = bytearray(path.read_bytes())
    content[8] ^= 1
    path.write_bytes(content)
    return folder


def test_a_reader_that_has_gone_changes_no_exit_code(tables: Path) -> None:
    line = f"({COMMAND} verify {tables}; echo $? >&2) | true"
    commands = ((line, 3), (line.replace("verify", "status"), 0), (line.replace(f"verify {tables}", "--version"), 0))
    for command, code in commands:
        found = run(command)
        assert found.stderr.splitlines()[-1:] == [str(code)]
        assert "Traceback" not in found.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device without room")
def test_no_room_for_what_is_said_is_one_line(tables: Path) -> None:
    found = run(f"{COMMAND} verify {tables} > /dev/full")
    assert found.returncode == 2
    said = "invariscope: <stdout>: cannot be written to (No space left on device): name another\n"
    assert found.stderr == said
    found = run(f"{COMMAND} --version > /dev/full")
    assert (found.returncode, found.stderr) == (2, said)


def test_a_process_without_standard_streams_writes_into_no_file(tables: Path) -> None:
    found = run(f"{COMMAND} verify {tables} >&-")
    assert (found.returncode, found.stderr) == (3, "")
    assert run(f"{COMMAND} verify {tables} >&- 2>&- <&-").returncode == 3
