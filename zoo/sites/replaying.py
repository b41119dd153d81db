"""Keep what the planned pieces of a pass were given, and read each at its end: by behaviour, or as not explained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from invariscope.base.explained import UNEXPLAINED, is_aside
from invariscope.zoo.sites.jacobian import Unreadable
from invariscope.zoo.sites.plan import KEEPS_ALL, Key, Piece, Plan
from invariscope.zoo.sites.replay import Reading, Replay, Step, behaved, template
from invariscope.zoo.sites.trace import Call, Trace, tensors
from invariscope.zoo.sites.unexplained import unexplained
from invariscope.zoo.sites.uses import Use, unmeasured


@dataclass(frozen=True)
class Verdict:
    """How a piece is read in every batch: as ``reading`` says, with what ``held`` names held fixed; or why not."""

    reading: Reading | None = None
    held: str = ""
    reason: str | None = None


HELD = ("output", "image", "nothing")
"""What of a piece may be weights: all that has fewer elements than the output, than one image's, or nothing."""


class Replayer:
    """Follows one pass by a plan. Without ``verdicts`` it is there to find them, and keeps them in its own."""

    def __init__(self, plan: Plan, verdicts: Mapping[Key, Verdict] | None, maps_only: bool = False) -> None:
        self.plan = plan
        self._maps_only = maps_only
        self.verdicts: dict[Key, Verdict] = dict(verdicts or {})
        self.judging = verdicts is None
        self.changed = False
        """Whether the pass was not the one that was planned."""
        self._ends: dict[int, list[Piece]] = {}
        self._until: dict[int, int] = {}
        for piece in plan.pieces:
            self._ends.setdefault(piece.end, []).append(piece)
            for number in (*piece.calls, *piece.choosing):
                self._until[number] = max(self._until.get(number, 0), piece.end)
        self.starts = {piece.calls[0] for piece in plan.pieces}
        self._steps: dict[int, Step] = {}
        self._held: dict[int, Tensor] = {}
        self._last = max(self._until.values(), default=-1)

    def before(self, number: int, writes: bool, args: Sequence[Any], trace: Trace) -> None:
        """Keep a copy of what a call of a piece is about to write to."""
        if number in self._until and writes and args and isinstance(args[0], Tensor):
            self._held[trace.number(args[0])] = args[0].clone()

    def step(
        self, number: int, func: Any, args: Any, kwargs: Any, call: Call, results: Sequence[Tensor], writes: bool,
        trace: Trace,
    ) -> list[tuple[Piece, Use]]:  # fmt: skip
        """Take note of a call; the pieces that end with it."""
        if number >= len(self.plan.names) or self.plan.names[number] != call.name:
            self.changed = True
        if number not in self._until or self.changed:
            return []
        numbers = iter(call.args)
        step_args, step_kwargs = template(args, numbers), template(kwargs, numbers)
        self._steps[number] = Step(call.name, func, step_args, step_kwargs, call.args, call.results, writes)
        for value, tensor in zip(call.args, tensors(*args, kwargs), strict=True):
            self._held.setdefault(value, tensor)
        for value, tensor in zip(call.results, results, strict=True):
            self._held[value] = tensor
        ended = [(piece, self._read(piece, trace)) for piece in self._ends.get(number, ())]
        if number == self._last:
            self._held.clear()
        return ended

    def _read(self, piece: Piece, trace: Trace) -> Use:
        x, y = (
            held.permute(0, 3, 1, 2) if last else held
            for held, last in zip((self._held[piece.source], self._held[piece.target]), piece.last, strict=True)
        )
        verdict = self.verdicts.get(piece.key)
        if piece.reason is not None:
            return listed(piece, x, y)
        if not self.judging and verdict is not None:
            if verdict.reading is None:
                return unexplained(x, y, str(verdict.reason))
            if self._maps_only:
                known = verdict.reading
                shape = known.kind, known.kernel, known.stride
                return replace(unmeasured("", x, y, ""), kind=shape[0], kernel=shape[1], stride=shape[2], reason=None)
            try:
                return behaved(self._replay(piece, trace, y, verdict.held), x, y, verdict.reading)[0]
            except Unreadable as problem:
                known = verdict.reading
                use = unexplained(x, y, f"in one of the batches {problem}")
                return replace(use, kind=known.kind, kernel=known.kernel, stride=known.stride)
        why = ""
        for held in HELD:
            try:
                use, reading = behaved(self._replay(piece, trace, y, held), x, y)
            except Unreadable as problem:
                why = why or str(problem)
                continue
            self.verdicts[piece.key] = Verdict(reading, held)
            return use
        self.verdicts[piece.key] = Verdict(reason=why)
        return unexplained(x, y, why)

    def _replay(self, piece: Piece, trace: Trace, y: Tensor, held: str) -> Replay:
        if any(number not in self._steps for number in piece.calls):
            raise Unreadable("a part of it cannot be run on its own")
        least = {"output": y.numel(), "image": y.numel() // max(len(y), 1), "nothing": 0}[held]
        every = sorted({*piece.calls, *piece.choosing})
        whole = [self._steps[number] for number in every if number in self._steps]
        steps = [self._steps[number] for number in piece.calls]
        return Replay(piece, trace, steps, dict(self._held), least, whole if len(whole) == len(every) else steps)


def listed(piece: Piece, x: Tensor, y: Tensor) -> Use:
    """The use of a piece that is not replayed, with its reason."""
    if piece.reason == KEEPS_ALL:
        return unmeasured("space_to_depth", x, y, KEEPS_ALL)
    if is_aside(piece.reason):
        return unmeasured("unexplained", x, y, str(piece.reason), explained=UNEXPLAINED)
    return unexplained(x, y, str(piece.reason))


def refined(plan: Plan, verdicts: Mapping[Key, Verdict], kinds: Sequence[str | None]) -> Plan:
    """The plan once it is known which pieces can be read; ``kinds`` are those of the sites read of the calls.

    A piece that cannot be read and holds sites leaves these to themselves, as parallel branches. Where one of several
    pieces of one map is read, the others are its other bands.
    """
    whole = [piece for piece in plan.pieces if piece.optional and _kind(piece, verdicts) is not None]
    inner = {number for piece in whole for number in piece.calls}
    pieces = [piece for piece in plan.pieces if piece in whole or not (piece.optional or piece.end in inner)]
    plan = replace(plan, pieces=tuple(pieces))
    plan = replace(plan, pieces=tuple(_phases_together(_chosen(plan.pieces, verdicts), verdicts)))
    read = [piece for piece in plan.pieces if _kind(piece, verdicts) is not None and piece.reason is None]
    kept: list[Piece] = []
    reasons = dict(plan.reasons)
    for piece in plan.pieces:
        if piece in read or piece.reason is not None:
            kept.append(piece)
            continue
        if any(other.source == piece.source and set(other.calls) & set(piece.calls) for other in read):
            continue
        inside = [number for number in piece.covers if kinds[number] not in ("subsample", None)]
        same = any(
            other.source == piece.source and set(other.calls) & set(piece.calls) for other in kept if other not in read
        )
        if len(inside) > 1:
            reasons.update(dict.fromkeys(inside, PARALLEL))
        elif not same:
            kept.append(piece)
    silent = frozenset(number for piece in plan.pieces for number in piece.covers if number not in reasons)
    return Plan(plan.names, tuple(kept), silent, reasons)


def _chosen(pieces: Sequence[Piece], verdicts: Mapping[Key, Verdict]) -> list[Piece]:
    """One piece of each choice: the first that can be read, weights that add up to 1 before sums; or the first."""
    chosen: list[Piece] = []
    for piece in pieces:
        same = [other for other in pieces if other.choice == piece.choice and other.choice]
        readable = [other for other in same if _kind(other, verdicts) is not None]
        means = [other for other in readable if (reading := verdicts[other.key].reading) and reading.is_mean]
        if not same or piece is (means or readable or same)[0]:
            chosen.append(piece)
    return chosen


def _phases_together(pieces: Sequence[Piece], verdicts: Mapping[Key, Verdict]) -> Iterator[Piece]:
    """The pieces, but all phases of a map as one that keeps every pixel."""
    for piece in pieces:
        same = [other for other in pieces if _is_phase(other, verdicts) and other.source == piece.source]
        reading = verdicts[piece.key].reading if piece.key in verdicts else None
        if reading is None or piece not in same or len(same) != reading.stride[0] * reading.stride[1]:
            yield piece
        elif piece is same[0]:
            yield replace(piece, reason=KEEPS_ALL)


def _is_phase(piece: Piece, verdicts: Mapping[Key, Verdict]) -> bool:
    return _kind(piece, verdicts) == "subsample"


PARALLEL = "parallel: it is one of several branches of one map that come together in a way that is not known here"


def _kind(piece: Piece, verdicts: Mapping[Key, Verdict]) -> str | None:
    reading = verdicts[piece.key].reading if piece.key in verdicts else None
    return reading.kind if reading is not None else None
