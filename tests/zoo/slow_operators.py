"""Slow references of the operators without learned weights: Python loops over lists, by their definitions.

An image is a list of planes, a plane a list of rows. Nothing here calls an operator.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from invariscope.zoo.operators import OperatorSpec, parse_operator
from invariscope.zoo.operators.pooling import LP_FLOOR

Plane = list[list[float]]


def source(position: int, size: int, mode: str, widest: int) -> int | None:
    if 0 <= position < size:
        return position
    if mode == "zeros":
        return None
    if mode == "circular":
        return position % size
    if mode == "reflect" and widest < size:
        return -position if position < 0 else 2 * (size - 1) - position
    return min(max(position, 0), size - 1)


def slow_windows(plane: Plane, kernel: int, stride: int, before: int, after: int | None, mode: str) -> list:
    """The values of each window, row by row, None outside; ``after=None``: as far as the outputs need."""
    sizes = (len(plane), len(plane[0]))
    counts = [math.ceil(size / stride) for size in sizes]
    ends = [
        max(stride * (n - 1) + kernel - before - m, 0) if after is None else after
        for n, m in zip(counts, sizes, strict=True)
    ]
    rows = []
    for u in range(counts[0]):
        row = []
        for v in range(counts[1]):
            values = []
            for p in range(kernel):
                for q in range(kernel):
                    h = source(stride * u + p - before, sizes[0], mode, max(before, ends[0]))
                    w = source(stride * v + q - before, sizes[1], mode, max(before, ends[1]))
                    values.append(None if h is None or w is None else plane[h][w])
            row.append(values)
        rows.append(row)
    return rows


def slow_pool(plane: Plane, kernel: int, stride: int, mode: str, reduce: Callable[[list[float]], float]) -> Plane:
    before = (kernel - 1) // 2 if kernel > stride else 0
    found = slow_windows(plane, kernel, stride, before, None, mode)
    return [[reduce([v for v in values if v is not None]) for values in row] for row in found]


def slow_blur(plane: Plane, m: int, stride: int, mode: str) -> Plane:
    taps = [math.comb(m - 1, p) * math.comb(m - 1, q) / 4 ** (m - 1) for p in range(m) for q in range(m)]
    found = slow_windows(plane, m, stride, (m - 1) // 2, m // 2, mode)
    return [[sum(k * (v or 0.0) for k, v in zip(taps, values, strict=True)) for values in row] for row in found]


def slow_soft(beta: float) -> Callable[[list[float]], float]:
    def reduce(values: list[float]) -> float:
        weights = [math.exp(beta * (v - max(values))) for v in values]
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    return reduce


def slow_lp(p: float) -> Callable[[list[float]], float]:
    return lambda values: (sum(max(v, 0.0) ** p for v in values) / len(values) + LP_FLOOR**p) ** (1 / p)


SLOW = {
    "max": lambda plane, s, mode: slow_pool(plane, max(s, 2), s, mode, max),
    "max(3)": lambda plane, s, mode: slow_pool(plane, 3, s, mode, max),
    "avg": lambda plane, s, mode: slow_pool(plane, max(s, 2), s, mode, lambda v: sum(v) / len(v)),
    "avg(5)": lambda plane, s, mode: slow_pool(plane, 5, s, mode, lambda v: sum(v) / len(v)),
    "subsample": lambda plane, s, mode: [row[::s] for row in plane[::s]],
    "lp(3)": lambda plane, s, mode: slow_pool(plane, max(s, 2), s, mode, slow_lp(3)),
    "lp(2.5, kernel=3)": lambda plane, s, mode: slow_pool(plane, 3, s, mode, slow_lp(2.5)),
    "lp(1)": lambda plane, s, mode: slow_pool(
        plane, max(s, 2), s, mode, lambda v: sum(max(a, 0.0) for a in v) / len(v)
    ),
    "lp(inf)": lambda plane, s, mode: slow_pool(plane, max(s, 2), s, mode, lambda v: max(0.0, *v)),
    "soft(4)": lambda plane, s, mode: slow_pool(plane, max(s, 2), s, mode, slow_soft(4)),
    "soft(0, kernel=4)": lambda plane, s, mode: slow_pool(plane, 4, s, mode, slow_soft(0)),
    "soft(inf)": lambda plane, s, mode: slow_pool(plane, max(s, 2), s, mode, max),
    **{f"blur({m})": lambda plane, s, mode, m=m: slow_blur(plane, m, s, mode) for m in range(1, 8)},
    "maxblur(3)": lambda plane, s, mode: slow_blur(slow_pool(plane, max(s, 2), 1, mode, max), 3, s, mode),
    "maxblur(4, 3)": lambda plane, s, mode: slow_blur(slow_pool(plane, 3, 1, mode, max), 4, s, mode),
}


Image = list[Plane]
Reduce = Callable[[list[float | None], int], float]
"""The value of a window of a channel from its pixels, None outside."""


def inside(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def slow_ranks(weights: list[float]) -> Reduce:
    def reduce(values: list[float | None], channel: int) -> float:
        ranked = sorted(inside(values), reverse=True)
        kept = weights[: len(ranked)]
        kept = kept if sum(kept) > 0 else [0.0] * (len(ranked) - 1) + [1.0]
        return sum(w * v for w, v in zip(kept, ranked, strict=True)) / sum(kept)

    return reduce


def slow_kernel(weights: list[float]) -> Reduce:
    def reduce(values: list[float | None], channel: int) -> float:
        there = [(w, v) for w, v in zip(weights, values, strict=True) if v is not None]
        there = there if sum(w for w, _ in there) > 0 else [(1.0, v) for _, v in there]
        return sum(w * v for w, v in there) / sum(w for w, _ in there)

    return reduce


def slow_channel_ranks(shares: list[float], channels: int) -> Reduce:
    counts = [math.floor(share * channels + 1e-9) for share in shares]
    while sum(counts) < channels:
        rests = [share * channels - count for share, count in zip(shares, counts, strict=True)]
        counts[rests.index(max(rests))] += 1
    ranks = [rank for rank, count in enumerate(counts) for _ in range(count)]

    def reduce(values: list[float | None], channel: int) -> float:
        ranked = sorted(inside(values), reverse=True)
        return ranked[min(ranks[channel], len(ranked) - 1)]

    return reduce


def slow_lme(beta: float) -> Reduce:
    if math.isinf(beta):
        return lambda values, channel: max(inside(values)) if beta > 0 else min(inside(values))
    if beta == 0:
        return lambda values, channel: sum(inside(values)) / len(inside(values))
    return lambda values, channel: (
        math.log(sum(math.exp(beta * v) for v in inside(values)) / len(inside(values))) / beta
    )


def slow_lehmer(p: float) -> Reduce:
    def reduce(values: list[float | None], channel: int) -> float:
        positive = [max(v, 0.0) for v in inside(values)]
        if math.isinf(p) or max(positive) == 0:
            return max(positive)
        return sum(v**p for v in positive) / sum(v ** (p - 1) for v in positive)

    return reduce


def slow_soft_minimum(beta: float) -> Reduce:
    return lambda values, channel: -slow_soft(-beta)([-v for v in inside(values)])


def quantifier(q: float, n: int) -> list[float]:
    steps = [0.0, *((r / n) ** q for r in range(1, n + 1))]
    return [high - low for low, high in itertools.pairwise(steps)]


REDUCES: dict[str, Callable[[OperatorSpec, int, int], Reduce]] = {
    "rank": lambda spec, n, c: slow_ranks(list(spec.value("w") or [1 / n] * n)),
    "channelranks": lambda spec, n, c: slow_channel_ranks(list(spec.value("v") or [1 / n] * n), c),
    "owa": lambda spec, n, c: slow_ranks(quantifier(spec.value("q"), n)),
    "topk": lambda spec, n, c: slow_ranks([1.0] * spec.value("k") + [0.0] * (n - spec.value("k"))),
    "quantile": lambda spec, n, c: slow_ranks([float(r == spec.value("j")) for r in range(1, n + 1)]),
    "kernel": lambda spec, n, c: slow_kernel(list(spec.value("k") or [1 / n] * n)),
    "lme": lambda spec, n, c: slow_lme(spec.value("beta")),
    "lehmer": lambda spec, n, c: slow_lehmer(spec.value("p")),
    "soft": lambda spec, n, c: slow_soft_minimum(spec.value("beta")),
}


def slow_gauss(spec: OperatorSpec, image: Image, s: int, mode: str) -> Image:
    sigma = spec.value("sigma")
    r = math.ceil(3 * sigma)
    line = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(-r, r + 1)]
    taps = [p * q / sum(line) ** 2 for p in line for q in line]
    maps = [slow_windows(plane, 2 * r + 1, s, r, r, mode) for plane in image]
    return [[[sum(k * (v or 0.0) for k, v in zip(taps, cell, strict=True)) for cell in row] for row in m] for m in maps]


def slow_phase(spec: OperatorSpec, image: Image, s: int, mode: str) -> Image:
    """At stride 1 the map moved up by i and left by j."""
    i, j = spec.value("i"), spec.value("j")
    ends = (i, j) if s == 1 else (-len(image[0]) % s, -len(image[0][0]) % s)

    def value(plane: Plane, u: int, v: int) -> float:
        h = source(s * u + i, len(plane), mode, ends[0])
        w = source(s * v + j, len(plane[0]), mode, ends[1])
        return 0.0 if h is None or w is None else plane[h][w]

    sizes = math.ceil(len(image[0]) / s), math.ceil(len(image[0][0]) / s)
    return [[[value(plane, u, v) for v in range(sizes[1])] for u in range(sizes[0])] for plane in image]


def slow_mix(spec: OperatorSpec, image: Image, s: int, mode: str) -> Image:
    a = spec.value("a")
    one, other = (slow(str(spec.value(part)), image, s, mode) for part in ("first", "second"))
    pairs = [[zip(p, q, strict=True) for p, q in zip(x, y, strict=True)] for x, y in zip(one, other, strict=True)]
    return [[[a * p + (1 - a) * q for p, q in row] for row in plane] for plane in pairs]


def slow_prefilter(spec: OperatorSpec, image: Image, s: int, mode: str) -> Image:
    weight = spec.value("low_pass")
    smooth = [slow_blur(plane, 3, 1, mode) for plane in image]
    pairs = [[zip(p, q, strict=True) for p, q in zip(x, y, strict=True)] for x, y in zip(image, smooth, strict=True)]
    filtered = [[[(1 - weight) * p + weight * q for p, q in row] for row in plane] for plane in pairs]
    return slow(str(spec.value("then")), filtered, s, mode)


WHOLE = {"gauss": slow_gauss, "phase": slow_phase, "mix": slow_mix, "prefilter": slow_prefilter}


def slow(spec: str, image: Image, s: int, mode: str) -> Image:
    """Any fixed operator by loops."""
    if spec in SLOW:
        return [SLOW[spec](plane, s, mode) for plane in image]
    parsed = parse_operator(spec)
    if parsed.name in WHOLE:
        return WHOLE[parsed.name](parsed, image, s, mode)
    kernel = parsed.value("kernel") or max(s, 2)
    reduce = REDUCES[parsed.name](parsed, kernel**2, len(image))
    before = (kernel - 1) // 2 if kernel > s else 0
    maps = [slow_windows(plane, kernel, s, before, None, mode) for plane in image]
    return [[[reduce(cell, c) for cell in row] for row in plane] for c, plane in enumerate(maps)]
