"""Tap a network's maps where they go in and out of modules: what a watched pass shows, at the price of a plain one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sites import Site


@dataclass(frozen=True)
class Taps:
    """The modules whose input and output are those of the sites, and the one whose output is the last map."""

    sites: tuple[str, ...]
    last: str | None = None
    """Module of the last map; None while it is not known, when every module is looked at."""
    channels: int = 1
    """The last map's dimension of channels."""

    @classmethod
    def of(cls, sites: Iterable[Site], channels: int = 1) -> Taps | None:
        """The taps of sites that are modules by themselves, each used once; None where one is not."""
        sites = list(sites)
        alone = all(site.name == site.path for site in sites)
        return cls(tuple(site.path for site in sites), channels=channels) if alone and sites else None

    @contextmanager
    def on(self, network: nn.Module, take: Callable[[str, str, Tensor], None]) -> Iterator[list[str]]:
        """Within it, ``take(path, port, map)`` is called for ``in`` and ``out`` of every site, and ``last`` with ''.

        Gives a list that ends with the module of the last map that was seen. No hook is left on the network.
        """
        seen: list[str] = []

        def site(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                    take(path, "in", args[0])
                    take(path, "out", output)

            return hook

        def last(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.dim() == 4:
                    x = output.movedim(self.channels, 1)
                    if x.shape[2] * x.shape[3] > 1:
                        seen.append(path)
                        take("", "in", x)

            return hook

        modules = dict(network.named_modules())
        looked = modules if self.last is None else {self.last: modules[self.last]}
        with ExitStack() as hooks:
            for path in self.sites:
                module = modules[path]
                # What an operator filters its map by is no part of the site.
                tapped = module.site if isinstance(module, Downsample) else module
                hooks.callback(tapped.register_forward_hook(site(path)).remove)
            for path, module in looked.items():
                hooks.callback(module.register_forward_hook(last(path)).remove)
            yield seen

    def ending(self, seen: list[str]) -> Taps | None:
        """The same with the module of the last map, as it was seen; None where there was none."""
        return replace(self, last=seen[-1]) if seen else None
