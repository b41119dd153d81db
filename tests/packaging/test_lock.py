"""requirements.lock installs on any machine, from PyPI alone, and pins all that `make` needs."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PLATFORMS = ("linux", "darwin", "win32")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
UNLOCKED = {
    "torchattacks": "attacks",
    **dict.fromkeys(("jupyterlab", "altair"), "notebooks"),
    "wandb": "wandb",
    **dict.fromkeys(("mlflow-skinny", "sqlalchemy", "alembic"), "mlflow"),
}
"""Packages of extras that `make` does not install from the lock: torchattacks pins an old requests, and comes alone;
clients of experiment trackers bring dozens of packages."""


@pytest.fixture(scope="module")
def lines(repository: Path) -> list[str]:
    text = (repository / "requirements.lock").read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def pinned(lines: list[str]) -> list[Requirement]:
    return [Requirement(line) for line in lines]


def environment(platform: str, python: str) -> dict[str, str]:
    system = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[platform]
    return {
        "implementation_name": "cpython",
        "os_name": "nt" if platform == "win32" else "posix",
        "platform_machine": {"linux": "x86_64", "darwin": "arm64", "win32": "AMD64"}[platform],
        "platform_python_implementation": "CPython",
        "platform_system": system,
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": platform,
    }


def holds(marker: Marker | None, platform: str, python: str, extra: str = "") -> bool:
    return marker is None or marker.evaluate({**environment(platform, python), "extra": extra})


def asked(project: dict[str, Any], extras: tuple[str, ...]) -> list[Requirement]:
    """What the project asks for with some of its extras, those extras that name others followed."""
    found = [Requirement(line) for line in project["dependencies"]]
    waiting, seen = list(extras), set()
    while waiting:
        extra = waiting.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in map(Requirement, project["optional-dependencies"][extra]):
            if requirement.name == project["name"]:
                waiting += requirement.extras
            else:
                found.append(requirement)
    return found


def test_every_line_is_a_version_of_pypi(lines: list[str], pinned: list[Requirement]) -> None:
    form = re.compile(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.]*( ; .+)?")
    assert [line for line in lines if not form.fullmatch(line)] == []
    assert all(requirement.url is None for requirement in pinned)
    assert not any(sign in line for line in lines for sign in ("+", "@", "://", "--hash", "file:"))


def test_no_cuda(pinned: list[Requirement]) -> None:
    assert [r.name for r in pinned if re.match("nvidia|cuda|triton|cupy", r.name)] == []


@pytest.mark.parametrize(("platform", "python"), list(product(PLATFORMS, PYTHONS)))
def test_every_package_that_make_needs_is_pinned_once(
    project: dict[str, Any], pinned: list[Requirement], platform: str, python: str
) -> None:
    chosen = [requirement for requirement in pinned if holds(requirement.marker, platform, python)]
    names = [canonicalize_name(requirement.name) for requirement in chosen]
    assert len(names) == len(set(names))
    versions = {name: next(iter(r.specifier)).version for name, r in zip(names, chosen, strict=True)}
    for requirement in asked(project, ("dev",)):
        if holds(requirement.marker, platform, python):
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_every_extra_is_locked_or_said_not_to_be(project: dict[str, Any], pinned: list[Requirement]) -> None:
    names = {canonicalize_name(requirement.name) for requirement in pinned}
    for extra in project["optional-dependencies"]:
        missing = {r.name for r in asked(project, (extra,)) if canonicalize_name(r.name) not in names}
        assert missing == {name for name, of in UNLOCKED.items() if of == extra}


def test_make_installs_torchattacks_alone_at_its_version(repository: Path, project: dict[str, Any]) -> None:
    (requirement,) = (r for r in project["optional-dependencies"]["attacks"] if r.startswith("torchattacks"))
    assert f"--no-deps {requirement}\n" in (repository / "Makefile").read_text()


def test_ranges_admit_releases_of_pypi(project: dict[str, Any]) -> None:
    for requirement in asked(project, tuple(project["optional-dependencies"])):
        assert "+" not in str(requirement.specifier)
        assert requirement.url is None
    (torch,) = (r for r in asked(project, ("measure",)) if r.name == "torch")
    assert torch.specifier.contains("2.13.0")
    assert all(specifier.operator == ">=" for specifier in torch.specifier)


def test_torch_is_an_extra(project: dict[str, Any]) -> None:
    base = {requirement.name for requirement in asked(project, ())}
    assert not base & {"torch", "torchvision", "timm", "safetensors", "scikit-learn", "pillow", "joblib"}
    assert {"torch", "safetensors", "scikit-learn", "pillow", "joblib"} <= {
        requirement.name for requirement in asked(project, ("measure",))
    }


def test_the_citation_is_of_this_version(repository: Path, project: dict[str, Any]) -> None:
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert {"cff-version", "title", "message", "authors"} <= set(citation)
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Saha", "Gokhale"]
