"""``operators``: the registry, with what each operator is and what it does to noise."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from invariscope.base.errors import InputError
from invariscope.base.terminal import say
from invariscope.cli.common import DONE
from invariscope.cli.flags import CodeFlag
from invariscope.zoo.code_leave import refuse_code


@dataclass(frozen=True)
class Operators(CodeFlag):
    """The downsampling operators: formula, knobs, and what each does to noise before any training.

    MSB is the chance-corrected weight on the maximum; selectivity says how far single pixels are picked, whichever;
    the error is that of the site under circular shifts, 0 where the output moves along with the input.

    Example: invariscope operators --only 'soft(beta=8),blur,tips'
    """

    only: tuple[str, ...] = ("*",)
    """Names, patterns such as 'a*', or specifications such as 'soft(beta=8)', with commas between."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Print them."""
        import pandas as pd
        from tqdm import tqdm

        from invariscope.zoo.operators import operator_code_files

        refuse_code(self.only, self.allow_code)
        specs = wanted(self.only)
        last = sorted(specs, key=lambda text: bool(operator_code_files(text)))  # code: what it does to torch stays
        made = {spec: _row(spec) for spec in tqdm(last, unit="operator", disable=None, leave=False)}
        rows = [made[spec] for spec in specs]
        if self.json:
            say(*json.dumps(rows, indent=1).split("\n"))
            return DONE
        table = pd.DataFrame(rows)
        text = table.to_string(index=False, float_format=lambda value: f"{value:.3f}", justify="left")
        say(*text.split("\n"))
        return DONE


def wanted(only: tuple[str, ...]) -> list[str]:
    """The operators of these names, patterns and specifications, each once, in the order of the registry.

    Raises:
        InputError: a pattern that fits none. OperatorError: a specification that cannot be read.
    """
    from invariscope.zoo.operators import OPERATORS, operator_code_files, parse_operator

    found: list[str] = []
    for text in only:
        fitting = [name for name in OPERATORS if fnmatchcase(name, text)]
        if not fitting and any(mark in text for mark in "*?["):
            raise InputError(f"--only {text}: no operator has such a name ({', '.join(OPERATORS)})")
        found += fitting or [text if operator_code_files(text) else str(parse_operator(text))]
    return list(dict.fromkeys(found))


def _row(text: str) -> dict[str, Any]:
    """What is said of one operator."""
    from invariscope.collectors.measure.operator_error import operator_readings
    from invariscope.zoo.operators import parse_operator
    from invariscope.zoo.operators.values import spell

    spec = parse_operator(text)
    knobs = [f"{name}={spell(spec.value(name))}" for name in spec.operator_class.arguments()]
    first = (spec.operator_class.__doc__ or "").strip().partition("\n")[0]
    readings = operator_readings(spec)
    return {
        "operator": text,
        "formula": re.sub(r" See :func:`\w+`\.|`", "", first),
        "knobs": ", ".join(knobs),
        "msb": readings.msb,
        "selectivity": readings.selectivity,
        "operator_equivariance_error": readings.error,
    }
