"""The facade: every name resolves, is listed, documented and typed, and none costs anything before it is used."""

from __future__ import annotations

import ast
import importlib
import re
import rlcompleter
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import invariscope as iv
from invariscope.base.errors import InputError
from invariscope.base.extras import MissingPackageError, needs_extras
from invariscope.base.registry import Registry

HOMES: dict[str, str] = iv._HOMES
NAMES = sorted(HOMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_its_home_defines_and_says_what_it_is(name: str) -> None:
    found = getattr(iv, name)
    assert found is getattr(importlib.import_module(f"invariscope.{HOMES[name]}"), name)
    assert found.__name__ == name
    assert found.__module__.startswith(f"invariscope.{HOMES[name]}")
    assert len(found.__doc__.split()) >= 5


def test_names_are_in_dir_in_tab_completion_and_in_a_star_import() -> None:
    assert {*NAMES, "__version__"} <= set(dir(iv))
    assert [name for name in dir(iv) if not name.startswith("_")] == NAMES
    completer = rlcompleter.Completer({"iv": iv})
    completed = set()
    while (match := completer.complete("iv.", len(completed))) is not None:
        completed.add(match.rstrip("()").removeprefix("iv."))
    assert set(NAMES) <= completed
    namespace: dict[str, Any] = {}
    exec("from invariscope import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(NAMES)


def test_type_checkers_see_the_same_names_from_the_same_homes() -> None:
    tree = ast.parse(Path(iv.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {}
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, "a type checker takes it for private"
                seen[alias.name] = str(node.module).removeprefix("invariscope.")
    assert seen == HOMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'measure_everything'"):
        iv.measure_everything  # noqa: B018
    assert not hasattr(iv, "measure_everything")


def test_every_registry_that_others_may_add_to_has_its_name_here() -> None:
    from invariscope.base import registry

    for home in set(HOMES.values()):
        importlib.import_module(f"invariscope.{home}")
    groups = {group.removeprefix("invariscope.") for group in registry._REGISTRIES if group.startswith("invariscope.")}
    assert {f"register_{group.removesuffix('s')}" for group in groups} <= set(NAMES)
    assert all(isinstance(found, Registry) for found in registry._REGISTRIES.values())


def test_the_version_is_that_of_the_distribution(project: dict[str, str]) -> None:
    assert iv.__version__ == project["version"]


def loaded(code: str, names: list[str]) -> str:
    """Which of the modules a fresh interpreter has after the code: what they cost is theirs, and is not timed."""
    asked = f"import sys\n{code}\nprint(sorted(set({names}) & set(sys.modules)), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    return run.stderr.strip()


HEAVY = [
    "torch",
    "safetensors",
    "sklearn",
    "joblib",
    "pandas",
    "scipy",
    "statsmodels",
    "matplotlib",
    "seaborn",
    "jinja2",
]


def test_importing_costs_nothing() -> None:
    assert loaded("import invariscope; dir(invariscope)", [*HEAVY, "numpy", "pyarrow", "yaml", "tyro"]) == "[]"


@pytest.mark.parametrize("words", ["['--help']", "['collect', '--help']", "['--version']"])
def test_the_help_is_there_at_once(words: str) -> None:
    code = f"from invariscope.cli import main\ntry:\n    main({words})\nexcept SystemExit: pass"
    assert loaded(code, [*HEAVY, "yaml"]) == "[]"


def test_what_reads_tables_needs_no_torch(alone: Callable[..., Any], repository: Path) -> None:
    """Functions and commands, in one process that cannot find it."""
    tables, zoo = str(repository / "data" / "reference" / "published"), str(repository / "data" / "zoo")
    code = f"""
import invariscope as iv
from invariscope import cli
tables = iv.load({tables!r})
iv.draw("dose_response", tables)
print(len(iv.join(tables)), "torch" in sys.modules)
for command in (
    ["status", {tables!r}],
    ["status", {tables!r}, {zoo!r}],
    ["figures", {tables!r}, "--out", "out", "--only", "msb_by_depth,table_classification"],
):
    assert cli.main(command) == cli.DONE
cli.main(["--version"])
"""
    done = alone(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "False"
    assert int(done.stdout.split()[0]) > 10
    assert done.stdout.splitlines()[-1] == f"invariscope {iv.__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("sites", "zoo:resnet8"),
        ("train", "{zoo}/../recipes/published_digits.yaml", "--out", "out"),
        ("collect", "{zoo}", "--data", "digits", "--out", "out"),
        ("demo",),
    ],
)
def test_commands_that_measure_say_what_is_missing(
    alone: Callable[..., Any], repository: Path, arguments: tuple[str, ...]
) -> None:
    done = alone(*(argument.format(zoo=repository / "data" / "zoo") for argument in arguments))
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"invariscope: {arguments[0]} needs ")
    assert line.endswith("which is not installed: pip install 'invariscope[measure]'")
    assert done.stdout == ""


def test_names_that_measure_say_what_is_missing(alone: Callable[..., Any]) -> None:
    code = """
import invariscope as iv
for name in iv.__all__:
    try:
        getattr(iv, name)
    except ImportError as problem:
        print(name, problem, sep=": ")
"""
    done = alone(code=code)
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert {name for name in NAMES if name.startswith("measure_")} <= set(said), done.stderr
    for name, line in said.items():
        missing = "(torch|joblib)"  # whichever the module imports first
        of = rf"invariscope\.(collectors\.)?{name}"
        says = rf"{of} needs {missing}, which is not installed: pip install 'invariscope\[measure\]'"
        assert re.fullmatch(says, line), line
    assert not {"load", "join", "correlate", "draw", "analyze", "write_report", "read_manifest"} & set(said)


def test_other_missing_modules_stay_what_they_are() -> None:
    with pytest.raises(ModuleNotFoundError) as raised, needs_extras("this"):
        importlib.import_module("no_such_module_anywhere")
    assert not isinstance(raised.value, MissingPackageError)
    assert issubclass(MissingPackageError, InputError)


@pytest.mark.parametrize(
    ("door", "takes"),
    [
        ("register_operator", ("Downsample", "Taps")),
        ("register_dataset", ("ImageSet",)),
        ("register_collector", ("Collector",)),
        ("register_shift_kind", ("ShiftKind",)),
        ("register_figure", ("FigureEntry",)),
        ("register_frame", ("Frames", "Tables")),
    ],
)
def test_a_door_has_what_goes_through_it(door: str, takes: tuple[str, ...]) -> None:
    assert {door, *takes} <= set(NAMES)
    assert all(isinstance(getattr(iv, name), type) for name in takes)
