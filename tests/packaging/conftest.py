"""The distributions of this repository, built offline, and a fresh environment outside of it that has the wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest

SOURCES = ("invariscope", "zoo", "collectors", "analysis", "data", "tests", "reference")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


@dataclass(frozen=True)
class Distributions:
    """The files of an sdist, of the wheel of the tree, and of the wheel that the sdist gives."""

    sdist: Path
    wheel: Path
    wheel_of_sdist: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment outside of the repository with the wheel installed."""

    python: Path
    command: Path

    def run(self, *command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(list(command), cwd=cwd, env=clean(), capture_output=True, text=True, check=False)


def clean() -> dict[str, str]:
    """The environment variables of a stranger: none of Python's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def call(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(list(command), cwd=cwd, env=clean(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def project(repository: Path) -> dict[str, Any]:
    """What pyproject.toml says of the project."""
    loaded: dict[str, Any] = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return loaded


@pytest.fixture(scope="session")
def distributions(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    folder = tmp_path_factory.mktemp("distributions")
    tree = folder / "tree"
    tree.mkdir()
    for name in FILES:
        shutil.copy(repository / name, tree)
    for name in SOURCES:
        shutil.copytree(repository / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.parquet"))
    build = "import sys; from setuptools import build_meta as backend; getattr(backend, sys.argv[1])(sys.argv[2])"
    call(sys.executable, "-c", build, "build_sdist", folder / "sdist", cwd=tree)
    (sdist,) = (folder / "sdist").iterdir()
    wheels = []
    for name, source in (("wheel", tree), ("of_sdist", sdist)):
        options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder / name)
        call(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder)
        wheels += (folder / name).iterdir()
    return Distributions(sdist, *wheels)


@pytest.fixture(scope="session")
def environment(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    options = ("install", "--quiet", "--no-deps", "--no-index", "--no-compile")
    call(sys.executable, "-m", "pip", "--python", python, *options, distributions.wheel, cwd=folder)
    # The packages that it depends on are those of this environment; a folder that a .pth file names is searched last,
    # and the .pth files in it, the editable installation among them, are not read.
    (packages,) = folder.rglob("site-packages")
    (packages / "dependencies.pth").write_text(f"{Path(numpy.__file__).parents[1]}\n")
    return Environment(python, scripts / "invariscope")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with modules of a user's own under names that folders of this repository have; each fails on import."""
    fail = "raise SystemExit(f'{__file__} was imported')\n"
    for name in ("collectors.py", "data.py", "cli.py", "base.py", "analysis.py", "zoo/__init__.py", "zoo/blocks.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(fail)
    return tmp_path


@pytest.fixture
def alone(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line, or code, in a process that cannot find the packages of the extra ``measure``."""

    def run(*arguments: str, code: str = "from invariscope.cli import main; sys.exit(main(sys.argv[1:]))") -> Any:
        source = f"{WITHOUT_MEASURE}\n{code}\n"
        command = [sys.executable, "-c", source, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


WITHOUT_MEASURE = """
import sys
from invariscope.base.extras import MEASURE

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in {*MEASURE, "torchvision", "timm"}
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
