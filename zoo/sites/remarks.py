"""One line about a network whose sites are not all measured."""

from __future__ import annotations

from collections.abc import Mapping

from invariscope.zoo.sites.branches import SIDE


def remark(reasons: Mapping[str, str | None]) -> str | None:
    """What must be said of a network, from the reason of each site by its name (None where it is measured).

    That it has no downsampling site; or how many of its sites are not measured, with the first one's reason. None where
    there is nothing to say: side branches are no sites of the network.
    """
    own = {name: reason for name, reason in reasons.items() if not (reason or "").startswith(SIDE)}
    if not own:
        return "it has no downsampling site" + (f", only {len(reasons)} on side branches" if reasons else "")
    missing = {name: reason for name, reason in own.items() if reason is not None}
    if not missing:
        return None
    name, reason = next(iter(missing.items()))
    count = "none of its" if len(missing) == len(own) else f"{len(missing)} of {len(own)}"
    measured = "is measured" if len(missing) == len(own) else "not measured"
    return f"{count} downsampling sites {measured}: {name} ({reason})"
