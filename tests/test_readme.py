"""The README quotes what the demo printed and wrote, and nothing else."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from invariscope import cli
from invariscope.base.errors import InputError
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.recipe import read_recipe
from reference.readme import first_page, main, replace_between


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


@pytest.fixture(scope="module")
def documents(repository: Path) -> Path:
    return repository / "docs"


@pytest.mark.parametrize(
    ("page", "marker", "folder"),
    [
        ("README.md", "headline", "docs/population"),
        ("docs/bundled-zoo.md", "headline", "demo"),
        ("docs/published-operators.md", "published", "published"),
    ],
)
def test_first_pages_are_those_of_the_summaries(repository: Path, page: str, marker: str, folder: str) -> None:
    file = repository / page
    shown = first_page((file.parent / folder / "summary.md").read_text(), folder)
    assert shown.startswith("**")
    assert f"]({folder}/headline.png)" in shown
    assert "| statement |" in shown
    assert replace_between(file.read_text(), shown, marker) == file.read_text()


def test_findings_are_those_that_were_written(readme: str, repository: Path) -> None:
    found = first_page((repository / "docs" / "population" / "findings.md").read_text(), "docs/population")
    assert 3 <= found.count("\n* ") + found.startswith("* ") <= 5
    assert replace_between(readme, found, "findings") == readme


def test_the_readme_is_short(readme: str) -> None:
    assert len(readme.splitlines()) <= 120


def test_a_part_of_a_readme_is_replaced_between_its_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "summary.md").write_text("# T\n\n**Yes.**\n\n![T](f.png)\n\n<details>\nmore\n</details>\n")
    file = tmp_path / "README.md"
    file.write_text("# A\n\n<!-- it -->\nold\n<!-- /it -->\n\nrest\n")
    for _ in range(2):
        assert main(["d/summary.md", "README.md", "--marker", "it"]) == 0
        assert file.read_text() == "# A\n\n<!-- it -->\n\n**Yes.**\n\n![T](d/f.png)\n\n<!-- /it -->\n\nrest\n"
    for broken in ("nothing", "<!-- /it --> <!-- it -->", "<!-- it -->" * 2 + "<!-- /it -->"):
        with pytest.raises(InputError, match="once each"):
            replace_between(broken, "x", "it")
    assert main(["d/summary.md", "README.md"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("page", "section", "folder", "least"),
    [("bundled-zoo.md", "Findings", "demo", 20), ("published-operators.md", "Digits", "published", 15)],
)
def test_quoted_numbers_stand_in_what_was_written(
    documents: Path, page: str, section: str, folder: str, least: int
) -> None:
    found = (documents / page).read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    place = documents / folder
    written = "\n".join(path.read_text() for path in [*place.glob("*.txt"), place / "summary.md"])
    numbers = set(re.findall(r"-?\d+\.\d+", written.replace("−", "-")))
    quoted = set(re.findall(r"-?\d+\.\d+", found))
    assert len(quoted) > least
    assert quoted <= numbers, quoted - numbers
    # Single numbers stand somewhere by chance: an estimate and its interval stand together.
    number = r"([-+]?\d+\.\d+)"
    flat = re.sub(r"\s+", " ", written.replace("−", "-"))
    pattern = rf"{number}(?: \(| \[|, ){number}(?: to |, ){number}"
    intervals = {tuple(map(float, each)) for each in re.findall(pattern, flat)}
    told = [tuple(map(float, each)) for each in re.findall(rf"{number} \({number}\s+to\s+{number}", found)]
    assert len(told) > 5
    assert not [each for each in told if each not in intervals]


def test_numbers_of_the_study_stand_in_its_results(repository: Path) -> None:
    page = (repository / "docs" / "published-operators.md").read_text()
    found = page.partition("## CIFAR-10 and MNIST, the first study")[2].partition("\n## ")[0]
    results = (repository / "docs" / "reference" / "first-study.md").read_text()
    numbers = set(re.findall(r"-?\d+\.\d+", results.replace("+", "")))
    quoted = set(re.findall(r"-?\d+\.\d+", found))
    assert len(quoted) > 20
    assert quoted <= numbers, quoted - numbers
    for data in ("cifar10", "mnist"):
        planned = read_recipe(repository / "data" / "reference" / f"{data}.yaml")
        assert f"{len(planned)} of {len(planned)} runs planned on {data}" in results
        assert f"{len(planned)} on {'CIFAR-10' if data == 'cifar10' else 'MNIST'}" in found


PAGES = [
    "README.md",
    "RESULTS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "data/README.md",
    "docs/reference/first-study.md",
]


def test_what_pages_show_is_there(repository: Path) -> None:
    docs = [page for folder in (".", "guides", "concepts") for page in (repository / "docs" / folder).glob("*.md")]
    pages = [*map(repository.joinpath, PAGES), *sorted(docs)]
    pages = [*map(repository.joinpath, ("SECURITY.md", "CODE_OF_CONDUCT.md")), *pages]
    assert len(pages) > 12
    found = [(page, target) for page in pages for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    found = [(page, target) for page, target in found if not target.startswith(("generated/", "../generated/"))]
    assert len(found) > 60
    assert not [f"{page}: {target}" for page, target in found if not (page.parent / target).exists()]


def test_counts_are_the_zoos(repository: Path) -> None:
    page = (repository / "docs" / "bundled-zoo.md").read_text()
    factors = [checkpoint.factors for checkpoint in read_manifest(repository / "data" / "zoo")]
    drawn = sum(found["population"] == "P" for found in factors)
    blocks = {found["block"] for found in factors if found["population"] == "R"}
    assert f"({len(factors)} checkpoints on handwritten digits" in page
    assert f"{drawn} drawn operators and {len(blocks)} blocks of rotations" in page
    assert f"{len(factors)} trained checkpoints" in (repository / "data" / "README.md").read_text()


def test_commands_of_the_pages_parse(readme: str, documents: Path) -> None:
    text = "\n".join([readme, *(page.read_text() for page in sorted(documents.glob("*.md")))])
    commands = re.findall(r"^    invariscope (.*?)(?:\s+#.*)?$", text.replace("\\\n", " "), re.M)
    assert len(commands) >= 12
    for command in commands:
        parsed = cli.parse(shlex.split(command))
        assert type(parsed).__name__.lower() == command.split()[0]
