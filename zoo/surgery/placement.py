"""Find, in a network's ``torch.fx`` graph, the activation that directly follows a convolution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

from torch import fx, nn

_FUNCTIONS = """relu relu_ relu6 gelu silu silu_ leaky_relu leaky_relu_ elu elu_ selu celu softplus softsign hardswish
hardsigmoid hardtanh mish prelu rrelu sigmoid sigmoid_ tanh tanh_"""

ACTIVATION_FUNCTIONS = frozenset(_FUNCTIONS.split())
"""Names of the functions and methods that act on each value alone."""

_MORE_ACTIVATIONS = frozenset(("swish", "hardmish", "quickgelu", "gelutanh", "gelusigmoid"))
_NOT_ELEMENTWISE = (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.Softmin, nn.GLU)


@dataclass(frozen=True)
class Place:
    """Where an operator is attached: after a module's output or before its input; ``reason``: why no further on."""

    module: nn.Module
    before: bool = False
    reason: str = ""


class Placer:
    """Finds places for operators after convolutions of one network.

    ``calls``: how often each module ran in a forward pass; a module that ran more than once can carry no operator for
    one of its uses.
    """

    def __init__(self, model: nn.Module, targets: list[nn.Conv2d], calls: Mapping[nn.Module, int]) -> None:
        self._model = model
        self._calls = calls
        wanted = set(targets)
        self._holders = {
            module for module in nn.Module.modules(model) if any(part in wanted for part in nn.Module.modules(module))
        }
        self._holders -= wanted
        self._graphs: dict[nn.Module, fx.Graph | None] = {}

    def after_activation(self, conv: nn.Conv2d) -> Place:
        """The place after the activation that follows ``conv``, over a norm or without one; else right after it."""
        if self._calls.get(conv, 0) != 1:
            return Place(conv, reason="the convolution is used several times")
        reason = "its graph cannot be traced"
        for holder in self._enclosing(conv):
            graph = self._graph(holder)
            if graph is None:
                continue
            nodes = [node for node in graph.nodes if _module(node, holder) is conv]
            if len(nodes) == 1:
                found = self._follow(nodes[0], holder)
                if isinstance(found, Place):
                    return found
                reason = found
        return Place(conv, reason=reason)

    def _enclosing(self, conv: nn.Module) -> Iterator[nn.Module]:
        """The modules around ``conv``, from the whole network inwards."""
        for module in nn.Module.modules(self._model):
            if module in self._holders and any(part is conv for part in nn.Module.modules(module)):
                yield module

    def _graph(self, holder: nn.Module) -> fx.Graph | None:
        if holder not in self._graphs:
            parameters = signature(holder.forward).parameters.values()
            fixed = {p.name: p.default for p in parameters if p.default is not Parameter.empty}
            try:
                self._graphs[holder] = _Tracer(self._holders).trace(holder, concrete_args=fixed or None)
            except Exception:  # a forward pass that depends on its values can raise nearly anything here
                self._graphs[holder] = None
        return self._graphs[holder]

    def _follow(self, node: fx.Node, holder: nn.Module) -> Place | str:
        """The place after the activation that follows a node; or, in words, what follows instead."""
        normed = False
        while True:
            if len(node.users) != 1:
                return "its output is used in several places"
            following = next(iter(node.users))
            role = _role(following, holder)
            if role is None or following.all_input_nodes != [node] or (role == "norm" and normed):
                return "no activation follows it directly"
            if role == "activation":
                return self._at(following, holder)
            normed = normed or role == "norm"
            node = following

    def _at(self, activation: fx.Node, holder: nn.Module) -> Place | str:
        module = _module(activation, holder)
        if module is not None and self._calls.get(module) == 1:
            return Place(module)
        users = list(activation.users)
        if len(users) == 1 and users[0].args[:1] == (activation,) and users[0].all_input_nodes == [activation]:
            module = _module(users[0], holder)
            if module is not None and self._calls.get(module) == 1:
                return Place(module, before=True)
        return "the activation that follows it is a function or used several times, and so is what comes next"


class _Tracer(fx.Tracer):
    """Steps only into the modules that hold a convolution of interest: all others are opaque."""

    def __init__(self, holders: set[nn.Module]) -> None:
        super().__init__()
        self._holders = holders

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m not in self._holders


def _module(node: fx.Node, holder: nn.Module) -> nn.Module | None:
    """The module that a node calls."""
    return holder.get_submodule(str(node.target)) if node.op == "call_module" else None


def _role(node: fx.Node, holder: nn.Module) -> str | None:
    """What a node does to a map: ``activation``, ``norm``, ``nothing`` (identity, dropout), or None for all else."""
    module = _module(node, holder)
    if module is None:
        name: Any = getattr(node.target, "__name__", node.target)
        called = node.op in ("call_function", "call_method")
        return "activation" if called and name in ACTIVATION_FUNCTIONS else None
    name = type(module).__name__.lower()
    if isinstance(module, (nn.Identity, nn.modules.dropout._DropoutNd)):
        return "nothing"
    if _is_activation(module):
        return "activation"
    if "norm" in name and _keeps_maps(module):
        inner = getattr(module, "act", None)
        return "activation" if inner is not None and not isinstance(inner, nn.Identity) else "norm"
    return None


def _keeps_maps(norm: nn.Module) -> bool:
    """Whether a module named as a norm is one, and takes maps ``(N, C, H, W)`` of any size."""
    layers = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd)
    whole = type(norm) is nn.LayerNorm or len(getattr(norm, "normalized_shape", ())) > 1
    return not whole and not any(isinstance(part, layers) for part in nn.Module.modules(norm))


def _is_activation(module: nn.Module) -> bool:
    if isinstance(module, _NOT_ELEMENTWISE):
        return False
    known = type(module).__module__ == "torch.nn.modules.activation"
    return known or type(module).__name__.lower().removesuffix("me").removesuffix("jit") in _MORE_ACTIVATIONS | {
        name.replace("_", "") for name in ACTIVATION_FUNCTIONS
    }
