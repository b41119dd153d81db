"""The recipes of the repository say what they claim to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from invariscope.zoo.operators import parse_operator
from invariscope.zoo.recipe import Run, read_recipe

CHANGES = {"operator", "seed"}


def test_doses_differ_in_beta_and_seed_alone(repository: Path) -> None:
    runs = read_recipe(repository / "data" / "recipes" / "dose_response.yaml")
    same = {name for name in (field.name for field in dataclasses.fields(Run)) if name not in CHANGES}
    assert all(getattr(run, name) == getattr(runs[0], name) for run in runs for name in same)
    specs = [parse_operator(run.operator) for run in runs]
    assert {spec.name for spec in specs} == {"soft"}
    assert {tuple(spec.arguments) for spec in specs} == {("beta",)}
    betas = sorted({spec.strength for spec in specs})
    assert betas[0] == 0
    assert betas[-1] >= 100
    seeds = {run.seed for run in runs}
    assert len(seeds) >= 5
    # Every seed at every dose, once.
    pairs = {(run.seed, spec.strength) for run, spec in zip(runs, specs, strict=True)}
    assert len(pairs) == len(runs) == len(seeds) * len(betas)
    assert all(run.epochs > 0 and not run.snapshots for run in runs)


def test_doses_are_trained_on_cifar10_by_changing_one_line(repository: Path, tmp_path: Path) -> None:
    text = (repository / "data" / "recipes" / "dose_response.yaml").read_text()
    assert text.count("  data: digits\n") == 1
    other = tmp_path / "cifar.yaml"
    other.write_text(text.replace("  data: digits\n", "  data: cifar10:cifar-10-batches-bin\n"))
    digits = read_recipe(repository / "data" / "recipes" / "dose_response.yaml")
    assert [dataclasses.replace(run, data="digits") for run in read_recipe(other)] == digits
