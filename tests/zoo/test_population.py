"""Operators drawn at random: what is declared about them, against sums over their written numbers."""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from invariscope.base.errors import RecipeError
from invariscope.zoo.population import DrawnOperator, draw_population, draw_repeats, draw_rotations

COUNT = 60
SEED = 7

POPULATION = draw_population(COUNT, SEED, augment_shift=4)
ROTATIONS = draw_rotations(18, SEED, augment_shift=4)
WIDE = draw_rotations(4, SEED, pixels=9, name="R3x3")


def numbers(operator: str) -> dict[str, Any]:
    """What a specification says, read by a way of its own: as nested calls of Python."""
    found: dict[str, Any] = {"lambda": 0.0, "a": 0.0, "kernel": None}

    def walk(node: ast.expr) -> None:
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        values = node.args
        match node.func.id:
            case "prefilter":
                found["lambda"] = ast.literal_eval(values[0])
                walk(values[1])
            case "mix":
                found["a"], found["kernel"] = ast.literal_eval(values[0]), ast.literal_eval(values[1].args[0])  # type: ignore[attr-defined]
                walk(values[2])
            case family:
                found.update(family=family, w=ast.literal_eval(values[0]))

    walk(ast.parse(operator, mode="eval").body)
    return found


def msb_and_selectivity(said: dict[str, Any]) -> tuple[float, float]:
    """Both by going through every order of the pixels of a 2x2 window, and every channel's rank."""
    weights, n = said["w"], len(said["w"])
    kernel = said["kernel"] or [1 / n] * n
    rows = [(1.0, weights)]
    if said["family"] == "channelranks":
        rows = [(share, [float(rank == one) for rank in range(n)]) for one, share in enumerate(weights)]
    msb = squares = 0.0
    orders = list(itertools.permutations(range(n)))
    for share, row in rows:
        for order in orders:  # the pixel at place p has rank order[p]
            pixels = [said["a"] * kernel[p] + (1 - said["a"]) * row[order[p]] for p in range(n)]
            msb += share * pixels[order.index(0)] / len(orders)
            squares += share * sum(pixel**2 for pixel in pixels) / len(orders)
    return (msb - 1 / n) / (1 - 1 / n), (squares - 1 / n) / (1 - 1 / n)


@pytest.mark.parametrize("one", [*POPULATION, *ROTATIONS[::3]], ids=lambda one: one.name)
def test_the_assigned_factors_are_those_of_the_written_numbers(one: DrawnOperator) -> None:
    said, factors = numbers(one.operator), one.factors
    assert (factors["assigned_msb"], factors["assigned_selectivity"]) == pytest.approx(
        msb_and_selectivity(said), abs=1e-6
    )
    places = said["kernel"] or [0.25] * 4
    asymmetry = said["a"] * sum(abs(place - 0.25) for place in places) / 2
    assert factors["assigned_asymmetry"] == pytest.approx(asymmetry, abs=1e-6)
    assert (factors["assigned_lambda"], factors["family"]) == (said["lambda"], said["family"])


@pytest.mark.parametrize("one", [*POPULATION, *ROTATIONS, *WIDE], ids=lambda one: one.name)
def test_numbers_have_three_digits_and_weights_sum_to_one(one: DrawnOperator) -> None:
    assert all(len(digits) <= 3 for digits in re.findall(r"\.(\d+)", one.operator))
    said = numbers(one.operator)
    for weights in (said["w"], *([said["kernel"]] if said["kernel"] else [])):
        assert sum(round(1000 * weight) for weight in weights) == 1000
        assert min(weights) >= 0


def test_the_shares_of_the_population() -> None:
    for count in (COUNT, 161):
        said = [numbers(one.operator) for one in draw_population(count, SEED + 1)]
        assert abs(sum(each["family"] == "rank" for each in said) - 2 * count / 3) < 1
        assert abs(sum(each["a"] > 0 for each in said) - count / 2) <= 1
        assert abs(sum(each["lambda"] > 0 for each in said) - 2 * count / 3) <= 1


def test_what_is_uniform_is_spread_evenly() -> None:
    """A Latin hypercube: one of n in each n-th of the range, so that Kolmogorov's distance is 1/n at most."""
    said = [numbers(one.operator) for one in POPULATION]
    assert stats.kstest([each["w"][0] for each in said], "uniform").statistic < 1 / COUNT + 1e-3
    for name in ("a", "lambda"):
        values = [each[name] for each in said if each[name] > 0]
        assert stats.kstest(values, "uniform").statistic < 1.5 / len(values)


def test_the_rest_is_dirichlet() -> None:
    """Each share of a Dirichlet(1/2) vector of three is Beta(1/2, 1)."""
    shares = []
    for one in draw_population(400, SEED):
        weights = numbers(one.operator)["w"]
        if weights[0] < 0.7:  # else three digits say little of the rest
            shares.append(weights[1] / sum(weights[1:]))
    assert stats.kstest(shares, stats.beta(0.5, 1).cdf).pvalue > 0.01


def test_factors_are_hardly_correlated() -> None:
    drawn = [one.factors for one in POPULATION]
    columns = [[each[name] for each in drawn] for name in ("assigned_msb", "assigned_lambda", "assigned_asymmetry")]
    found = stats.spearmanr(np.array(columns).T).statistic
    assert abs(found[0, 1]) < 0.2
    assert abs(found[1, 2]) < 0.2
    padding = [one.padding_mode == "zeros" for one in POPULATION]
    assert abs(stats.spearmanr(columns[0], padding).statistic) < 0.3


@pytest.mark.parametrize("count", [COUNT, 61, 62, 63])
def test_padding_and_augmentation_are_in_balance_also_within_family(count: int) -> None:
    drawn = draw_population(count, SEED, augment_shift=4)
    dealt = Counter((one.factors["family"], one.padding_mode, one.factors["augmentation"]) for one in drawn)
    for part in ("rank", "channelranks"):
        of_family = {key[1:]: number for key, number in dealt.items() if key[0] == part}
        zeros, circular = (sum(v for k, v in of_family.items() if k[0] == mode) for mode in ("zeros", "circular"))
        assert abs(zeros - circular) <= 1
        for mode in ("zeros", "circular"):
            assert abs(of_family[mode, "none"] - of_family[mode, "crop_and_flip"]) <= 1
    assert abs(2 * sum(one.padding_mode == "zeros" for one in drawn) - count) <= 1
    assert abs(2 * sum(one.augment_shift == 4 for one in drawn) - count) <= 1
    assert all((one.augment_shift == 4) == (one.factors["augmentation"] == "crop_and_flip") for one in drawn)


def test_what_is_dealt_does_not_change_what_is_drawn() -> None:
    plain = draw_population(COUNT, SEED, zero_padded=False, training_seed=5)
    assert [one.operator for one in plain] == [one.operator for one in POPULATION]
    assert {one.padding_mode for one in plain} == {"circular"}
    assert {one.augment_shift for one in plain} == {None}
    assert not any("augmentation" in one.factors for one in plain)
    padded = [one.padding_mode for one in draw_population(COUNT, SEED)]
    assert padded == [one.padding_mode for one in POPULATION]
    assert [one.seed for one in plain] == [5 + number for number in range(COUNT)]
    assert [one.seed for one in POPULATION] == [1000 + number for number in range(COUNT)]


def test_a_seed_draws_the_same_and_another_others() -> None:
    assert draw_population(COUNT, SEED, augment_shift=4) == POPULATION
    assert not {one.operator for one in draw_population(COUNT, SEED + 1)} & {one.operator for one in POPULATION}
    names = [one.name for one in POPULATION]
    assert names[0] == "P000"
    assert len(set(names)) == len({one.operator for one in POPULATION}) == COUNT


@pytest.mark.parametrize("drawn", [ROTATIONS, WIDE], ids=["2x2", "3x3"])
def test_a_block_differs_in_the_order_of_its_weights_alone(drawn: list[DrawnOperator]) -> None:
    blocks: dict[str, list[DrawnOperator]] = {}
    for one in drawn:
        blocks.setdefault(one.factors["block"], []).append(one)
    for number, (block, members) in enumerate(blocks.items()):
        assert [one.name for one in members] == [f"{block}-{turn}" for turn in range(4)]
        assert [one.factors["rotation"] for one in members] == [0, 1, 2, 3]
        same = {(one.seed, one.padding_mode, one.augment_shift, one.factors["assigned_lambda"]) for one in members}
        assert len(same) == 1
        assert members[0].seed == 2000 + number
        assert members[0].padding_mode == "circular"
        assert len({one.factors["assigned_selectivity"] for one in members}) == 1
        weights = [numbers(one.operator)["w"] for one in members]
        assert len({tuple(sorted(each)) for each in weights}) == 1
        assert len(set(weights)) == 4
    low_passes = [members[0].factors["assigned_lambda"] > 0 for members in blocks.values()]
    assert abs(sum(low_passes) - 2 * len(blocks) / 3) <= 1


def test_rotations_of_2x2_windows_are_cyclic() -> None:
    for start in range(0, len(ROTATIONS), 4):
        first, *others = ROTATIONS[start : start + 4]
        weights = numbers(first.operator)["w"]
        assert list(weights) == sorted(weights, reverse=True)
        for turn, other in enumerate(others, start=1):
            assert numbers(other.operator)["w"] == (*weights[-turn:], *weights[:-turn])
        assert sum(one.factors["assigned_msb"] for one in (first, *others)) == pytest.approx(0, abs=1e-5)


def test_the_weights_of_rotations_are_dirichlet() -> None:
    """Over all ranks alike: each share of a Dirichlet(1/2) vector of four is Beta(1/2, 3/2)."""
    shares = [numbers(one.operator)["w"][0] for one in draw_rotations(100, SEED)]
    assert stats.kstest(shares, stats.beta(0.5, 1.5).cdf).pvalue > 0.01


def test_half_of_the_blocks_are_augmented() -> None:
    assert Counter(one.augment_shift for one in ROTATIONS[::4]) == {0: 9, 4: 9}
    assert {one.augment_shift for one in WIDE} == {None}


def test_3x3_windows_say_so() -> None:
    assert all(one.operator.rstrip(")").endswith("kernel=3") for one in WIDE)
    assert WIDE[0].name == "R3x3-00-0"


def test_repeats_are_the_same_with_another_seed() -> None:
    found = draw_repeats(POPULATION, 15, 3)
    assert len({one.name for one in found}) == 15
    for one in found:
        number = int(one.name[1:])
        first = POPULATION[number]
        assert (one.operator, one.padding_mode, one.augment_shift) == (
            first.operator,
            first.padding_mode,
            first.augment_shift,
        )
        assert one.seed == 3000 + number
        assert one.factors == {**first.factors, "repeat": 1}
        assert "repeat" not in first.factors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_population(1, 0), "1 operators: draw at least 2"),
        (lambda: draw_rotations(0, 0), "0 blocks: draw at least 2"),
        (lambda: draw_rotations(4, 0, pixels=16), "windows of 16 pixels: take 4 or 9"),
        (lambda: draw_repeats(POPULATION, COUNT + 1, 0), "61 repeats of 60 drawn operators: take from 1 to 60"),
    ],
)
def test_what_cannot_be_drawn(call: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        call()
