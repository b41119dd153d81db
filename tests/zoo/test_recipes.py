"""The recipes of the repository say what they claim to."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from invariscope.zoo.operators import parse_operator
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.run import Run

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


def test_names_of_runs_tell_signs_and_long_specifications_apart() -> None:
    names = [Run(operator=f"soft({beta})").id for beta in (4, -4, "beta=-4", "-inf", "1e-3")]
    assert names == [
        "smallcnn-soft-4-zeros-s0",
        "smallcnn-soft-minus4-zeros-s0",
        "smallcnn-soft-minus4-zeros-s0",
        "smallcnn-soft-minusinf-zeros-s0",
        "smallcnn-soft-1e-3-zeros-s0",
    ]
    long = [f"rank(({', '.join(['0.111'] * 8)}, 0.112), {kernel})" for kernel in (3, "kernel=3")]
    mixed = [Run(operator=f"mix(0.5, {each}, {long[0]})").id for each in long]
    assert len(set(mixed)) == 2
    assert all(len(name) < 200 for name in mixed)
