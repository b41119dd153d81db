"""The wheel is whole, and what it installs works outside of the repository, beside a user's modules of any name.

What it depends on is not installed with it but taken from this environment, for want of a network: that its metadata
names all of it is shown by ``test_declared``, that the versions named can be installed by ``test_lock``.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from tests.packaging.conftest import Distributions, Environment

PAGE = (".html", ".css", ".js")
DEMO = "smallcnn-soft-beta[28]-*"
"""Two of the bundled checkpoints, one for each worker."""


def files(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def sources(folder: Path, pattern: str = "*.py") -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern) if "__pycache__" not in path.parts}


def test_the_wheel_holds_every_module_and_the_bundled_data(distributions: Distributions, repository: Path) -> None:
    expected = {f"invariscope/{name}" for name in sources(repository / "invariscope")}
    for room in ("zoo", "collectors", "analysis", "data"):
        expected |= {f"invariscope/{room}/{name}" for name in sources(repository / room)}
    for folder in ("zoo", "zoo_segmentation", "recipes"):
        expected |= {f"invariscope/data/{folder}/{path.name}" for path in (repository / "data" / folder).iterdir()}
    page = repository / "analysis" / "report"
    expected |= {f"invariscope/analysis/report/{path.name}" for path in page.iterdir() if path.suffix in PAGE}
    assert {"invariscope/analysis/report/page.html", "invariscope/analysis/report/explorer.js"} <= expected
    expected |= {"invariscope/py.typed", "invariscope/data/README.md"}
    found = {name for name in files(distributions.wheel) if ".dist-info/" not in name}
    assert found == expected
    assert sum(name.endswith(".safetensors") for name in found) > 150


def test_the_sdist_gives_the_same_wheel(distributions: Distributions) -> None:
    assert files(distributions.wheel_of_sdist) == files(distributions.wheel)
    with tarfile.open(distributions.sdist) as archive:
        top = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert not top & {"tests", "reference"}


def test_the_environment_is_outside_of_the_repository(
    environment: Environment, repository: Path, tmp_path: Path
) -> None:
    code = "import invariscope, invariscope.zoo, invariscope.data as d; print(invariscope.__file__, d.ZOO, sep='\\n')"
    done = environment.run(environment.python, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    inside = environment.python.parents[1]
    for line in done.stdout.splitlines():
        assert Path(line).is_relative_to(inside), line
        assert not Path(line).is_relative_to(repository), line


def test_version_sites_and_imports_beside_hostile_modules(
    environment: Environment, hostile: Path, project: dict[str, str]
) -> None:
    version = f"invariscope {project['version']}\n"
    for command in ([environment.command], [environment.python, "-m", "invariscope"]):
        done = environment.run(*command, "--version", cwd=hostile)
        assert (done.returncode, done.stdout) == (0, version), done.stderr
    done = environment.run(environment.command, "sites", "zoo:resnet8", cwd=hostile)
    assert done.returncode == 0, done.stderr
    assert "zoo:resnet8: 4 downsampling sites" in done.stdout
    code = "from invariscope.analysis import load; import invariscope as iv; print(load.__module__, iv.load is load)"
    done = environment.run(environment.python, "-c", code, cwd=hostile)
    assert done.stdout == "invariscope.analysis.tables.load True\n", done.stderr


@pytest.mark.slow
def test_the_demo_beside_hostile_modules(environment: Environment, hostile: Path) -> None:
    before = sources(hostile, "*")
    command = (environment.python, "-m", "invariscope", "demo", "--only", DEMO, "--out", "demo", "--jobs", "2")
    done = environment.run(*command, cwd=hostile)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\(\d+ tasks measured, 0 were done, 0 failed\)", done.stdout)
    names = ds.dataset(hostile / "demo" / "tables" / "checkpoints").to_table()["checkpoint"].to_pylist()
    assert len(names) == 2
    assert all(fnmatchcase(name, DEMO) for name in names)
    made = {name for name in sources(hostile, "*") - before if (hostile / name).is_file()}
    assert {"demo/report.html", "demo/results/summary.md", "demo/figures/msb_invariance.png"} <= made
    assert all(name.startswith("demo/") for name in made)
