"""A person at OHIF: opens a study, puts segmentations on the CT, reads what lies behind the pictures."""

import base64
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, Locator, Page, sync_playwright

TIMEOUT_MS = 240_000
CHROMIUM = "/usr/bin/chromium"
SOFTWARE_RENDERING = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")

SHOW_SLICE = """async ([index, lowest]) => {
  const viewport = ohifViewport();
  await viewport.setImageIdIndex(index);
  const uid = id => cornerstone.metaData.get('instance', id).SOPInstanceUID;
  const values = Int16Array.from(viewport.getCornerstoneImage().getPixelData(), value => Math.max(value, lowest));
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', values));
  const shown = {uid: uid(viewport.getCurrentImageId()), labels: {},
    ct: Array.from(digest, byte => byte.toString(16).padStart(2, '0')).join('')};
  const state = cornerstoneTools.segmentation.state;
  for (const segmentation of state.getSegmentations()) {
    const ids = state.getCurrentLabelmapImageIdsForViewport(viewport.id, segmentation.segmentationId) || [];
    shown.labels[segmentation.label] = [];
    for (const id of ids) {
      const image = cornerstone.cache.getImage(id);
      if (uid(image.referencedImageId) !== shown.uid) throw new Error('A label map of another image is shown.');
      shown.labels[segmentation.label].push(await ohifPack(image.voxelManager.getScalarData()));
    }
  }
  return shown;
}"""

HELPERS = """
window.ohifViewport = () => {
  const id = services.viewportGridService.getActiveViewportId();
  return services.cornerstoneViewportService.getCornerstoneViewport(id);
};
window.ohifPack = async values => {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const zipped = new Blob([bytes]).stream().pipeThrough(new CompressionStream('gzip'));
  let text = '';
  for (const byte of new Uint8Array(await new Response(zipped).arrayBuffer())) text += String.fromCharCode(byte);
  return {type: values.constructor.name, data: btoa(text)};
};"""

SEGMENTS = """() => {
  const tools = cornerstoneTools.segmentation, viewport = ohifViewport();
  return tools.state.getSegmentations().map(segmentation => ({
    label: segmentation.label,
    segments: Object.values(segmentation.segments).map(segment => ({
      index: segment.segmentIndex, label: segment.label,
      color: tools.config.color.getSegmentIndexColor(
        viewport.id, segmentation.segmentationId, segment.segmentIndex).slice(0, 3)})),
    visible: tools.state.getSegmentationRepresentations(
      viewport.id, {segmentationId: segmentation.segmentationId}).every(item => item.visible)}));
}"""


@dataclass(frozen=True)
class ShownSlice:
    """One slice of the CT as OHIF holds it.

    Attributes
    ----------
    uid: str
        SOPInstanceUID of the CT image.
    ct: str
        SHA-256 of its values after rescale as little-endian 16-bit integers, in the order of the pixels.
    labels: dict[str, NDArray]
        Segment numbers in the order of the pixels, by the segmentation's description.
    """

    uid: str
    ct: str
    labels: dict[str, NDArray[Any]]


class Ohif:
    """OHIF with one study open."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def hydrate(self, description: str) -> None:
        """Double-click a segmentation among the series and answer that it shall be opened."""
        before = self._shown_segmentations()
        self._series(description).dblclick()
        self._page.locator("[data-cy=yes-hydrate-btn]").or_(self._page.get_by_role("button", name="Yes")).first.click(
            timeout=TIMEOUT_MS
        )
        self._page.wait_for_function(
            "before => ohifViewport()?.getImageIds && cornerstoneTools.segmentation.state"
            ".getSegmentationRepresentations(ohifViewport().id).length > before",
            arg=before,
            timeout=TIMEOUT_MS,
        )

    def segments(self) -> list[dict[str, Any]]:
        """Segmentations with label, visibility and segments (index, label, color as RGB 0-255)."""
        segments: list[dict[str, Any]] = self._page.evaluate(SEGMENTS)
        return segments

    def slices(self, lowest: int) -> Iterator[ShownSlice]:
        """Every slice, one after the other, as by the wheel; CT values below the lowest count as it."""
        for index in range(self._page.evaluate("() => ohifViewport().getImageIds().length")):
            yield self.slice(index, lowest)

    def slice(self, index: int, lowest: int) -> ShownSlice:
        """Go to a slice."""
        shown = self._page.evaluate(SHOW_SLICE, [index, lowest])
        labels = {}
        for description, maps in shown["labels"].items():
            arrays = [_unpack(packed) for packed in maps]
            assert len(arrays) <= 1, "Segments that do not overlap need one label map."
            if arrays:
                labels[description] = arrays[0]
        return ShownSlice(shown["uid"], shown["ct"], labels)

    def pdf(self, description: str) -> bytes:
        """Double-click an encapsulated PDF; what the browser's reader is given."""
        self._series(description).dblclick()
        frame = self._page.locator("object[type='application/pdf']")
        frame.wait_for(state="attached", timeout=TIMEOUT_MS)
        self._page.wait_for_function("() => document.querySelector('object[type=\"application/pdf\"]').data")
        packed = self._page.evaluate(
            "async url => ohifPack(new Uint8Array(await (await fetch(url)).arrayBuffer()))",
            frame.get_attribute("data"),
        )
        return _unpack(packed).tobytes()

    def open_series(self, description: str) -> None:
        """Double-click a series of images."""
        self._series(description).dblclick()
        self._page.wait_for_function(
            "description => services.displaySetService.getDisplaySetByUID(services.viewportGridService"
            ".getDisplaySetsUIDsForViewport(services.viewportGridService.getActiveViewportId())[0])"
            ".SeriesDescription === description && ohifViewport()?.getImageIds?.().length",
            arg=description,
            timeout=TIMEOUT_MS,
        )

    def screenshot(self) -> bytes:
        """The whole page as PNG, once it has been drawn."""
        self._page.wait_for_timeout(1500)
        return self._page.screenshot()

    def _shown_segmentations(self) -> int:
        count: int = self._page.evaluate(
            "() => cornerstoneTools.segmentation.state.getSegmentationRepresentations(ohifViewport().id).length"
        )
        return count

    def _series(self, description: str) -> Locator:
        uid = self._page.evaluate(
            "description => services.displaySetService.getActiveDisplaySets()"
            ".find(displaySet => displaySet.SeriesDescription === description).displaySetInstanceUID",
            description,
        )
        return self._page.locator(f"#thumbnail-{uid}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Headless Chromium that can draw without a graphics card."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *SOFTWARE_RENDERING], timeout=TIMEOUT_MS
        )
        yield browser
        browser.close()


@contextmanager
def opened_study(browser: Browser, url: str, study_uid: str, series: int) -> Iterator[Ohif]:
    """OHIF on a study of so many series, the CT shown; fails at the end on errors of the page or the server."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("response", lambda answer: faults.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.set_default_timeout(TIMEOUT_MS)
    page.add_init_script(HELPERS)
    page.goto(f"{url}/viewer?StudyInstanceUIDs={study_uid}")
    page.wait_for_function(
        "count => window.services?.displaySetService.getActiveDisplaySets().length >= count",
        arg=series,
        timeout=TIMEOUT_MS,
    )
    page.get_by_text("Skip all").click()
    page.get_by_text("Confirm and hide").click()
    page.wait_for_function("() => ohifViewport()?.getCornerstoneImage?.()", timeout=TIMEOUT_MS)
    yield Ohif(page)
    assert not faults
    context.close()


def _unpack(packed: dict[str, str]) -> NDArray[Any]:
    kinds = {"Uint8Array": "u1", "Uint8ClampedArray": "u1", "Int16Array": "<i2", "Uint16Array": "<u2"}
    kind = np.dtype(kinds.get(packed["type"], "<f4"))
    return np.frombuffer(gzip.decompress(base64.b64decode(packed["data"])), kind)
