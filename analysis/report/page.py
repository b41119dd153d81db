"""The page put together: sections from the numbers, one template, a policy that lets nothing load."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from invariscope.analysis.drawing import Drawn, draw_headline
from invariscope.analysis.report.drilled import Drilled
from invariscope.analysis.report.explorer import explorer
from invariscope.analysis.report.folds import Heading, folds_html, inline
from invariscope.analysis.report.html_tables import HtmlTable, explorer_table, html_table, paper_table
from invariscope.analysis.report.packed import packed
from invariscope.analysis.report.page_figures import drawn_of_data, figure_groups, page_figure
from invariscope.analysis.report.provenance import provenance
from invariscope.analysis.report.titles import title_of
from invariscope.analysis.results import Results
from invariscope.analysis.say.opening import HEAD
from invariscope.analysis.say.vocabulary import first_measured
from invariscope.analysis.tables.frames import Frames
from invariscope.base.errors import TableError

TOP_DOTS = 220
"""Per inch, of the headline figure."""

SCRIPTS = (
    "base.js",
    "sections.js",
    "tables.js",
    "explorer_scale.js",
    "explorer_data.js",
    "explorer_plot.js",
    "explorer_legend.js",
    "explorer_state.js",
    "explorer.js",
    "drilldown.js",
    "start.js",
)
"""The files of the page's script, in the order in which they stand in it."""


@dataclass(frozen=True)
class PageTable:
    """A table of the page under its title."""

    anchor: str
    title: str
    table: HtmlTable


def build_page(frames: Frames, results: Results, drawn: Drawn, images: Drilled) -> str:
    """The page as HTML; see :func:`invariscope.analysis.report.report_page`."""
    tables, vocabulary = frames.tables, first_measured(frames.tables)
    points = explorer(frames, vocabulary)
    shown = draw_headline(frames, vocabulary, drawn)
    found = drawn_of_data(frames, drawn)
    figures = figure_groups(found, shown[1] if shown else None)
    folds, evidence = folds_html(results.folds)
    groups = {
        "Tables": [
            *(PageTable(f"paper-{name}", title_of(name), paper_table(table)) for name, table in drawn.tables.items()),
            *_tables(images.frames),
            PageTable("table-checkpoints", "Checkpoints", explorer_table(points)),
            *_tables(result_frames(results)),
        ],
        "Sources": _tables(provenance(tables)),
    }
    contents = [Heading(2, "verdict", "Verdict"), Heading(2, "explore", "Explore the checkpoints")]
    contents += [Heading(2, "images", "Look into the images"), Heading(2, "figures", "Figures")]
    contents += [Heading(3, group.anchor, group.name) for group in figures]
    contents += [Heading(2, "evidence", "Evidence"), *evidence]
    for name, group in groups.items():
        contents += [Heading(2, name.lower(), name), *(Heading(3, table.anchor, table.title) for table in group)]
    scripts = [page_script()]
    return _template().render(
        opening=results.opening,
        head=HEAD,
        caveats=[inline(caveat) for caveat in results.opening.caveats],
        top=page_figure(*shown, dots=TOP_DOTS) if shown else None,
        folds=folds,
        contents=contents,
        headline=results.further_lines,
        figures=figures,
        reasons={name: inline(reason) for name, reason in found.reasons.items()},
        groups=groups,
        explorer=packed(points),
        note=inline(images.note),
        drilldown=packed(images.payload) if images.payload else None,
        style=Markup(_file("page.css")),
        scripts=scripts,
        policy=content_policy(scripts),
    )


def result_frames(results: Results) -> dict[str, pd.DataFrame]:
    """Every frame that the results hold, by title."""
    held = {field.name: getattr(results, field.name) for field in fields(results)}
    frames = {name: value for name, value in held.items() if isinstance(value, pd.DataFrame) and len(value)}
    # What was fixed in advance comes first.
    order = sorted(frames, key=lambda name: name != "primary")
    return {title_of(name): frames[name] for name in order}


def _tables(frames: Mapping[str, pd.DataFrame]) -> list[PageTable]:
    return [
        PageTable(f"table-{re.sub('[^a-z0-9]+', '-', title.lower())}", title, html_table(frame))
        for title, frame in frames.items()
    ]


def page_script() -> Markup:
    """All files of the script as one, in a scope of its own."""
    text = "\n".join(_file(name).strip() for name in SCRIPTS)
    if "</script" in text.lower() or "<!--" in text:
        raise TableError("the page's script would end its element")
    return Markup(f'\n(() => {{\n"use strict";\n{text}\n}})();\n')


def content_policy(scripts: Sequence[Markup]) -> str:
    """The page's content security policy: nothing is loaded, and no script runs but these."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}"


def _file(name: str) -> str:
    return files("invariscope.analysis.report").joinpath(name).read_text(encoding="utf-8")


def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_file("page.html"))
