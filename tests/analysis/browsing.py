"""A headless Chromium for tests of the report: what a page answers, and real clicks, drags and keys."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PROGRAM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")

ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"
POINTS = "[...document.querySelectorAll('#plot .point:not(.faded)')]"


class Browser:
    """A page in a browser: what it answers, and clicks that wait until something has come of them."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, anchor: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(f"file://{path}{anchor}")
        self.wait(lambda: self.ask("document.querySelectorAll('#plot .point').length > 0"))

    def chain(self) -> Any:
        """What a mouse does, without waiting in between."""
        from selenium.webdriver import ActionChains

        return ActionChains(self.driver, duration=0)

    def ask(self, expression: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {expression}", *arguments)

    def emulate(self, command: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(f"Emulation.{command}", parameters)

    def size(self, width: int, scheme: str = "light") -> None:
        self.emulate("setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.emulate("setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False)

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the page did not get there"
            time.sleep(0.05)

    def choose(self, menu: str, label: str, place: str = "#explorer-controls") -> None:
        """An entry of a menu by its words."""
        script = """
            const labels = [...document.querySelectorAll(`${arguments[0]} label`)];
            const menu = labels.find(label => label.textContent.startsWith(arguments[1])).querySelector("select");
            menu.selectedIndex = [...menu.options].findIndex(option => option.textContent === arguments[2]);
            menu.dispatchEvent(new Event("change", { bubbles: true }));
        """
        self.driver.execute_script(script, place, menu, label)

    def tick(self, label: str) -> None:
        self.click(f"[...document.querySelectorAll('.box')].find(box => box.textContent === '{label}').firstChild")

    def click(self, script: str) -> None:
        """Click what the script finds, with a real mouse."""
        element = self.ask(script)
        self.driver.execute_script("arguments[0].scrollIntoView({ block: 'center' })", element)
        self.chain().move_to_element(element).click().perform()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """From one share of the plot's width and height to another."""
        plot = self.ask("document.getElementById('plot')")
        self.driver.execute_script("arguments[0].scrollIntoView({ block: 'center' })", plot)
        width, height = plot.size["width"], plot.size["height"]
        at = [(round((x - 0.5) * width), round((y - 0.5) * height)) for x, y in (start, end)]
        chain = self.chain().move_to_element_with_offset(plot, *at[0]).click_and_hold()
        chain.move_to_element_with_offset(plot, *at[1]).release().perform()

    def rows(self, points: str = POINTS) -> list[int]:
        """The rows of the joined frame that are drawn."""
        return sorted(self.ask(f"{points}.map(point => Number(point.dataset.row))"))

    def axis(self, anchor: str, place: str) -> tuple[float, float]:
        """Slope and start of an axis, from its labels: ``pixel = start + slope * value``."""
        script = f"[...document.querySelectorAll('#plot .ticks text[text-anchor={anchor}]')]"
        script += f".map(text => [Number(text.textContent), Number(text.getAttribute('{place}'))])"
        slope, start = np.polyfit(*zip(*self.ask(script), strict=True), 1)
        return float(slope), float(start)

    def x_axis(self) -> tuple[float, float]:
        return self.axis("middle", "x")

    def y_axis(self) -> tuple[float, float]:
        slope, start = self.axis("end", "y")
        return slope, start - 4  # below the line, so that the label is at its middle


def started(profile: Path) -> Browser:
    """A browser without network, with an empty profile; skips the test where there is none."""
    if not PROGRAM or not DRIVER:
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAM
    for argument in (*ARGUMENTS, NO_NETWORK, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Browser(webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER)))
