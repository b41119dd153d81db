"""The report in a headless Chromium, where one is installed: no network, no errors, tables, text that can be read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from invariscope.analysis import join
from invariscope.analysis.results import Results
from tests.analysis.browsing import Browser

AXE = os.environ.get("INVARISCOPE_AXE", "")
"""Path of ``axe.min.js`` (npm package axe-core), which is not part of this repository."""

UNFOLD = "document.querySelectorAll('main details').forEach(fold => { fold.open = true; })"

pytestmark = [pytest.mark.full, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def made(simulate: ModuleType, pages: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    text, results = pages.drilled_page(simulate)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path, results


@pytest.fixture
def page(browser: Browser, made: tuple[Path, Results]) -> Browser:
    browser.size(1400)
    browser.open(made[0])
    return browser


@pytest.fixture(scope="module")
def frame(simulate: ModuleType, pages: ModuleType) -> pd.DataFrame:
    """The joined frame, whose rows have the numbers of the points."""
    return join(pages.small_zoo(simulate))


@pytest.mark.parametrize("which", ["made", "hostile"])
def test_loads_without_network_errors_or_requests(
    browser: Browser, made: tuple[Path, Results], simulate: ModuleType, pages: ModuleType, tmp_path: Path, which: str
) -> None:
    path = made[0]
    if which == "hostile":
        path = tmp_path / "report.html"
        path.write_text(pages.hostile_page(simulate), encoding="utf-8")
    browser.size(1400)
    browser.open(path)
    # Everything is unfolded, so that every name becomes part of the page.
    browser.driver.execute_script("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")
    browser.wait(lambda: browser.ask("document.querySelectorAll('details.table:not([data-ready])').length") == 0)
    browser.drag((0.08, 0.1), (0.97, 0.85))
    assert browser.driver.get_log("browser") == []
    assert browser.ask("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    assert browser.ask("document.querySelectorAll('b').length") == 0
    assert browser.ask("document.getElementById('problem').hidden")
    if which == "hostile":
        assert pages.HOSTILE in browser.ask("document.getElementById('explorer').textContent")


def test_images_are_there(page: Browser) -> None:
    page.driver.execute_script("document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; })")
    page.wait(lambda: page.ask("[...document.images].every(image => image.complete && image.naturalWidth > 900)"))


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_round(page: Browser, made: tuple[Path, Results]) -> None:
    rows = made[1].primary
    page.driver.execute_script("document.querySelector('#table-primary').open = true")
    page.wait(lambda: page.ask("document.querySelector('#table-primary').dataset.ready"))
    heads = page.ask("[...document.querySelectorAll('#table-primary th')].map(head => head.textContent)")
    column = heads.index("effective_clusters")
    expected = rows["effective_clusters"].dropna().tolist()
    assert 0 < len(expected) < len(rows)
    cells = f"[...document.querySelectorAll('#table-primary tbody tr')].map(row => row.cells[{column}].textContent)"
    button = f"document.querySelectorAll('#table-primary th button')[{column}]"
    state = f"{button}.parentElement.getAttribute('aria-sort')"
    assert page.ask(state) is None
    for direction, order in (("ascending", sorted(expected)), ("descending", sorted(expected, reverse=True))):
        page.click(button)
        assert page.ask(state) == direction
        shown = page.ask(cells)
        assert [float(text) for text in shown[: len(order)]] == pytest.approx(order, rel=1e-3)
        assert set(shown[len(order) :]) == {""}
    page.click(f"document.querySelectorAll('#table-primary th button')[{heads.index('statement')}]")
    assert page.ask("document.querySelectorAll('[aria-sort]').length") == 1


def test_long_tables_are_filled_when_opened_and_words_and_menus_filter_them(
    browser: Browser, made: tuple[Path, Results]
) -> None:
    rows = made[1].correlations
    browser.open(made[0], "#table-correlations")
    browser.wait(lambda: browser.ask("document.querySelector('#table-correlations').dataset.ready"))
    assert not browser.ask("document.querySelector('#table-regressions').open")
    menus = browser.ask(
        "[...document.querySelectorAll('#table-correlations .filters label')].map(l => l.firstChild.data)"
    )
    assert {"rows with", "shift_kind", "level", "x", "method"} <= set(menus)
    shown = "document.querySelectorAll('#table-correlations tbody tr').length"
    more = "document.querySelector('#table-correlations .more button')"
    assert browser.ask(shown) == 60
    browser.click(more)
    assert browser.ask(shown) == min(len(rows), 560)
    browser.choose("method", "kendall", "#table-correlations")
    of_method = rows[rows["method"] == "kendall"]
    count = "document.querySelector('#table-correlations output').textContent"
    assert browser.ask(count) == f"{len(of_method)} of {len(rows)} rows"
    script = """
        const search = document.querySelector("#table-correlations input");
        search.value = "ZERO msb_weight";
        search.dispatchEvent(new Event("input"));
    """
    browser.driver.execute_script(script)
    both = of_method[(of_method["shift_kind"] == "zero") & (of_method["x"] == "msb_weight")]
    assert 0 < browser.ask(shown) == len(both)
    heads = browser.ask("[...document.querySelectorAll('#table-correlations th')].map(head => head.textContent)")
    rows_shown = "[...document.querySelectorAll('#table-correlations tbody tr')]"
    cells = browser.ask(f"{rows_shown}.map(row => row.cells[arguments[0]].textContent)", heads.index("r"))
    assert [float(text) for text in cells] == pytest.approx(both["r"].tolist(), rel=1e-3)


def test_the_table_of_checkpoints_is_made_of_the_explorers_rows(
    browser: Browser, made: tuple[Path, Results], frame: pd.DataFrame
) -> None:
    browser.open(made[0], "#table-checkpoints")
    browser.wait(lambda: browser.ask("document.querySelector('#table-checkpoints').dataset.ready"))
    browser.click("document.querySelector('#table-checkpoints .more button')")
    rows = browser.ask(
        "[...document.querySelectorAll('#table-checkpoints tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    heads = browser.ask("[...document.querySelectorAll('#table-checkpoints th')].map(head => head.textContent)")
    score = heads.index("consistency (share of shift pairs)")
    assert [row[0] for row in rows] == frame["checkpoint"].tolist()
    assert [float(row[score]) for row in rows] == pytest.approx(frame["consistency"].tolist(), rel=1e-3)


def test_a_link_to_a_folded_table_opens_it(browser: Browser, made: tuple[Path, Results]) -> None:
    browser.open(made[0], "#table-checkpoints")
    assert browser.ask("document.querySelector('#table-checkpoints').open")
    assert not browser.ask("document.querySelector('#table-correlations').open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 480])
def test_text_is_readable_and_nothing_overflows(page: Browser, scheme: str, width: int) -> None:
    page.size(width, scheme)
    page.driver.execute_script(UNFOLD)
    page.wait(lambda: page.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))
    selectors = (
        *("main p", "figcaption", ".bar a", "td", "th", "details.table > summary", ".controls label", ".entry"),
        *("#explorer-note", ".key.a", ".key.b", ".told", ".caveats li"),
    )
    for selector in selectors:
        assert _contrast(page, selector) > 4.5, selector


@pytest.mark.skipif(not Path(AXE).is_file(), reason="INVARISCOPE_AXE names no axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 480])
def test_axe_finds_nothing_serious(page: Browser, scheme: str, width: int) -> None:
    page.size(width, scheme)
    page.driver.execute_script(UNFOLD)
    page.driver.execute_script(Path(AXE).read_text(encoding="utf-8"))
    page.driver.set_script_timeout(300)
    found = page.driver.execute_async_script(
        "const done = arguments[0]; axe.run(document).then(r => done(r.violations.map(v => [v.id, v.impact])))"
    )
    assert [rule for rule, impact in found if impact in ("serious", "critical")] == []


def _contrast(page: Browser, selector: str) -> float:
    """WCAG's contrast ratio of an element's text and what is behind it."""
    script = """(() => {
        const element = document.querySelector(arguments[0]);
        const ground = (e) => {
            const color = getComputedStyle(e).backgroundColor;
            return color === "rgba(0, 0, 0, 0)" ? ground(e.parentElement) : color;
        };
        const numbers = (color) => color.match(/[0-9.]+/g).slice(0, 3).map(Number);
        return [getComputedStyle(element).color, ground(element)].map(numbers);
    })()"""
    lights = []
    for color in page.ask(script, selector):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in color)]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_print_leaves_out_what_can_only_be_clicked(page: Browser) -> None:
    page.emulate("setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    for selector in (".bar", ".controls"):
        assert page.ask("getComputedStyle(document.querySelector(arguments[0])).display", selector) == "none"
    assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_without_javascript_verdict_figures_and_findings_are_there(
    browser: Browser, made: tuple[Path, Results]
) -> None:
    browser.emulate("setScriptExecutionDisabled", value=True)
    try:
        browser.driver.get("about:blank")
        browser.driver.get(f"file://{made[0]}")
        tree = json.dumps(browser.driver.execute_cdp_cmd("DOM.getDocument", {"depth": -1}))
    finally:
        browser.emulate("setScriptExecutionDisabled", value=False)
    assert "The explorer needs JavaScript" in tree
    assert '"BUTTON"' not in tree
    assert made[1].opening.rows[0].effect in tree
    assert tree.count('"IMG"') == 2
