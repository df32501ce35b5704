"""The results page and the dashboard, used in a browser."""

import io
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect
from pydicom.uid import generate_uid

from covid_ct.phantom import Lesions, Phantom, PhantomOptions, Position, build_anatomy, scan, write_folder
from covid_ct.results import wording
from covid_ct.results.terms import STRUCTURES_OF_LESIONS
from covid_ct.series.volume import Volume
from tests.orthanc.browsing import as_drawn, browser_page
from tests.orthanc.driving import upload
from tools.orthanc_server import OrthancServer

SIZE = 129
"""Rows and columns: odd, so that the frames of a segmentation begin within bytes."""

SMALL = PhantomOptions(slices=20, spacing_mm=10.0, matrix=SIZE)

PLACEMENTS = {
    "head first, supine": SMALL,
    "feet first": replace(SMALL, position=Position.FFS),
    "prone": replace(SMALL, position=Position.HFP),
    "columns to the front": replace(SMALL, columns_to_front=True),
    "numbered from the other end": replace(SMALL, reversed_order=True),
}

LUNG_WINDOW = (-600, 1500)
MEDIASTINUM_WINDOW = (40, 400)

READ_CANVAS = """canvas => {
    const image = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return [canvas.height, canvas.width, [...image.data]];
}"""


@pytest.fixture(scope="module")
def phantoms() -> dict[str, Phantom]:
    """The same thorax, lying in the scanner in different ways."""
    anatomy = build_anatomy(SMALL.seed, Lesions.BOTH)
    return {name: scan(anatomy, options) for name, options in PLACEMENTS.items()}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[OrthancServer]:
    """A server that analyses only what it is asked for."""
    settings = {"Automatic": False, "ModelsFolder": str(tiny_models)}
    with OrthancServer(tmp_path_factory.mktemp("asked"), changes={"CovidCt": settings}) as server:
        yield server


@pytest.fixture(scope="module")
def series(
    asked: OrthancServer, phantoms: dict[str, Phantom], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Orthanc ids of the phantoms' series."""
    return {
        name: upload(asked, write_folder(phantom, tmp_path_factory.mktemp("phantom")))
        for name, phantom in phantoms.items()
    }


@pytest.fixture(scope="module")
def findings(asked: OrthancServer, series: dict[str, str]) -> dict[str, Any]:
    """Findings of the phantom that lies feet first; another one of the same patient is analysed too."""
    asked.post("/covid/analyze", {"Series": series["head first, supine"], "Synchronous": True})
    found: dict[str, Any] = asked.post("/covid/analyze", {"Series": series["feet first"], "Synchronous": True})
    return found


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser_page() as page:
        yield page


@pytest.fixture
def results(page: Page, asked: OrthancServer, series: dict[str, str], findings: dict[str, Any]) -> Page:
    """The results page of the phantom that lies feet first, with its overlay."""
    show(page, asked, series["feet first"])
    expect(page.locator("#picture")).to_have_attribute("data-segmentations", "2")
    return page


def show(page: Page, server: OrthancServer, series: str) -> None:
    """Open the results page of a series and wait for its first picture."""
    page.goto(f"{server.url}/covid/app/results.html?series={series}")
    wait_for_picture(page)


def wait_for_picture(page: Page) -> int:
    """Index of the slice that is drawn, once it is the one that is looked at."""
    canvas = page.locator("#picture")
    expect(canvas).to_have_attribute("data-slice", re.compile(r"\d+"))
    expect(page.locator("#wait")).to_be_hidden()
    return int(canvas.get_attribute("data-slice") or "")


def settle(page: Page) -> None:
    """Wait until what was asked for is on the screen."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def place(page: Page) -> int:
    """Number of the slice that is looked at, counted from 1 at the head."""
    match = re.match(r"Slice (\d+) of 20", page.locator("#where").inner_text())
    assert match
    return int(match[1])


def picture(page: Page) -> NDArray[np.uint8]:
    """What is drawn: rows, columns, RGB."""
    rows, columns, values = page.locator("#picture").evaluate(READ_CANVAS)
    return np.array(values, np.uint8).reshape(rows, columns, 4)[:, :, :3]


def axial(phantom: Phantom, array: NDArray[Any], place: int) -> NDArray[Any]:
    """A slice, counted from 1 at the head, with the front above and the patient's right on the left."""
    return Volume(phantom.hu, phantom.affine, ()).to_lps(array)[-place]


def windowed(hu: NDArray[np.int16], window: tuple[int, int]) -> NDArray[np.float64]:
    center, width = window
    return np.clip(255 * (hu - (center - width / 2)) / width, 0, 255)


@pytest.mark.parametrize("name", PLACEMENTS)
def test_every_placement_looks_the_same(
    name: str, page: Page, asked: OrthancServer, series: dict[str, str], phantoms: dict[str, Phantom]
) -> None:
    show(page, asked, series[name])
    for key in ("Home", "PageDown"):
        page.keyboard.press(key)
    expect(page.locator("#where")).to_contain_text("Slice 11 of 20")
    wait_for_picture(page)
    for box in ("Lungs", "Ground glass", "Consolidation"):
        page.get_by_label(box).uncheck()
    settle(page)
    phantom = phantoms[name]
    expected = windowed(axial(phantom, phantom.hu, 11), LUNG_WINDOW)
    drawn = picture(page)
    assert drawn.shape == (SIZE, SIZE, 3)
    assert np.abs(drawn - expected[:, :, None]).max() <= 1
    marks = {edge: page.locator(f"#mark-{edge}").inner_text() for edge in ("left", "right", "top", "bottom")}
    assert marks == {"left": "R", "right": "L", "top": "A", "bottom": "P"}


PADDED = 4
"""Rows of padding in `signed_12_bits`."""


def signed_12_bits(source: Path, target: Path, suffix: str) -> Path:
    """An image of signed 12 bits, with zero above them but in its padding, of another patient, in Japan."""
    image = pydicom.dcmread(source)
    image.SpecificCharacterSet = "ISO_IR 13"
    hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    image.BitsStored, image.HighBit, image.PixelRepresentation = 12, 11, 1
    image.RescaleSlope, image.RescaleIntercept = 1, 0
    values = (hu.clip(-1024, 2047).astype(np.int16) & 0x0FFF).astype("<u2")
    # And padding that twelve bits do not hold.
    values[:PADDED] = np.int16(-3024).astype("<u2")
    image.PixelData = values.tobytes()
    image.PatientID += suffix
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(image, keyword, generate_uid(entropy_srcs=[image[keyword].value, suffix]))
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.save_as(target / source.name)
    return target / source.name


def test_bits_above_the_stored_ones_are_read_as_the_analysis_does(
    page: Page, asked: OrthancServer, phantoms: dict[str, Phantom], tmp_path: Path
) -> None:
    phantom = phantoms["head first, supine"]
    (tmp_path / "signed").mkdir()
    files = [signed_12_bits(path, tmp_path / "signed", ".12") for path in write_folder(phantom, tmp_path / "plain")]
    show(page, asked, upload(asked, files))
    for key in ("Home", "PageDown"):
        page.keyboard.press(key)
    expect(page.locator("#where")).to_contain_text("Slice 11 of 20")
    wait_for_picture(page)
    settle(page)
    expected = windowed(axial(phantom, phantom.hu, 11), LUNG_WINDOW)
    expected[:PADDED] = 0
    assert np.abs(picture(page) - expected[:, :, None]).max() <= 1


def test_findings_of_a_series_that_has_changed_since_are_told_for_what_they_are(
    page: Page, asked: OrthancServer, phantoms: dict[str, Phantom], tmp_path: Path
) -> None:
    (tmp_path / "signed").mkdir()
    plain = write_folder(phantoms["feet first"], tmp_path / "plain")
    files = [signed_12_bits(path, tmp_path / "signed", ".13") for path in plain]
    series = upload(asked, files)
    found = asked.post("/covid/analyze", {"Series": series, "Synchronous": True})
    lesion = max(found["lesions"], key=lambda one: float(one["volume_ml"]))
    instances = asked.get(f"/series/{series}/instances")
    heights = {
        one["ID"]: float(re.split(r"[\\¥]", one["MainDicomTags"]["ImagePositionPatient"])[2]) for one in instances
    }
    lowest, next_to_it = sorted(heights, key=lambda one: heights[one])[:2]
    for instance in (lowest, next_to_it):
        asked.request("DELETE", f"/instances/{instance}")
    kinds = {result["Kind"]: result["ID"] for result in found["Results"]}
    asked.request("DELETE", f"/instances/{kinds['lungs.seg']}")
    show(page, asked, series)
    wait_for_picture(page)
    expect(page.locator("#job")).to_contain_text("These findings are of 20 images; the series has 18 now.")
    expect(page.locator("#job button")).to_have_text("Analyze for COVID-19")
    z = float(re.findall(r"z (-?[0-9.]+) mm", page.locator("#where").inner_text())[0])
    spacing = abs(heights[lowest] - heights[next_to_it])
    assert abs(z - lesion["center_mm"][2]) <= spacing
    expect(page.locator("#results")).to_contain_text("Report")
    with page.expect_navigation():
        page.locator("#job button").click()
    wait_for_picture(page)
    expect(page.locator("#results")).to_contain_text("Report")
    assert page.locator("#job").inner_text() == ""
    assert asked.get(f"/covid/series/{series}")["slices"] == 18


def test_the_slider_goes_as_the_keys_do(results: Page) -> None:
    before = place(results)
    results.locator("#slice").focus()
    results.keyboard.press("ArrowDown")
    assert place(results) == before + 1


def test_the_overlay_is_the_segmentation(
    results: Page, asked: OrthancServer, findings: dict[str, Any], phantoms: dict[str, Phantom]
) -> None:
    kinds = {result["Kind"]: result["ID"] for result in findings["Results"]}
    file = asked.request("GET", f"/instances/{kinds['lesions.seg']}/file")
    dataset = pydicom.dcmread(io.BytesIO(file))
    numbers = {segment.SegmentLabel: segment.SegmentNumber for segment in dataset.SegmentSequence}
    shown = results.locator("#picture").get_attribute("data-slice")
    phantom = phantoms["feet first"]
    z = (phantom.affine @ [int(shown or ""), 0, 0, 1])[2]
    frames = [
        pixels
        for pixels, groups in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True)
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber == numbers["Ground glass"]
        and abs(groups.PlanePositionSequence[0].ImagePositionPatient[2] - z) < 1e-3
    ]
    mask = np.zeros(phantom.hu.shape, np.uint8)
    mask[int(shown or "")] = frames[0]
    expected = axial(phantom, mask, place(results)) == 1
    assert expected.any()
    for box in ("Lungs", "Consolidation"):
        results.get_by_label(box).uncheck()
    results.get_by_label("Opacity").fill("100")
    settle(results)
    color = STRUCTURES_OF_LESIONS[1].color
    assert np.array_equal((picture(results) == color).all(axis=2), expected)


def test_lesions_have_the_colours_of_the_segmentation(page: Page, asked: OrthancServer) -> None:
    page.goto(f"{asked.url}/covid/app/jobs.html")
    colors = page.evaluate("import('./segmentation.js').then(module => module.COLORS)")
    expected = [list(structure.color) for structure in STRUCTURES_OF_LESIONS.values()]
    assert [colors["ground-glass"], colors["consolidation"]] == expected


def test_slices_are_scrolled(results: Page) -> None:
    results.keyboard.press("Home")
    assert place(results) == 1
    results.keyboard.press("ArrowDown")
    assert place(results) == 2
    results.locator("#picture").hover()
    results.mouse.wheel(0, 100)
    expect(results.locator("#where")).to_contain_text("Slice 3 of 20")
    results.mouse.wheel(0, -200)
    expect(results.locator("#where")).to_contain_text("Slice 1 of 20")
    results.keyboard.press("End")
    assert place(results) == 20
    slider = results.get_by_label("Slice, from head to feet")
    slider.fill("4")
    assert place(results) == 5
    assert slider.get_attribute("aria-valuetext") == "Slice 5 of 20"
    box = results.locator("#picture").bounding_box()
    assert box
    results.mouse.move(box["x"] + 200, box["y"] + 100)
    results.mouse.down()
    results.mouse.move(box["x"] + 200, box["y"] + 132, steps=8)
    results.mouse.up()
    expect(results.locator("#where")).to_contain_text("Slice 9 of 20")


def test_a_finger_scrolls_slices(results: Page) -> None:
    results.keyboard.press("Home")
    box = results.locator("#picture").bounding_box()
    assert box
    x, y = box["x"] + 200, box["y"] + 100
    devices = results.context.new_cdp_session(results)
    for kind, down in (("touchStart", 0), *(("touchMove", 4 * step) for step in range(1, 9))):
        devices.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y + down}]})
    devices.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    devices.detach()
    expect(results.locator("#where")).to_contain_text("Slice 5 of 20")


def test_windows_and_overlay_by_keys(results: Page, phantoms: dict[str, Phantom]) -> None:
    results.keyboard.press("o")
    results.keyboard.press("2")
    settle(results)
    expect(results.get_by_role("radio", name="Mediastinum")).to_be_checked()
    expect(results.get_by_label("Lungs")).not_to_be_checked()
    phantom = phantoms["feet first"]
    expected = windowed(axial(phantom, phantom.hu, place(results)), MEDIASTINUM_WINDOW)
    assert np.abs(picture(results) - expected[:, :, None]).max() <= 1


def test_hu_under_the_pointer(results: Page, phantoms: dict[str, Phantom]) -> None:
    box = results.locator("#picture").bounding_box()
    assert box
    side = min(box["width"], box["height"])
    corner = (box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2)
    row, column = 40, 30
    results.mouse.move(corner[0] + (column + 0.5) * side / SIZE, corner[1] + (row + 0.5) * side / SIZE)
    phantom = phantoms["feet first"]
    expected = axial(phantom, phantom.hu, place(results))[row, column]
    expect(results.locator("#hu")).to_have_text(f"{expected} HU")


def test_a_lesion_leads_to_its_slice(results: Page, findings: dict[str, Any]) -> None:
    lesions = sorted(findings["lesions"], key=lambda lesion: -float(lesion["volume_ml"]))
    buttons = results.locator("#lesions button")
    assert buttons.count() == min(len(lesions), 20)
    other = next(n for n, lesion in enumerate(lesions) if lesion["slice_index"] != lesions[0]["slice_index"])
    assert wait_for_picture(results) == lesions[0]["slice_index"]
    buttons.nth(other).click()
    expect(results.locator("#picture")).to_have_attribute("data-slice", str(lesions[other]["slice_index"]))
    expect(buttons.nth(other)).to_have_attribute("aria-current", "true")
    # Feet first, so slices are stored from the head to the feet, as they are shown.
    assert place(results) == lesions[other]["slice_index"] + 1
    expect(buttons.nth(other)).to_contain_text(f"image {place(results)}")


def test_page_and_report_name_images_alike(
    page: Page, asked: OrthancServer, series: dict[str, str], findings: dict[str, Any]
) -> None:
    show(page, asked, series["head first, supine"])
    # Its images are numbered from the feet.
    name = f"image {21 - place(page)}"
    expect(page.locator("#where")).to_contain_text(name)
    expect(page.locator("#lesions button").first).to_contain_text(name)
    report = page.get_by_role("link", name="Report (PDF)").evaluate("link => link.href")
    pdf = page.request.get(report).body()
    text = subprocess.run(["pdftotext", "-", "-"], input=pdf, check=True, capture_output=True).stdout.decode()
    assert f"largest on {name}" in " ".join(text.split())


def test_the_numbers(results: Page, findings: dict[str, Any]) -> None:
    row = results.locator("#measurements tr", has=results.get_by_role("rowheader", name="Lung volume"))
    expected = [wording.milliliters(findings["lung_volume_ml"][side]) for side in ("total", "right", "left")]
    expect(row.get_by_role("cell")).to_have_text(expected)
    row = results.locator("#measurements tr", has=results.get_by_role("rowheader", name="Lesions", exact=True))
    share = wording.percent(findings["lesion_to_lung_ratio"]["right"])
    expect(row.get_by_role("cell").nth(1)).to_contain_text(share)
    probability = wording.probability(findings["covid_probability"])
    expect(results.locator("#answer")).to_contain_text(f"COVID-19 probability {probability}")
    expect(results.locator("#analyses tr", has_text="this one")).to_contain_text(probability)
    expect(results.get_by_text("For research and teaching use only. Not for diagnosis.")).to_be_visible()
    for model in findings["models"]:
        expect(results.locator("#models")).to_contain_text(f"{model['name']} {model['version']}")


WORDED = {
    "percent": (0, 0.00003, 0.0009999, 0.001, 0.0025, 0.0075, 0.00996, 0.0345, 0.1225, 0.1275, 0.99999, 1),
    "milliliters": (0, 0.04, 0.0999, 0.1, 0.25, 0.75, 1.015, 9.94, 9.96, 10, 10.5, 11.5, 4280.5, 4281.5),
    "probability": (0, 0.003, 0.0099, 0.01, 0.125, 0.145, 0.375, 0.985, 0.99, 0.9901, 0.998, 1),
}
"""Numbers that lie between two roundings or at a limit, by the function that words them."""


@pytest.mark.parametrize("name", WORDED)
def test_page_and_report_word_numbers_alike(name: str, page: Page, asked: OrthancServer) -> None:
    page.goto(f"{asked.url}/covid/app/jobs.html")
    numbers = [*WORDED[name], *np.random.default_rng(1).random(1000).tolist()]
    shown = page.evaluate(f"numbers => import('./words.js').then(words => numbers.map(words.{name}))", numbers)
    assert shown == [getattr(wording, name)(number) for number in numbers]


def test_results_are_linked(results: Page, asked: OrthancServer) -> None:
    links = {link.inner_text(): link.evaluate("link => link.href") for link in results.locator("#results a").all()}
    assert {"Report (PDF)", "Lungs (SEG)", "Lesions (SEG)"} <= set(links)
    assert results.request.get(links["Report (PDF)"]).body().startswith(b"%PDF")
    for name in ("Lungs (SEG)", "Lesions (SEG)"):
        instance = links[name].rpartition("=")[2]
        assert asked.get(f"/instances/{instance}/simplified-tags")["Modality"] == "SEG"


@pytest.mark.parametrize("dicom_web", [True, False])
def test_installed_viewers_are_linked(
    dicom_web: bool, page: Page, asked: OrthancServer, findings: dict[str, Any]
) -> None:
    series = asked.get(f"/covid/jobs/{findings['Job']}")["Content"]["Series"]
    study = asked.get(f"/series/{series}/study")
    page.route("**/plugins", lambda route: route.fulfill(json=["dicom-web", "ohif", "stone-webviewer"]))
    # As Orthanc's OHIF plugin writes its setting DataSource.
    config = f"if ({str(dicom_web).lower()}) {{ window.config.dataSources = []; }}"
    page.route("**/ohif/app-config.js", lambda route: route.fulfill(body=config, content_type="text/javascript"))
    show(page, asked, series)
    ohif = {
        True: f"StudyInstanceUIDs={study['MainDicomTags']['StudyInstanceUID']}",
        False: f"url=../studies/{study['ID']}/ohif-dicom-json",
    }
    for name, address in (
        ("Open in OHIF", f"/ohif/viewer?{ohif[dicom_web]}"),
        ("Open in Stone", f"/stone-webviewer/index.html?study={study['MainDicomTags']['StudyInstanceUID']}"),
    ):
        expect(page.get_by_role("link", name=name)).to_have_attribute("href", asked.url + address)
    expect(page.get_by_role("link", name=re.compile("^Open in"))).to_have_count(2)
    page.unroute("**/plugins")
    page.unroute("**/ohif/app-config.js")


FOCUSED = """() => {
    const at = document.activeElement;
    return at.getAttribute('aria-label') || (at.labels && at.labels[0] ? at.labels[0].innerText : at.innerText).trim();
}"""


def test_everything_is_reached_by_keyboard_and_has_a_name(results: Page) -> None:
    reached = []
    for _ in range(60):
        results.keyboard.press("Tab")
        reached.append(results.evaluate(FOCUSED))
        if "Measurements (SR)" in reached:
            break
    assert "" not in reached
    before = ["Orthanc Explorer", "All analyses"]
    place_of_picture = next(n for n, name in enumerate(reached) if name.startswith("CT, slice"))
    assert reached[:place_of_picture] == before
    assert reached[place_of_picture + 1] == "Slice, from head to feet"
    for name in ("Lung", "Lungs", "Ground glass", "Consolidation", "Opacity", "Report (PDF)", "Lungs (SEG)"):
        assert name in reached
    assert any(name.startswith("Show the analysis of ") for name in reached)
    expect(results.get_by_role("table", name="Measurements").get_by_role("columnheader")).to_have_text(
        ["Total", "Right", "Left"]
    )


TEXTS = """() => [...document.body.querySelectorAll('*')]
    .filter(one => one.checkVisibility())
    .filter(one => [...one.childNodes].some(child => child.nodeType === Node.TEXT_NODE && child.data.trim()))
    .map(one => {
        const [style, behind] = [getComputedStyle(one), []];
        for (let under = one; under; under = under.parentElement) {
            behind.push(getComputedStyle(under).backgroundColor);
        }
        const color = one instanceof SVGElement ? style.fill : style.color;
        return [one.textContent, color, behind.find(layer => layer !== 'rgba(0, 0, 0, 0)')];
    })
"""
"""Each text that is to be seen, its colour and that of what is behind it."""


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2.2 for a colour such as rgb(255, 176, 0)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("media", ["screen", "print"])
def test_all_text_can_be_read(media: Literal["screen", "print"], results: Page, asked: OrthancServer) -> None:
    expect(results.locator("#history")).to_be_visible()
    results.emulate_media(media=media)
    texts = results.evaluate(TEXTS)
    results.goto(f"{asked.url}/covid/app/jobs.html")
    expect(results.locator(".jobs .state").first).to_be_visible()
    texts += results.evaluate(TEXTS)
    results.emulate_media(media="screen")
    for text, *colors in texts:
        darker, lighter = sorted(map(luminance, colors))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, colors)
    seen = " ".join(text for text, *_ in texts)
    assert all(words in seen for words in ("For research", "Measurements", "this one", "Success", "W 1500"))
    if media == "print":
        assert all(luminance(behind) in (0, 1) for _, _, behind in texts), "white, but for the picture"


def test_keys_scroll_the_page_where_it_is_read(results: Page) -> None:
    before = place(results)
    results.get_by_role("link", name="Report (PDF)").focus()
    results.keyboard.press("ArrowUp")
    assert place(results) == before
    results.locator("#lesions button").first.focus()
    results.keyboard.press("ArrowUp")
    assert place(results) == before - 1


def test_a_narrow_phone_shows_all_without_scrolling_sideways(results: Page) -> None:
    size = results.viewport_size
    assert size
    results.set_viewport_size({"width": 320, "height": 640})
    assert results.evaluate("document.documentElement.scrollWidth") == 320
    answer, picture = (results.locator(name).bounding_box() for name in ("#answer", "#picture"))
    assert answer
    assert picture
    assert answer["y"] < picture["y"]
    results.set_viewport_size(size)


@pytest.mark.parametrize("width", [320, 375, 770, 1280])
def test_tables_stay_in_their_column(width: int, results: Page) -> None:
    expect(results.locator("#history")).to_be_visible()
    size = results.viewport_size
    assert size
    results.set_viewport_size({"width": width, "height": 640})
    right = "one => one.getBoundingClientRect().right"
    for table in results.locator("table").all():
        assert table.evaluate(right) <= table.locator("..").evaluate(right)
    results.set_viewport_size(size)


def test_earlier_analyses_of_the_patient(results: Page, asked: OrthancServer, series: dict[str, str]) -> None:
    rows = results.locator("#analyses tr")
    expect(rows).to_have_count(2)
    # Several series of a study have one date.
    descriptions = [
        asked.get(f"/series/{series[name]}")["MainDicomTags"]["SeriesDescription"]
        for name in ("head first, supine", "feet first")
    ]
    assert sorted(rows.locator("th span").all_inner_texts()) == sorted(descriptions)
    expect(results.locator("#curve circle")).to_have_count(2)
    other = results.get_by_role("link", name="show")
    expect(other).to_have_attribute("href", f"results.html?series={series['head first, supine']}")


def upload_image(server: OrthancServer, image: Path, suffix: str, **attributes: str) -> str:
    """Upload one image as a series of its own, with some attributes changed; the series' Orthanc id."""
    dataset = pydicom.dcmread(image)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, keyword, generate_uid(entropy_srcs=[dataset[keyword].value, suffix]))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    content = io.BytesIO()
    dataset.save_as(content)
    series: str = server.upload(content.getvalue())["ParentSeries"]
    return series


@pytest.fixture(scope="module")
def image(phantoms: dict[str, Phantom], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image of a phantom."""
    return write_folder(phantoms["prone"], tmp_path_factory.mktemp("image"))[0]


def test_text_of_the_patient_is_only_text(page: Page, asked: OrthancServer, image: Path) -> None:
    description = "<img src=x onerror=document.title=1>"
    attributes = {"PatientID": "4711", "PatientName": "<b>Doe</b>^Jane", "SeriesDescription": description}
    show(page, asked, upload_image(asked, image, ".text", **attributes))
    expect(page.locator("#patient")).to_contain_text("<b>Doe</b> Jane")
    expect(page.locator("#patient")).to_contain_text(description)
    assert page.locator("#patient b, #patient img").count() == 0
    assert page.title() == "COVID-19 CT results"


def test_right_to_left_writing_leaves_the_numbers_beside_it_as_they_are(
    page: Page, asked: OrthancServer, image: Path
) -> None:
    series = upload_image(
        asked,
        image,
        ".arabic",
        SpecificCharacterSet="ISO_IR 192",
        PatientName="محمد^سارة\u2069\u202e",
        PatientID="2023-0417",
        StudyDate="20200401",
        StudyDescription="أشعة 5.0 mm",
        SeriesDescription="أشعة 5.0 mm",
    )
    job = asked.post("/covid/analyze", {"Series": series})["ID"]
    drawn = " · 2023-0417 · 2020-04-01 · mm 5.0 "
    show(page, asked, series)
    title = page.locator("#patient")
    expect(title).to_have_text("محمد سارة · 2023-0417 · 2020-04-01 · أشعة 5.0 mm")
    assert drawn in as_drawn(title)
    page.goto(f"{asked.url}/covid/app/jobs.html")
    assert drawn in as_drawn(page.locator(f"[id='{job}'] .title"))


def test_a_series_without_findings_is_analysed_from_its_page(
    page: Page, asked: OrthancServer, series: dict[str, str]
) -> None:
    show(page, asked, series["prone"])
    page.get_by_role("button", name="Analyze for COVID-19").click()
    expect(page.locator("#answer")).to_contain_text("research use only")
    expect(page.locator("#numbers")).to_be_visible()


def test_a_series_that_is_not_there(page: Page, asked: OrthancServer) -> None:
    page.goto(f"{asked.url}/covid/app/results.html?series=" + "-".join(["00000000"] * 5))
    expect(page.get_by_role("alert")).to_contain_text("Orthanc")
    for identifier in ("..", "", "<b>"):
        page.goto(f"{asked.url}/covid/app/results.html?series={identifier}")
        expect(page.locator("#answer")).to_contain_text("its Orthanc identifier")


def test_the_dashboard(page: Page, asked: OrthancServer, series: dict[str, str], findings: dict[str, Any]) -> None:
    overlay = next(result for result in findings["Results"] if result["Kind"] == "lungs.seg")
    refused = asked.post("/covid/analyze", {"Series": overlay["ParentSeries"]})["ID"]
    asked.post("/covid/analyze", {"Series": series["numbered from the other end"]})
    waiting = asked.post("/covid/analyze", {"Series": series["columns to the front"]})["ID"]
    page.goto(f"{asked.url}/covid/app/jobs.html")
    item = page.locator(f"[id='{waiting}']")
    expect(item).to_contain_text("Phantom Thorax · COVID-CT-PHANTOM · 2020-04-01 · Chest phantom")
    item.get_by_role("button", name="Cancel").click()
    expect(item).to_contain_text("was cancelled")
    item.get_by_role("button", name="Retry").click()
    expect(item).to_contain_text("research use only")
    expect(item.get_by_role("link", name="Results")).to_have_attribute(
        "href", f"results.html?series={series['columns to the front']}"
    )
    page.get_by_label("Not ended").check()
    expect(page.locator("#rest")).to_have_text("There are none.")
    page.get_by_label("Failed").check()
    expect(page.locator("#jobs li")).to_have_count(len(asked.get("/covid/jobs?state=Failure")))
    expect(page.locator(f"[id='{refused}']")).to_contain_text(asked.get(f"/covid/jobs/{refused}")["ErrorDescription"])
    expect(page.locator(f"[id='{refused}']").get_by_role("button")).to_have_count(0)
