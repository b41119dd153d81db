"""What `make` does, on systems without it: ``python tasks.py`` lists the tasks, ``python tasks.py test`` runs one.

It uses the packages of the interpreter that runs it: ``pip install -r requirements.lock``, then
``pip install --no-deps -e .``. With uv: ``uv run --no-project python tasks.py lint``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOMS = ("zoo", "collectors", "analysis", "data")
TASKS = {
    "demo": [["-m", "invariscope", "demo", "--out", "out/demo"]],
    "lint": [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."]],
    "types": [["-m", "mypy"]],
    "test": [["-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"]],
    "test-full": [["-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", "--timeout", "7200"]],
    "wheel": [["-m", "pip", "wheel", "--no-deps", "--wheel-dir", "out/wheel", "."]],
}
"""Each task by name: the arguments of Python, one list after the other. ``test`` begins with ``lint`` and ``types``."""
FIRST = {"test": ("lint", "types"), "test-full": ("lint", "types")}


def package_for_mypy(folder: Path) -> Path:
    """The package as one folder of copies, which mypy can follow where it cannot follow the editable installation."""
    shutil.rmtree(folder, ignore_errors=True)
    only = shutil.ignore_patterns("*.parquet", "*.safetensors", "__pycache__", "*.png")
    shutil.copytree(HERE / "invariscope", folder / "invariscope", ignore=only)
    for room in ROOMS:
        shutil.copytree(HERE / room, folder / "invariscope" / room, ignore=only)
    return folder


def run(task: str) -> int:
    """Run a task and those before it; the first exit code that is not 0."""
    environment = dict(os.environ)
    if task == "test-full":
        environment["INVARISCOPE_FULL"] = "1"
    if task == "types":
        environment["MYPYPATH"] = str(package_for_mypy(HERE / "out" / "types"))
    for first in FIRST.get(task, ()):
        if code := run(first):
            return code
    for arguments in TASKS[task]:
        if code := subprocess.run([sys.executable, *arguments], cwd=HERE, env=environment, check=False).returncode:
            return code
    return 0


def main(given: list[str]) -> int:
    """Run the tasks that are named, in order."""
    unknown = [name for name in given if name not in TASKS]
    if unknown or not given:
        sys.stderr.write(f"{f'no task {unknown[0]!r}: ' if unknown else ''}tasks: {', '.join(TASKS)}\n")
        return 2
    return next((code for task in given if (code := run(task))), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
