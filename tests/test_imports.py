"""The rules of the house about imports: one way only, no circle, and what stays free of torch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from invariscope.base.former import FORMER_NAME
from invariscope.collectors.schema import COLLECTORS

ROOMS = {"invariscope.zoo": "zoo", "invariscope.collectors": "collectors", "invariscope.analysis": "analysis",
         "invariscope.data": "data", "invariscope": "invariscope"}  # fmt: skip
"""Packages, and the folders at the top of the repository that they are."""

ALLOWED = {
    "invariscope.base": ("invariscope.base",),
    "invariscope.zoo": ("invariscope.base", "invariscope.zoo"),
    "invariscope.collectors": ("invariscope.base", "invariscope.zoo", "invariscope.collectors"),
    "invariscope.analysis": (
        "invariscope.base",
        "invariscope.analysis",
        "invariscope.collectors.schema",
        "invariscope.collectors.store.newest",
        "invariscope.collectors.store.reader",
    ),
    "invariscope.looking": (
        *("invariscope.base", "invariscope.zoo", "invariscope.collectors", "invariscope.analysis"),
        "invariscope.looking",
    ),
    "invariscope.torchmetrics": ("invariscope.base", "invariscope.zoo"),
    "invariscope.cli": ("invariscope",),
}
BARE = {"zoo", "collectors", "analysis", "data", FORMER_NAME}
"""Top-level names that are a user's to give: nothing of ours is imported by them."""

MOST_LINES = 400
"""Of a file: a longer one wants splitting by meaning."""

HEAVY = {"torch", "torchvision", "timm"}


def modules(repository: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for package, folder in ROOMS.items():
        for path in sorted((repository / folder).rglob("*.py")):
            parts = path.relative_to(repository / folder).with_suffix("").parts
            name = ".".join([package, *parts]).removesuffix(".__init__")
            found[name] = path
    return found


def imports(source: str, known: set[str], *, types: bool = True) -> set[str]:
    """What is imported, anywhere in a source: modules where a name is one; without ``types`` not for annotations."""
    names = set()
    for node in _nodes(ast.parse(source), types):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "relative import" if node.level else node.module or ""
            full = {f"{module}.{alias.name}" for alias in node.names}
            names |= {name if name in known else module for name in full}
    return names


def _nodes(node: ast.AST, types: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not types and isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _nodes(child, types)


def is_wrong(package: str, name: str) -> bool:
    """Whether a module of ``package`` may not import ``name``."""
    top = name.split(".")[0]
    if name == "relative import" or top in BARE or (package == "invariscope.analysis" and top in HEAVY):
        return True
    allowed = ALLOWED[package]
    return top == "invariscope" and not any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_run_one_way(repository: Path, package: str) -> None:
    known = modules(repository)
    ours = {name: path for name, path in known.items() if name == package or name.startswith(f"{package}.")}
    assert ours
    wrong = {
        name: found
        for name, path in ours.items()
        if (found := {one for one in imports(path.read_text(), set(known)) if is_wrong(package, one)})
    }
    assert not wrong


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "reference", "notebooks"])
def test_nothing_is_imported_by_a_bare_name(repository: Path, folder: str) -> None:
    paths = [path for path in sorted((repository / folder).rglob("*")) if path.suffix in (".py", ".ipynb")]
    sources = {path: source(path) for path in paths if ".ipynb_checkpoints" not in path.parts}
    assert sources
    wrong = {str(path): found for path, text in sources.items() if (found := bare_imports(text))}
    assert wrong == {}


def source(path: Path) -> str:
    """The Python of a module, or of the cells of a notebook without their magics."""
    if path.suffix == ".py":
        return path.read_text()
    cells = [cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell) for cell in cells).splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def bare_imports(text: str) -> set[str]:
    """What a source imports under a name that is a user's to give."""
    return {name for name in imports(text, set()) if name.split(".")[0] in BARE}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import zoo", {"zoo"}),
        ("import json, zoo.blocks as blocks", {"zoo.blocks"}),
        ("def late():\n    from analysis import load", {"analysis"}),
        ("import data as d; import json", {"data"}),
        ("text = 'import zoo'", set()),
        ("from invariscope import zoo", set()),
    ],
)
def test_a_bare_import_is_seen(text: str, found: set[str]) -> None:
    assert bare_imports(text) == found


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("invariscope.base", "from invariscope.zoo import manifest"),
        ("invariscope.zoo", "from invariscope.collectors.schema import TABLES"),
        ("invariscope.zoo", "from invariscope import cli"),
        ("invariscope.zoo", "import zoo.errors"),
        ("invariscope.collectors", "from invariscope.analysis import load"),
        ("invariscope.collectors", "from collectors import schema"),
        ("invariscope.analysis", "from invariscope.collectors.store.parts import Store"),
        ("invariscope.analysis", "from invariscope.collectors import store"),
        ("invariscope.analysis", "import invariscope.zoo.manifest"),
        ("invariscope.analysis", "import torch"),
        ("invariscope.zoo", "from . import sites"),
    ],
)
def test_the_rule_sees_a_wrong_import(repository: Path, package: str, line: str) -> None:
    known = set(modules(repository))
    assert any(is_wrong(package, name) for name in imports(f"def late():\n    {line}\n", known))


def test_the_rule_lets_the_schema_pass(repository: Path) -> None:
    source = "from invariscope.collectors import schema\nfrom invariscope.collectors.schema import TABLES"
    found = imports(source, set(modules(repository)))
    assert found == {"invariscope.collectors.schema"}
    assert not is_wrong("invariscope.analysis", "invariscope.collectors.schema")
    assert not is_wrong("invariscope.analysis", "invariscope.collectors.store.reader")


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (strongly connected components of more than one module)."""
    reach = {name: _reached(graph, name) for name in graph}
    groups = {tuple(sorted(b for b in reach[a] if a in reach[b])) for a in graph if a in reach[a]}
    return [list(group) for group in sorted(groups)]


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += graph.get(name, ())
    return found


def test_there_is_no_circle(repository: Path) -> None:
    known = modules(repository)
    graph = {
        name: imports(path.read_text(), set(known), types=False) & set(known) - {name} for name, path in known.items()
    }
    assert circles(graph) == []


@pytest.mark.parametrize("folder", [*ROOMS.values(), "tests", "benchmarks", "reference"])
def test_a_file_is_not_long(repository: Path, folder: str) -> None:
    lengths = {
        str(path.relative_to(repository)): len(path.read_text().splitlines())
        for path in (repository / folder).rglob("*.py")
    }
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_the_former_name_stands_in_one_place(repository: Path) -> None:
    """The changelog, and the constant under which older tables and weights are read; data keep what they hold."""
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=False)
    if not listed.stdout:
        pytest.skip("no git checkout")
    texts = [name for name in listed.stdout.split() if Path(name).suffix not in (".parquet", ".safetensors", ".png")]
    found = {name for name in texts if FORMER_NAME in (repository / name).read_text(errors="replace").lower()}
    assert found == {"CHANGELOG.md", "invariscope/base/former.py"}


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


TORCH_FREE = ("zoo", "zoo.operators", "zoo.datasets", "zoo.manifest", "collectors", "collectors.schema",
              "collectors.store.reader", "analysis", "analysis.figures", "cli")  # fmt: skip
LIGHT = ("schema", "options", "shift_kinds", *(f"tables.{name}" for name in COLLECTORS.own))


def first_to_import(heavy: tuple[str, ...], modules: tuple[str, ...]) -> str:
    """The first of the modules, imported one after the other in a fresh process, after which a heavy one is there."""
    code = (
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module('invariscope.' + name)\n"
        f"    if any(heavy in sys.modules for heavy in {heavy!r}): sys.exit(print(name))"
    )
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_imports_without_torch() -> None:
    assert first_to_import(("torch",), TORCH_FREE) == ""
    assert first_to_import(("torch",), ("zoo", "zoo.loading")) == "zoo.loading"


def test_contract_and_options_are_light() -> None:
    assert first_to_import(("torch", "pandas"), tuple(f"collectors.{name}" for name in LIGHT)) == ""
