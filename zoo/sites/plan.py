"""How a pass is read: which calls are sites of their own, which are pieces of one, which are set aside."""

from __future__ import annotations

from dataclasses import dataclass, field

Key = tuple[int, int]
"""The source and the target of a piece."""


@dataclass(frozen=True)
class Piece:
    """A part of the network from a map (value ``source``) to a smaller one (``target``), by the numbers of its calls.

    ``last`` says that channels are the last dimension of the source and of the target. ``reason``: why the piece is
    listed and not replayed. ``covers``: calls of which sites were read that are parts of it.
    """

    source: int
    target: int
    calls: tuple[int, ...]
    last: tuple[bool, bool]
    reason: str | None = None
    covers: tuple[int, ...] = ()
    optional: bool = False
    """Whether it stands as it was read where the piece cannot be: its readings are right, but of less."""
    choice: int = 0
    """Pieces to the same map after moves of its pixels have one number: the first that can be read is it."""

    choosing: tuple[int, ...] = ()
    """Calls that compute, of the source alone, what it chooses or weighs by; none where that is not all of it."""

    @property
    def key(self) -> Key:
        """What it is known by."""
        return self.source, self.target

    @property
    def end(self) -> int:
        """The call that makes the smaller map."""
        return self.calls[-1]


@dataclass(frozen=True)
class Plan:
    """How a pass is read: pieces as one site each, ``silent`` calls not on their own, others with a reason."""

    names: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()
    silent: frozenset[int] = frozenset()
    reasons: dict[int, str] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether the readings of the calls stand as they are."""
        return not self.pieces and not self.silent and not self.reasons


KEEPS_ALL = "it keeps every pixel, as channels: nothing is sampled"
