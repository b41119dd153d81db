"""The README quotes what the demo printed and wrote, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from invariscope import cli
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.recipe import read_recipe


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


@pytest.fixture(scope="module")
def demo(repository: Path) -> Path:
    return repository / "docs" / "demo"


def test_the_headline_is_generated(readme: str, repository: Path, demo: Path) -> None:
    for marker, tables, figure in (("headline", "digits", demo), ("published", "published", demo.parent / "published")):
        written = re.search(rf"<!-- {marker} -->\n(.*?)<!-- /{marker} -->", readme, re.S)
        assert written is not None
        assert written.group(1).strip()
        summary = (figure / "summary.md").read_text()
        verdict = next(line for line in written.group(1).splitlines() if line.startswith("**"))
        assert verdict in summary


@pytest.mark.parametrize(
    ("section", "folder", "least"),
    [("What was found in the bundled zoo", "demo", 20), ("What the published operators suggest", "published", 15)],
)
def test_quoted_numbers_stand_in_what_was_written(
    readme: str, demo: Path, section: str, folder: str, least: int
) -> None:
    found = readme.partition(f"## {section}\n")[2].partition("\n## ")[0]
    place = demo.parent / folder
    written = "\n".join(path.read_text() for path in [*place.glob("*.txt"), place / "summary.md"])
    numbers = set(re.findall(r"-?\d+\.\d+", written.replace("−", "-")))
    quoted = set(re.findall(r"-?\d+\.\d+", found))
    assert len(quoted) > least
    assert quoted <= numbers, quoted - numbers


def test_numbers_of_the_study_stand_in_its_results(readme: str, repository: Path) -> None:
    found = readme.partition("## What was found on CIFAR-10 and MNIST")[2].partition("\n## ")[0]
    results = (repository / "data" / "reference" / "RESULTS.md").read_text()
    numbers = set(re.findall(r"-?\d+\.\d+", results.replace("+", "")))
    quoted = set(re.findall(r"-?\d+\.\d+", found))
    assert len(quoted) > 20
    assert quoted <= numbers, quoted - numbers
    for data in ("cifar10", "mnist"):
        planned = read_recipe(repository / "data" / "reference" / f"{data}.yaml")
        assert f"{len(planned)} of {len(planned)} runs planned on {data}" in results
        assert f"{len(planned)} on {'CIFAR-10' if data == 'cifar10' else 'MNIST'}" in found


def test_what_the_readme_shows_is_there(readme: str, repository: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert len(targets) >= 5
    assert all((repository / target).exists() for target in targets)


def test_counts_are_the_zoos(readme: str, repository: Path) -> None:
    factors = [checkpoint.factors for checkpoint in read_manifest(repository / "data" / "zoo")]
    drawn = sum(found["population"] == "P" for found in factors)
    blocks = {found["block"] for found in factors if found["population"] == "R"}
    assert f"({len(factors)} checkpoints on handwritten digits" in readme
    assert f"{drawn} drawn operators and {len(blocks)} blocks of rotations" in readme
    assert f"{len(factors)} trained checkpoints" in (repository / "data" / "README.md").read_text()


def test_commands_of_the_readme_parse(readme: str) -> None:
    commands = re.findall(r"^    invariscope (.*?)(?:\s+#.*)?$", readme, re.M)
    assert len(commands) >= 3
    for command in commands:
        parsed = cli.parse(command.split())
        assert type(parsed).__name__.lower() == command.split()[0]
