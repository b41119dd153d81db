"""The analysis of segmentation: that of whole images with the scores of pixels in their place, and its own words.

Per-pixel consistency stands for consistency, per-pixel fidelity for fidelity and mIoU for accuracy; what comes out is
named for what it is. The statements, plans and limits fixed in advance are the same.
"""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

import pandas as pd

from invariscope.analysis.say.summary import READ_SCORE
from invariscope.analysis.study import Results, analyze_tables
from invariscope.analysis.tables.joined import Tables, join
from invariscope.base.errors import TableError
from invariscope.collectors.schema import TABLES

STANDS_FOR = {"consistency_pixel": "consistency", "fidelity_pixel": "fidelity", "miou": "accuracy"}
"""Scores of pixels, and those of whole images in whose place they are analysed."""

NAMES = {"circular": "mASCC", "zero": "mASSC", "crop": "mASSC"}
"""What the mean per-pixel consistency is called in the literature, by shift kind."""

READ_PIXELS = (
    "*consistency* is per-pixel consistency: the share of pixels that two shifts of an image put into the same class "
    "once the shifts are undone, over the pixels that both show, void ones left out. Its mean over images is mASCC "
    "under circular shifts, and mASSC under zero and crop shifts. *mIoU* is taken on the unshifted images"
)


def has_pixels(tables: Tables) -> bool:
    """Whether segmentation was measured under a shift."""
    return bool((tables.segmentation["score"] == "consistency_pixel").any())


def has_images(tables: Tables) -> bool:
    """Whether predictions of whole images were measured under a shift."""
    return bool((tables.invariance["shift_kind"] != "none").any())


def as_invariance(tables: Tables) -> Tables:
    """Tables whose ``invariance`` holds the scores of pixels, under the names of :data:`STANDS_FOR`.

    Raises:
        TableError: no segmentation was measured.
    """
    if not has_pixels(tables):
        raise TableError(
            "table segmentation holds no shifts; collect `segmentation` with at least one shift kind first"
        )
    rows = tables.segmentation[tables.segmentation["score"].isin(STANDS_FOR)]
    rows = rows.assign(score=rows["score"].map(STANDS_FOR), n_pairs=rows["n_pairs"].fillna(0).astype("int64"))
    return replace(tables, invariance=rows.reindex(columns=TABLES["invariance"].names))


def joined(tables: Tables) -> pd.DataFrame:
    """:func:`invariscope.analysis.tables.joined.join` of whole images where there are any, else of pixels.

    Raises:
        TableError: as :func:`invariscope.analysis.tables.joined.join`.
    """
    return join(tables if has_images(tables) or not has_pixels(tables) else as_invariance(tables))


def analyze_pixels(tables: Tables, **options: Any) -> Results:
    """MSB against per-pixel consistency: every table, statement and word of :func:`analyze_tables`.

    Raises:
        TableError: no segmentation was measured, or as :func:`invariscope.analysis.tables.joined.join`.
    """
    results = analyze_tables(as_invariance(tables), **options)
    named = {
        entry.name: _renamed(getattr(results, entry.name))
        for entry in fields(Results)
        if isinstance(getattr(results, entry.name), pd.DataFrame)
    }
    return replace(
        results,
        **named,
        summary=_in_words(results.summary),
        headline=[_headline(line) for line in results.headline],
    )


def analyze_all(tables: Tables, **options: Any) -> Results:
    """The analysis of whole images where they were measured, else that of pixels.

    Raises:
        TableError: neither was measured, or as :func:`invariscope.analysis.tables.joined.join`.
    """
    only_pixels = has_pixels(tables) and not has_images(tables)
    return analyze_pixels(tables, **options) if only_pixels else analyze_tables(tables, **options)


_WORDS = {rf"\b{image}\b": pixel for pixel, image in STANDS_FOR.items()}


def _renamed(table: pd.DataFrame) -> pd.DataFrame:
    """Names of scores in the columns that hold them."""
    held = [name for name in ("x", "y", "given", "term", "covariates", "model") if name in table]
    return table.assign(**{name: table[name].replace(_WORDS, regex=True) for name in held})


def _in_words(summary: str) -> str:
    head, _, rest = summary.partition("\n")
    text = rest.replace(READ_SCORE, READ_PIXELS)
    text = re.sub(r"`(consistency|fidelity)`", r"`\1_pixel`", text)
    return f"{head.rstrip('?')} of segmentation?\n" + re.sub(r"\b[Aa]ccuracy\b", "mIoU", text)


def _headline(line: str) -> str:
    """A line for a terminal; that of a plan says what its consistency is called."""
    line = line.replace("given accuracy", "given mIoU    ")
    for kind, name in NAMES.items():
        if f", {kind} shifts (" in line:
            return line.replace("against consistency", f"against per-pixel consistency ({name})")
    return line.replace("against consistency", "against per-pixel consistency")
