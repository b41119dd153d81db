"""Find the downsampling sites of any network: watch a forward pass, plan what no reading explains, watch it so."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from invariscope.base.errors import InputError, ModelError
from invariscope.zoo.datasets.given import Given, example_of
from invariscope.zoo.sites.pieces import plan_of
from invariscope.zoo.sites.plan import Key, Plan
from invariscope.zoo.sites.recorder import Consumer, Recorder, Site
from invariscope.zoo.sites.replaying import Replayer, Verdict, refined
from invariscope.zoo.sites.trace import Trace
from invariscope.zoo.unchanged import unchanged


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the network and the random states are afterwards what they were."""
    tensors = chain(model.parameters(), model.buffers())
    devices = {tensor.device.index for tensor in tensors if tensor.device.type == "cuda"}
    with unchanged(model), torch.random.fork_rng(sorted(devices)), torch.no_grad():
        # Not by eval(), which a network may have made do more, and which exported graphs refuse.
        for module in nn.Module.modules(model):
            module.training = False
        yield


def _eager() -> AbstractContextManager[Any]:
    """Compiled parts run as the code that they stand for; nothing where nothing has been compiled in this process."""
    # Asking would import the compiler, which takes seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@dataclass
class Watch:
    """What is known of a network from its first batch: how the following ones are read."""

    plan: Plan | None = None
    verdicts: dict[Key, Verdict] = field(default_factory=dict)


def record(
    model: nn.Module,
    inputs: Tensor | tuple[Any, ...],
    consume: Consumer,
    *,
    again: Callable[[], None] | None = None,
    watch: Watch | None = None,
    maps_only: bool = False,
) -> Any:
    """Run ``model``, in evaluation mode and without gradients; call ``consume(site, use)`` at each of its sites.

    ``inputs`` is a batch of images, or the tuple of all the model's arguments, images first. Sites that cannot be
    measured come too, with their reason. Returns the model's output.

    The network runs once where all that makes maps smaller is read of single calls. Where it is not, it runs three
    times: to plan, to judge which parts can be read, and to read; ``again()`` is called before the sites are told anew
    (without it, none is told before the plan is there). ``watch`` carries what was found to the next batch.
    ``maps_only``: what goes into a site and comes out of it is wanted, and no weights; those are then not read.

    Raises:
        ModelError: when the forward pass fails, or the network is TorchScript.
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    # A network that torch.compile has wrapped is watched as it was before: compiled code calls nothing that is seen.
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "the network is TorchScript, whose inside cannot be watched: give the Python module that it was made from"
        )
    watch = watch or Watch()
    if watch.plan is not None and watch.plan.is_plain:
        return _run(model, arguments, consume)
    if watch.plan is not None:
        replayer = Replayer(watch.plan, watch.verdicts, maps_only)
        output = _run(model, arguments, consume, Trace(), replayer)
        if not replayer.changed:
            return output
        if again is not None:
            again()
    at_once = again is not None and watch.plan is None
    trace = Trace()
    output = _run(model, arguments, consume if at_once else _ignore, trace)
    plan = plan_of(trace)
    if plan.is_plain:
        watch.plan = plan
        return output if at_once else _run(model, arguments, consume)
    if at_once and again is not None:
        again()
    judge = Replayer(plan, None)
    if plan.pieces:
        _run(model, arguments, _ignore, Trace(), judge)
    watch.plan = refined(plan, judge.verdicts, [call.kind for call in trace.calls])
    watch.verdicts = judge.verdicts
    return _run(model, arguments, consume, Trace(), Replayer(watch.plan, watch.verdicts, maps_only))


def _ignore(site: Site, use: Any) -> None:
    """Tell nobody of a site."""


def _run(
    model: nn.Module,
    arguments: tuple[Any, ...],
    consume: Consumer,
    trace: Trace | None = None,
    replayer: Replayer | None = None,
) -> Any:
    """One forward pass under a recorder, on images of its own, which the network may write to."""
    arguments = tuple(one.clone() if isinstance(one, Tensor) else one for one in arguments)
    recorder = Recorder(model, len(arguments[0]), consume, trace, replayer)
    if trace is not None:
        trace.begin(arguments)
    try:
        with _untouched(model), _eager(), recorder:
            output = model(*arguments)
        if trace is not None:
            trace.end(output)
        return output
    except InputError:
        raise
    except Exception as error:
        if recorder.watching:
            raise
        shape = " x ".join(str(size) for size in arguments[0].shape)
        line = " ".join(str(error).split())[:300]
        raise ModelError(
            f"the network fails on a batch of images {shape}: {line} (check the images' size and channels)"
        ) from error


def find_sites(model: nn.Module, example: Given | tuple[Any, ...]) -> list[Site]:
    """The downsampling sites of any network, in the order of its forward pass over ``example``.

    Found are ``max``, ``avg`` (pooling modules and functions), ``conv`` (strided convolutions, any kind), ``blur``
    (depthwise strided convolutions with one fixed averaging filter), ``subsample`` (``x[..., ::s, ::s]``, channels last
    too, and nearest-neighbour reduction) and this project's operators; stride-1 pooling or blur and padding directly
    before one of them are parts of it, but no low pass before a maximum, or another pool of values. Global pooling is
    no site, nor is a stride on a map of one pixel.

    Every other way to make a map smaller is followed through its calls: slices that are mixed or one of them picked,
    views that are reduced, indices, matrix products, poolings that are added, exported graphs. Where what it does to a
    map shows its sampling weights (:mod:`invariscope.zoo.sites.jacobian`) it is a site by its behaviour: ``max``,
    ``avg``, ``blur``, ``subsample``, ``phase`` (one of each image), ``mixture``; else it is listed as ``unexplained``.
    Poolings of gates, pyramids and other heads come last, with a reason that begins "side branch".

    Listed with the reason why it has no MSB is what makes maps smaller in another way. ``space_to_depth``
    (``pixel_unshuffle``, patch merging by slices of all phases or by reshaping) is such a site: it drops no pixel, so
    that nothing is sampled, and a convolution at stride 1 after it is none. Compiled networks and traced or exported
    graphs are watched as the code that they stand for; a TorchScript layer that makes a map smaller is listed.

    Raises:
        ModelError: when the forward pass fails on ``example``, or the network as a whole is TorchScript.
    """
    sites: list[Site] = []
    record(model, example_of(model, example), lambda site, use: sites.append(site), again=sites.clear)
    return _numbered(sites)


def _numbered(sites: Iterable[Site]) -> list[Site]:
    """A network's own sites, numbered from 0 in the order of its forward pass; after them those on side branches."""
    ordered = sorted(sites, key=lambda site: (site.is_aside, site.depth))
    return [replace(site, depth=depth) for depth, site in enumerate(ordered)]
