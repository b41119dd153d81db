"""Markdown as it is read in the repository: links that lead somewhere, commands that stand in blocks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from invariscope.zoo.recipe import read_recipe

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```\s*?$", re.M | re.S)


def pages() -> list[Path]:
    """Every page but those that are made for the site."""
    found = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "data" / "README.md",
        ROOT / "benchmarks" / "RESULTS.md",
    ]
    return sorted(page for page in found if "generated" not in page.parts)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_and_commands_stand_in_blocks(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    targets = [target.partition("#")[0] for target in _LINK.findall(prose) if "://" not in target]
    dead = [target for target in targets if target and not (page.parent / target).exists()]
    assert dead == []
    assert [line for line in prose.splitlines() if line.startswith(("invariscope ", "make ", "pip "))] == []


def test_counts_of_runs_are_those_of_the_recipes() -> None:
    text = " ".join((ROOT / "data" / "README.md").read_text(encoding="utf-8").split())
    recipes = ROOT / "data" / "recipes"

    def runs(name: str) -> int:
        return len(read_recipe(recipes / f"population_{name}.yaml"))

    assert runs("digits") == runs("mnist")
    assert f"({runs('digits')} runs on digits and on MNIST, {runs('cifar10')} on CIFAR-10, " in text
    assert f", {runs('bundled')} of the bundled zoo, {runs('resnet')} of the second leg)" in text
