"""Follow the sizes of maps through a trace: which smaller maps does no reading explain, and what are they made of?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from invariscope.zoo.sites.branches import carrying
from invariscope.zoo.sites.plan import KEEPS_ALL, Piece
from invariscope.zoo.sites.trace import Call, Trace
from invariscope.zoo.sites.unexplained import OTHERWISE
from invariscope.zoo.sites.uses import Size
from invariscope.zoo.sites.vocabulary import (
    CONVOLUTIONS,
    JOINS,
    LAYERS,
    MAP_LAYERS,
    MIXING,
    MOVES,
    NO_MAPS,
    PLAIN,
    PRODUCTS,
)

GLOBAL_FROM = 4
"""A whole axis of a map of this size or more that becomes one pixel is a global reduction."""

CHOICES = 4

SMALLER = 1.5
"""A map that an unknown layer makes smaller by less than this factor has lost its border, and no resolution."""


class Land:
    """Maps, and what is derived of each until it is a map again.

    A map is what the network was given, or what a layer made, on a grid of pixels. ``sources`` are the maps of which a
    derived value is made; ``above`` its dominators: the values through which all of it comes.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.values = trace.values
        self.maps: dict[int, bool] = {}
        """Maps, and whether their channels are the last dimension."""
        self.sources: dict[int, frozenset[int]] = {}
        self.above: dict[int, frozenset[int]] = {}
        self.made: dict[int, int] = {}
        """The call that made a value."""
        self.grids: set[int] = set()
        """What was padded, pooled or filtered by a function that takes maps alone."""
        self.grown = set(trace.images)
        """Maps for certain, as no tokens of attention are: images, and what was made of maps by layers of maps."""
        self.mixed: set[int] = set()
        """Products of two derived values, as in attention: no maps."""
        self.computed = set(trace.images)
        """All that was computed of the images."""
        self.same: dict[int, int] = {}
        """The map of which a whole map was made by plain functions alone."""
        self.exits: dict[int, bool] = {}
        """Values that leave what is derived of a map, and whether a layer that takes maps alone took them."""
        self.found: list[Piece] = []
        for value in trace.images:
            if len(self.values[value].shape) == 4 and self.values[value].real:
                shape = self.values[value].shape
                self._map(value, shape[3] <= 4 < min(shape[1:3]))
        for number, call in enumerate(trace.calls):
            self._follow(number, call)
        for values in trace.outputs.values():
            for value in values:
                if value in self.sources:
                    batch = {self.values[source].shape[0] for source in self.sources[value]}
                    self._exit([value], self.values[value].shape[:1] == (min(batch),))

    def _map(self, value: int, last: bool) -> None:
        self.maps[value] = last
        self.above.setdefault(value, frozenset((value,)))

    def size(self, value: int, consumed: bool = False) -> tuple[Size, bool] | None:
        """Height and width of a value as a map on a grid of its sources, and whether its channels are last."""
        shape = self.values[value].shape
        if value in self.maps:
            return ((shape[1], shape[2]), True) if self.maps[value] else ((shape[2], shape[3]), False)
        if len(shape) != 4 or not self.values[value].real or value in self.mixed or min(shape) < 1:
            return None
        if shape[2:] == (1, 1) or shape[1:3] == (1, 1):
            return None
        if value in self.grids or consumed:
            return (shape[2], shape[3]), False
        for source in self.sources.get(value, ()):
            (height, width), last = self.grid(source)
            whole = self.values[source].shape
            channels, batch = whole[3 if last else 1], whole[0]
            for now, (h, w, c) in ((last, _split(shape, last)), (not last, _split(shape, not last))):
                if 1 in (h, w) and min(height, width) >= GLOBAL_FROM:
                    continue
                fits = 2 * h <= 3 * height and 2 * w <= 3 * width and shape[0] == batch
                if fits and c == channels:
                    return (h, w), now
        return None

    def _size(self, value: int) -> tuple[Size, bool] | None:
        return self.size(value, self.exits.get(value, False))

    def grid(self, value: int) -> tuple[Size, bool]:
        """Height and width of a map, and whether its channels are last."""
        h, w, _ = _split(self.values[value].shape, self.maps[value])
        return (h, w), self.maps[value]

    def _follow(self, number: int, call: Call) -> None:
        known = [value for value in call.args if value in self.maps or value in self.sources]
        if any(value in self.computed for value in call.args):
            self.computed.update(call.results)
        if not known:
            return
        plain = call.name in PLAIN and not (call.read and not (call.is_site or call.link))
        plain = (plain or call.link or call.is_site) and call.kind not in LAYERS and call.name != "operator"
        if call.name in CONVOLUTIONS and len(call.args) > 1 and call.args[1] in self.computed:
            # Weights that the network computes of its images are no layer's, but those of a mixture.
            plain = True
        consumed = call.name in MAP_LAYERS
        if plain and call.name in JOINS and self._joins(call, known):
            plain = False
        if not plain:
            self._exit((value for value in known if value in self.sources), consumed)
        for result in call.results:
            self.made[result] = number
            self._result(number, call, result, known, plain, consumed)

    def _joins(self, call: Call, known: Sequence[int]) -> bool:
        """Whether maps of one size are joined along their channels, which no piece reaches over."""
        sizes = [self.size(value) for value in known]
        shape = self.values[call.results[0]].shape
        if sizes[0] is None or any(size != sizes[0] for size in sizes) or len(known) != len(call.args):
            return False
        size, last = sizes[0]
        batch = self.values[known[0]].shape[0]
        return len(shape) == 4 and shape[0] == batch and _split(shape, last)[:2] == size

    def _exit(self, values: Iterable[int], consumed: bool) -> None:
        for value in values:
            self.exits[value] = consumed or self.exits.get(value, False)

    def _result(self, number: int, call: Call, result: int, known: Sequence[int], plain: bool, consumed: bool) -> None:
        value = self.values[result]
        if not value.carries:
            return
        carried = [item for item in known if carrying(self.trace, call, item, result)]
        if not carried:
            return
        whole = [item for item in carried if item in self.maps and item not in self.sources]
        layer_of = [item for item in carried if self.size(item, consumed)]
        if call.cuts and whole and len(value.shape) == 4:
            self._map(result, self.maps[whole[0]])
            self.same[result] = self.same.get(whole[0], whole[0])
            return
        if not plain and layer_of and len(value.shape) == 4:
            self._layer(number, call, result, layer_of[0], consumed)
            return
        roots: set[int] = set()
        for item in carried:
            roots |= self.sources.get(item, frozenset((item,)))
        origins = {self.same.get(root, root) for root in roots}
        joined = len(roots) > 1 and len(origins) == 1
        if joined:
            roots = origins
        elif len(roots) > 1 and all(self.size(item) for item in carried):
            # Maps that come together are a new one, and no part of the piece of either.
            self._exit((item for item in carried if item in self.sources), False)
            of_first = self.size(carried[0])
            if len(value.shape) == 4 and of_first is not None:
                size, last = of_first
                # A permutation has moved the channels.
                self._map(result, last == (_split(value.shape, last)[:2] == size))
                return
        self.sources[result] = frozenset(roots)
        if (call.link or call.is_site) and call.name not in MOVES and len(value.shape) == 4:
            self.grids.add(result)
        if (call.name in PRODUCTS and len(carried) > 1) or not self.mixed.isdisjoint(carried):
            self.mixed.add(result)
        common = frozenset.intersection(*(self.above[item] for item in carried)) if not joined else frozenset(roots)
        self.above[result] = common | {result}
        self._whole_again(result, roots, call)

    def _whole_again(self, result: int, roots: set[int], call: Call) -> None:
        """A derived value on the whole grid of its source is a map like it, and the start of new pieces."""
        shape = self.values[result].shape
        if len(shape) != 4 or not self.values[result].real or call.is_site or call.link:
            return
        for source in roots:
            grid, last = self.grid(source)
            whole = self.values[source]
            stacked = shape[0] % whole.shape[0] == 0 and self.values[result].numel > whole.numel
            if (shape[0] == whole.shape[0] or stacked) and _split(shape, last)[:2] == grid and min(grid) > 1:
                if roots == {source}:
                    self.same[result] = self.same.get(source, source)
                del self.sources[result]
                self.above[result] = frozenset((result,))
                self.mixed.discard(result)
                self.maps[result] = last
                return

    def _layer(self, number: int, call: Call, result: int, source: int, consumed: bool) -> None:
        """What a layer makes of a map is a map; one that is much smaller for no known reason is not explained."""
        value, known = self.values[result], self.size(source, consumed)
        if len(value.shape) != 4 or not value.real or known is None:
            return
        size, last = known
        h, w, _ = _split(value.shape, last)
        if (h, w) == (1, 1) and min(size) > 1:
            return
        self._map(result, last)
        shrinks = any(SMALLER * after <= before for before, after in zip(size, (h, w), strict=True))
        same = value.shape[0] == self.values[source].shape[0]
        if consumed or (source in self.grown and call.name not in NO_MAPS):
            self.grown.add(result)
        layer = call.name not in NO_MAPS or (call.name == "linear" and source in self.grown)
        if shrinks and same and not call.is_site and not call.read and layer and not last:
            reason = "by a function whose sampling is not known here"
            self.found.append(Piece(source, result, (number,), (last, last), reason))
        elif call.name in NO_MAPS and shrinks:
            del self.maps[result]

    def pieces(self) -> list[Piece]:
        """The pieces that no reading explains, in the order of their ends; each once."""
        found = {(piece.source, piece.target): piece for piece in self.found}
        for value in self.exits:
            for piece in self._pieces_to(value):
                found.setdefault((piece.source, piece.target), piece)
        return sorted(found.values(), key=lambda piece: piece.end)

    def _pieces_to(self, value: int) -> Iterator[Piece]:
        """The pieces on the way from a map to a value that leaves what is derived of it."""
        roots = self.sources.get(value, frozenset())
        chain = sorted(self.above[value])
        before = chain[0] if chain[0] in self.maps and chain[0] not in self.sources else None
        run: list[int] = []
        for item in chain[1 if before is not None else 0 :]:
            if self._size(item) is None:
                continue
            call = self.trace.calls[self.made[item]]
            if (
                call.is_site
                and not _guessed(call)
                and call.kind not in LAYERS
                and before is not None
                and self._direct(call, before, run)
            ):
                yield from self._piece(before, run, roots)
                yield from self._sliced(before, item)
                before, run = item, []
            else:
                run.append(item)
        yield from self._piece(before, run, roots)

    def _direct(self, call: Call, before: int, run: Sequence[int]) -> bool:
        """Whether a reading takes the map as it came, through links at most."""
        known = [item for item in call.args if item in self.maps or item in self.sources]
        return bool(known) and known[0] in (before, *run)

    def _piece(self, before: int | None, run: Sequence[int], roots: frozenset[int]) -> Iterator[Piece]:
        if not run or not self._shrinks(before, run):
            return
        last = self._size(run[-1])
        if last is None:
            return
        reason = None
        if before is None:
            before = max(roots, key=lambda root: self.values[root].numel)
            if any(self.grid(root)[0] == last[0] for root in roots) or self._known_size(before, run[-1], last[0]):
                return
            reason = "by functions that take several maps at once"
        size, was_last = self.size(before) or self.grid(before)
        if last[0][0] * last[0][1] >= size[0] * size[1]:
            return
        if self._is_crop(before, run[-1]):
            return
        yield from self._from_origin(before, run[-1])
        ends = [item for item in run if (self._size(item) or last)[0] == last[0]]
        for end in ends[:CHOICES]:
            calls = self._calls(before, end)
            covers = tuple(number for number in calls if self.trace.calls[number].is_site)
            target = self._size(end) or last
            if self._keeps_all(before, end) and not reason:
                if any(self.trace.calls[number].kind == "subsample" for number in covers):
                    return
                yield Piece(before, end, calls, (was_last, target[1]), KEEPS_ALL, covers)
                return
            yield Piece(before, end, calls, (was_last, target[1]), reason, covers, choice=ends[0])
            if reason is not None:
                return

    def _known_size(self, before: int, end: int, size: Size) -> bool:
        """Whether a value on the way has the size already, for a reason that is known."""
        values = {item for number in self._calls(before, end) for item in self.trace.calls[number].results}
        sizes = [self.size(item, True) for item in values - {end} if self._explained(item)]
        return any(known is not None and known[0] == size for known in sizes)

    def _from_origin(self, before: int, end: int) -> Iterator[Piece]:
        """The same from the map of which a map was made by signs, sums and moves alone: the whole that is one site."""
        origin, target = self.same.get(before), self._size(end)
        if origin is None or origin == before or target is None:
            return
        calls = self._calls(origin, end)
        covers = tuple(number for number in calls if self.trace.calls[number].is_site)
        yield Piece(origin, end, calls, (self.maps[origin], target[1]), None, covers, optional=True)

    def _sliced(self, before: int, item: int) -> Iterator[Piece]:
        """A slice of a map that was made of moved copies of another: a filter that somebody wrote out."""
        if self.trace.calls[self.made[item]].kind != "subsample" or before not in self.same:
            return
        calls = [self.trace.calls[number] for number in self._calls(self.same[before], before)]
        if any(call.cuts or call.name in MIXING for call in calls):
            yield from self._from_origin(before, item)

    def _shrinks(self, before: int | None, run: Sequence[int]) -> bool:
        """Whether one of the values is smaller than what came before it, and no reading says why."""
        size = self.size(before) if before is not None else None
        for item in run:
            now = self._size(item)
            if not self._explained(item) and (size is None or now is None or now[0] != size[0]):
                return True
            size = now
        return False

    def _explained(self, item: int) -> bool:
        call = self.trace.calls[self.made[item]]
        return call.link or (call.is_site and not _guessed(call)) or call.cuts

    def _is_crop(self, before: int, after: int) -> bool:
        """Whether a map was only moved about and cut as a map."""
        calls = [self.trace.calls[number] for number in self._calls(before, after)]
        cut = [call for call in calls if call.cuts]
        whole = all(len(self.values[call.args[0]].shape) <= 4 for call in cut)
        return bool(cut) and whole and all(call.cuts or (call.name in MOVES - {"getitem"}) for call in calls)

    def _keeps_all(self, before: int, after: int) -> bool:
        moved = {self.trace.calls[number].name for number in self._calls(before, after)}
        return self.values[after].numel >= self.values[before].numel and moved <= MOVES

    def _calls(self, before: int, after: int) -> tuple[int, ...]:
        """The calls that make one value of another."""
        wanted, seen, numbers = [after], {before}, set()
        while wanted:
            item = wanted.pop()
            if item in seen or item not in self.made or (item not in self.sources and item not in self.same):
                continue
            seen.add(item)
            number = self.made[item]
            numbers.add(number)
            wanted += self.trace.calls[number].args
        return tuple(sorted(numbers))


def _guessed(call: Call) -> bool:
    """Whether a site was only listed, and another look may explain it."""
    return call.guess or (call.reason == OTHERWISE and call.name in PLAIN)


def _split(shape: Sequence[int], last: bool) -> tuple[int, int, int]:
    """Height, width and channels of a map's shape."""
    return (shape[1], shape[2], shape[3]) if last else (shape[2], shape[3], shape[1])
