"""The downsampling operators by name: ours, those of installed packages, and those registered at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from invariscope.base.errors import OperatorError
from invariscope.base.registry import Registry

if TYPE_CHECKING:
    from invariscope.zoo.operators.base import Downsample

Operator = TypeVar("Operator", bound="type[Downsample]")

OURS = {
    "max": "invariscope.zoo.operators.pooling:Max",
    "avg": "invariscope.zoo.operators.pooling:Avg",
    "subsample": "invariscope.zoo.operators.pooling:Subsample",
    "lp": "invariscope.zoo.operators.pooling:Lp",
    "soft": "invariscope.zoo.operators.pooling:Soft",
    "blur": "invariscope.zoo.operators.blur:Blur",
    "maxblur": "invariscope.zoo.operators.blur:MaxBlur",
    "ddac": "invariscope.zoo.operators.blur:DDAC",
    "aps": "invariscope.zoo.operators.polyphase:APS",
    "lps": "invariscope.zoo.operators.polyphase:LPS",
    "tips": "invariscope.zoo.operators.tips:TIPS",
    "rank": "invariscope.zoo.operators.ranked:Rank",
    "channelranks": "invariscope.zoo.operators.ranked:ChannelRanks",
    "owa": "invariscope.zoo.operators.ranked:OWA",
    "topk": "invariscope.zoo.operators.ranked:TopK",
    "quantile": "invariscope.zoo.operators.ranked:Quantile",
    "kernel": "invariscope.zoo.operators.fixed:Kernel",
    "gauss": "invariscope.zoo.operators.fixed:Gauss",
    "phase": "invariscope.zoo.operators.fixed:Phase",
    "lme": "invariscope.zoo.operators.means:LME",
    "lehmer": "invariscope.zoo.operators.means:Lehmer",
    "mix": "invariscope.zoo.operators.composed:Mix",
    "prefilter": "invariscope.zoo.operators.composed:Prefilter",
}
"""The operators of this project: the one line that a new one takes."""


def check_class(name: str, operator: Any) -> None:
    """Refuse what is no downsampling operator, or bears another name (OperatorError); it imports torch."""
    from invariscope.zoo.operators.checking import check_operator

    check_operator(operator, name)


OPERATORS = Registry("operator", OURS, OperatorError, group="invariscope.operators", check=check_class)
"""Every operator, by name: ``OPERATORS["tips"]`` is its class."""


def register_operator(operator: Operator) -> Operator:
    """Make a class of one's own an operator under its ``name``, in this process and in the workers that it starts.

    It is checked first: :func:`invariscope.zoo.operators.checking.check_operator` says for what. A class of the same
    module and qualified name takes the place of the former one, so that a notebook's cell can run again. Returns the
    class, so that it can stand as a decorator::

        @register_operator
        class Mine(Downsample):
            name = "mine"

    Raises:
        OperatorError: for a class that does not do what an operator does, or a name that is taken.
    """
    from invariscope.zoo.operators.checking import check_operator

    check_operator(operator)
    former = OPERATORS.added.get(operator.name)
    if former is not None and _origin(former) == _origin(operator):
        OPERATORS.remove(operator.name)
    OPERATORS.add(operator.name, operator)
    return operator


def _origin(operator: type) -> tuple[str, str]:
    return operator.__module__, operator.__qualname__
