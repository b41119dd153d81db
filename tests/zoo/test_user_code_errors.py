"""What a user's code raises, in one line: file, line, what Python said, and what helps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from invariscope import cli
from invariscope.base.errors import DataError, ModelError
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.loading import build_model
from invariscope.zoo.private_imports import PREFIX
from invariscope.zoo.user_code import load_user_object


def write(folder: Path, contents: dict[str, str]) -> None:
    for name, text in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


ERRORS: dict[str, tuple[dict[str, str], str]] = {
    "no such module": (
        {"nets.py": "import os\nimport no_such_thing\n"},
        "{0}/nets.py:2: cannot be run (ModuleNotFoundError: No module named 'no_such_thing'): "
        "install no_such_thing, or put it into the folder of the file that imports it",
    ),
    "no such module, in a sibling": (
        {"nets.py": "\nfrom blocks import down\n", "blocks.py": "\n\n\nimport no_such_thing.part\n"},
        "{0}/blocks.py:4: cannot be run (ModuleNotFoundError: No module named 'no_such_thing'): install no_such_thing",
    ),
    "no such part of a package": (
        {"nets.py": "import lib.blocks\n", "lib/__init__.py": ""},
        "{0}/nets.py:1: cannot be run (ModuleNotFoundError: No module named 'lib.blocks'): put that module into lib",
    ),
    "no such name": (
        {"nets.py": "from blocks import up\n", "blocks.py": "down = 1\n"},
        "{0}/nets.py:1: cannot be run (ImportError: cannot import name 'up' from 'blocks' ({0}/blocks.py)): "
        "define the name there, or import it from where it is defined",
    ),
    "a circle": (
        {"nets.py": "from blocks import down\n", "blocks.py": "\nfrom nets import Net\ndown = 1\n"},
        "{0}/blocks.py:2: cannot be run (ImportError: cannot import name 'Net' from partially initialized module "
        "'nets' (most likely due to a circular import)",
    ),
    "beyond the package": (
        {"nets.py": "\nfrom ..common import y\n"},
        "{0}/nets.py:2: cannot be run (ImportError: attempted relative import beyond top-level package): "
        "put an __init__.py into every folder of its package",
    ),
    "no Python": (
        {"nets.py": "import os\nfrom blocks import down\n", "blocks.py": "\ndown = = 1\n"},
        "{0}/blocks.py:2: cannot be run (SyntaxError: invalid syntax (blocks.py, line 2)): "
        "rewrite the line for Python 3.",
    ),
    "no text": (
        {"nets.py": "a = '\0'\n"},
        "{0}/nets.py: cannot be run (SyntaxError: source code string cannot",
    ),
    "a command line": (
        {"nets.py": "import argparse\nargparse.ArgumentParser().parse_args(['--x'])\n"},
        "{0}/nets.py:2: cannot be run (SystemExit: its argparse: unrecognized arguments: --x): put its command line "
        "under `if __name__ == '__main__':`",
    ),
    "a file that is not there": (
        {"nets.py": "def read():\n    open('weights.txt')\nread()\n"},
        "{0}/nets.py:2: cannot be run (FileNotFoundError: [Errno 2] No such file or directory: 'weights.txt'): "
        "make its paths relative to __file__",
    ),
    "anything": (
        {"nets.py": "from torch import nn\nnn.Linear(1, 2)(3)\n"},
        "{0}/nets.py:2: cannot be run (TypeError: ",
    ),
    "another name": (
        {"nets.py": "def build(): ...\n"},
        "{0}/nets.py: unknown function or class 'Net': known are build",
    ),
    "no name": ({"nets.py": "from os import path\n"}, "{0}/nets.py has no function or class 'Net', nor any other"),
    "no callable": (
        {"nets.py": "Net = 3\n"},
        "{0}/nets.py: Net is a int, and must be a function or class",
    ),
    "no file": ({}, "there is no file {0}/nets.py: correct the path"),
}


@pytest.mark.parametrize(("contents", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_name_file_and_line_and_what_helps(
    tmp_path: Path, contents: dict[str, str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(sys.modules)
    write(tmp_path, contents)
    with pytest.raises(DataError) as caught:
        load_user_object(tmp_path / "nets.py", "Net", error=DataError)
    assert str(caught.value).startswith(message.format(tmp_path))
    assert "\n" not in str(caught.value)
    assert ": " in str(caught.value)
    assert not [name for name in set(sys.modules) - before if name.startswith(PREFIX) and "Net" not in message]


def test_an_error_while_building_names_the_line_of_the_users_file(tmp_path: Path) -> None:
    nets = "def late():\n    import no_such_thing\n\ndef broken():\n    from blocks import fail\n    fail()\n"
    write(tmp_path, {"nets.py": nets, "blocks.py": "def fail():\n    raise KeyError('x')\n"})
    with pytest.raises(ModelError) as caught:
        build_model("python:nets.py:late", tmp_path)
    reason = (
        f"(ModuleNotFoundError: No module named 'no_such_thing') at {tmp_path}/nets.py:2: install no_such_thing, or"
    )
    assert str(caught.value).startswith(f"model 'python:nets.py:late' cannot be built {reason}")
    with pytest.raises(ModelError) as caught:
        build_model("python:nets.py:broken", tmp_path)
    assert str(caught.value).endswith(f"(KeyError: 'x') at {tmp_path}/blocks.py:2: correct its arguments")


def test_code_that_asks_for_the_end_is_an_error_and_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"mine.py": "import sys\ndef load(path, split='test', limit=None, size=None):\n    sys.exit(0)\n"})
    with pytest.raises(DataError, match=r"cannot be loaded \(SystemExit: 0\) at .*mine\.py:3: mend its loader"):
        load_dataset("python:mine.py:load", allow_code=True)
    monkeypatch.setattr("invariscope.cli.status.Status.run", lambda command: sys.exit(0))
    assert cli.main(["status", "tables"]) == cli.BAD_INPUT
    assert "asked to end with exit(0) before the command was done" in capsys.readouterr().err
