"""A user's own Python, by file: run with its siblings and its package, its errors in one line.

Each load runs the files anew, as each worker process does, so that nothing depends on what was loaded before.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NoReturn

from invariscope.base.errors import InputError, one_line
from invariscope.base.names import unknown
from invariscope.base.processes import is_asked_for
from invariscope.zoo.private_imports import PREFIX, World, import_statements, installed_name, run_world

ENDS = (Exception, SystemExit, KeyboardInterrupt)
"""What a user's Python may raise that is told in one line; Ctrl-C apart (:func:`is_asked_for`)."""

_loaded = False


def has_run() -> bool:
    """Whether Python of the user's, by file, has run in this process: what it did to torch stays."""
    return _loaded


@contextmanager
def of_code() -> Iterator[None]:
    """While a user's Python runs: what argparse says of arguments is in the error that it raises, and not printed."""
    global _loaded
    _loaded = True
    before = ArgumentParser.error
    ArgumentParser.error = _parsed_nothing  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        ArgumentParser.error = before  # type: ignore[method-assign]


def _parsed_nothing(parser: ArgumentParser, message: str) -> NoReturn:
    raise SystemExit(f"its argparse: {message}")


_COMPUTED = re.compile(r"\b(__import__|import_module|iter_modules|walk_packages|spec_from_file_location|sys\.path)\b")
"""What stands in a file whose imports its import statements do not tell."""


def find_code(place: str, folder: Path) -> Path:
    """The file that a specification names: ``nets.py`` below the folder, or the module ``my_pkg.nets``.

    A module is looked for in the folder first and then among the installed ones, without running any of it. Where
    there is none, the path at which it would lie in the folder.
    """
    if place.endswith(".py") or not all(part.isidentifier() for part in place.split(".")):
        return folder / place
    inside = folder.joinpath(*place.split("."))
    for file in (inside / "__init__.py", inside.with_name(f"{inside.name}.py")):
        if os.path.isfile(file):
            return file
    spec: ModuleSpec | None = None
    for end in range(1, place.count(".") + 2):
        name = ".".join(place.split(".")[:end])
        locations = None if spec is None else spec.submodule_search_locations
        if end > 1 and locations is None:
            break
        finders = (finder.find_spec for finder in sys.meta_path if hasattr(finder, "find_spec"))
        found = (find(name, locations, None) for find in finders)
        spec = next((one for one in found if one is not None), None)
        if spec is None:
            break
    else:
        if spec is not None and spec.has_location and spec.origin:
            return Path(spec.origin)
    return inside.with_name(f"{inside.name}.py")


def load_user_object(path: Path, name: str, *, root: Path | None = None, error: type[InputError] = InputError) -> Any:
    """The function or class of a user's Python file, which is run.

    ``import blocks`` in the file or in what it imports finds, as it would if the file were run by Python, what lies
    beside the file, or in ``root``; in a package (a folder with ``__init__.py``) what lies beside the package and,
    unless that is installed, beside the file. Relative imports find their package. Everything else is imported as
    always. A file of an installed package is imported under its own name. What the file adds to ``sys.path`` counts
    for it alone.

    Args:
        root: a folder above the file from which its packages may be imported, such as that of a zoo's manifest.
        error: raised for a file that is missing or cannot be run, or lacks the name: one line with file and line.
    """
    if not os.path.isfile(path):
        raise error(f"there is no file {path}: correct the path")
    if path.suffix != ".py":
        raise error(f"{path} is no Python file: give one that ends in .py")
    file = path.resolve()
    installed = installed_name(file)
    try:
        with of_code():
            module = importlib.import_module(installed) if installed else run_world(World(file, root))
    except ENDS as problem:  # foreign code
        if is_asked_for(problem):
            raise
        place = where(problem) or str(path)
        raise error(f"{place}: cannot be run ({said(problem)}): {remedy(problem)}") from problem
    found = getattr(module, name, None)
    if callable(found):
        return found
    own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    if name in vars(module):
        raise error(f"{path}: {name} is a {type(found).__name__}, and must be a function or class: name another")
    if not own:
        raise error(f"{path} has no function or class {name!r}, nor any other: name another file")
    raise error(f"{path}: {unknown('function or class', name, own)}")


def local_imports(path: Path, root: Path | None = None) -> tuple[Path, ...]:
    """The file and all local files that it imports, found from the import statements alone: nothing is run.

    Imports within functions count. Where a file computes the names of what it imports, every Python file below its
    folder counts. Files of installed packages do not, unless ``path`` is one itself: then those of its package do.
    """
    world = World(path.resolve(), root)
    found: dict[Path, None] = {}
    waiting, seen = [world.entry], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        spec = world.spec(name)
        if spec is None:
            continue
        waiting.append(name.rpartition(".")[0])
        if spec.loader is None or spec.origin is None:
            continue
        file = Path(spec.origin)
        found[file] = None
        if file.suffix == ".py":
            waiting += [each for node in import_statements(file) for each in _named(world, spec, node)]
            if _computes_imports(file):
                below = (other.relative_to(file.parent) for other in sorted(file.parent.rglob("*.py")))
                hidden = (other for other in below if not any(part.startswith(".") for part in other.parts))
                found |= dict.fromkeys(file.parent / other for other in hidden)
    return tuple(found)


def _computes_imports(file: Path) -> bool:
    text = file.read_text(encoding="utf-8", errors="replace")
    return bool(_COMPUTED.search(text)) or (file.name == "__init__.py" and "__all__" in text)


def no_code(what: str, file: Path) -> str:
    """The line that refuses to run a user's file without leave."""
    return f"{what} runs the code of {file}: read it, then give --allow-code (in Python allow_code=True)"


def said(problem: BaseException) -> str:
    """What Python said, in one line, with the names that the user gave to the modules."""
    return re.sub(rf"{PREFIX}[0-9a-f]+(\.?)", lambda found: "" if found[1] else ".", one_line(problem))


def where(problem: BaseException) -> str:
    """``FILE:LINE`` of the last step of a user's code on the way to an error; empty where there was none."""
    if isinstance(problem, SyntaxError) and problem.filename:
        return f"{problem.filename}:{problem.lineno}"
    place, step = "", problem.__traceback__
    while step is not None:
        if str(step.tb_frame.f_globals.get("__name__", "")).startswith(PREFIX):
            place = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
        step = step.tb_next
    return place


def remedy(problem: BaseException, otherwise: str | None = None) -> str:
    """What to do about an error that a user's code raised; ``otherwise`` where its kind says nothing."""
    if isinstance(problem, SyntaxError):
        version = ".".join(map(str, sys.version_info[:2]))
        return f"rewrite the line for Python {version}, which is running"
    if isinstance(problem, ModuleNotFoundError) and problem.name:
        top, dot, _ = problem.name.partition(".")
        if dot:
            return f"put that module into {top}, or correct its name"
        return f"install {top}, or put it into the folder of the file that imports it"
    if isinstance(problem, ImportError):
        if "relative import" in str(problem):
            return "put an __init__.py into every folder of its package"
        if "partially initialized" in str(problem):
            return "import it where it is used, within the function"
        return "define the name there, or import it from where it is defined"
    if otherwise is not None:
        return otherwise
    if isinstance(problem, FileNotFoundError):
        return "make its paths relative to __file__, as it may be run from any folder"
    if isinstance(problem, SystemExit):
        return "put its command line under `if __name__ == '__main__':`, as the file is imported"
    return "mend the line, or put what importing the file does not need under `if __name__ == '__main__':`"


def _named(world: World, spec: ModuleSpec, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The private names of what an import statement may load."""
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif node.level:
        try:
            relative = importlib.util.resolve_name("." * node.level + (node.module or ""), spec.parent)
        except ImportError:
            return
        yield from (relative, *(f"{relative}.{alias.name}" for alias in node.names))
        return
    else:
        modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    for module in modules:
        top, dot, rest = module.partition(".")
        found = world.local(top, spec.name)
        if found is not None:
            yield found + dot + rest
