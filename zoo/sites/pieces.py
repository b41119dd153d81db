"""The plan of a traced network: its pieces, and the calls on side branches."""

from __future__ import annotations

from dataclasses import replace

from invariscope.zoo.sites.branches import side_calls
from invariscope.zoo.sites.land import Land
from invariscope.zoo.sites.plan import Piece, Plan
from invariscope.zoo.sites.trace import Trace
from invariscope.zoo.sites.vocabulary import ORDINARY


def plan_of(trace: Trace) -> Plan:
    """The plan of a network whose pass was traced."""
    if _is_ordinary(trace):
        return Plan()
    side = side_calls(trace)
    pieces = []
    for piece in Land(trace).pieces():
        if piece.end not in side:
            pieces.append(piece)
        elif not piece.covers:
            pieces.append(replace(piece, reason=side[piece.end]))
    silent = frozenset(number for piece in pieces for number in piece.covers)
    reasons = {number: reason for number, reason in side.items() if trace.calls[number].is_site}
    pieces = [replace(piece, choosing=_choosing(trace, piece)) for piece in pieces]
    ends = {piece.end for piece in pieces}
    reasons = {number: reason for number, reason in reasons.items() if number not in silent | ends}
    return Plan(tuple(call.name for call in trace.calls), tuple(pieces), silent, reasons)


def _choosing(trace: Trace, piece: Piece) -> tuple[int, ...]:
    """The calls beside a piece that make of its source, and of nothing else of the images, what it is given."""
    maker = {value: number for number, call in enumerate(trace.calls) for value in call.results}
    own = {piece.source, *(value for number in piece.calls for value in trace.calls[number].results)}
    wanted = [value for number in piece.calls for value in trace.calls[number].args]
    found: set[int] = set()
    while wanted:
        value = wanted.pop()
        if value in own or trace.values[value].constant or maker.get(value) in found:
            continue
        if value not in maker or maker[value] > piece.end:
            return ()
        found.add(maker[value])
        wanted += trace.calls[maker[value]].args
    return tuple(sorted(found))


def _is_ordinary(trace: Trace) -> bool:
    """Whether a network is layers and sums of their results alone, which need no second look."""
    pooled: set[int] = set()
    for call in trace.calls:
        if call.name not in ORDINARY:
            return False
        if call.name == "add":
            shapes = {trace.values[item].shape for item in call.args}
            if len(shapes) > 1 or not pooled.isdisjoint(call.args):
                return False
        if call.name in ("mean", "flatten") and len(trace.values[call.results[0]].shape) > 2:
            return False
        if call.guess:
            return False
        if call.is_site and call.name.endswith("pool2d"):
            pooled.update(call.results)
    return len(trace.outputs) < 2
