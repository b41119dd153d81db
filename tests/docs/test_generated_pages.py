"""Every flag, key and column stands on its generated page; pages from outside of ``docs`` have links that hold."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import pytest
import yaml
from tyro.conf._confstruct import _ArgConfig
from tyro.conf._markers import Positional

from invariscope import cli
from invariscope.cli import collect
from invariscope.cli.telling import TellingFlags
from invariscope.collectors.schema import COLLECTORS, SCORES, TABLES
from invariscope.zoo.recipe import _FIELDS, DESIGNS

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """What the site's configuration makes of the folder ``docs/pages``."""
    found = importlib.util.spec_from_file_location(
        "docs_pages", DOCS / "pages" / "__init__.py", submodule_search_locations=[str(DOCS / "pages")]
    )
    assert found is not None
    sys.modules["docs_pages"] = importlib.util.module_from_spec(found)
    return importlib.import_module("docs_pages.build")


@pytest.fixture(scope="module")
def command_line(pages: ModuleType) -> str:
    return pages.GENERATED["command-line"]()


def section(page: str, heading: str) -> str:
    """The part of a page under a heading of the second level."""
    (found,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return found


def flags(command: type) -> set[str]:
    """The flags of a command's fields, those of its groups too, as the parser names them."""
    found = set()
    hints = get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        notes = get_args(hints[field.name])[1:]
        if dataclasses.is_dataclass(hints[field.name]):
            found |= flags(hints[field.name])
        elif Positional not in notes:
            named = [note.name for note in notes if isinstance(note, _ArgConfig) and note.name]
            found.add(f"--{(named or [field.name])[0].replace('_', '-')}")
    return found


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_flag_is_on_the_page_with_its_meaning(command: str, command_line: str) -> None:
    text = section(command_line, command)
    listed: dict[str, str] = {}
    for cell, meaning in re.findall(r"^\| `([^`]+)` \| (.*) \|$", text, re.M):
        listed |= dict.fromkeys(re.findall(r"--[\w-]+", cell), meaning)
    wanted = flags(collect.command() if command == "collect" else cli.COMMANDS[command]) | flags(TellingFlags)
    assert wanted <= set(listed)
    assert {name for name in listed if not name.startswith("--no-")} - wanted <= {"--reading", "--score", "--x", "--y"}
    assert all(len(listed[name].split()) > 1 for name in wanted)
    assert f"invariscope {command} " in text.partition("```text\n")[2]
    assert "───" not in text


def test_what_the_help_says_of_a_flag_is_what_the_code_says(command_line: str) -> None:
    text = section(command_line, "collect")
    assert r"| `--time-limit FLOAT` | Seconds per task: one that takes longer is stopped and is a failure. |" in text
    for name in COLLECTORS:
        assert f"* {name}: {COLLECTORS[name].help}"[:60] in text.replace("\\", "")
    for code in (cli.DONE, cli.BAD_INPUT, cli.WITH_FAILURES, cli.INTERRUPTED):
        assert f" {code} " in command_line.split("## ")[0]


def test_every_key_of_a_recipe_is_on_the_page(pages: ModuleType) -> None:
    page = pages.GENERATED["recipes"]()
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.+) \|$", page, re.M))
    assert set(_FIELDS) <= set(rows)
    assert all(len(rows[key].split()) > 1 for key in _FIELDS)
    assert "| `lr` | `0.01` | Peak of the one-cycle learning rate" in page
    for design in DESIGNS:
        assert re.search(rf"^\| `{design}` \| .*`seed`", page, re.M)
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert set(yaml.safe_load(example)) == {"defaults", "grid"}


@pytest.mark.parametrize("table", TABLES)
def test_every_column_is_on_the_page_with_unit_and_meaning(table: str, pages: ModuleType) -> None:
    text = section(pages.GENERATED["tables"](), table)
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.*?) \| (.+) \|$", text, re.M)
    assert [row[0] for row in rows] == TABLES[table].names
    for (_, _, unit, meaning), field in zip(rows, TABLES[table], strict=True):
        assert unit == field.metadata[b"unit"].decode()
        assert meaning.replace("\\", "").lower().startswith(field.metadata[b"meaning"].decode().lower())
        assert meaning.endswith("*May be null.*") == field.nullable


def test_every_score_is_explained() -> None:
    text = (DOCS / "concepts" / "scores.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| .+ \|$", text, re.M)) == set(SCORES)


def test_pages_from_elsewhere_have_links_that_hold(pages: ModuleType, tmp_path: Path) -> None:
    brought = sys.modules["docs_pages.brought"]
    (tmp_path / "docs" / "generated").mkdir(parents=True)
    (tmp_path / "docs" / "a.md").write_text("")
    inside = "[a](docs/a.md#b) ![p](docs/p.png) [d](data/README.md)"
    (tmp_path / "RESULTS.md").write_text(f"{inside} [code](zoo/x.py) [`y`](zoo/y.py) [w](https://w.org) [h](#h)")
    text = brought.page(tmp_path, "RESULTS.md", tmp_path / "docs" / "generated")
    assert text == "[a](../a.md#b) ![p](../p.png) [d](data.md) code (`zoo/x.py`) `y` [w](https://w.org) [h](#h)"


def test_every_page_is_reached_from_the_first(pages: ModuleType) -> None:
    toc = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.S)
    entries = {line for block in toc for line in block.splitlines() if line and not line.startswith(":")}
    brought = sys.modules["docs_pages.brought"]
    outside = tuple(f"{one}/" for one in ("generated", *brought.ASIDE))
    own = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}
    made = {f"generated/{name}" for name in (*pages.GENERATED, *brought.PAGES)}
    assert entries == made | {page for page in own - {"index"} if not page.startswith(outside)}


@pytest.mark.full
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in ("index", "start", "api", "faq", "generated/tables", "generated/results"):
        assert (tmp_path / f"{page}.html").stat().st_size > 5000
    loaded = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', (tmp_path / "index.html").read_text())
    assert loaded == []
