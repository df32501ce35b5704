"""Validators, and Stone's rules for structured reports, which no validator knows."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import Dataset, dcmread
from pydicom.uid import ComprehensiveSRStorage

from covid_ct.results.terms import STRUCTURES_OF_LESIONS
from tests.viewers.cases import Case

BIN = Path(__file__).resolve().parents[2] / ".venv/bin"
KINDS = ("lungs.seg", "lesions.seg", "report.pdf", "measurements.sr", "overlay.sc")


def test_dciodvfy_passes_every_kind(case: Case) -> None:
    expected = [kind for kind in KINDS if kind != "lesions.seg" or case.findings.lesions.any()]
    assert [kind for kind in KINDS if any(name.startswith(kind) for name in case.results)] == expected
    for name, path in case.results.items():
        outcome = subprocess.run([BIN / "dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        said = outcome.stdout + outcome.stderr
        assert "Error" not in said, f"{name}: {said}"
        assert said.strip(), "The validator names the kind of every object that it knows."


def test_dsrdump_reads_the_report(case: Case) -> None:
    outcome = subprocess.run(
        ["dsrdump", "+Ps", "-Ec", case.results["measurements.sr.dcm"]], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert "E:" not in outcome.stderr
    text = outcome.stdout
    assert "Imaging Measurement Report" in text
    total = case.findings.measurements.lung_volume_ml.total
    assert f'"{total:.6f}'.rstrip("0")[:8] in text
    for structure in STRUCTURES_OF_LESIONS.values():
        assert structure.label in text


def groups_of(report: Dataset) -> list[Dataset]:
    """Measurement groups of a TID 1500 report."""
    (measurements,) = (item for item in report.ContentSequence if concept(item) == ("126010", "DCM"))
    return [item for item in measurements.ContentSequence if concept(item) == ("125007", "DCM")]


def concept(item: Dataset) -> tuple[str, str]:
    code = item.ConceptNameCodeSequence[0]
    return code.CodeValue, code.CodingSchemeDesignator


def template(item: Dataset) -> str:
    return str(item.ContentTemplateSequence[0].TemplateIdentifier) if "ContentTemplateSequence" in item else ""


def test_stone_draws_the_report(case: Case) -> None:
    report = dcmread(case.results["measurements.sr.dcm"])
    assert (report.Modality, report.SOPClassUID) == ("SR", ComprehensiveSRStorage)
    assert template(report) == "1500"
    assert concept(report) == ("126000", "DCM")

    evidence = [
        (study.StudyInstanceUID, series.SeriesInstanceUID, instance.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    instances = [instance for _, _, instance in evidence]
    assert len(set(instances)) == len(instances)
    assert {study for study, _, _ in evidence} == {case.study_uid}
    of_ct = {str(header.SOPInstanceUID): index for index, header in enumerate(case.volume.headers)}

    drawn = [group for group in groups_of(report) if template(group) == "1410"]
    assert bool(drawn) == bool(case.findings.measurements.lesions)
    for group in drawn:
        regions = [item for item in group.ContentSequence if item.ValueType == "SCOORD"]
        assert regions
        for region in regions:
            assert region.GraphicType in ("POINT", "POLYLINE")
            assert concept(region) == ("111030", "DCM")
            (source,) = region.ContentSequence
            assert (source.ValueType, source.RelationshipType) == ("IMAGE", "SELECTED FROM")
            (reference,) = source.ReferencedSOPSequence
            assert reference.ReferencedSOPInstanceUID in instances
            outline = [(float(x), float(y)) for x, y in zip(*[iter(region.GraphicData)] * 2, strict=True)]
            assert outline[0] == outline[-1]
            assert enclosed_is_lesion(case, of_ct[reference.ReferencedSOPInstanceUID], outline)


def enclosed_is_lesion(case: Case, index: int, outline: list[tuple[float, float]]) -> bool:
    """Whether an outline's pixels are lesion: drawn by another library, on the slice that the report names."""
    scale = 4
    rows, columns = case.volume.hu.shape[1:]
    canvas = Image.new("1", (columns * scale, rows * scale))
    ImageDraw.Draw(canvas).polygon([(x * scale, y * scale) for x, y in outline], fill=1)
    inside = np.asarray(canvas)[scale // 2 :: scale, scale // 2 :: scale]
    lesion = case.findings.lesions[index] > 0
    # Holes and neighbours that meet the outline at a corner alone are not the lesion's, but few.
    return bool(inside.any()) and float((inside & lesion).sum()) >= 0.8 * float(inside.sum())


@pytest.mark.parametrize("tool", [["qpdf", "--check"], ["pdftotext"]])
def test_pdf_tools_read_the_report(case: Case, tmp_path: Path, tool: list[str]) -> None:
    report = dcmread(case.results["report.pdf.dcm"])
    assert (report.Modality, report.MIMETypeOfEncapsulatedDocument) == ("DOC", "application/pdf")
    pdf = tmp_path / "report.pdf"
    pdf.write_bytes(report.EncapsulatedDocument)
    arguments = [*tool, pdf] + ([tmp_path / "text"] if tool == ["pdftotext"] else [])
    outcome = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
    if tool == ["pdftotext"]:
        assert f"{case.findings.measurements.lung_volume_ml.total:.0f} ml" in (tmp_path / "text").read_text()
