"""Which measurements count, where tables hold several of one network on data of one name: the newest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

from invariscope.base.errors import TableError
from invariscope.collectors.schema import COLLECTORS, SHIFT_KINDS, TABLES

Started = Callable[[], Mapping[str, datetime]]
"""When each task was started, by its key: asked for only where measurements compete."""


class Variant(NamedTuple):
    """What tells measurements of one network on data of one name apart: images with their preprocessing, and code.

    ``data`` and ``fingerprint`` are empty where rows are of no data; ``code`` where the network has none, or the rows
    are from before it was written. ``keeps_size`` is false for the views of crop shifts, whose fingerprint was another
    one in older tables.
    """

    sha256: str
    model: str
    data: str
    keeps_size: bool
    fingerprint: str
    code: str


VARIANT_COLUMNS = ("sha256", "model", "data", "shift_kind", "data_fingerprint", "code_sha256")
"""The columns from which :func:`variant_of` reads a row's variant; a table need not have all of them."""


def measured_tables() -> list[str]:
    """The tables of measurements: those of collectors whose new rows take no other's place."""
    return [name for name in TABLES if name in COLLECTORS and not COLLECTORS[name].replaces]


ALONE = ("swaps",)
"""Tables of changes on images of their own, often fewer: they compete with themselves alone."""


def competing(names: Iterable[str]) -> list[list[str]]:
    """Those of the tables that hold measurements, in groups of those whose rows compete with one another."""
    measured = [name for name in names if name in measured_tables()]
    together = [name for name in measured if name not in ALONE]
    return [together, *([name] for name in measured if name in ALONE)]


def variant_of(row: Mapping[str, Any]) -> Variant:
    """The variant of a row of any table."""
    kind = str(row.get("shift_kind"))
    keeps_size = kind not in SHIFT_KINDS or bool(SHIFT_KINDS[kind].keeps_size)
    texts = (str(row.get(name) or "") for name in ("data", "data_fingerprint", "code_sha256"))
    data, fingerprint, code = texts
    return Variant(row["sha256"], row["model"], data, keeps_size, fingerprint, code)


def stale_by_table(
    rows: Mapping[str, Iterable[tuple[Variant, str]]], started: Started
) -> dict[str, frozenset[Variant]]:
    """Of tables of measurements, whose rows are given by variant and task, the variants that newer ones replace.

    Raises:
        TableError: as :func:`stale_variants`.
    """
    stale: dict[str, frozenset[Variant]] = {}
    for names in competing(rows):
        found: dict[Variant, set[str]] = {}
        for variant, task in chain.from_iterable(rows[name] for name in names):
            found.setdefault(variant, set()).add(task)
        stale |= dict.fromkeys(names, stale_variants(found, started))
    return stale


def stale_variants(found: Mapping[Variant, Collection[str]], started: Started) -> frozenset[Variant]:
    """The variants that a newer one of the same network on data of the same name replaces.

    The images count first, then the code. Rows from before the code was written go with whatever is the newest.

    Args:
        found: each variant with the keys of its tasks.

    Raises:
        TableError: of variants that compete none has a time.
    """
    together: dict[tuple[str, str, str, bool], list[Variant]] = {}
    for variant in found:
        together.setdefault(variant[:4], []).append(variant)
    stale: set[Variant] = set()
    times: Mapping[str, datetime] | None = None
    for variants in together.values():
        for of in (lambda variant: variant.fingerprint, lambda variant: variant.code):
            left = [variant for variant in variants if variant not in stale]
            values = {of(variant) for variant in left} - {""}
            if len(values) < 2:
                continue
            times = started() if times is None else times
            keep = _newest({value: _tasks(left, found, of, value) for value in values}, times, left[0])
            stale |= {variant for variant in left if of(variant) not in (keep, "")}
    return frozenset(stale)


def _tasks(
    variants: Iterable[Variant], found: Mapping[Variant, Collection[str]], of: Callable[[Variant], str], value: str
) -> list[str]:
    return [task for variant in variants if of(variant) == value for task in found[variant]]


def _newest(tasks: Mapping[str, Collection[str]], times: Mapping[str, datetime], of: Variant) -> str:
    known = {value: max((times[task] for task in keys if task in times), default=None) for value, keys in tasks.items()}
    dated = {value: time for value, time in known.items() if time is not None}
    if not dated:
        shown = ", ".join(sorted(value[:12] for value in tasks))
        raise TableError(
            f"a network ({of.model}) was measured on {of.data or 'no data'} more than once ({shown}), and no timings "
            "say when: load one with where={'data_fingerprint': ...}, or collect into a new folder"
        )
    return max(dated, key=lambda value: dated[value])
