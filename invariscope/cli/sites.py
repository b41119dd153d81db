"""``sites``: the downsampling sites of any model."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tyro.conf import Positional

from invariscope.base.errors import InputError
from invariscope.base.terminal import say
from invariscope.base.words import counted
from invariscope.cli.common import DONE, at_least_one
from invariscope.cli.flags import CodeFlag
from invariscope.zoo.code_leave import refuse_code

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Sites(CodeFlag):
    """The downsampling sites of any model, as a table; of one that chooses its phases (aps, lps, hard tips), which
    precondition of exact invariance is broken and where.

    Example: invariscope sites timm:convnext_tiny
    """

    model: Positional[str]
    """Model string: zoo:NAME?operator=..., python:FILE.py:CALLABLE, timm:NAME or torchvision:NAME."""
    size: int | None = None
    """Height and width of the input, in pixels; by default what the model's library has on record, or 32 for zoo:."""
    channels: int | None = None
    """Channels of the input; by default those of the record, or of the first convolution."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Print the sites."""
        import pandas as pd
        import torch

        from invariscope.zoo.datasets.inputs import LARGEST_SIDE
        from invariscope.zoo.loading import build_model, default_input
        from invariscope.zoo.sites import find_sites

        refuse_code([self.model], self.allow_code)
        model = build_model(self.model)
        spec = default_input(self.model)
        channels = self.channels
        if self.size is not None:
            sides = [at_least_one("--size", self.size)] * 2
        else:
            sides = [spec.height, spec.width] if spec else [32 if self.model.startswith("zoo:") else 224] * 2
        if channels is None:
            first = next((layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)), None)
            channels = len(spec.mean) if spec and len(spec.mean) > 1 else first.in_channels if first else 3
        if max(*sides, at_least_one("--channels", channels)) > LARGEST_SIDE:
            option, value = ("--size", sides[0]) if sides[0] > LARGEST_SIDE else ("--channels", channels)
            raise InputError(f"{option} is {value}: take at most {LARGEST_SIDE}")
        shape = [channels, *sides]
        sites = find_sites(model, torch.zeros(1, *shape))
        rows = [dataclasses.asdict(site) for site in sites]
        if self.json:
            say(*json.dumps(rows, indent=1).split("\n"))
            return DONE
        own = sum(not site.is_aside for site in sites)
        count = counted(own, "downsampling site") if own else "no downsampling site"
        aside = f", {len(sites) - own} on side branches" if own < len(sites) else ""
        say(f"{self.model}: {count}{aside} (input {' x '.join(map(str, shape))})")
        if rows:
            cells = [{name: _cell(value) for name, value in row.items() if name != "path"} for row in rows]
            say(*pd.DataFrame(cells).to_string(index=False).split("\n"))
        say(*_exactness(model, shape))
        return DONE


def _exactness(model: nn.Module, shape: list[int]) -> list[str]:
    """What breaks exact invariance of a network that chooses its phases, on noise; nothing of any other."""
    import torch

    from invariscope.collectors.measure.exactness import try_choices

    noise = torch.randn(NOISE, *shape, generator=torch.Generator().manual_seed(0))
    found, untried = try_choices(model, noise)
    return found.lines() if found else untried


NOISE = 2
"""Images of noise on which exactness is tried."""


def _cell(value: object) -> str:
    """An entry of a printed table: sizes as 2x2, nothing for None."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)
