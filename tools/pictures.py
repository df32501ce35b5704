"""Make the documentation's pictures: the phantom in the report, the results page and Orthanc Explorer."""

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from covid_ct.phantom import PhantomOptions, make_phantom, write_folder
from tools.orthanc_server import REPOSITORY, OrthancServer

IMAGES = REPOSITORY / "docs/images"

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
"""Chromium runs as whoever runs this, and asks nobody on the network."""

DESK, PHONE = (1280, 800), (390, 844)
"""Width and height of a browser's window in pixels."""


def main() -> None:
    """Analyse the phantom and take all pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with OrthancServer(folder / "orthanc", changes={"StableAge": 1}) as server:
            for path in write_folder(make_phantom(PhantomOptions()), folder / "phantom"):
                series = server.upload(path.read_bytes())["ParentSeries"]
            job = _wait(server, server.post("/covid/analyze", {"Series": series})["ID"])
            _picture_report(server, job, folder)
            # One that cannot be analysed, for the dashboard.
            lungs = next(result for result in job["Content"]["Results"] if result["Kind"] == "lungs.seg")
            server.post("/covid/analyze", {"Series": lungs["ParentSeries"]})
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
                results = f"{server.url}/covid/app/results.html?series={series}"
                drawn = "#picture[data-segmentations='2']"
                _picture(browser, results, drawn, "results-page.png")
                _picture(browser, results, drawn, "results-page-phone.png", PHONE)
                _picture(browser, f"{server.url}/covid/app/jobs.html", "#jobs li", "jobs-page.png", (1280, 400))
                explorer = f"{server.url}/app/explorer.html#series?uuid={series}"
                _picture(browser, explorer, "text=research use only", "explorer.png", (1280, 1000))
                browser.close()


def _wait(server: OrthancServer, job_id: str) -> dict[str, Any]:
    while True:
        job: dict[str, Any] = server.get(f"/covid/jobs/{job_id}")
        if job["State"] in ("Success", "Failure"):
            return job
        time.sleep(0.5)


def _picture_report(server: OrthancServer, job: dict[str, Any], folder: Path) -> None:
    results = {result["Kind"]: result["ID"] for result in job["Content"]["Results"]}
    pdf = folder / "report.pdf"
    pdf.write_bytes(server.request("GET", f"/instances/{results['report.pdf']}/pdf"))
    subprocess.run(["pdftoppm", "-png", "-r", "80", "-singlefile", pdf, IMAGES / "report"], check=True)


def _picture(browser: Browser, url: str, ready: str, name: str, size: tuple[int, int] = DESK) -> None:
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.goto(url)
    page.wait_for_selector(ready)
    # What stands beside it comes a moment later.
    page.wait_for_timeout(2000)
    page.screenshot(path=IMAGES / name)
    page.close()


if __name__ == "__main__":
    main()
