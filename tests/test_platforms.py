"""What other systems do otherwise: their encodings, and that no process is harmed by asking whether it lives."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from invariscope.base.errors import OutputError
from invariscope.collectors.store import locking, parts
from invariscope.collectors.store.locking import held


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


class Bytes:
    """The bytes of a file that processes have locked, as Windows keeps them; a stand-in for ``msvcrt``."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        self.owner: dict[int, int] = {}

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        start = os.lseek(descriptor, 0, os.SEEK_CUR)
        places = range(start, start + count)
        if mode == self.LK_UNLCK:
            assert all(self.owner.pop(place) == descriptor for place in places)
        elif any(place in self.owner for place in places):
            raise OSError(13, "Permission denied")
        else:
            self.owner |= dict.fromkeys(places, descriptor)


@pytest.fixture(params=["fcntl", "msvcrt"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """This system's locks, and those of Windows."""
    if request.param == "msvcrt":
        monkeypatch.setattr(locking, "fcntl", None)
        monkeypatch.setattr(locking, "msvcrt", Bytes())
    elif locking.fcntl is None:
        pytest.skip("this system has no fcntl")
    return str(request.param)


def test_locks_are_shared_or_held_alone(system: str, tmp_path: Path) -> None:
    def tried(*, shared: bool) -> bool:
        """Whether somebody else is given the lock now."""
        with open(tmp_path / ".run.lock", "a") as file:
            try:
                with held(file, shared=shared, wait=False):
                    return True
            except BlockingIOError:
                return False

    with open(tmp_path / ".run.lock", "a") as one, held(one, shared=True, wait=True):
        assert tried(shared=True)
        assert not tried(shared=False)
    with open(tmp_path / ".run.lock", "a") as one, held(one, shared=False, wait=True):
        assert not tried(shared=True)
        assert not tried(shared=False)
    assert tried(shared=False)


@pytest.mark.parametrize("wait", [False, True])
def test_a_file_system_of_windows_without_locks_is_no_lock_that_is_held(
    wait: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be waited for, for ever."""

    class Without(Bytes):
        def locking(self, descriptor: int, mode: int, count: int) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(locking, "fcntl", None)
    monkeypatch.setattr(locking, "msvcrt", Without())
    with (
        open(tmp_path / "x", "a") as file,
        pytest.raises(OSError, match="Invalid argument") as error,
        held(file, shared=False, wait=wait),
    ):
        pass
    assert not isinstance(error.value, BlockingIOError)


def test_a_folder_that_is_written_to_is_not_compacted(system: str, tmp_path: Path) -> None:
    with parts.Store(tmp_path).lock("run", shared=True, busy="busy"):
        with parts.Store(tmp_path).lock("run", shared=True, busy="busy"):
            pass
        with (
            pytest.raises(OutputError, match="a run is writing"),
            parts.Store(tmp_path).lock("run", busy="a run is writing"),
        ):
            pass


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fcntl", "msvcrt"):
        monkeypatch.setattr(locking, name, None)
    with pytest.raises(OutputError, match="its file system has no locks"), parts.Store(tmp_path).lock("run"):
        pass


WITHOUT = """
import importlib, os, pkgutil, signal, sys
from types import SimpleNamespace
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None

class Without:
    "A module as Windows has it: another name of the system, and some functions less."
    def __init__(self, module, name, gone):
        self.__dict__.update(_module=module, name=name, _gone=gone)
    def __getattr__(self, attribute):
        if attribute in self._gone:
            raise AttributeError(attribute)
        return getattr(self._module, attribute)

posix = {"fork", "killpg", "setsid", "getuid", "geteuid", "getpgid", "WNOHANG", "waitpid", "mkfifo", "nice"}
signals = {"SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM"}
fake = {"os": Without(os, "nt", posix), "signal": Without(signal, "signal", signals)}
import invariscope
rooms = [importlib.import_module(f"invariscope.{room}") for room in ("base", "cli", "zoo", "collectors", "analysis")]
for room in rooms:
    for found in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
        importlib.import_module(found.name)
for name, module in list(sys.modules.items()):
    if name.startswith("invariscope"):
        for known, other in fake.items():
            if getattr(module, known, None) is other._module:
                setattr(module, known, other)
from invariscope import cli
from invariscope.base import terminal
from invariscope.collectors.store import locking
assert terminal.os.name == "nt" and locking.fcntl is None
locking.msvcrt = SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=lambda descriptor, mode, count: None)
collect = ["collect", sys.argv[1], "--data", "digits", "--limit", "8", "--only", "smallcnn-max-circular-s40000-*",
           "--collect", "checkpoints,invariance", "--shift", "circular", "--out", "tables"]
assert cli.main([*collect, "--jobs", "1"]) == cli.DONE
assert cli.main(["compact", "tables"]) == cli.DONE
assert cli.main(["export", "tables", "--out", "scores.csv"]) == cli.DONE
"""


@pytest.mark.slow
def test_everything_is_imported_and_a_zoo_measured_without_what_windows_lacks(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT, str(repository / "data" / "zoo")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "smallcnn-max-circular-s40000-e020" in (tmp_path / "scores.csv").read_text()


def test_tasks_need_no_make(repository: Path) -> None:
    done = subprocess.run([sys.executable, repository / "tasks.py"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tasks: demo, lint, types, test")
