"""Every code block of the documentation runs, in the order of its page and in a folder of its own."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

import invariscope as iv
from invariscope.base.registry import _REGISTRIES

sys.path.insert(0, str(Path(__file__).parent))
from blocks import Block, blocks_of, commands, run

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "generated" not in page.parts)
WITH_CODE = [page for page in [REPOSITORY / "README.md", *PAGES] if blocks_of(page)]
LONG = {
    "start.md": "the demo of the whole bundled zoo",
    "api.md": "every public function once",
    "guides/own-architecture.md": "a process for each network of code of one's own",
    "guides/compare.md": "three networks are measured",
    "guides/paper-figure.md": "figures of published tables",
    "concepts/correlation.md": "statistics of published tables",
    "figures.md": "an analysis of the bundled zoo's tables",
    "report.md": "two networks are measured for it",
    "look.md": "a whole look, with its files",
    "measure.md": "a network of timm",
    "README.md": "a look, and a replacement",
}
"""Pages that take more than a few seconds."""


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix() if page.is_relative_to(DOCS) else page.name


def given(page: Path) -> dict[str, Any]:
    """What a page takes for granted: a network, images and labels of one's own; tables in a folder."""
    name = name_of(page)
    if name in ("README.md", "measure.md", "look.md"):
        model = iv.build_model("zoo:smallcnn?operator=max&width=4")
        images = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        return {"iv": iv, "model": model, "images": images, "labels": torch.arange(12) % 10}
    if name == "figures.md":
        Path("out").mkdir()
        Path("out/tables").symlink_to(REPOSITORY / "data" / "reference" / "published")
        folder = REPOSITORY.parent / "shared" / "data"
        for table in folder.rglob("imagenet_testbed_top1.csv"):
            Path(table.name).symlink_to(table)
    if name == "report.md":
        options = iv.Options(collect=["checkpoints", "predictions"])
        for number, operator in enumerate(("max", "aps")):
            (checkpoint,) = iv.read_manifest(
                DOCS.parent / "data" / "zoo", only=f"smallcnn-{operator}-circular-s40000-e020"
            )
            import dataclasses

            named = dataclasses.replace(checkpoint, name=f"net-{'ab'[number]}")
            iv.collect([named], iv.DataSource("digits", "test", 24), "out/tables", options, progress=False)
    return {}


@pytest.fixture(autouse=True)
def as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A working folder that holds the repository's data; what pages register and import is forgotten."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    monkeypatch.syspath_prepend(str(tmp_path))
    kept = {group: dict(vars(found)) for group, found in _REGISTRIES.items()}
    copies = {
        group: {key: dict(value) for key, value in state.items() if isinstance(value, dict)}
        for group, state in kept.items()
    }
    modules = set(sys.modules)
    matplotlib.use("Agg")
    yield
    for group, found in _REGISTRIES.items():
        for key, value in copies.get(group, {}).items():
            current = getattr(found, key)
            current.clear()
            current.update(value)
    for name in set(sys.modules) - modules:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def marked(page: Path) -> Any:
    long = name_of(page) in LONG
    return pytest.param(page, id=name_of(page), marks=[pytest.mark.full, pytest.mark.timeout(1800)] if long else [])


@pytest.mark.parametrize("page", [marked(page) for page in WITH_CODE])
def test_the_code_of_a_page_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace = {"__name__": "__page__", **given(page)}
    for block in blocks_of(page):
        run(block, page, namespace)
    capsys.readouterr()


def test_pages_named_as_long_are_there() -> None:
    assert set(LONG) <= {name_of(page) for page in WITH_CODE}
    assert len(WITH_CODE) > 15


def test_no_code_hides_from_the_tests() -> None:
    """A block of another name than these is text to read, and holds no Python; a command of ours in one parses."""
    from invariscope import cli

    for page in PAGES:
        for language, text in re.findall(r"^```(\S*)\n(.*?)^```$", page.read_text(), re.M | re.S):
            directive = language.startswith("{")
            assert directive or language in ("python", "yaml", "sh", "text", "bibtex", ""), f"{page}: {language}"
            if language in ("text", "sh", ""):
                for command in commands(Block("sh", text, 0, None)):
                    cli.parse(command)
            if language in ("text", ""):
                assert "import " not in text


def test_every_public_name_has_an_example_that_runs() -> None:
    used = set()
    for block in blocks_of(DOCS / "api.md"):
        used |= {
            node.attr
            for node in ast.walk(ast.parse(block.text))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "iv"
        }
    page = (DOCS / "api.md").read_text()
    described = re.findall(r"^\.\. auto(?:function|class):: invariscope\.(\w+)$", page, re.M)
    assert sorted(described) == sorted(iv._HOMES)
    assert set(iv._HOMES) <= used
