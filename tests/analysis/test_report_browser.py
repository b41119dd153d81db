"""The report in a headless Chromium, where one is installed: no network, no errors, and all that can be clicked."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from invariscope.analysis import Tables, join
from invariscope.analysis.results import Results

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not BROWSER or not DRIVER, reason="needs chromium and chromedriver"),
    pytest.mark.timeout(400),
]
webdriver = pytest.importorskip("selenium.webdriver")

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000")
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"
POINTS = "[...document.querySelectorAll('#scatter .shown_marks path')].map(mark => mark.__data__.datum)"


class Browser:
    """A page in a browser: what it answers, and clicks that wait until something has come of them."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, anchor: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(f"file://{path}{anchor}")
        self.wait(lambda: self.ask("!!window.scatter"))

    def ask(self, expression: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {expression}", *arguments)

    def emulate(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(f"Emulation.{command}", parameters)

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the page did not get there"
            time.sleep(0.05)

    def choose(self, selector: str, label: str) -> None:
        script = """
            const menu = document.querySelector(arguments[0]);
            menu.selectedIndex = [...menu.options].findIndex(option => option.textContent === arguments[1]);
            menu.dispatchEvent(new Event("change", { bubbles: true }));
        """
        self.driver.execute_script(script, selector, label)

    def click(self, script: str, *, shift: bool = False) -> None:
        """Click what the script finds, with a real mouse."""
        element = self.ask(script)
        chain = webdriver.ActionChains(self.driver, duration=0)
        self.driver.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
        if shift:
            chain = chain.key_down("\ue008")
        chain = chain.move_to_element(element).click()
        (chain.key_up("\ue008") if shift else chain).perform()

    def operators(self) -> set[str]:
        return set(self.ask(f"[...new Set({POINTS}.map(point => point.operator))]"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (*ARGUMENTS, NO_NETWORK):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield Browser(driver)
    driver.quit()


@pytest.fixture(scope="module")
def tables(simulate: ModuleType, pages: ModuleType) -> Tables:
    return pages.small_zoo(simulate)


@pytest.fixture(scope="module")
def made(simulate: ModuleType, pages: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Results]:
    text, results = pages.small_page(simulate)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path, results


@pytest.fixture
def page(browser: Browser, made: tuple[Path, Results]) -> Browser:
    browser.emulate("setEmulatedMedia", media="", features=[])
    browser.emulate("setDeviceMetricsOverride", width=1280, height=1000, deviceScaleFactor=1, mobile=False)
    browser.open(made[0])
    return browser


@pytest.fixture(scope="module")
def frame(tables: Tables) -> pd.DataFrame:
    joined = join(tables)
    return joined[joined["final"]]


def xy(rows: pd.DataFrame, x: str, y: str) -> list[tuple[float, float]]:
    return sorted((round(a, 4), round(b, 4)) for a, b in zip(rows[x], rows[y], strict=True))


def drawn(page: Browser) -> list[tuple[float, float]]:
    return sorted((round(a, 4), round(b, 4)) for a, b in page.ask(f"{POINTS}.map(point => [point.x, point.y])"))


@pytest.mark.parametrize("which", ["made", "hostile"])
def test_loads_without_network_errors_or_requests(
    browser: Browser, made: tuple[Path, Results], simulate: ModuleType, pages: ModuleType, tmp_path: Path, which: str
) -> None:
    path = made[0]
    if which == "hostile":
        path = tmp_path / "report.html"
        path.write_text(pages.hostile_page(simulate), encoding="utf-8")
    browser.open(path)
    assert browser.driver.get_log("browser") == []
    assert browser.ask("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
    assert browser.ask("[...document.images].every(image => image.complete && image.naturalWidth > 1000)")
    assert browser.ask("document.querySelectorAll('b').length") == 0
    if which == "hostile":
        names = browser.ask(f"{POINTS}.map(point => point.checkpoint)")
        assert sum(pages.HOSTILE in name for name in names) == 0  # an earlier snapshot
        assert pages.HOSTILE in browser.operators()


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_round(page: Browser, made: tuple[Path, Results]) -> None:
    rows = made[1].primary
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


def test_words_and_menus_filter_the_rows(page: Browser, made: tuple[Path, Results]) -> None:
    rows = made[1].correlations
    menus = page.ask("[...document.querySelectorAll('#table-correlations .filters label')].map(l => l.firstChild.data)")
    assert {"rows with", "shift_kind", "level", "x", "method"} <= set(menus)
    shown = "document.querySelectorAll('#table-correlations tbody tr:not([hidden])').length"
    assert page.ask(shown) == len(rows)
    menu = f"#table-correlations .filters label:nth-of-type({menus.index('method') + 1}) select"
    page.choose(menu, "kendall")
    of_method = rows[rows["method"] == "kendall"]
    assert page.ask(shown) == len(of_method)
    script = """
        document.querySelector("#table-correlations").open = true;
        const search = document.querySelector("#table-correlations input");
        search.value = "ZERO msb_weight";
        search.dispatchEvent(new Event("input"));
    """
    page.driver.execute_script(script)
    both = of_method[(of_method["shift_kind"] == "zero") & (of_method["x"] == "msb_weight")]
    assert 0 < page.ask(shown) == len(both)
    assert page.ask("document.querySelector('#table-correlations output').textContent") == (
        f"{len(both)} of {len(rows)} rows"
    )


def test_points_are_the_final_checkpoints_and_the_box_adds_the_others(page: Browser, frame: pd.DataFrame) -> None:
    circular = frame[frame["shift_kind"] == "circular"]
    assert drawn(page) == xy(circular, "msb_corrected", "consistency")
    page.click("document.querySelector('#scatter-choices input[type=checkbox]')")
    page.wait(lambda: len(drawn(page)) == 2 * len(circular))


def test_menus_choose_axes_and_shifts(page: Browser, frame: pd.DataFrame) -> None:
    page.choose("#scatter-choices .vega-bind:nth-of-type(1) select", "accuracy (share of images)")
    page.choose("#scatter-choices .vega-bind:nth-of-type(2) select", "fidelity (share of shift pairs)")
    page.choose("#scatter-choices .vega-bind:nth-of-type(3) select", "zero, ≤ 4 px, 9 sampled, fill mean")
    expected = xy(frame[frame["shift_kind"] == "zero"], "accuracy", "fidelity")
    page.wait(lambda: drawn(page) == expected)
    texts = page.ask("[...document.querySelectorAll('#scatter .mark-text.role-mark text')].map(t => t.textContent)")
    assert texts == ["accuracy (share of images)", "fidelity (share of shift pairs)"]
    assert page.ask("scatter.signal('x_axis')") == "accuracy"


def test_legend_shows_one_operator_adds_another_and_brings_all_back(page: Browser, frame: pd.DataFrame) -> None:
    everything = set(frame["operator"])
    assert page.operators() == everything
    entry = "[...document.querySelectorAll('#scatter .role-legend-label text')].find(t => t.textContent === '{}')"
    page.click(entry.format("soft"))
    page.wait(lambda: page.operators() == {"soft"})
    page.click(entry.format("avg"), shift=True)
    page.wait(lambda: page.operators() == {"soft", "avg"})
    page.click(entry.format("max"))
    page.wait(lambda: page.operators() == {"max"})
    page.click("document.querySelector('#scatter .background')")
    page.wait(lambda: page.operators() == everything)


def test_hovering_names_the_checkpoint_with_its_numbers(page: Browser, frame: pd.DataFrame) -> None:
    points = page.ask(f"{POINTS}.map(point => point.checkpoint)")
    index = points.index(next(name for name in points if "-max-" in name))
    mark = page.ask(f"document.querySelectorAll('#scatter .shown_marks path')[{index}]")
    assert page.ask("arguments[0].getAttribute('aria-label')", mark) == points[index]
    page.driver.execute_script("arguments[0].scrollIntoView({ block: 'center' })", mark)
    webdriver.ActionChains(page.driver).move_to_element(mark).perform()
    page.wait(lambda: page.ask("!!document.querySelector('#vg-tooltip-element.visible')"))
    told = page.ask("document.querySelector('#vg-tooltip-element').innerText")
    [row] = frame[(frame["checkpoint"] == points[index]) & (frame["shift_kind"] == "circular")].to_dict("records")
    assert told.splitlines()[0] == points[index]
    assert f"{row['consistency']:.3f} (" in told
    assert f"{row['msb_corrected']:.3f} (" in told
    assert row["run"] in told


def test_a_link_to_a_folded_table_opens_it(browser: Browser, made: tuple[Path, Results]) -> None:
    browser.open(made[0], "#table-checkpoints")
    assert browser.ask("document.querySelector('#table-checkpoints').open")
    assert not browser.ask("document.querySelector('#table-correlations').open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 480])
def test_text_is_readable_and_nothing_overflows(page: Browser, scheme: str, width: int) -> None:
    page.emulate("setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
    page.emulate("setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)
    page.wait(lambda: page.ask("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))
    for selector in ("main p", "figcaption", "nav a", "td", "th", "details.table > summary", "#scatter-choices label"):
        assert _contrast(page, selector) > 4.5, selector


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
    for selector in ("nav", ".filters", "#scatter-choices"):
        assert page.ask("getComputedStyle(document.querySelector(arguments[0])).display", selector) == "none"
    assert page.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_without_javascript_tables_and_figures_are_there(browser: Browser, made: tuple[Path, Results]) -> None:
    browser.emulate("setScriptExecutionDisabled", value=True)
    try:
        browser.driver.get("about:blank")
        browser.driver.get(f"file://{made[0]}")
        tree = json.dumps(browser.driver.execute_cdp_cmd("DOM.getDocument", {"depth": -1}))
    finally:
        browser.emulate("setScriptExecutionDisabled", value=False)
    assert "The interactive scatter needs JavaScript" in tree
    assert '"BUTTON"' not in tree
    assert tree.count('"TD"') > 1000
