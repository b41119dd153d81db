"""Files that a recipe names: data is found from the recipe's folder, and code is kept beside the weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from invariscope.base.errors import RecipeError
from invariscope.base.files import write_atomic
from invariscope.base.flushing import make_folder
from invariscope.zoo.datasets import USER_CODE
from invariscope.zoo.operators import OperatorSpec
from invariscope.zoo.private_imports import installed_name
from invariscope.zoo.run import Run
from invariscope.zoo.user_code import find_code, local_imports

KEPT = "code"
"""What the names of the folders begin with in which a zoo keeps code; a digest of the code follows."""


def located(spec: str, folder: Path | None) -> str:
    """The specification of a data set, its files those below the recipe's folder where they are there.

    What is not there is left as it is, and so is relative to the working folder.
    """
    name, colon, rest = spec.partition(":")
    if folder is None or not colon:
        return spec
    if name != USER_CODE:
        return f"{name}:{_from(folder, rest)}"
    place, _, loader = rest.partition(":")
    loader, colon, path = loader.partition(":")
    file = find_code(place, folder)
    code = str(file) if file.is_file() and file.is_relative_to(folder) else place
    return f"{name}:{code}:{loader}{colon}{_from(folder, path)}"


def _from(folder: Path, path: str) -> str:
    return str(folder / path) if path and (folder / path).exists() else path


def keep_code(runs: Sequence[Run], out: Path) -> dict[str, str]:
    """Copy the Python files that runs name, and the local files that these import, to ``out``.

    So a zoo can be moved, and be measured without leave to run code from outside of its folder. A module of an
    installed package is not copied, nor is a file in ``out``.

    Returns:
        What stands in model strings relative to ``out`` (``python:../ops.py:``), and what to write instead.

    Raises:
        RecipeError: for a file whose imports are found from the recipe's folder alone, as no zoo could find them.
    """
    written: dict[str, str] = {}
    for run in runs:
        for name, file in _code(run):
            path = file.resolve()
            outside = Path(os.path.relpath(path, out.resolve())).as_posix()
            if f"python:{outside}:" in written or path.is_relative_to(out.resolve()):
                continue
            if installed_name(path) is not None:
                kept = name.rpartition(":")[0].removeprefix("python:")
            else:
                kept = _copied(path, run.folder, out)
            written[f"python:{outside}:"] = f"python:{kept}:"
    return written


def _copied(file: Path, folder: Path | None, out: Path) -> str:
    """Where a file lies in ``out`` after it and its imports were copied."""
    files = local_imports(file, folder)
    lost = sorted(set(files) - set(local_imports(file)))
    if lost:
        raise RecipeError(f"{file} imports {lost[0]}, which the zoo could not find: put both into one folder")
    base = Path(os.path.commonpath([each.parent for each in files]))
    while (base / "__init__.py").is_file():
        base = base.parent
    contents = {each.relative_to(base).as_posix(): each.read_bytes() for each in sorted(files)}
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    place = f"{KEPT}-{digest.hexdigest()[:8]}"
    for name, content in contents.items():
        target = out / place / name
        if not target.exists() or target.read_bytes() != content:
            make_folder(target.parent)
            write_atomic(target, content)
    return f"{place}/{file.relative_to(base).as_posix()}"


def kept_model(model: str, written: Mapping[str, str]) -> str:
    """A model string with the code that :func:`keep_code` copied in place of the code that it names."""
    for outside, kept in written.items():
        model = model.replace(outside, kept)
    return model


def _code(run: Run) -> Iterator[tuple[str, Path]]:
    """The ``python:`` names of a run, with their files."""
    if run.architecture_file is not None:
        yield run.architecture, run.architecture_file
    for operator in (run.operator, *run.evaluate_as):
        for spec in operator.within() if isinstance(operator, OperatorSpec) else ():
            if spec.code_file is not None:
                yield spec.name, spec.code_file
