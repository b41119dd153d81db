"""The report's page: what it says against the numbers it was made from, and what hostile names cannot do to it."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from invariscope.analysis import TableError, Tables, draw_figures, load
from invariscope.analysis.figures import style
from invariscope.analysis.report import html_tables as table_module
from invariscope.analysis.report import page as page_module
from invariscope.analysis.report import report_page, write_report
from invariscope.analysis.report.folds import folds_html
from invariscope.analysis.report.html_tables import html_table, paper_table
from invariscope.analysis.report.packed import packed
from invariscope.analysis.report.provenance import provenance
from invariscope.analysis.report.titles import title_of
from invariscope.analysis.results import Results
from invariscope.analysis.say.opening import Fold
from invariscope.collectors.schema import MSB_READINGS


@pytest.fixture(scope="module")
def tables(simulate: ModuleType, pages: ModuleType) -> Tables:
    return pages.small_zoo(simulate)


@pytest.fixture(scope="module")
def made(simulate: ModuleType, pages: ModuleType) -> tuple[str, Results]:
    return pages.small_page(simulate)


@pytest.fixture(scope="module")
def page(made: tuple[str, Results], pages: ModuleType):
    return pages.read(made[0])


@pytest.fixture(scope="module")
def hostile(simulate: ModuleType, pages: ModuleType):
    return pages.read(pages.hostile_page(simulate))


def test_every_finding_of_the_summary_stands_in_the_page(made: tuple[str, Results], page) -> None:
    text = " ".join(page.all("main")[0].text.split())
    lines = []
    for line in made[1].summary.splitlines():
        cells = line.strip("| ").split(" | ") if line.startswith("|") else [re.sub(r"</?\w+>", "", line)]
        lines += [re.sub(r"^(#+|\*) |[`*]", "", cell).strip() for cell in cells if cell != "---"]
    lines = [re.sub(r"[`*]", "", line) for line in lines if line]
    assert len(lines) > 20
    missing = [line for line in lines if " ".join(line.split()) not in text]
    assert not missing
    assert page.all("title")[0].text == page.all("h1")[0].text == lines[0]
    first = page.by_id("verdict")
    assert first.children[0].text.strip() == made[1].opening.verdict == lines[1]
    assert len(first.all("tr")) == 1 + len(made[1].opening.rows)
    folds = [element for element in page.all("details") if (element.attributes.get("id") or "").startswith("fold-")]
    assert [fold.all("h3")[0].text for fold in folds] == [fold.title for fold in made[1].folds]
    assert not any(
        "open" in fold.attributes for fold in page.all("details") if "fold" in fold.attributes.get("class", "")
    )


def test_the_headline_figure_stands_at_the_top_and_no_second_time(tables: Tables, made, pages: ModuleType) -> None:
    drawn = draw_figures(tables, ["msb_by_operator", "msb_invariance"])
    read = pages.read(report_page(tables, results=made[1], drawn=drawn))
    assert len(read.all("img")) == 2
    [image] = read.by_id("verdict").all("img")
    assert image.attributes["alt"].startswith("MSB")
    assert next(figure.all("img")[0].attributes["alt"][:3] for figure in read.all("figure")) == "MSB"
    listed = [heading.text for heading in read.all("h3")]
    assert "MSB by operator" in listed
    assert "MSB invariance" not in listed


def test_contents_list_every_heading_and_lead_to_it(page) -> None:
    links = {link.attributes["href"]: link.text for link in page.by_id("contents").all("a")}
    headings = [h.text.strip() for h in page.all("main")[0].walk() if h.tag in ("h2", "h3", "h4")]
    assert list(links.values()) == ["Verdict", *headings]
    first = [link.attributes["href"].removeprefix("#") for link in page.all("nav")[0].all("a")]
    assert first == [page.by_id(name).attributes["id"] for name in first] != []
    identifiers = [e.attributes["id"] for e in page.walk() if "id" in e.attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {target.removeprefix("#") for target in links} <= set(identifiers)


@pytest.mark.parametrize("name", ["primary", "correlations", "regressions"])
def test_numbers_of_the_tables_are_those_of_the_results(
    made: tuple[str, Results], page, pages: ModuleType, name: str
) -> None:
    expected = getattr(made[1], name)
    section = page.by_id(f"table-{name}")
    shown = pages.rows_of(section)
    assert len(shown) == len(expected)
    assert f"{len(expected)} rows" in section.all("summary")[0].text
    notes = " ".join(p.text for p in section.all("p"))
    told = set(re.findall(r"(\w+) = ", notes)) | set(re.findall(r"\w+", notes.partition("Empty in every row: ")[2]))
    assert set(expected.columns) - set(shown[0]) == told
    for row, wanted in zip(shown, expected.to_dict("records"), strict=True):
        for column, text in row.items():
            value = wanted[column]
            if isinstance(value, float) and math.isnan(value):
                assert text == ""
            elif isinstance(value, float | int) and not isinstance(value, bool):
                assert float(text) == pytest.approx(value, rel=1e-3, abs=1e-12)  # four digits
            else:
                assert text == str(value or "").strip()


def test_every_frame_of_the_results_is_a_table_without_being_named(made: tuple[str, Results]) -> None:
    frames = page_module.result_frames(made[1])
    held = {name for name, value in vars(made[1]).items() if isinstance(value, pd.DataFrame) and len(value)}
    assert {title.lower().replace(" ", "_") for title in frames} == held
    assert next(iter(frames)) == "Primary"


def test_table_tells_once_what_all_rows_share_and_cuts_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame(
        {"a": [1.0, np.nan, 123456.0, 0.00012345], "b": "x<y", "c": None, "d": [True, False, True, True]}
    )
    made = html_table(frame)
    assert made.notes == ("In every row: b = x<y.", "Empty in every row: c.")
    rows = [re.findall(r"<td[^>]*>([^<\n]*)", line) for line in made.markup.split("\n") if line.startswith("<tr>")]
    assert rows == [["1", "yes"], ["", "no"], ["123456", "yes"], ["0.0001234", "yes"]]
    assert '<th scope="col" class="n">a<th scope="col">d' in made.markup
    monkeypatch.setattr(table_module, "MAX_ROWS", 3)
    made = html_table(frame)
    assert (made.rows, made.notes[-1]) == (
        3,
        "1 further rows are not shown here; `invariscope analyze` writes them all.",
    )
    assert html_table(frame.iloc[:1]).notes == ()
    assert html_table(frame.iloc[:0]).rows == 0


def test_tables_of_the_paper_keep_caption_and_marks(tables: Tables, pages: ModuleType) -> None:
    table = draw_figures(tables, ["table_classification"]).tables["table_classification"]
    made = paper_table(table)
    assert made.notes[: len(table.caption.splitlines())] == tuple(table.caption.splitlines())
    read = pages.read(f"<table>{made.markup}</table>")
    shown = pages.rows_of(read)
    label = next(column for column in table.columns if column.key == "accuracy").label
    assert [row[label] for row in shown] == table.cells()["accuracy"].tolist()
    strong = [cell.text.strip() for cell in read.all("strong")]
    assert len(strong) == int(table.bold().to_numpy().sum()) > 3


def test_figures_have_images_captions_and_alternatives(page) -> None:
    images = page.all("img")
    assert [image.attributes["src"].partition(",")[0] for image in images] == ["data:image/webp;base64"]
    for image, figure in zip(images, page.all("figure"), strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(image.attributes["src"].partition(",")[2])))
        assert [str(side) for side in picture.size] == [image.attributes["width"], image.attributes["height"]]
        caption = figure.all("figcaption")[0].text
        assert len(image.attributes["alt"]) > 40
        assert image.attributes["alt"] in caption
        assert "checkpoints" in caption


def test_figures_that_could_not_be_drawn_are_told(page) -> None:
    assert "Shift surface: shift_surface has no rows to draw: collect surface first" in page.text


def test_titles() -> None:
    assert title_of("msb_by_operator") == "MSB by operator"
    assert title_of("dose_response") == "Dose response"
    assert title_of("table_cost") == "Cost"


def test_provenance_says_where_the_numbers_come_from(tables: Tables) -> None:
    failure = {"checkpoint": "c", "stage": "load", "error": "E", "message": "m", "data": "d", "sha256": "s"}
    frames = provenance(replace(tables, failures=pd.DataFrame([{**failure, "task": "t"}])))
    data = frames["Data"].iloc[0]
    assert (data["data"], data["data_fingerprint"], data["checkpoints"], data["most_images"]) == (
        "digits test",
        "f0",
        44,
        600,
    )
    plans = frames["Shift plans"].set_index("plan_hash")
    assert set(plans.index) == set(tables.invariance["plan_hash"]) == {"0", "plan-circular", "plan-zero"}
    assert plans.loc["plan-zero", ["fill", "max_shift", "n_shifts", "checkpoints"]].tolist() == ["background", 4, 9, 44]
    versions = frames["Versions"].set_index(["used for", "library"])["version"]
    assert versions["measuring", "torch"] == "0"
    assert versions["analysing", "statsmodels"] == version("statsmodels")
    rows = frames["Rows of the tables"].set_index("table")["rows"]
    assert rows.to_dict() == {
        "checkpoints": 44,
        "layers": 132,
        "invariance": len(tables.invariance),
        "failures": 1,
    }
    assert frames["Tasks that failed"].iloc[0].to_dict() == failure
    assert "Tasks that failed" not in provenance(tables)


def test_failures_are_read_with_the_tables(tables: Tables, simulate: ModuleType, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from invariscope.collectors.schema import TABLES

    simulate.write_tables(tables, tmp_path)
    assert load(tmp_path).failures.empty
    row = dict.fromkeys(TABLES["failures"].names, "x") | {"checkpoint": "c", "message": "no such file"}
    (tmp_path / "failures").mkdir()
    pq.write_table(pa.Table.from_pylist([row], schema=TABLES["failures"]), tmp_path / "failures" / "a.parquet")
    assert load(tmp_path).failures[["checkpoint", "message"]].to_numpy().tolist() == [["c", "no such file"]]


def test_hostile_names_stay_text(hostile, pages: ModuleType) -> None:
    assert not hostile.all("b")
    kinds = [script.attributes.get("type") for script in hostile.all("script")]
    assert kinds.count(None) == 1
    assert {*kinds} == {None, "text/plain"}
    assert {e.attributes["href"][0] for e in hostile.walk() if "href" in e.attributes} == {"#"}
    sources = [e.attributes["src"] for e in hostile.walk() if "src" in e.attributes]
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not [name for e in hostile.walk() for name in e.attributes if name.startswith("on")]
    payload = pages.unpacked(hostile.by_id("explorer-data").text)
    assert pages.HOSTILE in payload["names"]
    assert f"{pages.HOSTILE}" in next(c for c in payload["columns"] if c["name"] == "operator")["levels"]
    assert pages.HOSTILE in hostile.by_id("table-tasks-that-failed").text
    findings = next(e for e in hostile.walk() if e.attributes.get("class") == "findings")
    assert not findings.all("a")
    assert not findings.all("img")
    assert "javascript:alert(1)" in findings.text


def test_markdown_of_names_makes_no_element() -> None:
    text = "## [a](http://x) <i>\n\n* <script>alert(1)</script> ![p](http://y) <http://z> &lt;u&gt;\n\n[r]: http://q\n"
    [fold], headings = folds_html([Fold("T <b>", text)])
    assert fold.title == "T <b>"
    assert [(heading.level, heading.text) for heading in headings] == [(3, "T <b>"), (4, "[a](http://x) <i>")]
    assert set(re.findall(r"<(\w+)", fold.html)) == {"h4", "ul", "li", "p"}
    assert "alert(1)" in html.unescape(fold.html)


@pytest.mark.parametrize("text", ["</script><b>", "<!--", "<script>", "\u2028\u2029", "</SCRIPT >", 'quote " \\ \n'])
def test_values_survive_inside_a_script(text: str, pages: ModuleType) -> None:
    written = packed({text: [text, 1.5, None]})
    assert pages.unpacked(written) == {text: [text, 1.5, None]}
    assert re.fullmatch("[A-Za-z0-9+/=]+", written)


@pytest.mark.parametrize("which", ["page", "hostile"])
def test_policy_lets_these_scripts_run_and_nothing_load(which: str, request: pytest.FixtureRequest) -> None:
    read = request.getfixturevalue(which)
    [policy] = [e.attributes["content"] for e in read.all("meta") if "http-equiv" in e.attributes]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    scripts = [script for script in read.all("script") if "type" not in script.attributes]
    digests = [base64.b64encode(hashlib.sha256(s.text.encode()).digest()).decode() for s in scripts]
    assert rules["script-src"] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert "http" not in policy


@pytest.mark.parametrize("figures", [False, pytest.param(True, marks=pytest.mark.full)])
def test_equal_tables_give_equal_bytes_in_another_process_that_imports_what_makes_pages_for_the_page_alone(
    simulate: ModuleType, pages: ModuleType, tmp_path: Path, repository: Path, figures: bool
) -> None:
    tables = pages.small_zoo(simulate) if figures else pages.few_networks(simulate)
    page, _ = pages.small_page(simulate) if figures else pages.page_of(tables, ())
    simulate.write_tables(tables, tmp_path / "tables", parts=3)
    code = (
        "import hashlib, sys\n"
        "from invariscope import analysis, cli\n"
        "from invariscope.analysis import figures, study, report\n"
        "assert figures.FIGURES and not {'jinja2', 'markdown_it'} & set(sys.modules)\n"
        f"sys.path.insert(0, {str(repository / 'tests' / 'analysis')!r})\n"
        "import pages\n"
        "from invariscope.analysis import load\n"
        f"page, _ = pages.page_of(load({str(tmp_path / 'tables')!r}){'' if figures else ', ()'})\n"
        "print(hashlib.sha256(page.encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository, env=environment
    )
    assert done.stdout.strip() == hashlib.sha256(page.encode()).hexdigest()


def test_page_is_written_whole_or_not_at_all(
    tables: Tables, made: tuple[str, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new" / "report.html"
    monkeypatch.setattr(page_module, "build_page", lambda *arguments: "first")
    monkeypatch.setattr("invariscope.analysis.drawing.draw_figures", lambda tables: None)
    assert write_report(tables, target, results=made[1]) == target
    assert target.read_text() == "first"

    def fail(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page_module, "build_page", lambda *arguments: "second")
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(TableError, match=r"report.html: cannot be written \(No space left on device\)"):
        write_report(tables, target, results=made[1])
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    assert target.read_text() == "first"


def test_where_no_page_can_be_written(
    tables: Tables, made: tuple[str, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TableError, match=r"is a folder; name a file in it"):
        write_report(tables, tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(page_module, "build_page", lambda *arguments: "page")
    monkeypatch.setattr("invariscope.analysis.drawing.draw_figures", lambda tables: None)
    with pytest.raises(TableError, match=r"cannot be written \(Not a directory\)|cannot be written \(File exists\)"):
        write_report(tables, tmp_path / "file" / "report.html", results=made[1])


def test_checkpoints_are_listed_with_factors_and_scores(page) -> None:
    section = page.by_id("table-checkpoints")
    assert "88 rows" in section.all("summary")[0].text
    heads = {head.text for head in section.all("th")}
    assert {"checkpoint", "shifts", "operator", "width", "consistency (share of shift pairs)"} <= heads
    assert {style.label(name) for name in MSB_READINGS} <= heads
