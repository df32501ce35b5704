"""How soon the results page shows its first picture, in Chromium."""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from playwright.sync_api import Browser, sync_playwright

from tests.benchmarks.job import REFERENCE
from tests.benchmarks.report import Section, current_load, new_section, table
from tests.benchmarks.series import phantom_series, renamed
from tests.benchmarks.servers import watched_server
from tests.orthanc.browsing import ARGUMENTS, CHROMIUM

DEMO = 100
"""Slices of the phantom of `make demo`."""

LOADS = 15
"""How often the page is opened that counts, each time by a browser that never saw it."""

FIRST_PICTURE = """
window.firstPicture = new Promise((resolve) => {
  const look = () => {
    if (document.querySelector('#picture')?.dataset.slice) {
      watcher.disconnect();
      // Drawn now, on the screen with the frame.
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now())));
    }
  };
  const watcher = new MutationObserver(look);
  watcher.observe(document, { subtree: true, attributes: true, attributeFilter: ['data-slice'] });
});
"""
"""Milliseconds from the beginning of the navigation until the first picture is on the screen."""


@dataclass(frozen=True)
class Loads:
    """Seconds until the first picture, of each time that a page was opened.

    Attributes
    ----------
    slices: int
        Of the series.
    analysing: bool
        Whether the same Orthanc analysed another series meanwhile.
    seconds: Sequence[float]
    """

    slices: int
    analysing: bool
    seconds: Sequence[float]


def measure(slices: Sequence[int] = (DEMO, REFERENCE), matrix: int = 512, loads: int = LOADS) -> list[Loads]:
    """Open the results pages of series, first on an idle Orthanc, then while it analyses copies of the last."""
    measured = []
    with watched_server("page", {"Automatic": False}) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        files = {count: phantom_series(count, matrix) for count in slices}
        series = {count: server.upload(path.read_bytes() for path in files[count]) for count in slices}
        server.wait([server.ask(one) for one in series.values()])
        pages = {count: f"{server.server.url}/covid/app/results.html?series={series[count]}" for count in slices}
        for count, page in pages.items():
            first_picture(browser, page)
            measured.append(Loads(count, False, [first_picture(browser, page) for _ in range(loads)]))
        numbers = itertools.count()
        for count, page in pages.items():
            seconds: list[float] = []
            while len(seconds) < loads:
                job = server.ask(server.upload(renamed(files[slices[-1]], f"page {next(numbers)}")))
                while len(seconds) < loads and server.server.get(f"/covid/jobs/{job}")["State"] != "Success":
                    seconds.append(first_picture(browser, page))
                server.wait([job])
            measured.append(Loads(count, True, seconds))
        browser.close()
    return measured


def first_picture(browser: Browser, url: str) -> float:
    """Seconds until a results page shows its first picture, by a browser without a cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.add_init_script(FIRST_PICTURE)
    page.goto(url, wait_until="commit")
    seconds = float(page.evaluate("window.firstPicture")) / 1000
    context.close()
    return seconds


def section() -> Section:
    """The table of the pages."""
    load = current_load()
    rows = [
        [one.slices, "an analysis" if one.analysing else "nothing", len(one.seconds), statistics.median(one.seconds),
         min(one.seconds), max(one.seconds)]
        for one in measure()
    ]  # fmt: skip
    return new_section(
        "First picture of the results page",
        "Seconds from the beginning of the navigation until the first slice is on the screen, in headless Chromium "
        "(1280 x 800, without a GPU) on the same machine, each time with an empty cache. Meanwhile Orthanc does "
        f"nothing else, or analyses a series of {REFERENCE} slices.",
        table(["slices", "meanwhile", "loads", "median", "shortest", "longest"], rows),
        "Goal: within a second.",
        load_before=load,
    )
