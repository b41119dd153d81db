"""Which outputs of a network are the classes of the data: a background class apart, or a subset of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import DataError, ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Classes:
    """The outputs that stand for the data's classes, in the order of these; the others are left out of every argmax.

    Attributes:
        outputs: number of the output of each class.
        offset: without ``outputs``: of the first class, the others follow.
        count: how many classes follow; all outputs without it.

    Raises:
        DataError: a negative number, or an output that stands for two classes.
    """

    outputs: tuple[int, ...] = ()
    offset: int = 0
    count: int | None = None

    def __post_init__(self) -> None:
        if min((*self.outputs, self.offset)) < 0 or (self.count is not None and self.count < 1):
            raise DataError("classes: give numbers of outputs from 0, and a count of at least 1")
        if len(set(self.outputs)) < len(self.outputs):
            twice = next(one for one in self.outputs if self.outputs.count(one) > 1)
            raise DataError(f"classes: output {twice} stands for two classes: name it once")

    def settings(self) -> list[int] | dict[str, int]:
        """As a manifest has it."""
        if self.outputs:
            return list(self.outputs)
        return {"offset": self.offset, **({} if self.count is None else {"count": self.count})}

    @property
    def needed(self) -> int:
        """Outputs that a network must have at least."""
        return max(self.outputs) + 1 if self.outputs else self.offset + (self.count or 1)

    def of(self, output: Any, name: str) -> Any:
        """The chosen ones of logits ``(N, outputs, ...)``; of a mapping, of its entry ``out``.

        Raises:
            ModelError: there are fewer outputs.
        """
        if isinstance(output, Mapping) and "out" in output:
            return {**output, "out": self.of(output["out"], name)}
        if not hasattr(output, "ndim") or output.ndim < 2:
            return output
        logits: Tensor = output
        if logits.shape[1] < self.needed:
            raise ModelError(
                f"{name} has {logits.shape[1]} outputs and classes asks for {self.needed}: correct classes"
            )
        if self.outputs:
            return logits[:, list(self.outputs)]
        return logits[:, self.offset : None if self.count is None else self.offset + self.count]


def choose_outputs(network: nn.Module, classes: Classes) -> nn.Module:
    """The same network, which gives the chosen outputs alone; its parts keep their names.

    Raises:
        ModelError: a network whose ``forward`` is no method of its class.
    """
    kind = type(network)
    if "forward" in vars(network):
        raise ModelError(f"{kind.__name__} has a forward of its own, which classes cannot follow: choose inside of it")

    def forward(self: nn.Module, *inputs: Any, **options: Any) -> Any:
        return classes.of(kind.forward(self, *inputs, **options), kind.__name__)

    try:
        network.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})
    except TypeError as problem:
        raise ModelError(
            f"{kind.__name__} is compiled, which classes cannot follow: give the network itself"
        ) from problem
    return network
