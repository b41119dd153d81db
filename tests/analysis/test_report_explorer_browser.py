"""The report's explorer and its single images in a headless Chromium: every choice, by mouse and by keyboard."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from invariscope.analysis import compare, image_flips, join
from invariscope.analysis.results import Results
from tests.analysis.browsing import POINTS, Browser

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


@pytest.fixture(scope="module")
def predictions(simulate: ModuleType, pages: ModuleType) -> pd.DataFrame:
    return pages.predictions_of(pages.small_zoo(simulate))


def first_plan(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["shift_kind"] == "circular") & frame["final"]]


def test_points_are_the_final_checkpoints_at_their_places_and_the_box_adds_the_others(
    page: Browser, frame: pd.DataFrame
) -> None:
    mine = first_plan(frame)
    assert page.rows() == mine.index.tolist()
    script = ".map(point => [Number(point.dataset.row), ...point.getAttribute('transform').match(/[-0-9.]+/g)])"
    places = [[float(value) for value in place[:3]] for place in page.ask(POINTS + script)]
    rows, x, y = (np.array(values) for values in zip(*places, strict=True))
    rows = rows.astype(int)
    assert np.corrcoef(x, frame.loc[rows, "msb_corrected"])[0, 1] == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(-y, frame.loc[rows, "consistency"])[0, 1] == pytest.approx(1, abs=1e-5)
    slope, start = page.x_axis()
    assert x == pytest.approx(start + slope * frame.loc[rows, "msb_corrected"].to_numpy(), abs=0.3)
    page.tick("earlier snapshots")
    page.wait(lambda: len(page.rows()) == 2 * len(mine))
    assert "44 of 44 checkpoints shown" in page.ask("document.getElementById('explorer-note').textContent")


def test_menus_choose_axes_shifts_colour_and_shape(page: Browser, frame: pd.DataFrame) -> None:
    page.choose("x axis", "accuracy (share of images)")
    page.choose("y axis", "fidelity (share of shift pairs)")
    page.choose("shifts", "zero, ≤ 4 px, 9 sampled, fill background")
    page.choose("colour", "consistency (share of shift pairs)")
    zero = frame[(frame["shift_kind"] == "zero") & frame["final"]]
    assert page.rows() == zero.index.tolist()
    titles = page.ask("[...document.querySelectorAll('#plot .titles text')].map(t => t.textContent)")
    assert titles == ["accuracy (share of images)", "fidelity (share of shift pairs)"]
    # Five groups of equal size, from little to much.
    counts = page.ask("[...document.querySelectorAll('.entry .count')].map(c => Number(c.textContent))")
    assert sum(counts) == len(zero)
    assert len(counts) == 5
    assert max(counts) - min(counts) <= 2
    assert page.ask("location.hash") == "#explore?x=accuracy&y=fidelity&color=measure%3Aconsistency&plan=1"


def test_means_have_students_intervals(page: Browser, frame: pd.DataFrame) -> None:
    mine = first_plan(frame)
    page.choose("colour", "none")
    page.choose("colour", "operator")
    slope, start = page.y_axis()
    script = "[...mean.querySelectorAll('line')].map(line => ['y1', 'y2'].map(end => Number(line.getAttribute(end))))"
    script = f"[...document.querySelectorAll('#plot .mean')].map(mean => [mean.dataset.level, {script}])"
    found = {level: lines[1] for level, lines in page.ask(script)}
    assert set(found) == set(mine["operator"])
    for operator, rows in mine.groupby("operator"):
        values = rows["consistency"]
        low, high = (values.mean(),) * 2
        if len(values) > 2:
            low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
        drawn = [(y - start) / slope for y in found[operator]]
        assert drawn == pytest.approx([max(low, 0), min(high, 1)], abs=2e-3)


def test_legend_by_keyboard_shows_one_operator_adds_another_and_brings_all_back(
    page: Browser, frame: pd.DataFrame
) -> None:
    mine = first_plan(frame)
    of = mine["operator"]

    def press(level: str) -> None:
        entry = page.ask("[...document.querySelectorAll('.entry')].find(e => e.dataset.level === arguments[0])", level)
        entry.send_keys(" ")

    press("soft")
    assert page.rows() == mine.index[of == "soft"].tolist()
    assert page.ask("document.activeElement.dataset.level") == "soft"
    assert page.ask("document.querySelectorAll('.entry[aria-pressed=true]').length") == 1
    press("avg")
    assert page.rows() == mine.index[of.isin(["soft", "avg"])].tolist()
    assert page.ask("location.hash").startswith("#explore?only=soft")
    page.ask("document.getElementById('plot')").send_keys("\ue00c")
    assert page.rows() == mine.index.tolist()


def test_the_address_holds_the_view(browser: Browser, made: tuple[Path, Results], frame: pd.DataFrame) -> None:
    mine = first_plan(frame)
    browser.size(1400)
    fragment = "#explore?x=msb&y=kappa&shape=factor%3Apadding_mode&means=0&only=max,lp&brush=0.2,2,-1,2"
    browser.open(made[0], fragment)
    assert browser.rows() == mine.index[mine["operator"].isin(["max", "lp"])].tolist()
    chosen = mine.index[mine["operator"].isin(["max", "lp"]) & (mine["msb"] >= 0.2)].tolist()
    assert browser.rows("[...document.querySelectorAll('#plot .chosen')]") == chosen
    assert browser.ask("document.querySelectorAll('#plot .mean').length") == 0
    # What it does not know is left out.
    browser.open(made[0], "#explore?x=%3Cb%3E&plan=99&color=nothing&only=%E0%A4%A&view=2,1,0,x")
    assert browser.rows() == mine.index.tolist()
    assert browser.driver.get_log("browser") == []


def test_brushing_selects_and_saves(page: Browser, frame: pd.DataFrame) -> None:
    page.drag((0.06, 0.06), (0.55, 0.9))
    chosen = page.rows("[...document.querySelectorAll('#plot .chosen')]")
    assert 0 < len(chosen) < len(first_plan(frame))
    brush = page.ask("new URLSearchParams(location.hash.split('?')[1]).get('brush')")
    area = [float(value) for value in brush.split(",")]
    mine = first_plan(frame)
    inside = mine["msb_corrected"].between(*area[:2]) & mine["consistency"].between(*area[2:])
    assert chosen == mine.index[inside].tolist()
    assert page.ask("document.querySelectorAll('#explorer-selection tbody tr').length") == len(chosen)
    page.click("[...document.querySelectorAll('#explorer-selection button')].find(b => b.textContent.includes('CSV'))")
    text = page.ask("document.getElementById('explorer-selection').dataset.csv")
    saved = list(csv.DictReader(text.splitlines()))
    assert [row["checkpoint"] for row in saved] == frame.loc[chosen, "checkpoint"].tolist()
    for name in ("consistency", "msb_corrected", "accuracy"):
        values = [float(row[name]) for row in saved]
        assert values == pytest.approx(frame.loc[chosen, name].tolist(), rel=1e-3)
    assert [row["operator (factor)"] for row in saved] == frame.loc[chosen, "operator"].tolist()
    page.click("[...document.querySelectorAll('#explorer-selection button')].find(b => b.textContent === 'Clear')")
    assert page.ask("document.querySelectorAll('#plot .chosen').length") == 0


def test_zoom_by_buttons_and_by_dragging(page: Browser) -> None:
    def reach() -> float:
        return 1 / page.x_axis()[0]

    whole = reach()
    page.click("[...document.querySelectorAll('#explorer-controls button')].find(b => b.textContent === 'Zoom in')")
    assert reach() == pytest.approx(0.7 * whole, rel=1e-2)
    assert "outside of this view" in page.ask("document.getElementById('explorer-note').textContent")
    page.click("[...document.querySelectorAll('#explorer-controls button')].find(b => b.textContent === 'Whole plot')")
    assert reach() == pytest.approx(whole, rel=1e-2)
    page.choose("dragging", "zooms")
    page.drag((0.3, 0.2), (0.6, 0.8))
    assert reach() < 0.5 * whole


def test_pointing_at_a_checkpoint_names_it_in_six_lines(page: Browser, frame: pd.DataFrame) -> None:
    mark = page.ask(f"{POINTS}.find(p => p.getAttribute('class') === 'point')")
    page.driver.execute_script("arguments[0].scrollIntoView({ block: 'center' })", mark)
    page.chain().move_to_element(mark).perform()
    page.wait(lambda: not page.ask("document.getElementById('explorer-tip').hidden"))
    lines = page.ask("document.getElementById('explorer-tip').innerText").splitlines()
    assert len(lines) <= 6
    [row] = frame[(frame["checkpoint"] == lines[0]) & (frame["shift_kind"] == "circular")].to_dict("records")
    assert row["architecture"] in lines[1]
    for line, title, name in zip(
        lines[2:4], ("MSB, chance-corrected", "consistency"), ("msb_corrected", "consistency"), strict=True
    ):
        told, value = line.split(": ")
        assert told == title
        assert float(value.split()[0]) == pytest.approx(row[name], rel=3e-3)
        assert re.fullmatch(r".* \(.* to .*\)", value)
    page.ask("document.getElementById('plot')").send_keys("\ue014")  # arrow right
    assert page.ask("document.getElementById('explorer-tip').innerText").splitlines()[0] in set(frame["checkpoint"])


def test_two_networks_side_by_side_say_what_compare_says(page: Browser, predictions: pd.DataFrame) -> None:
    names = page.ask("[...document.querySelectorAll('#drilldown-controls select')][0].innerText").split("\n")
    table = compare(predictions, names[1], names[0])
    table = table[table["shift_kind"] == "circular"].set_index("score")
    page.choose("network A", names[1], "#drilldown-controls")
    page.choose("beside it, B", names[0], "#drilldown-controls")
    shown = page.ask(
        "[...document.querySelectorAll('#drilldown-pair tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    assert len(shown) == 4
    for name, first, second, change, p, test in shown:
        row = table.loc["stable" if name.startswith("no shift") else name]
        assert [first, second] == [f"{100 * row['value_a']:.1f}", f"{100 * row['value_b']:.1f}"]
        assert change == f"{100 * row['difference']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        if name in ("accuracy", "no shift changes the class"):
            assert test == f"McNemar, {int(row['only_a'])} against {int(row['only_b'])} images"
        assert p == "< 0.0001" or float(p) == pytest.approx(row["p"], rel=1e-2)


def test_the_strip_is_sorted_as_asked(page: Browser, predictions: pd.DataFrame) -> None:
    name = page.ask("document.querySelector('#drilldown-controls select').selectedOptions[0].textContent")
    page.choose("beside it, B", "none", "#drilldown-controls")
    images = image_flips(predictions, [name])
    images = images[images["shift_kind"] == "circular"].head(16)
    heads = "[...document.querySelectorAll('.cards .head')].map(h => Number(h.textContent.match(/[0-9]+/)[0]))"
    assert sorted(page.ask(heads)) == sorted(images["image"])
    page.choose("images by", "smallest shift that flips", "#drilldown-controls")
    near = dict(zip(images["image"], images["nearest_flip"].fillna(np.inf), strict=True))
    order = [near[image] for image in page.ask(heads)]
    assert order == sorted(order)
    flipped = page.ask("document.querySelectorAll('.cards .flipped').length")
    assert flipped == images["n_shifts_flipped"].sum()
