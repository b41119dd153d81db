"""The operators that swaps put in the place of others: without parameters of their own; importable without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from invariscope.base.errors import OperatorError

if TYPE_CHECKING:
    from invariscope.zoo.operators import Operatorlike, OperatorSpec

DEFAULT_REPLACEMENTS = ("max", "avg", "subsample", "soft(beta=1)", "blur(m=3)")
"""What sites are replaced by unless said otherwise: from always the maximum to blind to the values."""


def read_replacements(replacements: Sequence[Operatorlike]) -> tuple[OperatorSpec, ...]:
    """The specifications of replacements, each once.

    Raises:
        OperatorError: for none at all, one that cannot be read, or an operator with learned parameters, which has no
            trained weights to be put in with.
    """
    from invariscope.zoo.operators import build_operator, parse_operator

    specs = {spec.canonical: spec for spec in map(parse_operator, replacements)}
    if not specs:
        raise OperatorError("there is nothing to swap to: name operators, for example max, avg or blur(3)")
    for text, spec in specs.items():
        if any(True for _ in build_operator(spec, 64).parameters()):
            raise OperatorError(
                f"{text} has parameters of its own, and a swap has no trained ones for them: swap to operators without "
                f"parameters, for example {', '.join(DEFAULT_REPLACEMENTS)}"
            )
    return tuple(specs.values())
