"""Whether Python of the user's has changed torch, which the networks of a process share."""

from __future__ import annotations

import torch
from torch import nn

from invariscope.base.errors import RecipeError


def refuse_changed_torch(what: str) -> None:
    """Refuse code that has replaced functions, methods or classes of torch, or the default type, since the import.

    Networks that are trained after it in the same process would be others than by themselves.

    Raises:
        RecipeError: naming the first that was replaced.
    """
    now = _state()
    changed = [name for name, value in _BEFORE.items() if now.get(name, value) is not value]
    if changed:
        raise RecipeError(
            f"{what}: its code changes {min(changed)}, which other runs would be trained with: change a class of your "
            "own, or train it with a recipe of its own"
        )


def _state() -> dict[str, object]:
    """What stands under the names of torch that networks are made of."""
    classes = [value for value in vars(nn).values() if isinstance(value, type)]
    places = [torch, nn.functional, nn.init, nn, torch.Tensor, *classes]
    found = {f"{_name(place)}.{name}": value for place in places for name, value in vars(place).items()}
    return {name: value for name, value in found.items() if callable(value)} | {"dtype": torch.get_default_dtype()}


def _name(place: object) -> str:
    module, name = getattr(place, "__module__", ""), getattr(place, "__name__", "")
    return f"{module}.{name}" if module else name


_BEFORE = _state()
