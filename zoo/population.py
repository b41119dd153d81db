"""Operators drawn at random from a declared population, so that their MSB is assigned and not observed.

Two designs. A *population*: a Latin hypercube over the weights of ranks, a fixed preference for a place of the window
and a low pass in front of it. *Rotations*: blocks of one vector of weights, given to the ranks in different orders,
which changes MSB and leaves selectivity, low pass and seed exactly as they are. What is drawn is a list of
specifications with three digits: data, to be kept, since another release of a random generator may draw others.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invariscope.base.errors import RecipeError

CONCENTRATION = 0.5
"""Of the Dirichlet distributions: most vectors of weights have one or two large ones."""

DIGITS = 3
"""Decimal digits of a drawn number in its specification."""

TURNS = 4
"""Operators of a block of rotations."""

RANK_SHARE, PLACED_SHARE, FILTERED_SHARE = 2 / 3, 1 / 2, 2 / 3
"""Of a population: the family ``rank``; a weight on fixed places; a low pass in front."""

_UNITS = 10**DIGITS
_ASSIGNMENT = 1
"""Second word of the seed of what is dealt to the operators, so that it changes nothing about what is drawn."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class DrawnOperator:
    """One drawn operator, how its network is trained, and the factors that were assigned.

    Attributes:
        name: of the draw, for example ``P017`` or, of a block of rotations, ``R03-1``.
        operator: the specification.
        augment_shift: None where all are trained alike; else the pixels by which training images are shifted at most,
            and flipped; 0 for neither.
        factors: ``population`` (the design's name), ``block`` and ``rotation`` where there are any, ``family``, and
            ``assigned_msb``, ``assigned_selectivity`` (both corrected for chance), ``assigned_asymmetry``,
            ``assigned_lambda``: those of the numbers as they are written.
    """

    name: str
    operator: str
    seed: int
    padding_mode: str = "circular"
    augment_shift: int | None = None
    factors: dict[str, Any] = field(default_factory=dict)


MOST_DRAWN = 2000
"""Operators, or blocks, of one design at most: the points of the hypercube are spread in quadratic time."""


def draw_population(
    count: int,
    seed: int,
    *,
    name: str = "P",
    training_seed: int = 1000,
    zero_padded: bool = True,
    augment_shift: int = 0,
) -> list[DrawnOperator]:
    """``count`` operators by a Latin hypercube of low discrepancy.

    Two thirds ``rank``: ``w_1 ~ U(0, 1)``, the rest Dirichlet(1/2); a third ``channelranks``, its shares drawn alike.
    Half of them have a weight ``a ~ U(0, 1)`` on a 2x2 kernel ``k ~ Dirichlet(1/2)`` besides, two thirds a low pass
    ``lambda ~ U(0, 1)`` in front. Padding and augmentation are dealt in balance, also within family, presence of a
    kernel and of a low pass; they do not change what is drawn.

    Args:
        training_seed: of the first network; each has a seed of its own, one after the other.
        zero_padded: half have zero padding; else all are circular.
        augment_shift: half, of either padding, are augmented: images are shifted by up to so many pixels and flipped.

    Raises:
        RecipeError: for fewer than 2 operators.
    """
    from scipy import stats

    _at_least("operators", count)
    cube = stats.qmc.LatinHypercube(d=11, optimization="random-cd", rng=np.random.default_rng(seed)).random(count)
    drawn = []
    for number, u in enumerate(cube):
        family = "rank" if u[0] < RANK_SHARE else "channelranks"
        weights = np.array([u[1], *(1 - u[1]) * _dirichlet(u[2:5])])
        place = max(u[5] - 1 + PLACED_SHARE, 0) / PLACED_SHARE
        operator, factors = _composed(family, weights, _low_pass(u[10]), place, _dirichlet(u[6:10]))
        factors = {"population": name, **factors}
        drawn.append(DrawnOperator(_label(name, number, 3), operator, training_seed + number, factors=factors))
    rng = np.random.default_rng([seed, _ASSIGNMENT])
    order = _alike_together(drawn, rng)
    zeros = _half(order, rng) if zero_padded else set()
    by_padding = [*(place for place in order if place in zeros), *(place for place in order if place not in zeros)]
    changed = _half(by_padding, rng) if augment_shift else set()
    return [_dealt(one, number in zeros, augment_shift, number in changed) for number, one in enumerate(drawn)]


def draw_rotations(
    blocks: int,
    seed: int,
    *,
    name: str = "R",
    training_seed: int = 2000,
    pixels: int = 4,
    augment_shift: int = 0,
) -> list[DrawnOperator]:
    """``blocks`` blocks of four operators that differ in the order alone in which the ranks are given the weights.

    2x2 windows: the four cyclic rotations of a sorted Dirichlet(1/2) vector. 3x3 windows: four orders of it drawn at
    random. A block has one low pass (none in a third of them, else uniform), one training seed, circular padding and,
    where half of the blocks are augmented, one augmentation.

    Args:
        training_seed: of the first block; each has a seed of its own, one after the other.
        pixels: of a window, 4 or 9.
        augment_shift: half of the blocks, also of those with a low pass, are augmented as in :func:`draw_population`.

    Raises:
        RecipeError: for fewer than 2 blocks, or windows of another size.
    """
    from scipy import stats

    _at_least("blocks", blocks)
    if pixels not in (4, 9):
        raise RecipeError(f"rotations of windows of {pixels} pixels: take 4 or 9")
    rng = np.random.default_rng(seed)
    cube = stats.qmc.LatinHypercube(d=pixels + 1, optimization="random-cd", rng=rng).random(blocks)
    drawn = []
    for number, u in enumerate(cube):
        vector = _rounded(np.sort(_dirichlet(u[:pixels]))[::-1])
        block = _label(name, number, 2)
        for turn, weights in enumerate(_turns(vector) if pixels == 4 else _orders(vector, rng)):
            operator, factors = _composed("rank", weights, _low_pass(u[-1]))
            factors = {"population": name, "block": block, "rotation": turn, **factors}
            drawn.append(DrawnOperator(f"{block}-{turn}", operator, training_seed + number, factors=factors))
    rng = np.random.default_rng([seed, _ASSIGNMENT])
    changed = _half(_alike_together(drawn[::TURNS], rng), rng) if augment_shift else set()
    return [_dealt(one, False, augment_shift, place // TURNS in changed) for place, one in enumerate(drawn)]


def draw_repeats(
    drawn: Sequence[DrawnOperator], count: int, seed: int, *, training_seed: int = 3000
) -> list[DrawnOperator]:
    """``count`` of the drawn operators again, in their order, with another seed of training and the factor ``repeat``.

    The seed is ``training_seed`` plus the place in ``drawn``.

    Raises:
        RecipeError: for more than there are, or fewer than 1.
    """
    if not 1 <= count <= len(drawn):
        raise RecipeError(f"{count} repeats of {len(drawn)} drawn operators: take from 1 to {len(drawn)}")
    chosen = np.sort(np.random.default_rng(seed).choice(len(drawn), count, replace=False))
    return [
        dataclasses.replace(
            drawn[place], seed=training_seed + int(place), factors={**drawn[place].factors, "repeat": 1}
        )
        for place in chosen
    ]


def _dealt(one: DrawnOperator, zeros: bool, augment_shift: int, changed: bool) -> DrawnOperator:
    """The operator with the padding and the augmentation that are dealt to it."""
    one = dataclasses.replace(one, padding_mode="zeros" if zeros else "circular")
    if not augment_shift:
        return one
    factors = {**one.factors, "augmentation": "crop_and_flip" if changed else "none"}
    return dataclasses.replace(one, augment_shift=augment_shift * changed, factors=factors)


def _alike_together(drawn: Sequence[DrawnOperator], rng: np.random.Generator) -> list[int]:
    """All places, those of one family, with and without a kernel, with and without a low pass, next to each other."""

    def kind(place: int) -> tuple[str, bool, bool]:
        factors = drawn[place].factors
        return factors["family"], factors["assigned_asymmetry"] > 0, factors["assigned_lambda"] > 0

    return sorted(rng.permutation(len(drawn)).tolist(), key=kind)


def _half(order: Sequence[int], rng: np.random.Generator) -> set[int]:
    """One of each two that follow each other; of a last one that is alone, none."""
    pairs = zip(order[::2], order[1::2], strict=False)
    return {pair[int(rng.integers(2))] for pair in pairs}


def _turns(vector: Array) -> list[Array]:
    return [np.roll(vector, turn) for turn in range(TURNS)]


def _orders(vector: Array, rng: np.random.Generator) -> list[Array]:
    """Different orders of a vector drawn at random."""
    found: dict[tuple[float, ...], Array] = {}
    while len(found) < TURNS:
        order = rng.permutation(vector)
        found.setdefault(tuple(order.tolist()), order)
    return list(found.values())


def _composed(
    family: str, weights: Array, low_pass: float, place: float = 0.0, kernel: Array | None = None
) -> tuple[str, dict[str, Any]]:
    """The specification in :data:`DIGITS` digits, and the factors of the numbers as they are written.

    With ``n`` pixels, weights ``w`` by rank, ``a`` on places of shares ``k``: the weight on the maximum is
    ``(1 - a) w_1 + a / n``, the sum of squared weights on average over the orders of the pixels
    ``(1 - a)² sum w² + a² sum k² + 2 a (1 - a) / n``, the distance from equal places ``a sum |k - 1/n| / 2``.
    """
    weights, low_pass, place = _rounded(weights), round(float(low_pass), DIGITS), round(float(place), DIGITS)
    count = len(weights)
    text = f"{family}(({_listed(weights)}){'' if count == 4 else ', kernel=3'})"
    places = np.full(count, 1 / count)
    if place > 0 and kernel is not None:
        places = _rounded(kernel)
        text = f"mix({place:g}, kernel(({_listed(places)})), {text})"
    if low_pass > 0:
        text = f"prefilter({low_pass:g}, {text})"
    by_rank = _squares(weights) if family == "rank" else 1.0  # a channel takes one pixel
    squares = (1 - place) ** 2 * by_rank + place**2 * _squares(places) + 2 * place * (1 - place) / count
    factors = {
        "family": family,
        "assigned_msb": _beyond_chance((1 - place) * float(weights[0]) + place / count, count),
        "assigned_selectivity": _beyond_chance(squares, count),
        "assigned_asymmetry": round(place * float(np.abs(places - 1 / count).sum()) / 2, 6),
        "assigned_lambda": low_pass,
    }
    return text, factors


def _low_pass(uniform: float) -> float:
    return float(max(uniform - 1 + FILTERED_SHARE, 0) / FILTERED_SHARE)


def _squares(values: Array) -> float:
    """The sum of squares, the same for every order of the values."""
    return math.fsum(values**2)


def _beyond_chance(value: float, count: int) -> float:
    return round((value - 1 / count) / (1 - 1 / count), 6)


def _dirichlet(uniform: Iterable[float] | Array) -> Array:
    """A Dirichlet(1/2) vector by the inverse distribution functions of its gamma variables."""
    from scipy import stats

    gammas = stats.gamma.ppf(np.clip(np.asarray(uniform, dtype=float), 1e-12, 1 - 1e-12), CONCENTRATION)
    shares: Array = gammas / gammas.sum()
    return shares


def _rounded(shares: Array) -> Array:
    """Shares in :data:`DIGITS` digits whose sum is 1, by largest remainder."""
    exact = shares / shares.sum() * _UNITS
    whole = np.floor(exact + 1e-9)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: round(_UNITS - whole.sum())]] += 1
    rounded: Array = whole / _UNITS
    return rounded


def _listed(values: Array) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _label(name: str, number: int, digits: int) -> str:
    return f"{name}{'-' * name[-1:].isdigit()}{number:0{digits}d}"


def _at_least(what: str, count: int) -> None:
    if count < 2:
        raise RecipeError(f"{count} {what}: draw at least 2")
    if count > MOST_DRAWN:
        raise RecipeError(f"{count} {what}: draw at most {MOST_DRAWN}")
