"""From a design, a recipe whose grid holds populations and rotations, to a recipe that holds what was drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from invariscope.base.errors import InputError, RecipeError
from invariscope.base.files import write_atomic
from invariscope.base.flushing import make_folder
from invariscope.zoo.population import TURNS, DrawnOperator, draw_population, draw_repeats, draw_rotations
from invariscope.zoo.recipe import DESIGNS, read_recipe, refuse_code
from invariscope.zoo.run import Run
from invariscope.zoo.yaml_lines import Located, read_yaml

_OPTIONS = {
    "population": ("count", "seed", "name", "first", "training_seed", "zero_padded", "augment_shift"),
    "rotations": ("blocks", "seed", "name", "part_of", "first", "training_seed", "pixels", "augment_shift"),
    "repeats": ("of", "count", "seed", "training_seed"),
}
"""The keys of each design; the first two, and the seed, are required."""

_ITEM = re.compile(rf"(\s*)- ({'|'.join(DESIGNS)}):")

_HEAD = """\
# Written by `{command}` (invariscope {invariscope}, numpy {numpy}, scipy {scipy}).
# The drawn operators are data: train and cite them as they stand here; drawing again may give others.
"""


def write_drawn(design: str | Path, out: str | Path, command: str, *, allow_code: bool = False) -> list[Run]:
    """Draw what a design asks for and write it out as a recipe: explicit specifications, one entry per network.

    A design is a recipe in whose ``grid`` some items are, instead of a grid, ``population: {count, seed, name,
    training_seed, zero_padded, augment_shift}`` (:func:`draw_population`), ``rotations: {blocks, seed, name,
    training_seed, pixels, augment_shift}`` (:func:`draw_rotations`) or ``repeats: {of, count, seed, training_seed}``
    (:func:`draw_repeats`, ``of`` a population by name). With ``augment_shift`` half of the networks are trained on
    images shifted by up to so many pixels and flipped; with ``first: n`` the first so many of the drawn operators, or
    blocks, are written and no others, so that a small zoo can be a part of a large one; with ``part_of: R`` blocks of
    another name are of the population ``R``. Everything else, comments included, stays as it is, and the order of the
    items is the order of training.

    Args:
        command: stands in the head of the recipe.
        allow_code: as of :func:`read_recipe`.

    Returns:
        The runs of the recipe.

    Raises:
        RecipeError: for a design that is wrong or draws nothing, an ``out`` that exists or cannot be written, or a
            recipe that cannot be read.
    """
    design, out = Path(design), Path(out)
    if out.exists():
        raise RecipeError(f"{out} is there already, and what was drawn stays as it is: name another file")
    text = drawn_text(design, command, allow_code=allow_code)
    try:
        make_folder(out.parent)
        write_atomic(out, text.encode())
    except OSError as problem:
        raise RecipeError(f"{out}: cannot be written ({problem.strerror}): name another file") from problem
    try:
        return read_recipe(out, allow_code=allow_code)
    except InputError:
        out.unlink()
        raise


def drawn_text(design: Path, command: str, *, allow_code: bool = False) -> str:
    """The text of the recipe that :func:`write_drawn` writes.

    Raises:
        RecipeError: for a design that is wrong or draws nothing.
    """
    root = read_yaml(design, RecipeError, "design")
    if not allow_code:
        refuse_code(root)
    top = root.mapping("the design", ("defaults", "grid"), ("grid",))
    items = top["grid"].items("grid") if isinstance(top["grid"].value, list) else []
    lines = design.read_text(encoding="utf-8").splitlines()
    starts = sorted({*(item.line - 1 for item in (*items, *top.values())), len(lines)})
    drawn: dict[str, list[DrawnOperator]] = {}
    replaced: dict[int, tuple[int, list[str]]] = {}
    for item in items:
        kind = _kind(item)
        if kind is None:
            continue
        start = item.line - 1
        end = next((place for place in starts if place > start), len(lines))
        found = _ITEM.match(lines[start])
        if found is None:
            raise item.fail(f"{kind} must begin a line of its own: write it as `- {kind}: {{...}}`")
        while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
            end -= 1
        options = _options(item.value[kind], kind)
        entries = _draw(item, kind, options, drawn)
        told = [f"{found[1]}# {kind}: {_flow(options)}", *_written(entries, found[1])]
        replaced[start] = (end, told)
    if not replaced:
        raise root.fail(f"{design} draws nothing: give its grid an item {' or '.join(DESIGNS)}")
    for start, (end, told) in sorted(replaced.items(), reverse=True):
        lines[start:end] = told
    versions = {name: version(name) for name in ("invariscope", "numpy", "scipy")}
    return _HEAD.format(command=command, **versions) + "\n".join(lines) + "\n"


def _kind(item: Located) -> str | None:
    """What an item of the grid draws; None for a grid."""
    kinds = [key for key in item.value if key in DESIGNS] if isinstance(item.value, dict) else []
    if kinds and len(item.value) > 1:
        raise item.fail(f"{kinds[0]} stands beside {', '.join(key for key in item.value if key != kinds[0])}: "
                        "put what all networks share into `defaults`")  # fmt: skip
    return kinds[0] if kinds else None


def _options(item: Located, kind: str) -> dict[str, Any]:
    keys = _OPTIONS[kind]
    entries = item.mapping(kind, keys, [key for key in ("of", "count", "blocks", "seed") if key in keys])
    return {key: _option(key, entry, f"{kind}: {key}") for key, entry in entries.items()}


def _option(key: str, item: Located, what: str) -> Any:
    match key:
        case "name" | "of" | "part_of":
            text = item.text(what)
            if not re.fullmatch(r"[A-Za-z]\w*", text):
                raise item.fail(f"{what} is {text!r}, and must be a word: it begins the names of runs and files")
            return text
        case "zero_padded":
            return item.flag(what)
        case _:
            return item.integer(what, 0)


def _draw(
    item: Located, kind: str, options: Mapping[str, Any], drawn: dict[str, list[DrawnOperator]]
) -> list[DrawnOperator]:
    """What an item draws; populations and rotations are kept by their name."""
    given = dict(options)
    try:
        if kind == "repeats":
            of = given.pop("of")
            if of not in drawn:
                raise RecipeError(
                    f"repeats of {of}, which is not drawn above: name one of {', '.join(drawn) or 'them'}"
                )
            return draw_repeats(drawn[of], **given)
        first, part_of = given.pop("first", None), given.pop("part_of", None)
        entries = draw_population(**given) if kind == "population" else draw_rotations(**given)
        if first is not None:
            entries = _first(entries, first, TURNS if kind == "rotations" else 1)
        name = entries[0].factors["population"]
        if part_of is not None:
            entries = [replace(one, factors={**one.factors, "population": part_of}) for one in entries]
    except RecipeError as problem:
        raise item.fail(str(problem)) from None
    if name in drawn:
        raise item.fail(f"{name} is drawn already: give it another name")
    drawn[name] = entries
    return entries


def _first(entries: list[DrawnOperator], first: int, size: int) -> list[DrawnOperator]:
    """The first so many operators, or blocks of operators of this size."""
    if not 1 <= first * size <= len(entries):
        raise RecipeError(f"first is {first}, of {len(entries) // size} that are drawn: take from 1 to as many")
    return entries[: first * size]


def _written(entries: Sequence[DrawnOperator], indent: str) -> list[str]:
    lines = []
    for one in entries:
        told: dict[str, Any] = {"draw": one.name, "padding_mode": one.padding_mode, "seed": one.seed}
        if one.augment_shift is not None:
            told |= {"augment_shift": one.augment_shift, "augment_flip": one.augment_shift > 0}
        lines += [
            f"{indent}- {{{_flow(told)[1:-1]},",
            f'{indent}   operator: "{one.operator}",',
            f"{indent}   factors: {_flow(one.factors)}}}",
        ]
    return lines


def _flow(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), default_flow_style=True, sort_keys=False, width=2**16).strip()
