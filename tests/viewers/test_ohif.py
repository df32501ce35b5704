"""OHIF in Chromium shows the CT with both segmentations, the overlay series and the PDF."""

from hashlib import sha256

import numpy as np
import pytest
from playwright.sync_api import Browser
from pydicom import Dataset, dcmread

from covid_ct.series.volume import AIR_HU
from tests.viewers.cases import Case
from tests.viewers.ohif import opened_study


def header(case: Case, name: str) -> Dataset:
    return dcmread(case.results[name], stop_before_pixels=True)


def description(case: Case, name: str) -> str:
    return str(header(case, name).SeriesDescription)


def test_ohif_shows_the_study(stored: Case, browser: Browser, ohif_url: str) -> None:
    case = stored
    series = {dcmread(path, stop_before_pixels=True).SeriesInstanceUID for path in case.results.values()}
    slice_of = {str(header.SOPInstanceUID): index for index, header in enumerate(case.volume.headers)}
    shape = case.volume.hu.shape[1:]
    with opened_study(browser, ohif_url, case.study_uid, len(series) + 1) as ohif:
        descriptions = [str(dcmread(one.path).SeriesDescription) for one in case.segmentations]
        for one in descriptions:
            ohif.hydrate(one)

        shown = ohif.segments()
        assert [segmentation["label"] for segmentation in shown] == descriptions
        for segmentation, found in zip(case.segmentations, shown, strict=True):
            assert found["visible"]
            assert [segment["label"] for segment in found["segments"]] == [
                structure.label for structure in segmentation.structures.values()
            ]
            for segment, structure in zip(found["segments"], segmentation.structures.values(), strict=True):
                assert segment["color"] == pytest.approx(structure.color, abs=1)

        seen = set()
        for one in ohif.slices(lowest=AIR_HU):
            index = slice_of[one.uid]
            seen.add(index)
            values = np.ascontiguousarray(case.volume.hu[index], "<i2")
            assert one.ct == sha256(values).hexdigest(), f"CT slice {index}"
            for segmentation, found, label in zip(case.segmentations, shown, descriptions, strict=True):
                expected = segmentation.labels[index]
                labels = one.labels[label].reshape(shape) if label in one.labels else np.zeros(shape, np.uint8)
                for segment, value in zip(found["segments"], segmentation.structures, strict=True):
                    assert np.array_equal(labels == segment["index"], expected == value), f"{label}, slice {index}"
        assert seen == set(range(len(case.volume.hu)))

        ohif.open_series(description(case, next(name for name in case.results if name.startswith("overlay"))))
        report = dcmread(case.results["report.pdf.dcm"])
        pdf = ohif.pdf(str(report.SeriesDescription))
        assert pdf == report.EncapsulatedDocument
        assert pdf.startswith(b"%PDF")
