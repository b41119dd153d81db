"""Side branches of a network: what comes back only as a weight, a gate or a pyramid, or feeds another head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from invariscope.base.explained import SIDE
from invariscope.zoo.sites.trace import Call, Trace
from invariscope.zoo.sites.vocabulary import CONVOLUTIONS, ELEMENTWISE, PASSES, POOLS, PRODUCTS, SQUASHING, UPSAMPLING

GATE = f"{SIDE}: it comes back only as a weight or a gate"
PYRAMID = f"{SIDE}: a pyramid, that comes back upsampled to the map that it pools"
HEAD = f"{SIDE}: it leads only to an output beside the main one"
LOGITS = f"{SIDE}: poolings of one map side by side, that are flattened into logits"


def carrying(trace: Trace, call: Call, item: int, result: int) -> bool:
    """Whether an argument's values go into the result as values, and not as a weight, an index or a gate."""
    values = trace.values
    if not values[item].carries:
        return False
    whole = values[result].numel
    if call.name in ELEMENTWISE and values[item].numel < whole:
        return not any(values[other].numel == whole for other in call.args if other != item)
    if call.name in PRODUCTS and len(call.args) > 1 and values[item].numel < whole:
        # A weight for each image, channel and phase; attention's weights are for pixels, whose number its result has.
        own, sizes = values[item].shape[2:], values[result].shape[-2:]
        return any(size in sizes for size in own) or not any(values[other].numel >= whole for other in call.args)
    return call.name not in CONVOLUTIONS or item == call.args[0]


def side_calls(trace: Trace) -> dict[int, str]:
    """The calls on side branches, each with the reason."""
    uses: dict[int, list[int]] = {}
    for number, call in enumerate(trace.calls):
        for item in dict.fromkeys(call.args):
            uses.setdefault(item, []).append(number)
    returned = {value for values in trace.outputs.values() for value in values}
    gates = _gates(trace)
    side = _weights(trace, uses, returned, gates)
    found = {}
    beside = _beside(trace)
    for number, call in enumerate(trace.calls):
        results = [item for item in call.results if trace.values[item].carries]
        if not results:
            continue
        if all(item in side for item in results):
            found[number] = GATE
        elif all(item in beside for item in results):
            found[number] = HEAD
        elif call.is_site and call.name in POOLS:
            if _pyramid(trace, number, uses, returned):
                found[number] = PYRAMID
            elif _flattened(trace, number, uses):
                found[number] = LOGITS
    return found


def _gates(trace: Trace) -> set[int]:
    """Values between 0 and 1 that multiply: outputs of sigmoid and softmax, also after they were moved or resized."""
    gates: set[int] = set()
    for call in trace.calls:
        known = [item for item in call.args if item in gates]
        if call.name in SQUASHING or (known and call.name in PASSES and len(set(call.args)) == len(set(known))):
            gates.update(call.results)
    return gates


def _weights(trace: Trace, uses: Mapping[int, Sequence[int]], returned: set[int], gates: set[int]) -> set[int]:
    """The values that go nowhere but into weights: every way from them ends in one."""
    side: set[int] = set()
    dead: set[int] = set()
    order = [item for call in trace.calls for item in call.results]
    for item in reversed(order):
        if item in returned:
            continue
        ends = False
        for number in uses.get(item, ()):
            call = trace.calls[number]
            results = [result for result in call.results if trace.values[result].carries and result not in dead]
            if call.results and not results:
                ends = ends or all(not trace.values[result].carries for result in call.results)
                continue
            if not results:
                break
            if all(result in side or _is_weight(trace, call, item, result, gates) for result in results):
                ends = True
                continue
            break
        else:
            (side if ends else dead).add(item)
    return side


def _is_weight(trace: Trace, call: Call, item: int, result: int, gates: set[int]) -> bool:
    if call.name == "mul" and item in gates and any(other not in gates for other in call.args):
        return True
    return not carrying(trace, call, item, result)


def _beside(trace: Trace) -> set[int]:
    """The values from which outputs come, but not the main one: the only one, ``out``, ``logits``, or first logits."""
    if len(trace.outputs) < 2:
        return set()
    keys = list(trace.outputs)
    main = next((key for key in ("out", "logits") if key in trace.outputs), None)
    if main is None:
        first = trace.outputs[keys[0]]
        if not first or any(len(trace.values[item].shape) > 2 for item in first):
            return set()
        main = keys[0]
    others = [item for key in keys if key != main for item in trace.outputs[key]]
    return _ancestors(trace, others) - _ancestors(trace, trace.outputs[main])


def _ancestors(trace: Trace, of: Sequence[int]) -> set[int]:
    found = set(of)
    for call in reversed(trace.calls):
        if any(item in found for item in call.results):
            found.update(call.args)
    return found


def _pyramid(trace: Trace, number: int, uses: Mapping[int, Sequence[int]], returned: set[int]) -> bool:
    """Whether a pooling beside the map that it pools goes through layers of single pixels alone before it is upsampled
    to where it came from."""
    call = trace.calls[number]
    if len(uses[call.args[0]]) < 2:
        return False
    size = trace.values[call.args[0]].shape[-2:]
    small = trace.values[call.results[0]].shape[-2:]
    wanted, seen, upsampled = [call.results[0]], set(), False
    while wanted:
        item = wanted.pop()
        if item in seen:
            continue
        seen.add(item)
        if item in returned or not uses.get(item):
            return False
        for user in uses[item]:
            after = trace.calls[user]
            shape = trace.values[after.results[0]].shape if after.results else ()
            if after.name in UPSAMPLING and len(shape) == 4 and shape[-2] > small[0]:
                if shape[-2:] != size:
                    return False
                upsampled = True
            elif after.is_site or shape[-2:] != small or _spatial(trace, after):
                return False
            else:
                wanted.append(after.results[0])
    return upsampled


def _spatial(trace: Trace, call: Call) -> bool:
    """Whether a convolution mixes pixels."""
    if call.name not in CONVOLUTIONS or len(call.args) < 2:
        return False
    return max(trace.values[call.args[1]].shape[2:], default=1) > 1


def _flattened(trace: Trace, number: int, uses: Mapping[int, Sequence[int]]) -> bool:
    """Whether a pooling and others of the same map are flattened, and joined as vectors."""
    call = trace.calls[number]

    def vectors(other: Call) -> bool:
        users = [trace.calls[user] for item in other.results for user in uses.get(item, ())]
        shapes = [trace.values[user.results[0]].shape for user in users if user.results]
        return bool(shapes) and all(len(shape) == 2 for shape in shapes)

    beside = [trace.calls[user] for user in uses.get(call.args[0], ())]
    pools = [other for other in beside if other.name in POOLS and vectors(other)]
    return len(pools) > 1 and call in pools
