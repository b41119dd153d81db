"""Put an operator in the place of a network's downsampling layers, with a table of what was done where."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from invariscope.base.errors import ModelError
from invariscope.base.names import unknown
from invariscope.zoo.datasets.given import Given, example_of
from invariscope.zoo.operators import Operatorlike, parse_operator
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sampling import PADDING_MODES
from invariscope.zoo.sites import Site
from invariscope.zoo.surgery.surgeon import Replacement, Surgeon
from invariscope.zoo.surgery.survey import Survey, survey

if TYPE_CHECKING:
    import pandas as pd

PLACEMENTS = ("activation", "conv", "published")
"""Where the operator of a strided convolution goes; see :func:`replace_downsampling`."""

DEFAULT_SIZE = 224
"""Side of the example for a network that does not say which images it takes."""

Where = str | Sequence[str] | Callable[[Site], bool]


def replace_downsampling(
    model: nn.Module,
    operator: Operatorlike = "tips",
    example: Given | tuple[Any, ...] | None = None,
    *,
    where: Where | None = None,
    placement: str = "activation",
    keep_max: bool | None = None,
    padding_mode: str | None = None,
    inplace: bool = False,
) -> tuple[nn.Module, pd.DataFrame]:
    """Replace the downsampling of any network by an operator of this project.

    Every pooling layer with a stride becomes the operator; a strided convolution becomes the same convolution, with its
    weights, at stride 1, followed by the operator. The shape of every map stays the same: an operator gives
    ``ceil(H/s)``, and where the layer gave less, rows and columns are cut at the bottom and the right. Operators that
    share their phase (aps, lps, hard tips) take the first one's phase where several downsample maps of the same size,
    as the branches of a residual block do. Global pooling and everything of stride 1 stay; so do operators that are
    already the one asked for, so that a second call changes nothing. What is not a module (``F.max_pool2d``,
    ``x[..., ::2, ::2]``) cannot be reached and is listed with the reason. The other entries of the state dict keep
    their names; an operator's own are under ``<layer>.operator``. New layers take the data type, the device and the
    training flag of what they replace, and their random initial weights from torch's generator.

    Args:
        model: any network. A deep copy of it is changed, or it itself with ``inplace`` (an error then leaves it half
            changed).
        operator: an operator's specification, for example ``tips``, ``blur(m=4)`` or ``python:my_ops.py:Mine``, or a
            class of one's own, registered or not (``MyClass``, ``functools.partial(MyClass, strength=2)``).
        example: a batch of images (in any form of ``Given``), or the tuple of all the model's arguments. By default one
            black image of the size that a timm network names, or of 224 pixels.
        where: which sites: a pattern (``layer3*``) of their name or module path, or a kind (``max``, ``conv``), or
            several of them, or a function of the :class:`~invariscope.zoo.sites.Site`. All but those
            on side branches by default.
        placement: for strided convolutions. ``activation``: after the activation that follows directly, over a norm
            or not, where ``torch.fx`` can trace that; else right after the convolution, with the reason in the table.
            ``conv``: right after the convolution. ``published``: as ``activation``, but before a 1x1 convolution (the
            shortcuts of the published anti-aliased ResNets).
        keep_max: whether a max pooling stays, at stride 1, before the operator. By default where the operator
            ``keeps_max``, as ``subsample``, ``blur`` and ``ddac`` do.
        padding_mode: padding mode of the new operators (``zeros`` by default) and, when given, of every convolution.

    Returns:
        The network, and a table with one row per site, the fields of :class:`Replacement`.

    Raises:
        OperatorError: for a specification that builds no operator.
        ModelError: for a network that fails on the example, cannot be copied, has no site (or none that ``where``
            names), or that does not work with the operator in it.
    """
    import pandas as pd

    spec = parse_operator(operator)
    if placement not in PLACEMENTS:
        raise ModelError(unknown("placement", placement, PLACEMENTS))
    if padding_mode is not None and padding_mode not in PADDING_MODES:
        raise ModelError(unknown("padding mode", padding_mode, PADDING_MODES))
    if not inplace:
        model = _copied(model)
    batch = default_example(model) if example is None else example_of(model, example)
    before = survey(model, batch)
    chosen = _chosen(before.sites, where)
    keep = spec.operator_class.keeps_max if keep_max is None else keep_max
    surgeon = Surgeon(model, spec, before, placement, keep, padding_mode)
    rows = surgeon.operate(chosen)
    surgeon.share_phases(_checked(surgeon, batch, before))
    names = [entry.name for entry in dataclasses.fields(Replacement)]
    return surgeon.model, pd.DataFrame([[getattr(row, name) for name in names] for row in rows], columns=names)


def default_example(model: nn.Module) -> Tensor:
    """One black image of the size that a network's ``pretrained_cfg`` (timm's) names, else of 224 x 224 pixels."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    size = config.get("input_size") if isinstance(config, Mapping) else None
    first = next((module for module in nn.Module.modules(model) if isinstance(module, nn.Conv2d)), None)
    channels = first.in_channels if first is not None else 3
    like = next(model.parameters(), torch.zeros(()))
    return torch.zeros(1, *(size or (channels, DEFAULT_SIZE, DEFAULT_SIZE)), dtype=like.dtype, device=like.device)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as problem:  # a foreign module can refuse in any way
        line = " ".join(str(problem).split())[:200]
        raise ModelError(f"the network cannot be copied ({line}): pass inplace=True to change it itself") from problem


def _chosen(sites: list[Site], where: Where | None) -> set[str]:
    """Names of the sites that ``where`` names."""
    own = {site.name for site in sites if not site.is_aside}
    if not sites or (where is None and not own):
        raise ModelError("the network has no downsampling site: nothing to replace")
    if where is None:
        return own
    if callable(where):
        return {site.name for site in sites if where(site)}
    chosen: set[str] = set()
    for pattern in (where,) if isinstance(where, str) else where:
        found = {s.name for s in sites if any(fnmatchcase(text, pattern) for text in (s.name, s.path, s.kind))}
        if not found:
            names = ", ".join(f"{site.name} ({site.kind})" for site in sites)
            raise ModelError(f"no site has the name, path or kind {pattern!r}: the network's sites are {names}")
        chosen |= found
    return chosen


_REMEDY = "leave sites out with where=, or try placement='conv'"


def _checked(surgeon: Surgeon, example: Tensor | tuple[Any, ...], before: Survey) -> Survey:
    """The changed network's forward pass, whose maps must have the sizes that they had before."""
    try:
        after = survey(surgeon.model, example)
    except ModelError as problem:
        raise ModelError(f"with the operator in it, {problem}; {_REMEDY}") from problem
    if after.output != before.output:
        raise ModelError(f"with the operator in it the network gives {after.output}, not {before.output}: {_REMEDY}")
    modules = dict(surgeon.model.named_modules())
    given: dict[nn.Module, list[tuple[int, int]]] = {operator: [] for operator in surgeon.operators}
    for site in after.sites:
        operator = modules[site.path]
        if isinstance(operator, Downsample) and operator in given:
            given[operator].append(site.output_size)
    for operator, sizes in surgeon.operators.items():
        cut = [min(a, b) for a, b in zip(given[operator], sizes, strict=False)]
        if len(given[operator]) != len(sizes) or cut != sizes:
            path = next(path for path, module in modules.items() if module is operator)
            raise ModelError(f"the operator at {path} gives maps of {given[operator]}, not {sizes}: {_REMEDY}")
    return after
