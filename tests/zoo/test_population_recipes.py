"""The drawn recipes of the repository: what they hold is what the study declares, and their operators do what is said.

Nothing is drawn here: another release of a random generator may draw others.
"""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from invariscope.zoo.operators import OperatorSpec, build_operator
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.run import Run
from invariscope.zoo.sampling import take

FOLDER = Path(__file__).parents[2] / "data" / "recipes"
CELLS = ("digits", "mnist", "cifar10")
RECIPES = sorted(path.name.removesuffix(".design.yaml") for path in FOLDER.glob("*.design.yaml"))


SECOND = "population_resnet"
"""The second leg: blocks of rotations alone, of a population that enters nothing of the study."""


@cache
def runs_of(recipe: str) -> tuple[Run, ...]:
    return tuple(read_recipe(FOLDER / f"{recipe}.yaml"))


def members(recipe: str, population: str, *, repeats: bool = False) -> list[Run]:
    runs = (run for run in runs_of(recipe) if run.factors["population"] == population)
    return [run for run in runs if ("repeat" in run.factors) == repeats]


def windows(pixels: int) -> Tensor:
    """Windows of distinct values: of 2x2 pixels one in every order, of 3x3 pixels some that overlap by a third."""
    if pixels == 9:
        return torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    orders = torch.tensor(list(itertools.permutations([1.0, 2.0, 3.0, 4.0])), dtype=torch.float64)
    return orders.reshape(-1, 2, 2).permute(1, 0, 2).reshape(1, 1, 2, 48)


def measured(spec: OperatorSpec, channels: int) -> tuple[float, float, float]:
    """MSB, selectivity and asymmetry of an operator's site by its own sampling weights."""
    site = build_operator(spec, channels, padding_mode="circular").site
    x = windows(9 if "kernel=3" in str(spec) else 4).expand(-1, channels, -1, -1)
    taps = site.sampling(x)
    values, weights = take(x, taps.index), taps.weights.double().expand(1, channels, -1, -1)
    n = weights.shape[-1]
    assert n in (4, 9)
    assert torch.allclose(weights.sum(-1), torch.ones(()).double())
    hit = weights.gather(-1, values.expand_as(weights).argmax(-1, keepdim=True))
    distance = (weights.mean((0, 1, 2)) - 1 / n).abs().sum() / 2
    readings = (float(hit.mean()), float((weights**2).sum(-1).mean()))
    return *((value - 1 / n) / (1 - 1 / n) for value in readings), float(distance)


def check(run: Run) -> None:
    assert isinstance(run.operator, OperatorSpec)
    # Ranks are dealt to channels: a thousand of them take three digits exactly.
    msb, selectivity, asymmetry = measured(run.operator, 1000 if run.factors["family"] == "channelranks" else 1)
    assert run.factors["assigned_msb"] == pytest.approx(msb, abs=1e-5), run.id
    assert run.factors["assigned_selectivity"] == pytest.approx(selectivity, abs=1e-5), run.id
    if "kernel=3" not in str(run.operator):  # over all orders of a window, so that ranks prefer no place
        assert run.factors["assigned_asymmetry"] == pytest.approx(asymmetry, abs=1e-5), run.id
    low_pass = run.operator.value("low_pass") if run.operator.name == "prefilter" else 0.0
    assert run.factors["assigned_lambda"] == low_pass


@pytest.mark.parametrize("recipe", RECIPES)
def test_drawn_operators_have_the_weights_that_are_assigned(recipe: str) -> None:
    drawn = [run for run in runs_of(recipe) if run.draw]
    for run in drawn if recipe == "population_bundled" else drawn[::9]:
        check(run)


@pytest.mark.full
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_drawn_operator_has_the_weights_that_are_assigned(recipe: str) -> None:
    for run in runs_of(recipe):
        if run.draw:
            check(run)


@pytest.mark.parametrize("recipe", RECIPES)
def test_training_goes_from_the_primary_experiment_to_repeats(recipe: str) -> None:
    order = [str(run.factors["population"]) + "+" * ("repeat" in run.factors) for run in runs_of(recipe)]
    steps = [step for step, _ in itertools.groupby(order)]
    others = {"population_bundled": ["R", "H", "T", "P"], SECOND: ["E"]}
    assert steps == others.get(recipe, ["R", "R3x3", "H", "T", "P", "R", "P+"])
    assert len({run.id for run in runs_of(recipe)}) == len(order)
    text = (FOLDER / f"{recipe}.yaml").read_text()
    assert text.startswith(f"# Written by `invariscope draw {recipe}.design.yaml --out {recipe}.yaml` (invariscope ")
    for line in (FOLDER / f"{recipe}.design.yaml").read_text().splitlines():
        if line.partition(": ")[0] in ("  - rotations", "  - population", "  - repeats"):
            assert line.replace("- ", "# ", 1) in text.splitlines(), "the seeds of a design stand in its recipe"


@pytest.mark.parametrize("recipe", RECIPES)
def test_there_are_as_many_as_the_study_asks_for(recipe: str) -> None:
    if recipe == SECOND:
        assert len(members(recipe, "E")) == len(runs_of(recipe)) >= 60
        return
    bundled = recipe == "population_bundled"
    assert len(members(recipe, "P")) >= (60 if bundled else 160)
    assert len(members(recipe, "R")) >= 4 * (15 if bundled else 60)
    if bundled:
        assert len(runs_of(recipe)) <= 200
    else:
        assert len(members(recipe, "P", repeats=True)) >= 15
        assert len(members(recipe, "R3x3")) >= 40


@pytest.mark.parametrize("recipe", RECIPES)
def test_blocks_differ_in_the_assignment_alone(recipe: str) -> None:
    for population in ("R", "R3x3", "E"):
        blocks: dict[object, list[Run]] = {}
        for run in members(recipe, population):
            blocks.setdefault(run.factors["block"], []).append(run)
        for block in blocks.values():
            assert [run.factors["rotation"] for run in block] == [0, 1, 2, 3]
            same = ("assigned_selectivity", "assigned_lambda", "assigned_asymmetry", "augmentation")
            assert len({tuple(run.factors.get(name) for name in same) for run in block}) == 1
            settings = [{**run.settings, "operator": None} for run in block]
            assert all(each == settings[0] for each in settings)
            assert settings[0]["padding_mode"] == "circular"
            assert len({str(run.operator) for run in block}) == 4
        seeds = [block[0].seed for block in blocks.values()]
        assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != SECOND])
def test_what_is_dealt_to_the_population_is_in_balance(recipe: str) -> None:
    names = ("padding_mode", "augment_shift") if recipe.endswith("cifar10") else ("padding_mode",)
    for family in ("rank", "channelranks"):
        of_family = [run for run in members(recipe, "P") if run.factors["family"] == family]
        for name in names:
            counts = Counter(getattr(run, name) for run in of_family)
            assert len(counts) == 2
            # Of the whole of a population; the bundled part of it has been dealt what its operators have there.
            assert max(counts.values()) - min(counts.values()) <= (12 if recipe == "population_bundled" else 2)
    for run in runs_of(recipe):
        assert ("augmentation" in run.factors) == (recipe.endswith("cifar10") and bool(run.draw))
        if "augmentation" in run.factors:
            augmented = run.factors["augmentation"] == "crop_and_flip"
            assert (run.augment_shift > 0, run.augment_flip) == (augmented, augmented)


def test_the_population_is_the_same_in_every_cell_with_other_seeds() -> None:
    cells = [members(f"population_{cell}", "P") for cell in CELLS]
    told = [[(run.draw, str(run.operator), run.padding_mode) for run in cell] for cell in cells]
    assert told[0] == told[1] == told[2]
    seeds = [{run.seed for run in runs_of(f"population_{cell}")} for cell in CELLS]
    assert not seeds[0] & seeds[1] | seeds[1] & seeds[2] | seeds[0] & seeds[2]
    names = [run.id for cell in CELLS for run in runs_of(f"population_{cell}")]
    assert len(set(names)) == len(names)


def test_the_bundled_zoo_is_a_part_of_the_study_on_digits() -> None:
    study = {run.id: run.settings for run in runs_of("population_digits")}
    for run in runs_of("population_bundled"):
        assert study[run.id] == run.settings


@pytest.mark.parametrize("recipe", RECIPES)
def test_repeats_are_trained_alike_with_another_seed(recipe: str) -> None:
    first = {run.draw: run for run in members(recipe, "P")}
    for run in members(recipe, "P", repeats=True):
        of = first[run.draw]
        assert {**run.settings, "seed": 0} == {**of.settings, "seed": 0}
        assert run.seed != of.seed
        assert run.factors == {**of.factors, "repeat": 1}


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_is_held_out_is_no_function_twice(recipe: str) -> None:
    x = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    outputs: list[tuple[str, Tensor]] = []
    for spec in dict.fromkeys(str(run.operator) for name in ("H", "T") for run in members(recipe, name)):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            outputs.append((spec, build_operator(spec, 8, padding_mode="circular").eval()(x)))
    for (one, first), (other, second) in itertools.combinations(outputs, 2):
        assert not torch.allclose(first, second, atol=1e-3), (one, other)


@pytest.mark.parametrize("recipe", RECIPES)
def test_pairs_share_their_seed_with_what_they_are_compared_to(recipe: str) -> None:
    trained = {(str(run.operator), run.padding_mode, run.seed) for run in members(recipe, "H")}
    for run in members(recipe, "T"):
        assert isinstance(run.operator, OperatorSpec)
        name = {"quantile": "max", "aps": "aps"}.get(run.operator.name) or f"soft(beta={run.operator.strength:g})"
        assert (name, run.padding_mode, run.seed) in trained
