"""The page of training recipes and designs, from the class that a recipe's keys fill."""

from __future__ import annotations

import dataclasses
import inspect
import re

from invariscope.zoo.recipe import _FIELDS, DESIGNS
from invariscope.zoo.recipe_drawing import _OPTIONS
from invariscope.zoo.run import Run

HEAD = """\
# Recipes

A recipe is a YAML file with `grid`, one mapping or a list of them, and optional `defaults`. In a grid each value may be
a list, and a grid stands for all combinations of its lists. `invariscope train RECIPE.yaml --out ZOO` trains what is
missing, and writes the zoo's manifest.

```yaml
defaults: {data: digits, epochs: 20}
grid:
  operator: [max, avg, aps]
  seed: [0, 1]
```

## Keys of `defaults` and of a grid
"""

DRAWN = """\
## Keys of a design

A design is a recipe in whose grid stand `population`, `rotations` or `repeats`: operators that `invariscope draw
DESIGN.yaml --out RECIPE.yaml` draws once, and writes out as an ordinary recipe.
"""


def meanings() -> dict[str, str]:
    """What the docstring of :class:`Run` says of each of its attributes."""
    section = inspect.cleandoc(Run.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.+?)(?=^    \w+: |\Z)", section, re.M | re.S)
    return {name: " ".join(meaning.split()) for name, meaning in found}


def page() -> str:
    """The page, in Markdown."""
    said, fields = meanings(), {one.name: one for one in dataclasses.fields(Run)}
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{key}` | {_default(fields[key])} | {_markdown(said[key])} |" for key in _FIELDS]
    drawn = ["| design | keys |", "| --- | --- |"]
    drawn += [f"| `{design}` | {', '.join(f'`{key}`' for key in _OPTIONS[design])} |" for design in DESIGNS]
    return "\n".join([HEAD, *lines, "", DRAWN, *drawn, ""])


def _default(entry: dataclasses.Field[object]) -> str:
    value = entry.default if entry.default is not dataclasses.MISSING else entry.default_factory()  # type: ignore[misc]
    return "" if value in ("", (), {}) else f"`{value}`"


def _markdown(text: str) -> str:
    """A docstring's text: its literals and roles as code."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`").replace("|", "\\|")
    return text[:1].upper() + text[1:]
