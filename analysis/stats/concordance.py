"""Sums of sign products of pairs of rows in O(n log n): Kendall's numerator of a whole sample, of every row, of every
permutation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from invariscope.analysis.stats.resampling import Array

Ints = NDArray[np.int64]

_CELLS = 1 << 17
"""Integers that a step of the permutations holds at a time: what stays in the cache is twice as fast."""


def dense_codes(column: Array) -> tuple[Ints, Ints]:
    """Codes ``0, 1, …`` of the values in ascending order, and how often each value is there."""
    _, codes, counts = np.unique(column, return_inverse=True, return_counts=True)
    return codes.reshape(-1).astype(np.int64), counts.astype(np.int64)


def untied_pairs(counts: Ints) -> int:
    """Pairs of rows whose values differ, of values that are there ``counts`` times."""
    n = int(counts.sum())
    return n * (n - 1) // 2 - int((counts * (counts - 1) // 2).sum())


@dataclass(frozen=True)
class Quadrants:
    """Points ``(x, y)`` of which ``signs`` tells, for any value of x and any of y, ``Σ_a sign(x_a - u) sign(y_a - v)``.

    A wavelet matrix (Claude, Navarro & Ordóñez 2015) of the places that the rows have by y, in the order of x:
    O(n log n) to make, O(log n) an answer, all answers at once.
    """

    below: tuple[Ints, Ints]
    upto: tuple[Ints, Ints]
    codes: tuple[Ints, Ints]
    levels: tuple[tuple[int, Ints], ...]

    @classmethod
    def of(cls, x: Array, y: Array) -> Quadrants:
        """The points of two columns of equal length."""
        (x_codes, x_counts), (y_codes, y_counts) = dense_codes(x), dense_codes(y)
        ends = [np.cumsum(counts) for counts in (x_counts, y_counts)]
        n = len(x_codes)
        places = np.empty(n, dtype=np.int64)
        places[np.argsort(y_codes, kind="stable")] = np.arange(n)
        found, levels = places[np.argsort(x_codes, kind="stable")], []
        for bit in range(max(n - 1, 1).bit_length() - 1, -1, -1):
            is_zero = (found >> bit) & 1 == 0
            levels.append((bit, np.concatenate([[0], np.cumsum(is_zero)])))
            found = np.concatenate([found[is_zero], found[~is_zero]])
        starts = (ends[0] - x_counts, ends[1] - y_counts)
        return cls(starts, (ends[0], ends[1]), (x_codes, y_codes), tuple(levels))

    def signs(self, x_rows: Ints, y_rows: Ints) -> Ints:
        """The sum at the x of each of ``x_rows`` and the y of each of ``y_rows``, which are numbers of rows."""
        u, v = self.codes[0][x_rows], self.codes[1][y_rows]
        x0, x1, y0, y1 = self.below[0][u], self.upto[0][u], self.below[1][v], self.upto[1][v]
        inside = self._count(np.concatenate([x0, x0, x1, x1]), np.concatenate([y0, y1, y0, y1])).reshape(4, -1)
        return inside.sum(axis=0) + len(self.codes[0]) - x0 - x1 - y0 - y1

    def of_rows(self) -> Ints:
        """``Σ_a sign(x_a - x_b) sign(y_a - y_b)`` of every row ``b``: together twice Kendall's numerator."""
        rows = np.arange(len(self.codes[0]))
        return self.signs(rows, rows)

    def _count(self, x_before: Ints, y_before: Ints) -> Ints:
        """Points among the first ``x_before`` by x that are among the first ``y_before`` by y."""
        n = len(self.codes[0])
        last = y_before >= n
        start, stop, found = np.zeros_like(x_before), x_before, np.zeros_like(x_before)
        for bit, zeros in self.levels:
            start0, stop0 = zeros[start], zeros[stop]
            goes_right = (y_before >> bit) & 1 == 1
            found = found + np.where(goes_right, stop0 - start0, 0)
            start = np.where(goes_right, zeros[-1] + start - start0, start0)
            stop = np.where(goes_right, zeros[-1] + stop - stop0, stop0)
        return np.where(last, x_before, found)


def concordance(x: Array, y: Array) -> int:
    """``Σ sign(x_a - x_b) sign(y_a - y_b)`` over all pairs of rows: pairs in agreement less those in disagreement."""
    codes, counts = dense_codes(y)
    return int(concordances(dense_codes(x)[0][None, :], codes, counts)[0][0])


def concordances(x: Ints, y: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Of each row of ``x (P, n)`` with the codes ``y (n,)``: pairs in agreement less those in disagreement ``(P,)``,
    and pairs that x does not tie ``(P,)``.

    Rows are sorted by x and, where x ties, by y. ``counts`` of the codes are the same under every permutation, so that
    a radix sort of y from its highest bit knows where each block begins; a 1 before a 0 in a block is a disagreement.
    """
    n, products, untied = x.shape[1], np.empty(len(x), np.int64), np.empty(len(x), np.int64)
    steps = _radix(counts)
    for first in range(0, len(x), max(1, _CELLS // max(n, 1))):
        some = slice(first, first + max(1, _CELLS // max(n, 1)))
        keys = np.sort(x[some] * len(counts) + y, axis=1)
        both = _tied(keys[:, 1:] == keys[:, :-1])
        codes = keys % len(counts)
        x_sorted = keys // len(counts)
        alike = _tied(x_sorted[:, 1:] == x_sorted[:, :-1])
        untied[some] = n * (n - 1) // 2 - alike
        disagreeing = _inversions(codes.astype(np.int32), steps)
        products[some] = untied_pairs(counts) - alike + both - 2 * disagreeing
    return products, untied


def _tied(same: np.ndarray) -> Ints:
    """Pairs in runs of equal neighbours, of each row."""
    n = same.shape[1]
    if not same.any():
        return np.zeros(len(same), dtype=np.int64)
    places = np.arange(1, n + 1)
    # The length of the run up to each place, 0 where it is broken: a run of length m has m (m + 1) / 2 pairs.
    lengths = np.where(same, places - np.maximum.accumulate(np.where(same, 0, places), axis=1), 0)
    found: Ints = lengths.sum(axis=1)
    return found


@dataclass(frozen=True)
class _Step:
    """One bit of the radix sort: where the block of each place begins, and how many zeros it has."""

    bit: int
    start: np.ndarray
    zeros: np.ndarray


def _radix(counts: Ints) -> list[_Step]:
    steps = []
    ends = np.concatenate([[0], np.cumsum(counts)])
    codes = np.repeat(np.arange(len(counts)), counts)
    for bit in range(max(len(counts) - 1, 0).bit_length() - 1, -1, -1):
        first = (codes >> (bit + 1)) << (bit + 1)
        middle = np.minimum(first + (1 << bit), len(counts))
        steps.append(_Step(bit, ends[first].astype(np.int32), (ends[middle] - ends[first]).astype(np.int32)))
    return steps


def _inversions(codes: np.ndarray, steps: list[_Step]) -> Ints:
    """Pairs of places in each row of ``codes`` whose codes descend."""
    count, n = codes.shape
    found, firsts = np.zeros(count, dtype=np.int64), np.arange(count)[:, None] * n
    places = np.arange(n, dtype=np.int32)
    for number, step in enumerate(steps):
        ones = (codes >> step.bit) & 1
        before = np.cumsum(ones, axis=1, dtype=np.int32)
        before -= ones
        before -= before.take(step.start, axis=1)
        found += np.multiply(before, 1 - ones).sum(axis=1, dtype=np.int64)
        if number + 1 < len(steps):
            to = places - before
            to += ones * (2 * before + (step.start + step.zeros - places))
            moved = np.empty(count * n, dtype=np.int32)
            moved[(to + firsts).ravel()] = codes.ravel()
            codes = moved.reshape(count, n)
    return found
