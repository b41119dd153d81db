"""The replacing itself: modules of a network are exchanged or get an operator attached, and each site gets a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from invariscope.zoo.operators import OperatorSpec, build_operator
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sites import Site
from invariscope.zoo.surgery.convolutions import alignment, make_dense, set_padding_mode
from invariscope.zoo.surgery.geometry import DenseMax, Geometry, Pooled, Size, fitted, pair
from invariscope.zoo.surgery.placement import Place, Placer
from invariscope.zoo.surgery.survey import Survey, survey


@dataclass(frozen=True)
class Replacement:
    """What surgery did at one site: a row of its table.

    ``operator`` is empty where the site was left; ``reason`` then says why. ``placed`` names the module whose place the
    operator took, or after or before which it stands; ``kept`` the weights that go on as they were; ``cropped`` how
    many rows and columns of the operator's output are cut at the bottom and the right (negative: how many are added to
    its input) so that the map keeps its size.
    """

    site: str
    kind: str
    kernel: Size | None
    stride: Size | None
    input_size: Size
    output_size: Size
    replaced: bool
    operator: str = ""
    placed: str = ""
    kept: str = ""
    cropped: Size = (0, 0)
    reason: str = ""


class _Left(Exception):
    """A site stays as it is; the message says why."""


@dataclass(frozen=True)
class _Done:
    """What was done to a module, for each of its sites."""

    operator: Downsample
    placed: str
    kept: str = ""
    geometry: Geometry | None = None
    reason: str = ""


class SamePhase:
    """A hook that makes an operator take the phase that another one chose before it in the same forward pass."""

    def __init__(self, leader: Downsample) -> None:
        self.leader = leader

    def __call__(self, operator: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        chosen = self.leader.selection
        if chosen is None or len(args) != 1 or kwargs.get("selection") is not None or len(chosen) != len(args[0]):
            return None
        return args, {**kwargs, "selection": chosen}


def _run_after(host: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    made: Tensor = host.get_submodule("operator")(output)
    return made


def _run_before(host: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (host.get_submodule("operator_before")(args[0]), *args[1:])


class Surgeon:
    """Replaces the downsampling modules of one network, ``model``, which may itself become another module."""

    def __init__(
        self,
        model: nn.Module,
        spec: OperatorSpec,
        before: Survey,
        placement: str,
        keep_max: bool,
        padding_mode: str | None,
    ) -> None:
        self.model = model
        self.operators: dict[Downsample, list[Size]] = {}
        """The new operators, with the sizes of the maps that they must give, one for each use."""
        self._spec = spec
        self._survey = before
        self._placement = placement
        self._keep_max = keep_max
        self._padding_mode = padding_mode
        self._modules = dict(model.named_modules())
        self._paths = {module: path for path, module in self._modules.items()}
        self._done: dict[nn.Module, _Done | _Left] = {}
        self._swapped: dict[nn.Module, nn.Module] = {}

    def operate(self, chosen: set[str]) -> list[Replacement]:
        """Replace what can be replaced among the chosen sites; a row for every site."""
        wanted = {self._modules[site.path]: site for site in reversed(self._survey.sites) if site.name in chosen}
        convs = [module for module in wanted if isinstance(module, nn.Conv2d)]
        # Places are found before anything is changed, and pools are replaced first: an operator before a pool goes to
        # what stands there in the end.
        placer = Placer(self.model, convs, self._survey.calls)
        places = {conv: self._place(conv, placer) for conv in convs}
        for module, site in sorted(wanted.items(), key=lambda item: item[0] in places):
            try:
                self._done[module] = self._replace(module, site, places.get(module))
            except _Left as left:
                self._done[module] = left
        notes = self._pad_convolutions(self._padding_mode) if self._padding_mode else {}
        return [self._row(site, site.name in chosen, notes) for site in self._survey.sites]

    def share_phases(self, after: Survey) -> None:
        """Make operators on maps of one size take the phase of the first, where they share their phase at all."""
        modules, leaders = dict(self.model.named_modules()), dict[tuple[Any, Any], Downsample]()
        for site in after.sites:
            operator = modules[site.path]
            if isinstance(operator, Downsample) and operator in self.operators and after.calls[operator] == 1:
                leader = leaders.setdefault((site.input_size, site.stride), operator)
                if leader is not operator and operator.shares_selection and leader.shares_selection:
                    operator.register_forward_pre_hook(SamePhase(leader), with_kwargs=True)

    def _row(self, site: Site, is_chosen: bool, notes: dict[nn.Module, str]) -> Replacement:
        facts = (site.name, site.kind, site.kernel, site.stride, site.input_size, site.output_size)
        module = self._modules[site.path]
        done = self._done.get(module)
        if isinstance(done, _Done):
            cropped = _cropped(done.geometry, site) if done.geometry else (0, 0)
            also = "" if is_chosen else "its module is at a site that was asked for"
            reason = "; ".join(text for text in (done.reason, also) if text)
            return Replacement(*facts, True, self._spec.canonical, done.placed, done.kept, cropped, reason)
        reason = str(site.reason) if site.is_aside else "not among the sites asked for"
        reasons = [str(done) if done else reason, notes.get(module, "")]
        return Replacement(*facts, False, reason="; ".join(text for text in reasons if text))

    def _replace(self, module: nn.Module, site: Site, place: Place | None) -> _Done:
        if isinstance(module, Downsample):
            return self._operator(module)
        if isinstance(module, nn.Conv2d) and place is not None:
            return self._convolution(module, site, place)
        return self._pool(module, site)

    def _adopt(self, operator: Downsample, module: nn.Module, like: Tensor) -> Downsample:
        """A new operator, in the data type of ``like``, on its device, in the mode of the module that it replaces."""
        operator.to(device=like.device, dtype=like.dtype if like.is_floating_point() else None)
        operator.train(module.training)
        sites = [site for site in self._survey.sites if self._modules[site.path] is module]
        self.operators[operator] = [site.output_size for site in sites]
        return operator

    def _operator(self, old: Downsample) -> _Done:
        new = build_operator(self._spec, old.channels, old.stride, self._padding_mode or old.padding_mode)
        if new.does_as(old):
            raise _Left(f"it is {self._spec.canonical} already")
        self._swap(old, self._adopt(new, old, self._survey.inputs[old]))
        return _Done(new, f"in place of {self._named(old)}")

    def _convolution(self, conv: nn.Conv2d, site: Site, place: Place) -> _Done:
        stride = _one_stride(site)
        if pair(conv.stride) != (stride, stride):
            raise _Left("its stride is not the one that its module holds")
        host, slot = self._swapped.get(place.module, place.module), "operator_before" if place.before else "operator"
        if hasattr(host, slot):
            raise _Left(f"{self._named(place.module)} has something named {slot} already")
        aligned = alignment(conv)
        if aligned is None:
            raise _Left(f"the padding of a {type(conv).__name__} depends on its stride in a way that is not known")
        prefix = f"{self._paths[conv]}." if self._paths[conv] else ""
        kept = ", ".join(f"{prefix}{name}" for name, _ in conv.named_parameters())
        channels = conv.in_channels if place.module is conv and place.before else conv.out_channels
        operator = build_operator(self._spec, channels, stride, self._padding_mode or "zeros")
        self._adopt(operator, conv, conv.weight)
        make_dense(conv, aligned, self._padding_mode)
        host.add_module(slot, operator)
        if place.before:
            # First of all: another hook there may pad for the convolution.
            host.register_forward_pre_hook(_run_before, prepend=True)
        else:
            host.register_forward_hook(_run_after)
        placed = f"{'before' if place.before else 'after'} {self._named(place.module)}"
        return _Done(operator, placed, kept, reason=place.reason)

    def _place(self, conv: nn.Conv2d, placer: Placer) -> Place:
        if self._placement == "conv":
            return Place(conv)
        place = placer.after_activation(conv)
        pointwise = pair(conv.kernel_size) == (1, 1) and not any(conv._reversed_padding_repeated_twice)
        if self._placement == "published" and place.module is conv and pointwise:
            return Place(conv, before=True)
        return place

    def _pool(self, pool: nn.Module, site: Site) -> _Done:
        stride = _one_stride(site)
        geometry = self._geometry(pool, site, stride)
        mode = self._padding_mode or "zeros"
        operator = build_operator(self._spec, site.channels, stride, mode)
        self._adopt(operator, pool, self._survey.inputs[pool])
        dense = DenseMax(geometry, mode) if self._keep_max and site.kind == "max" else None
        new: nn.Module = operator
        if dense is not None or not geometry.is_operators:
            new = Pooled(operator, geometry, dense).train(pool.training)
        self._swap(pool, new)
        placed = f"in place of {self._named(pool)}" + (", after its maximum at stride 1" if dense is not None else "")
        return _Done(operator, placed, geometry=geometry)

    def _geometry(self, pool: nn.Module, site: Site, stride: int) -> Geometry:
        name, path = type(pool).__name__, self._paths[pool]
        if getattr(pool, "return_indices", False):
            raise _Left("it returns the indices of its maxima, which an operator does not have")
        if isinstance(pool, (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)) and type(pool).__module__.startswith("torch.nn"):
            padding, dilation = pair(getattr(pool, "padding", 0)), pair(getattr(pool, "dilation", 1))
            return Geometry(stride, pair(pool.kernel_size), padding, dilation, bool(pool.ceil_mode))
        if site.reason is not None or isinstance(pool, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
            raise _Left(site.reason or "adaptive pooling takes its stride from the size of its input")
        if pool not in self._survey.whole and not self._is_whole_alone(pool):
            place = f"inside {path} ({name})" if path else f"in the forward of {name}"
            raise _Left(f"it is a call {place}, which does more than that: write it as a module of its own")
        is_max = site.kind == "max" and self._keep_max
        geometry = fitted(pool, self._survey.inputs[pool], stride, site.kernel, is_max)
        if geometry is None:
            raise _Left(f"the output size or the windows of a {name} follow no rule that is known")
        return geometry

    def _is_whole_alone(self, pool: nn.Module) -> bool:
        """Whether a module is one site when it runs alone: a maximum before it may be part of the site seen."""
        if any(True for _ in pool.parameters()) or pool not in self._survey.smallest:
            return False
        like = self._survey.inputs[pool]
        return pool in survey(pool, torch.zeros(1, *like.shape[1:], dtype=like.dtype, device=like.device)).whole

    def _swap(self, old: nn.Module, new: nn.Module) -> None:
        """Put ``new`` wherever ``old`` is registered."""
        self._swapped[old] = new
        if old is self.model:
            self.model = new
            return
        for parent in list(nn.Module.modules(self.model)):
            for name, child in list(parent._modules.items()):
                if child is old:
                    parent._modules[name] = new

    def _named(self, module: nn.Module) -> str:
        return self._paths[module] or "the network"

    def _pad_convolutions(self, mode: str) -> dict[nn.Module, str]:
        """Set the padding mode of every convolution of the network; where that cannot be, why."""
        inside = {
            part
            for module in nn.Module.modules(self.model)
            if isinstance(module, Downsample)
            for part in nn.Module.modules(module)
        }
        notes: dict[nn.Module, str] = {}
        for module in nn.Module.modules(self.model):
            if isinstance(module, nn.Conv2d) and module not in inside:
                note = set_padding_mode(module, mode, self._survey.smallest.get(module))
                if note is not None:
                    notes[module] = f"its padding mode stays: {note}"
        return notes


def _one_stride(site: Site) -> int:
    if site.stride is None:
        raise _Left(site.reason or "it has no stride")
    if site.stride[0] != site.stride[1]:
        raise _Left(f"its stride is {site.stride[0]} x {site.stride[1]}, and an operator has one for both axes")
    return site.stride[0]


def _cropped(geometry: Geometry, site: Site) -> Size:
    rows, columns = (
        -short if (short := geometry.stride * (out - 1) + 1 - size) > 0 else -(-size // geometry.stride) - out
        for size, out in zip(site.input_size, site.output_size, strict=True)
    )
    return rows, columns
