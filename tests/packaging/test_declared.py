"""Every package that the product imports is declared, in the extra whose installation the import may rely on.

The wheel's tests install it without what it depends on, into the packages of this environment: they cannot show that
a package is missing from the metadata, and these tests do.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOMS = ("invariscope", "zoo", "collectors", "analysis", "data")
MEASURING = ("zoo", "collectors", "invariscope/looking")
"""Rooms, and a folder of one, whose modules may import the packages of ``measure`` at their own import."""


OF_AN_EXTRA = {"invariscope/torchmetrics.py": "torchmetrics"}
"""Modules that are there for one extra, whose packages they import at their own import."""


class Import(NamedTuple):
    """A package that a module imports; ``late``: inside of a function."""

    package: str
    room: str
    module: str
    late: bool


def imports(node: ast.AST, room: str, module: str, late: bool = False) -> Iterator[Import]:
    """What is imported from other packages, what stands for type checkers alone left out."""
    for child in ast.iter_child_nodes(node):
        names: list[str] = []
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            names = [child.module or ""]
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith(("import_module", "import_optional")):
            names = [one.value for one in child.args[:1] if isinstance(one, ast.Constant)]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "invariscope":
                yield Import(top, room, module, late)
        yield from imports(child, room, module, late or isinstance(child, (ast.FunctionDef, ast.Lambda)))


@pytest.fixture(scope="module")
def found(repository: Path) -> list[Import]:
    return [
        one
        for room in ROOMS
        for path in sorted((repository / room).rglob("*.py"))
        for one in imports(ast.parse(path.read_text()), room, path.relative_to(repository).as_posix())
    ]


@pytest.fixture(scope="module")
def declared(project: dict[str, Any]) -> dict[str, set[str]]:
    """Names of distributions by extra, ``""`` for what every installation has; what people install for work on this
    package is no extra of a user's."""
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: {canonicalize_name(Requirement(line).name) for line in lines}
        for extra, lines in lists.items()
        if extra != "dev"
    }


COMES_WITH = {"huggingface_hub": "timm"}
"""Packages that an extra brings as a dependency of its own, for which the error message names the package itself."""


installed = cache(packages_distributions)
"""What holds which package here; reading it takes a second."""


_OTHERS = {"mlflow": "mlflow-skinny"}
"""Packages that may not be installed here, whose distribution has another name."""


def distributions(package: str) -> set[str]:
    """The distributions that hold a package: by the metadata of what is installed, or by its own name."""
    return {canonicalize_name(name) for name in installed().get(package, [_OTHERS.get(package, package)])}


def allowed(one: Import, extras: dict[str, set[str]]) -> set[str]:
    """The distributions on whose presence an import may rely."""
    if one.late:
        return set().union(*extras.values())
    of_extra = OF_AN_EXTRA.get(one.module)
    measures = of_extra is not None or one.room in MEASURING or one.module.startswith(MEASURING[-1])
    return extras[""] | (extras["measure"] if measures else set()) | extras.get(of_extra or "", set())


def test_every_import_is_declared(found: list[Import], declared: dict[str, set[str]]) -> None:
    extras = {**declared, "others": {canonicalize_name(name) for name in COMES_WITH}}
    assert {one for one in found if not distributions(one.package) & allowed(one, extras)} == set()


@pytest.mark.parametrize(
    "extra", [*("", "measure", "timm", "torchvision", "transformers", "onnx"), *("attacks", "dask", "torchmetrics")]
)
def test_everything_declared_is_imported(found: list[Import], declared: dict[str, set[str]], extra: str) -> None:
    used = set().union(*(distributions(one.package) for one in found))
    assert declared[extra] - used - {"invariscope"} == set()


@pytest.mark.parametrize(
    ("text", "late"),
    [
        ("import nowhere.at_all", False),
        ("def f():\n    from nowhere import x", True),
        ("x = importlib.import_module('nowhere')", False),
        ("if TYPE_CHECKING:\n    import nowhere", None),
        ("import json\nfrom invariscope import cli", None),
    ],
)
def test_an_undeclared_import_is_seen(declared: dict[str, set[str]], text: str, late: bool | None) -> None:
    seen = list(imports(ast.parse(text), "zoo", "m.py"))
    assert seen == ([] if late is None else [Import("nowhere", "zoo", "m.py", late)])
    assert not any(distributions(one.package) & allowed(one, declared) for one in seen)


def test_analysis_may_not_rely_on_what_measures(declared: dict[str, set[str]]) -> None:
    assert "torch" in allowed(Import("torch", "zoo", "m.py", False), declared)
    assert "torch" not in allowed(Import("torch", "analysis", "m.py", False), declared)
    assert "timm" not in allowed(Import("timm", "zoo", "m.py", False), declared)
