import json
import subprocess
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import ComprehensiveSRStorage

from covid_ct import RESEARCH_USE_ONLY
from covid_ct.analysis.findings import Side

from .conftest import BIN, Case, Geometry, make_case

NAME = "measurements.sr.dcm"


def children(item: Dataset, concept: str) -> list[Dataset]:
    return [child for child in item.get("ContentSequence", []) if child.ConceptNameCodeSequence[0].CodeValue == concept]


def child(item: Dataset, concept: str) -> Dataset:
    (found,) = children(item, concept)
    return found


def groups_of(report: Dataset) -> dict[str, Dataset]:
    groups = children(child(report, "126010"), "125007")
    named = {child(group, "112039").TextValue: group for group in groups}
    assert len(named) == len(groups)
    return named


def template(item: Dataset) -> str:
    (identification,) = item.ContentTemplateSequence
    assert identification.MappingResource == "DCMR"
    return str(identification.TemplateIdentifier)


def value(group: Dataset, concept: str) -> tuple[float, str]:
    (measured,) = child(group, concept).MeasuredValueSequence
    (unit,) = measured.MeasurementUnitsCodeSequence
    assert unit.CodingSchemeDesignator == "UCUM"
    return float(measured.NumericValue), unit.CodeValue


def test_it_holds_what_stones_reader_demands(case: Case) -> None:
    report = case.results[NAME]
    assert (report.SOPClassUID, report.Modality, report.ValueType) == (ComprehensiveSRStorage, "SR", "CONTAINER")
    assert report.ConceptNameCodeSequence[0].CodeValue == "126000"
    assert template(report) == "1500"
    evidence = [
        instance.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    assert len(set(evidence)) == len(evidence)
    drawn = [group for group in groups_of(report).values() if template(group) == "1410"]
    assert len(drawn) == len(case.findings.measurements.lesions)
    for group in drawn:
        region = child(group, "111030")
        assert (region.RelationshipType, region.ValueType) == ("CONTAINS", "SCOORD")
        assert region.GraphicType == "POLYLINE"
        (source,) = region.ContentSequence
        assert (source.RelationshipType, source.ValueType) == ("SELECTED FROM", "IMAGE")
        assert source.ConceptNameCodeSequence[0].CodeValue == "111040"
        (instance,) = source.ReferencedSOPSequence
        assert instance.ReferencedSOPInstanceUID in evidence
        assert "ReferencedFrameNumber" not in instance


def test_outlines_lie_on_the_lesions(case: Case) -> None:
    images = {header.SOPInstanceUID: index for index, header in enumerate(case.volume.headers)}
    for group in groups_of(case.results[NAME]).values():
        if template(group) != "1410":
            continue
        region = child(group, "111030")
        index = images[region.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID]
        x, y = np.reshape(region.GraphicData, (-1, 2)).T
        laterality = child(child(group, "363698007"), "272741003").ConceptCodeSequence[0].CodeMeaning
        side = Side[laterality.upper()]
        mask = (case.findings.lesions[index] > 0) & (case.findings.lungs[index] == side)
        rows, columns = np.nonzero(mask)
        assert (x.min(), x.max()) == (columns.min(), columns.max() + 1)
        assert (y.min(), y.max()) == (rows.min(), rows.max() + 1)
        _, row_mm, column_mm = case.volume.spacing
        assert value(group, "42798000") == (pytest.approx(mask.sum() * row_mm * column_mm), "mm2")


def test_the_numbers_are_the_findings(upright: Case) -> None:
    groups = groups_of(upright.results[NAME])
    measured = upright.findings.measurements
    for label, volume, ratio in (
        ("Lesions", measured.lesion_volume_ml, measured.lesion_to_lung_ratio),
        ("Ground glass", measured.ground_glass_volume_ml, measured.ground_glass_to_lung_ratio),
        ("Consolidation", measured.consolidation_volume_ml, measured.consolidation_to_lung_ratio),
    ):
        for suffix, part in (("", "total"), (", right lung", "right"), (", left lung", "left")):
            group = groups[label + suffix]
            assert value(group, "118565006") == (pytest.approx(getattr(volume, part), abs=1e-5), "ml")
            assert value(group, "118586006") == (pytest.approx(100 * getattr(ratio, part), abs=1e-4), "%")
    for label, part in (("Lungs", "total"), ("Right lung", "right"), ("Left lung", "left")):
        expected = getattr(measured.lung_volume_ml, part)
        assert value(groups[label], "118565006") == (pytest.approx(expected, abs=1e-5), "ml")
    assert value(groups["COVID-19"], "122157") == (pytest.approx(0.81), "1")
    comments = [comment.TextValue for comment in children(groups["COVID-19"], "121106")]
    assert comments == [RESEARCH_USE_ONLY, *upright.findings.warnings]


def test_what_was_found_is_coded_as_snomed_has_it(upright: Case) -> None:
    """pydicom's dictionary of codes is older than the disease: 840539006 |Disease caused by SARS-CoV-2|."""
    groups = groups_of(upright.results[NAME])
    for name, code in {"COVID-19": "840539006", "Lungs": "39607008", "Ground glass": "112120"}.items():
        assert child(groups[name], "121071").ConceptCodeSequence[0].CodeValue == code


def test_the_share_of_the_lung_is_no_index_of_diffusion(upright: Case) -> None:
    """(113288, DCM, "Volume Ratio") stands beside Fractional Anisotropy in CID 7271 MR Diffusion Anisotropy Index."""
    indices = {code.value for code in codes.cid7271.concepts.values()}
    groups = groups_of(upright.results[NAME])
    for group in groups.values():
        assert not any(children(group, index) for index in indices)
    meaning = child(child(groups["Ground glass"], "118586006"), "121050")
    assert (meaning.RelationshipType, meaning.TextValue) == ("HAS CONCEPT MOD", "Share of lung volume")


def test_every_group_names_its_model(upright: Case) -> None:
    models = {model.name: model for model in upright.findings.models}
    lungs, _, covid = upright.findings.models
    expected = {"COVID-19": covid, "Lungs": lungs, "Right lung": lungs, "Left lung": lungs}
    for name, group in groups_of(upright.results[NAME]).items():
        model = models[child(group, "111001").TextValue]
        assert model == expected.get(name, upright.findings.models[1])
        assert child(group, "111003").TextValue == model.version
        assert child(group, "111002").TextValue == f"sha256={model.sha256}"


def test_the_observer_is_one_device_in_every_report(upright: Case) -> None:
    """A Device Observer UID identifies the device; who counts observers would else find as many as reports."""
    other = make_case(Geometry(shape=(12, 90, 110)))
    first, second = (child(case.results[NAME], "121012") for case in (upright, other))
    assert upright.results[NAME].SOPInstanceUID != other.results[NAME].SOPInstanceUID
    assert (first.RelationshipType, first.ValueType) == ("HAS OBS CONTEXT", "UIDREF")
    assert first.UID == second.UID
    assert first.UID.is_valid


def test_segments_are_referenced_by_their_tracking_uids(upright: Case) -> None:
    groups = groups_of(upright.results[NAME])
    for name in ("lungs.seg.dcm", "lesions.seg.dcm"):
        segmentation = upright.results[name]
        for segment in segmentation.SegmentSequence:
            group = groups[segment.TrackingID]
            assert template(group) == "1411"
            assert segment.TrackingUID == child(group, "112040").UID
            (instance,) = child(group, "121191").ReferencedSOPSequence
            assert instance.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
            assert instance.ReferencedSegmentNumber == segment.SegmentNumber
            assert upright.volume.series_uid == child(group, "121232").UID


def test_no_lesion_no_outline_and_no_missing_segment() -> None:
    case = make_case(Geometry(), ground_glass=False, consolidation=False)
    groups = groups_of(case.results[NAME])
    assert {template(group) for group in groups.values()} == {"1411", "1501"}
    assert value(groups["Lesions"], "118565006") == (0, "ml")
    assert template(groups["Ground glass"]) == "1501"


def test_dcmtk_and_dcmqi_read_it(case: Case, tmp_path: Path) -> None:
    path = case.written(tmp_path)[NAME]
    dump = subprocess.run(["dsrdump", path], capture_output=True, text=True, check=True)
    assert "POLYLINE" in dump.stdout
    assert not [line for line in dump.stderr.splitlines() if line.startswith("E:")]
    output = tmp_path / "report.json"
    command = [BIN / "tid1500reader", "--inputDICOM", path, "--outputMetadata", output]
    subprocess.run(command, capture_output=True, check=True)
    measured = {group["TrackingIdentifier"]: group for group in json.loads(output.read_text())["Measurements"]}
    right = measured["Right lung"]
    assert right["Laterality"]["CodeMeaning"] == "Right"
    assert right["segmentationSOPInstanceUID"] == case.results["lungs.seg.dcm"].SOPInstanceUID
    assert float(right["measurementItems"][0]["value"]) == pytest.approx(
        case.findings.measurements.lung_volume_ml.right, abs=1e-5
    )
    assert {group["TrackingIdentifier"] for group in measured.values()} == set(groups_of(dcmread(path)))


def test_highdicom_reads_the_templates(upright: Case, tmp_path: Path) -> None:
    content = highdicom.sr.srread(upright.written(tmp_path)[NAME]).content
    outlined = content.get_planar_roi_measurement_groups()
    largest = [lesion.volume_ml for lesion in upright.findings.measurements.lesions]
    assert [group.get_measurements()[0].value for group in outlined] == pytest.approx(largest, abs=1e-5)
    segments = [group.tracking_identifier for group in content.get_volumetric_roi_measurement_groups()]
    assert segments == ["Right lung", "Left lung", "Ground glass", "Consolidation"]
    assert len(content.get_image_measurement_groups()) == len(groups_of(upright.results[NAME])) - 6


def test_the_standards_tables_are_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for good, and a third of a second for which nothing else in Orthanc's Python runs."""

    def loaded(*_: object) -> None:
        raise AssertionError("highdicom reads the attributes of all IODs.")

    monkeypatch.setattr("highdicom._standard_utils.get_module_attribute_map", loaded)
    assert NAME in make_case(Geometry()).results
