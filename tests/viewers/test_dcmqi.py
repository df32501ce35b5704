"""dcmqi reads segmentations and measurement report: all of them, on every case."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from tests.results.test_segmentation import BIN, dcmqi_label_map
from tests.viewers.cases import Case

pytestmark = pytest.mark.every_case


def test_voxels_names_colours_and_codes_return(case: Case, tmp_path: Path) -> None:
    for number, segmentation in enumerate(case.segmentations):
        label_map, segments = dcmqi_label_map(segmentation.path, case.volume, tmp_path / str(number))
        for segment, (label, structure) in zip(segments, segmentation.structures.items(), strict=True):
            assert segment["SegmentLabel"] == structure.label
            assert np.array_equal(label_map == segment["labelID"], segmentation.labels == label), structure.label
            assert segment["recommendedDisplayRGBValue"] == pytest.approx(structure.color, abs=1)
            assert segment["SegmentAlgorithmType"] == "AUTOMATIC"
            for item, code in (
                ("SegmentedPropertyCategoryCodeSequence", structure.category),
                ("SegmentedPropertyTypeCodeSequence", structure.type),
                ("SegmentedPropertyTypeModifierCodeSequence", structure.modifier),
                ("AnatomicRegionSequence", structure.region),
            ):
                found = segment.get(item)
                assert (found and (found["CodeValue"], found["CodingSchemeDesignator"])) == (
                    code and (code.value, code.scheme_designator)
                )


def test_a_healthy_chest_has_no_segmentation_of_lesions(case: Case) -> None:
    assert ("lesions.seg.dcm" in case.results) == bool(case.findings.lesions.any())


def test_measurements_return(case: Case, tmp_path: Path) -> None:
    """dcmqi's reader takes groups with a segment (TID 1411); others have no segment to read."""
    output = tmp_path / "measurements.json"
    subprocess.run(
        [BIN / "tid1500reader", "--inputDICOM", case.results["measurements.sr.dcm"], "--outputMetadata", output],
        check=True, capture_output=True,
    )  # fmt: skip
    groups = json.loads(output.read_text())["Measurements"]
    volumes = {group["TrackingIdentifier"]: group for group in groups}
    segmented = {
        segment.SegmentLabel: (dataset.SOPInstanceUID, segment)
        for dataset in (dcmread(segmentation.path) for segmentation in case.segmentations)
        for segment in dataset.SegmentSequence
    }
    expected = {
        structure.label: segmentation.masks[structure.label].sum() * case.volume.voxel_ml
        for segmentation in case.segmentations
        for structure in segmentation.structures.values()
    }
    for label, (instance_uid, segment) in segmented.items():
        group = volumes[label]
        assert group["segmentationSOPInstanceUID"] == instance_uid
        assert group["ReferencedSegment"] == segment.SegmentNumber
        assert group["SourceSeriesForImageSegmentation"] == case.volume.series_uid
        (volume,) = (item for item in group["measurementItems"] if item["quantity"]["CodeMeaning"] == "Volume")
        assert volume["units"]["CodeValue"] == "ml"
        assert float(volume["value"]) == pytest.approx(expected[label], rel=1e-3)
