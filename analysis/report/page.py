"""The page put together: sections from the numbers, one template, a policy that lets nothing load."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from matplotlib.figure import Figure

from invariscope.analysis.drawing import Drawn, caption_of, draw_headline
from invariscope.analysis.figures.style import theme
from invariscope.analysis.report.html_tables import HtmlTable, html_table, paper_table
from invariscope.analysis.report.provenance import provenance
from invariscope.analysis.report.scatter import scatter_spec
from invariscope.analysis.results import Results
from invariscope.analysis.say.opening import HEAD, Fold
from invariscope.analysis.say.vocabulary import IMAGES, PIXELS, first_measured
from invariscope.analysis.tables.checkpoints import metrics_of
from invariscope.analysis.tables.frames import Frames
from invariscope.analysis.tables.plans import DATA_AND_PLAN
from invariscope.collectors.schema import MSB_READINGS, SCORES

DOTS_PER_INCH = 220
"""Of the figures: 1540 pixels across two columns, sharp on a screen and in print."""


_UNSHIFTED = (IMAGES.accuracy, PIXELS.accuracy)
_SHIFTED = (*(name for name in SCORES if name != IMAGES.accuracy), *PIXELS.scores)


@dataclass(frozen=True)
class Heading:
    """An entry of the table of contents."""

    level: int
    anchor: str
    text: str


@dataclass(frozen=True)
class PageFold:
    """A part of the findings that is folded away."""

    anchor: str
    title: str
    html: Markup


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page: its image as a data URL, the text beside it."""

    anchor: str
    name: str
    source: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True)
class PageTable:
    """A table of the page under its title."""

    anchor: str
    title: str
    table: HtmlTable


def build_page(frames: Frames, results: Results, drawn: Drawn) -> str:
    """The page as HTML; see :func:`invariscope.analysis.report.report_page`."""
    tables, vocabulary = frames.tables, first_measured(frames.tables)
    frame = frames[vocabulary.frame]
    opening = results.opening
    shown = draw_headline(frames, vocabulary, drawn)
    top = page_figure(*shown) if shown else None
    folds, contents = folds_html(results.folds)
    figures = [page_figure(name, figure) for name, figure in drawn.figures.items() if not shown or name != shown[0]]
    groups = {
        "Tables": [
            *(PageTable(f"paper-{name}", title_of(name), paper_table(table)) for name, table in drawn.tables.items()),
            *_tables({"Checkpoints": checkpoint_table(frame), **result_frames(results)}),
        ],
        "Provenance": _tables(provenance(tables)),
    }
    contents = [Heading(2, "verdict", "Verdict"), *contents]
    contents += [Heading(2, "explore", "Explore the checkpoints"), Heading(2, "figures", "Figures")]
    contents += [Heading(3, figure.anchor, figure.name) for figure in figures]
    for name, group in groups.items():
        contents += [Heading(2, name.lower(), name), *(Heading(3, table.anchor, table.title) for table in group)]
    scripts = [Markup(_script_text(text)) for text in (vega_bundle(), _file("page.js"))]
    return _template().render(
        opening=opening,
        head=HEAD,
        caveats=[_inline(caveat) for caveat in opening.caveats],
        top=top,
        folds=folds,
        contents=contents,
        headline=results.further_lines,
        figures=figures,
        reasons={title_of(name): reason for name, reason in drawn.reasons.items()},
        groups=groups,
        specification=json_for_script(scatter_spec(frame, tables, vocabulary)),
        style=Markup(_file("page.css")),
        scripts=scripts,
        policy=content_policy(scripts),
    )


def folds_html(folds: Iterable[Fold]) -> tuple[list[PageFold], list[Heading]]:
    """The folds of a summary as HTML, and their headings: those of a fold's text are one level below its title.

    The text may hold names that others chose: HTML in it is shown as text, and links and images are not made.
    """
    reader = _reader()
    made: list[PageFold] = []
    headings: list[Heading] = []
    for fold in folds:
        anchor = f"fold-{len(made) + 1}"
        headings.append(Heading(2, anchor, fold.title))
        tokens = reader.parse(fold.text)
        for token, words in zip(tokens, [*tokens[1:], *tokens[-1:]], strict=True):
            if token.type not in ("heading_open", "heading_close"):
                continue
            level = int(token.tag[1:]) + 1
            token.tag = f"h{level}"
            if token.type == "heading_open":
                heading = Heading(level, f"finding-{len(headings) + 1}", _words(words))
                token.attrSet("id", heading.anchor)
                headings.append(heading)
        made.append(PageFold(anchor, fold.title, Markup(reader.renderer.render(tokens, reader.options, {}))))
    return made, [heading for heading in headings if heading.level < 4]


def _reader() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).disable(["link", "image", "autolink", "reference"])


def _inline(text: str) -> Markup:
    return Markup(_reader().renderInline(text))


def _words(token: Any) -> str:
    return "".join(child.content for child in token.children or [])


def page_figure(name: str, figure: Figure) -> PageFigure:
    """A figure as a lossless WebP data URL, which is a quarter of the size of the PNG and half that of the SVG."""
    buffer = io.BytesIO()
    with theme():
        figure.savefig(buffer, format="webp", dpi=DOTS_PER_INCH, pil_kwargs={"lossless": True})
    width, height = (round(inches * DOTS_PER_INCH) for inches in figure.get_size_inches())
    source = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    caption = caption_of(figure)
    first = caption.partition("\n")[0] or title_of(name)
    return PageFigure(f"figure-{name}", title_of(name), source, width, height, first, caption)


def checkpoint_table(frame: pd.DataFrame) -> pd.DataFrame:
    """What the page lists of every checkpoint and shift plan: its factors, metrics, MSB readings and scores."""
    factors = ["operator_spec", "architecture", "padding_mode", "training_data", "seed", "run", "epoch", "n_params"]
    further = [*(name for name in frame.columns if name.startswith("factor_")), *metrics_of(frame)]
    measures = [name for name in (*_UNSHIFTED, *MSB_READINGS, *_SHIFTED) if name in frame.columns]
    return frame[["checkpoint", *factors, *further, *DATA_AND_PLAN, *measures, "n_sites", "n_images"]]


def result_frames(results: Results) -> dict[str, pd.DataFrame]:
    """Every frame that the results hold, by title."""
    held = {field.name: getattr(results, field.name) for field in fields(results)}
    frames = {name: value for name, value in held.items() if isinstance(value, pd.DataFrame) and len(value)}
    # What was fixed in advance comes first.
    order = sorted(frames, key=lambda name: name != "primary")
    return {title_of(name): frames[name] for name in order}


def title_of(name: str) -> str:
    """``msb_by_operator`` as a heading: MSB by operator; ``table_cost``: Cost."""
    words = name.removeprefix("table_").replace("_", " ")
    return re.sub(r"\bmsb\b", "MSB", words[:1].upper() + words[1:], flags=re.IGNORECASE)


def _tables(frames: Mapping[str, pd.DataFrame]) -> list[PageTable]:
    return [
        PageTable(f"table-{re.sub('[^a-z0-9]+', '-', title.lower())}", title, html_table(frame))
        for title, frame in frames.items()
    ]


def json_for_script(value: Any) -> Markup:
    """JSON that no string in it can end the script element with, whatever a checkpoint is called."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


@functools.cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script (0.9 MB), of the version that the specification is written for."""
    version = ".".join(alt.SCHEMA_VERSION.split(".")[:2])
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version)


def _script_text(text: str) -> str:
    # In a string or a regular expression, the only places where a library could have it, `<\/` is the same.
    return f"\n{text.strip()}\n".replace("</script", "<\\/script")


def content_policy(scripts: list[Markup]) -> str:
    """The page's content security policy: nothing is loaded, and no script runs but these."""
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    hashes = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {hashes}"


def _file(name: str) -> str:
    return files("invariscope.analysis.report").joinpath(name).read_text(encoding="utf-8")


def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_file("page.html"))
