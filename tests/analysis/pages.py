"""What the tests of the report share: a page read into its elements, and the page of a small simulated zoo."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.drawing import Drawn, draw_figures
from invariscope.analysis.report import report_page
from invariscope.analysis.results import Results
from invariscope.analysis.study import analyze
from invariscope.analysis.tables.joined import join
from invariscope.analysis.tables.load import Tables
from invariscope.collectors.schema import PLAN_COLUMNS

HOSTILE = "</script><b>&amp;\u2028'\"[x](javascript:alert(1))![y](http://z/z.png)"
RAW_TEXT = {"script", "style"}
VOID = {"meta", "img", "wbr", "link", "br", "input"}


@dataclass
class Element:
    """An element with its attributes, its text (that of its descendants included) and its children."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def walk(self) -> Iterator[Element]:
        yield self
        for child in self.children:
            yield from child.walk()

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.walk() if element.tag == tag]

    def by_id(self, identifier: str) -> Element:
        [found] = [element for element in self.walk() if element.attributes.get("id") == identifier]
        return found


class _Reader(HTMLParser):
    """Rows, cells and list items end where the next one begins, as HTML says."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stack = [Element("root", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        ends = {"td": {"td", "th"}, "th": {"td", "th"}, "li": {"li"}, "tr": {"tr", "td", "th"}}
        while self.stack[-1].tag in ends.get(tag, ()):
            self.stack.pop()
        element = Element(tag, dict(attrs))
        self.stack[-1].children.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_endtag(self, tag: str) -> None:
        if any(element.tag == tag for element in self.stack):
            while self.stack.pop().tag != tag:
                pass

    def handle_data(self, data: str) -> None:
        for element in self.stack:
            element.text += data


def read(page: str) -> Element:
    """The page as a tree."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.stack[0]


def unpacked(text: str) -> Any:
    """What the page's script makes of a packed value."""
    return json.loads(zlib.decompress(base64.b64decode(text.strip())))


def rows_of(section: Element) -> list[dict[str, str]]:
    """The rows of a table, or of the section that holds it, as the page shows them; packed ones too."""
    head, *body = [[cell.text.strip() for cell in row.children] for row in section.all("tr")]
    packed = [script for script in section.all("script") if (script.attributes.get("id") or "").endswith("-columns")]
    if packed:
        columns = [
            [column["levels"][code] for code in column["codes"]]
            if "codes" in column
            else ["" if value is None else str(value) for value in column["numbers"]]
            for column in unpacked(packed[0].text)
        ]
        body = [[text.strip() for text in cells] for cells in zip(*columns, strict=True)]
    return [dict(zip(head, cells, strict=True)) for cells in body]


def payloads(page: Element) -> str:
    """Everything that the page packs, as text."""
    scripts = [script for script in page.all("script") if script.attributes.get("type") == "text/plain"]
    return "\n".join(json.dumps(unpacked(script.text), ensure_ascii=False) for script in scripts)


def small_zoo(simulate: ModuleType) -> Tables:
    """11 operators, one seed, two snapshots, two shift kinds."""
    return simulate.simulate_tables(simulate.Zoo(seeds=1, padding_modes=("circular",)))


def hostile_zoo(simulate: ModuleType) -> Tables:
    """A zoo with one name, everywhere that a name can stand, that tries to become part of the page."""
    tables = simulate.simulate_tables(simulate.Zoo(seeds=1, padding_modes=("circular",), shift_kinds=("zero",)))
    old = tables.checkpoints["checkpoint"].iloc[0]

    def rename(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.assign(checkpoint=frame["checkpoint"].replace(old, HOSTILE))
        return frame.assign(data=HOSTILE) if "data" in frame and len(frame) else frame

    named = {name: rename(getattr(tables, name)) for name in ("layers", "invariance", "surface")}
    checkpoints = rename(tables.checkpoints)
    spec = checkpoints["operator"] == "tips"
    checkpoints = checkpoints.assign(
        operator=checkpoints["operator"].mask(spec, HOSTILE),
        operator_spec=checkpoints["operator_spec"].mask(spec, HOSTILE),
    )
    # The summary lists copies by name.
    copy = checkpoints[checkpoints["checkpoint"] == HOSTILE].assign(checkpoint=f"{HOSTILE} copy")
    failure = {"checkpoint": HOSTILE, "sha256": "0", "stage": "load", "error": "WeightsError", "message": HOSTILE}
    failure |= {"data": HOSTILE, "task": "t", "invariscope_version": "0", "torch_version": "0"}
    return replace(
        tables,
        checkpoints=pd.concat([checkpoints, copy], ignore_index=True),
        failures=pd.DataFrame([failure]),
        **named,
    )


def few_networks(simulate: ModuleType) -> Tables:
    """Four operators, one seed, one snapshot, one shift kind."""
    zoo = simulate.Zoo(n_operators=4, seeds=1, epochs=(8.0,), padding_modes=("circular",), shift_kinds=("zero",))
    return simulate.simulate_tables(zoo)


def predictions_of(tables: Tables, images: int = 40, shifts: int = 6) -> pd.DataFrame:
    """Table ``predictions`` of the final networks, by chance: each image has a chance of its own to flip."""
    rows = join(tables)
    parts = []
    for place, row in enumerate(rows[rows["final"]].to_dict("records")):
        draw, of_images = np.random.default_rng(place), np.random.default_rng(7)
        label, ease = of_images.integers(5, size=images), of_images.random(images)
        offsets = of_images.integers(-4, 5, size=(2, images, shifts))
        clean = np.where(draw.random(images) < 0.9, label, draw.integers(5, size=images))
        keeps = draw.random((images, shifts)) < ease[:, None]
        named = {
            name: row[name] for name in ("checkpoint", "sha256", "model", "data", "data_fingerprint", *PLAN_COLUMNS)
        }
        said = {
            "image": range(images),
            "label": label,
            "clean_prediction": clean,
            "clean_probability": draw.random(images),
            "dy": list(offsets[0]),
            "dx": list(offsets[1]),
            "prediction": list(np.where(keeps, clean[:, None], draw.integers(5, size=(images, shifts)))),
            "probability": list(draw.random((images, shifts))),
            "drift_probability": list(draw.random((images, shifts))),
        }
        parts.append(pd.DataFrame(said).assign(**named))
    return pd.concat(parts, ignore_index=True)


def page_of(
    tables: Tables,
    figures: Sequence[str] = ("msb_by_operator", "shift_surface"),
    predictions: pd.DataFrame | None = None,
) -> tuple[str, Results]:
    """Page and results; few resamples, scores and figures, last snapshots and one subset alone, so that it is quick."""
    rows = join(tables)
    rows = rows[rows["final"] & (rows["operator"] != "subsample")]
    results = analyze(rows, scores=["consistency"], resamples=20)
    drawn = draw_figures(tables, figures) if figures else Drawn({}, {}, {})
    return report_page(tables, results=results, drawn=drawn, predictions=predictions), results


@cache
def small_page(simulate: ModuleType) -> tuple[str, Results]:
    """:func:`page_of` of :func:`small_zoo`, made once for the modules of a process that look at it."""
    return page_of(small_zoo(simulate))


@cache
def drilled_page(simulate: ModuleType) -> tuple[str, Results]:
    """:func:`page_of` of :func:`small_zoo` with predictions, both figures drawn."""
    tables = small_zoo(simulate)
    return page_of(tables, ("msb_by_operator", "msb_invariance"), predictions_of(tables))


@cache
def hostile_page(simulate: ModuleType) -> str:
    """The page of :func:`hostile_zoo`, made once too."""
    tables = hostile_zoo(simulate)
    return page_of(tables, predictions=predictions_of(tables))[0]
