"""The button in Orthanc Explorer, clicked."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from playwright.sync_api import Page, expect

from tests.orthanc.browsing import as_drawn, behind_prefix, browser_page
from tests.orthanc.driving import upload
from tools.orthanc_server import OrthancServer

BUTTON = "Analyze for COVID-19"
LINE = re.compile(
    r"(Lesions (< )?[\d.]+ % of lung|No lesion found), COVID-19 probability ([<>] )?0\.\d\d, research use only"
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[OrthancServer]:
    """A server that analyses only what it is asked for."""
    settings = {"Automatic": False, "ModelsFolder": str(tiny_models)}
    with OrthancServer(tmp_path_factory.mktemp("asked"), changes={"CovidCt": settings}) as server:
        yield server


@pytest.fixture
def page() -> Iterator[Page]:
    with browser_page() as page:
        yield page


@pytest.fixture
def series(asked: OrthancServer, small_files: list[Path], request: pytest.FixtureRequest) -> str:
    """A series of its own for each test."""
    return upload_copy(asked, small_files, request.session.items.index(request.node))


def upload_copy(server: OrthancServer, files: list[Path], number: int, **attributes: object) -> str:
    """Upload a series under other UIDs, with some attributes changed; the copy's Orthanc id."""
    series = ""
    for path in files:
        dataset = pydicom.dcmread(path)
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, f"{dataset[keyword].value[:50]}.{number}")
        dataset.SOPInstanceUID += f".{dataset.InstanceNumber}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        content = io.BytesIO()
        dataset.save_as(content)
        series = server.upload(content.getvalue())["ParentSeries"]
    return series


def open_page(page: Page, url: str, level: str, identifier: str) -> None:
    """Open a page of Orthanc Explorer; a new document, where a new fragment alone would load nothing."""
    page.goto("about:blank")
    page.goto(f"{url}/app/explorer.html#{level}?uuid={identifier}")


def test_a_series_is_analysed_by_the_button(page: Page, asked: OrthancServer, series: str) -> None:
    open_page(page, asked.url, "series", series)
    panel = page.locator("#series-covid-analyses")
    expect(panel).to_be_empty()
    page.get_by_role("link", name=BUTTON).click()
    expect(panel.get_by_role("progressbar")).to_be_visible()
    expect(panel.get_by_text(LINE)).to_be_visible()
    expect(panel.get_by_role("progressbar")).to_be_hidden()
    pdf = page.request.get(panel.get_by_role("link", name="Report (PDF)").evaluate("link => link.href"))
    assert pdf.body().startswith(b"%PDF")
    dashboard = page.get_by_role("link", name="All analyses").evaluate("link => link.href")
    assert dashboard == f"{asked.url}/covid/app/jobs.html"
    results = panel.get_by_role("link", name="Results page").evaluate("link => link.href")
    assert results == f"{asked.url}/covid/app/results.html?series={series}"
    assert page.request.get(results).ok


def test_findings_are_there_when_the_page_is_opened_again(page: Page, asked: OrthancServer, series: str) -> None:
    asked.post("/covid/analyze", {"Series": series, "Synchronous": True})
    open_page(page, asked.url, "series", series)
    panel = page.locator("#series-covid-analyses")
    expect(panel.get_by_text(LINE)).to_be_visible()
    panel.get_by_role("link", name="Lungs (SEG)").click()
    expect(page.locator("#instance")).to_be_visible()
    page.go_back()
    expect(panel.get_by_text(LINE)).to_be_visible()


def test_a_study_is_analysed_by_the_button(page: Page, asked: OrthancServer, series: str) -> None:
    study = asked.get(f"/series/{series}")["ParentStudy"]
    open_page(page, asked.url, "study", study)
    page.get_by_role("link", name=BUTTON).click()
    panel = page.locator("#study-covid-analyses")
    expect(panel.get_by_text(LINE)).to_have_count(1)
    expect(panel).to_contain_text(asked.get(f"/series/{series}")["MainDicomTags"]["SeriesDescription"])


def test_a_right_to_left_description_leaves_the_numbers_as_they_are(
    page: Page, asked: OrthancServer, small_files: list[Path]
) -> None:
    series = upload_copy(
        asked, small_files[:1], 1001, SpecificCharacterSet="ISO_IR 192", SeriesDescription="أشعة 5.0 mm", SeriesNumber=3
    )
    asked.post("/covid/analyze", {"Series": series})
    open_page(page, asked.url, "study", asked.get(f"/series/{series}")["ParentStudy"])
    heading = page.locator("#study-covid-analyses strong")
    expect(heading).to_have_text("Series 3 · أشعة 5.0 mm")
    assert as_drawn(heading).startswith("Series 3 · mm 5.0 ")


def test_behind_a_proxy_with_a_prefix(page: Page, asked: OrthancServer, series: str) -> None:
    asked.post("/covid/analyze", {"Series": series, "Synchronous": True})
    prefix = behind_prefix(page, asked.url)
    open_page(page, prefix, "series", series)
    panel = page.locator("#series-covid-analyses")
    expect(panel.get_by_text(LINE)).to_be_visible()
    for name in ("Results page", "Report (PDF)"):
        assert panel.get_by_role("link", name=name).evaluate("link => link.href").startswith(prefix)
    page.goto(f"{prefix}/covid/app/results.html?series={series}")
    expect(page.locator("#picture")).to_have_attribute("data-segmentations", "2")
    assert page.get_by_role("link", name="Report (PDF)").evaluate("link => link.href").startswith(prefix)


def test_a_series_that_cannot_be_analysed_tells_why(page: Page, asked: OrthancServer, small_files: list[Path]) -> None:
    refused = upload_copy(asked, small_files[:1], 1000, Modality="MR")
    open_page(page, asked.url, "series", refused)
    page.get_by_role("link", name=BUTTON).click()
    panel = page.locator("#series-covid-analyses")
    expect(panel).to_contain_text(asked.get(f"/series/{refused}")["MainDicomTags"]["SeriesInstanceUID"])
    job = asked.get(f"/covid/jobs?expand&series={refused}")[0]
    assert job["Content"]["Reason"] == "NotCT"
    expect(panel).to_contain_text(job["ErrorDescription"])
    expect(panel.get_by_role("button", name="Retry")).to_have_count(0)


def test_a_waiting_analysis_is_cancelled_and_tried_again(
    page: Page, asked: OrthancServer, series: str, small_files: list[Path]
) -> None:
    # One analysis runs at a time, so that the second one waits.
    other = upload(asked, small_files)
    asked.post("/covid/analyze", {"Series": other})
    open_page(page, asked.url, "series", series)
    page.get_by_role("link", name=BUTTON).click()
    panel = page.locator("#series-covid-analyses")
    panel.get_by_role("button", name="Cancel").click()
    expect(panel).to_contain_text("was cancelled")
    panel.get_by_role("button", name="Retry").click()
    expect(panel.get_by_text(LINE)).to_be_visible()
