"""The rules of the house about imports: one way only, and what stays free of torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = {"zoo": {"zoo"}, "collectors": {"collectors", "zoo"}, "analysis": {"analysis", "collectors.schema"}}
OURS = {"zoo", "collectors", "analysis", "shiftscope"}
HEAVY_FOR_ANALYSIS = {"torch", "torchvision", "timm"}


def _imports(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                names.add("relative import")
            elif node.module == "collectors":
                names |= {f"collectors.{alias.name}" for alias in node.names}
            else:
                names.add(node.module or "")
    return names


def _is_wrong(package: str, name: str) -> bool:
    top = name.split(".")[0]
    if name == "relative import" or (package == "analysis" and top in HEAVY_FOR_ANALYSIS):
        return True
    return top in OURS and not {top, name} & ALLOWED[package]


def _wrong_imports(package: str, source: str) -> set[str]:
    return {name for name in _imports(source) if _is_wrong(package, name)}


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_run_one_way(repository: Path, package: str) -> None:
    files = sorted((repository / package).rglob("*.py"))
    assert files
    wrong = {str(path): found for path in files if (found := _wrong_imports(package, path.read_text()))}
    assert not wrong


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("zoo", "from collectors.schema import TABLES"),
        ("zoo", "import shiftscope"),
        ("collectors", "from analysis import load"),
        ("analysis", "from collectors.store import Store"),
        ("analysis", "from collectors import msb"),
        ("analysis", "import zoo.errors"),
        ("analysis", "import torch"),
        ("zoo", "from . import sites"),
    ],
)
def test_the_rule_sees_a_wrong_import(package: str, line: str) -> None:
    assert _wrong_imports(package, f"def late():\n    {line}\n")


def test_the_rule_lets_the_schema_pass() -> None:
    source = "from collectors import schema\nfrom collectors.schema import TABLES\nimport analysis.tables"
    assert not _wrong_imports("analysis", source)


@pytest.mark.parametrize(
    "module",
    ["zoo", "zoo.operators", "zoo.datasets", "zoo.manifest", "collectors", "collectors.schema", "analysis",
     "analysis.figures", "shiftscope"],
)  # fmt: skip
def test_imports_without_torch(repository: Path, module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0
