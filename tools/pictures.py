"""Make the documentation's pictures: the phantom in the report, the results page and Orthanc Explorer."""

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from covid_ct.phantom import PhantomOptions, make_phantom, write_folder
from tools.orthanc_server import REPOSITORY, OrthancServer

IMAGES = REPOSITORY / "docs/images"

CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
"""Chromium runs as whoever runs this, and asks nobody on the network."""


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
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                _picture(page, f"{server.url}/covid/app/results.html?series={series}", "results-page.png")
                _picture(page, f"{server.url}/covid/app/jobs.html", "jobs-page.png")
                _picture(page, f"{server.url}/app/explorer.html#series?uuid={series}", "explorer.png")
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


def _picture(page: Page, url: str, name: str) -> None:
    page.goto(url)
    # Pictures of the CT come after the page; nothing tells when the last one is drawn.
    page.wait_for_timeout(5000)
    page.screenshot(path=IMAGES / name)


if __name__ == "__main__":
    main()
