"""How it is known what a downsampling site sampled: words that sites, table ``layers`` and the analysis share."""

from __future__ import annotations

from collections.abc import Iterable

READER, BEHAVIOUR, UNEXPLAINED = "reader", "behaviour", "no"
"""Read from the arguments of one call; from what a part of the network does to its map; not known."""

SIDE = "side branch"
"""How the reason of a site begins that is not on the main path, and so none of the network's."""


def is_aside(reason: object) -> bool:
    """Whether a reason is that of a side branch."""
    return isinstance(reason, str) and reason.startswith(SIDE)


def remark(sites: Iterable[tuple[str, str | None, str | None]]) -> str | None:
    """What must be said of a network in one line, from ``(name, reason, explained)`` of each of its sites.

    ``reason`` is None where a site is measured. Said is that it has no downsampling site, none that is measured, or
    shrinks that are not explained; None where there is nothing to say. Side branches are no sites of the network.
    """
    listed = list(sites)
    own = [site for site in listed if not is_aside(site[1])]
    if not own:
        return "no downsampling site" + (f", {len(listed)} on side branches" if listed else "")
    unknown = [site for site in own if site[2] == UNEXPLAINED]
    if all(reason is not None for _, reason, _ in own):
        name, reason, _ = (unknown or own)[0]
        return f"none of its {len(own)} downsampling sites is measured: {name} ({reason})"
    if unknown:
        name, reason, _ = unknown[0]
        return f"{len(unknown)} of {len(own)} shrinks not explained: {name} ({reason})"
    return None
