"""What other systems do otherwise: their encodings, and that no process is harmed by asking whether it lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from invariscope.collectors.store import parts


def test_a_sign_that_the_output_has_not_is_replaced() -> None:
    code = (
        "import sys; from types import SimpleNamespace; from invariscope import cli\n"
        "cli.parse = lambda given: SimpleNamespace(run=lambda: print('\\u2264 4 px \\u00b1') or 0)\n"
        "sys.exit(cli.main(['sites']))"
    )
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode("cp1252").split()) == (0, ["?", "4", "px", "±"]), done.stderr


@pytest.mark.parametrize(("system", "lives"), [("posix", False), ("nt", True)])
def test_signal_0_is_sent_where_it_is_a_question(monkeypatch: pytest.MonkeyPatch, system: str, lives: bool) -> None:
    sent = []

    def kill(process: int, number: int) -> None:
        sent.append((process, number))
        raise ProcessLookupError

    monkeypatch.setattr(parts, "os", type("System", (), {"name": system, "kill": staticmethod(kill)}))
    assert parts._alive(4711) is lives
    assert sent == ([(4711, 0)] if system == "posix" else [])


@pytest.mark.parametrize("arguments", [["--help"], ["status", "data/reference/published"]])
def test_a_reader_that_has_gone_is_no_error(repository: Path, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "invariscope", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=repository, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
