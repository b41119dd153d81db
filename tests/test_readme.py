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


def test_printed_numbers_are_the_demos(readme: str, demo: Path) -> None:
    block = re.search(r"<!-- from docs/demo/output.txt -->\n```text\n(.*?)```", readme, re.S)
    assert block is not None
    printed = (demo / "output.txt").read_text().splitlines()
    quoted = block.group(1).splitlines()
    assert len(quoted) > 10
    assert quoted == [line for line in printed if not line.startswith("results:") and " power " not in line]


def test_quoted_numbers_stand_in_what_the_demo_wrote(readme: str, demo: Path) -> None:
    found = readme.partition("## What was found")[2].partition("\n## ")[0]
    written = "\n".join(path.read_text() for path in [*demo.glob("*.txt"), demo / "summary.md"])
    numbers = set(re.findall(r"-?\d+\.\d+", written.replace("−", "-")))
    quoted = set(re.findall(r"-?\d+\.\d+", found))
    assert len(quoted) > 40
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
    checkpoints = read_manifest(repository / "data" / "zoo")
    runs = {checkpoint.factors["run"] for checkpoint in checkpoints}
    operators = {checkpoint.factors["operator"] for checkpoint in checkpoints}
    assert f"{len(checkpoints)} checkpoints of {len(runs)} training runs, {len(operators)} operators" in readme
    assert f"{len(checkpoints)} trained checkpoints" in (repository / "data" / "README.md").read_text()


def test_commands_of_the_readme_parse(readme: str) -> None:
    commands = re.findall(r"^    invariscope (.*?)(?:\s+#.*)?$", readme, re.M)
    assert len(commands) >= 3
    for command in commands:
        parsed = cli.parse(command.split())
        assert type(parsed).__name__.lower() == command.split()[0]
