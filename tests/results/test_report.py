import re
import subprocess
import time
import unicodedata
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fpdf import FPDF
from pydicom import DataElement, config, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.uid import EncapsulatedPDFStorage

from covid_ct import RESEARCH_USE_ONLY
from covid_ct.analysis.findings import LesionKind
from covid_ct.results.fonts import ReportFonts
from covid_ct.results.pictures import StandardView
from covid_ct.results.report import report_pdf
from covid_ct.results.wording import milliliters

from .conftest import Case, Geometry, make_case


def text_of(pdf: bytes) -> str:
    outcome = subprocess.run(["pdftotext", "-layout", "-", "-"], input=pdf, capture_output=True, check=True)
    return re.sub(r"[ \n]+", " ", outcome.stdout.decode())


def with_header(case: Case, **values: str) -> Case:
    headers = deepcopy(case.volume.headers)
    for header in headers:
        for keyword, value in values.items():
            setattr(header, keyword, value)
    return Case(replace(case.volume, headers=headers), case.findings)


def without_a_limit(case: Case, keyword: str, value: str) -> Case:
    headers = deepcopy(case.volume.headers)
    for header in headers:
        header.SpecificCharacterSet = "ISO_IR 192"
        header[keyword] = DataElement(keyword, dictionary_VR(keyword), value, validation_mode=config.IGNORE)
    return Case(replace(case.volume, headers=headers), case.findings)


def test_the_object_is_an_encapsulated_pdf(case: Case, tmp_path: Path) -> None:
    dataset = dcmread(case.written(tmp_path)["report.pdf.dcm"])
    assert (dataset.SOPClassUID, dataset.Modality) == (EncapsulatedPDFStorage, "DOC")
    assert dataset.MIMETypeOfEncapsulatedDocument == "application/pdf"
    pdf = dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    sources = [item.ReferencedSOPInstanceUID for item in dataset.SourceInstanceSequence]
    assert sources == [header.SOPInstanceUID for header in case.volume.headers]


def test_qpdf_finds_nothing_and_there_is_one_page(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(case.results["report.pdf.dcm"].EncapsulatedDocument)
    subprocess.run(["qpdf", "--check", path], check=True, capture_output=True)
    pages = subprocess.run(["qpdf", "--show-npages", path], check=True, capture_output=True, text=True).stdout
    assert pages.strip() == "1"


def test_the_text_holds_the_findings(upright: Case) -> None:
    text = text_of(report_pdf(upright.volume, upright.findings))
    measured = upright.findings.measurements
    ratios, consolidation = measured.lesion_to_lung_ratio, measured.consolidation_to_lung_ratio
    for expected in (
        "Doe, Jane",
        "4711",
        "Both lungs Right Left Lesions Right Left",
        "2020-04-01",
        f"Lesions {ratios.total * 100:.1f} % of lung",
        f"{ratios.right * 100:.1f} % of the right lung, {ratios.left * 100:.1f} % of the left",
        f"Lung volume {measured.lung_volume_ml.total:.0f} ml {measured.lung_volume_ml.right:.0f} ml",
        f"Ground glass {measured.ground_glass_volume_ml.total:.1f} ml",
        f"Consolidation {measured.consolidation_volume_ml.total:.1f} ml {consolidation.total * 100:.1f} %",
        "COVID-19 probability 0.81",
        "by covid network 1.0",
        "Upper third 1.0 % 0.0 %",
        "Lower third 10.0 % 3.0 %",
        "Thorax 2.0 B60f",
        "Kernel B60f; thickness 2 mm",
        "24 slices every 2.00 mm",
        "Lungs: lungs network 1.0. Dice 0.98 on synthetic boxes",
        "The series has 8 mm slices.",
        RESEARCH_USE_ONLY,
    ):
        assert expected in text
    assert "CO-RADS" not in text
    assert "CT-SS" not in text


def test_lesions_are_named_by_the_images_that_viewers_number(upright: Case) -> None:
    """Which need not count from one, nor from below."""
    headers = deepcopy(upright.volume.headers)
    for index, header in enumerate(headers):
        header.InstanceNumber = 300 - 2 * index
    text = text_of(report_pdf(replace(upright.volume, headers=headers), upright.findings))
    for lesion in upright.findings.measurements.lesions:
        place = f"{lesion.side} lung, largest on image {300 - 2 * lesion.slice_index}"
        assert f"{milliliters(lesion.volume_ml)}, {place}" in text


def test_no_lesion_is_said_first() -> None:
    case = make_case(Geometry(), ground_glass=False, consolidation=False)
    text = text_of(report_pdf(case.volume, case.findings))
    assert "No lesion found" in text
    assert "Lesions 0.0 % of lung" not in text


def test_fonts_are_embedded_and_text_survives(upright: Case, tmp_path: Path) -> None:
    name = "Papadopoulou^Eleni Aikaterini=Παπαδοπούλου^Ελένη Αικατερίνη"
    case = with_header(upright, SpecificCharacterSet="ISO_IR 192", PatientName=name)
    path = tmp_path / "report.pdf"
    path.write_bytes(report_pdf(case.volume, case.findings))
    fonts = subprocess.run(["pdffonts", path], check=True, capture_output=True, text=True).stdout.splitlines()[2:]
    if any("Helvetica" in line for line in fonts):
        pytest.skip("no Unicode font is installed here")
    assert all(line.split()[-5:-3] == ["yes", "yes"] for line in fonts)
    text = text_of(path.read_bytes())
    assert "Papadopoulou, Eleni Aikaterini" in text
    assert "Παπαδοπούλου, Ελένη Αικατερίνη" in text


@pytest.mark.parametrize("name", ["Doe^Jane", "Παπαδόπουλος^Γιώργος", "Иванов^Иван"])
def test_small_fonts_change_nothing(upright: Case, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = with_header(upright, SpecificCharacterSet="ISO_IR 192", PatientName=name)
    small = report_pdf(case.volume, case.findings)
    monkeypatch.setattr("covid_ct.results.fonts._small_font", lambda path, characters: path.read_bytes())
    assert report_pdf(case.volume, case.findings) == small


def test_a_script_that_nobody_announced_is_written() -> None:
    pdf = FPDF()
    pdf.add_page()
    fonts = ReportFonts(pdf, "Jane")
    pdf.set_font(fonts.family, "", 10)
    pdf.cell(100, 10, fonts.printable("Παπαδόπουλος"))
    if fonts.dropped:
        pytest.skip("no font with Greek letters is installed here")
    assert "Παπαδόπουλος" in text_of(bytes(pdf.output()))


@pytest.mark.parametrize("name", ["Иванов^Иван", "\U0001f9ec^\u1b05\u1b13", "A^\x07B", "^", "=山田^太郎"])
def test_no_name_stops_the_report(upright: Case, name: str) -> None:
    case = with_header(upright, SpecificCharacterSet="ISO_IR 192", PatientName=name)
    assert "Patient ID" in text_of(report_pdf(case.volume, case.findings))


def test_letters_without_a_glyph_leave_a_sign() -> None:
    fonts = ReportFonts(FPDF(), "", folders=())
    assert fonts.printable("Müller") == "Müller"
    assert not fonts.dropped
    assert fonts.printable("Иван 山") == "???? ?"
    assert fonts.dropped


def test_a_server_without_fonts_still_reports(upright: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReportFonts.__init__, "__defaults__", ((),))
    case = with_header(upright, SpecificCharacterSet="ISO_IR 192", PatientName="Иванов^Müller")
    text = text_of(report_pdf(case.volume, case.findings))
    assert "??????, Müller" in text
    assert "no font on this server has" in text


def test_long_texts_stay_on_the_page(upright: Case) -> None:
    case = with_header(upright, PatientName="Long" * 16, SeriesDescription="x" * 64, ConvolutionKernel="K" * 16)
    findings = replace(case.findings, warnings=tuple(f"Warning {n}: " + "words " * 40 for n in range(12)))
    text = text_of(report_pdf(case.volume, findings))
    assert "more lines: see the findings" in text
    assert RESEARCH_USE_ONLY in text


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("AccessionNumber", "X " * 30_000),
        ("PatientAge", "9" * 60_000),
        ("PatientID", "Ж" * 60_000),
        ("PatientName", "A=" * 30_000),
        ("SeriesDescription", "long " * 12_000),
    ],
)
def test_endless_texts_take_no_time_and_are_cut_with_a_sign(upright: Case, keyword: str, value: str) -> None:
    case = without_a_limit(upright, keyword, value)
    started = time.process_time()
    text = text_of(report_pdf(case.volume, case.findings))
    assert time.process_time() - started < 10
    assert RESEARCH_USE_ONLY in text
    assert "..." in text or keyword == "PatientName"


@pytest.mark.parametrize(
    ("keyword", "value", "end"),
    [
        ("PatientID", "MIDRC-RICORD-1A-419639-000082", "000082"),
        ("PatientID", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "0a08"),
        ("AccessionNumber", "MMMM-WWWW-000123", "123"),
        ("PatientName", "Müller-Lüdenscheidt^Maria Magdalena^^Prof. Dr. med.", "Magdalena"),
    ],
)
def test_the_end_that_tells_patients_apart_is_shown(upright: Case, keyword: str, value: str, end: str) -> None:
    case = with_header(upright, SpecificCharacterSet="ISO_IR 192", **{keyword: value})
    text = text_of(report_pdf(case.volume, case.findings))
    assert value[:6] in text
    assert end in text
    assert "..." not in text


def test_key_images_are_where_the_lesions_are(case: Case) -> None:
    text = text_of(case.results["report.pdf.dcm"].EncapsulatedDocument)
    heights = [float(height) for height in re.findall(r"z = (-?[\d.]+) mm", text)]
    affected = (case.findings.lesions > 0).any(axis=(1, 2))
    positions = [float(header.ImagePositionPatient[2]) for header in case.volume.headers]
    shown = [int(np.abs(np.array(positions) - height).argmin()) for height in heights]
    assert len(set(shown)) == 3
    assert heights == sorted(heights, reverse=True)
    assert sum(affected[shown]) == min(3, sum(affected))
    area = (case.findings.lesions > 0).sum(axis=(1, 2))
    assert area[shown].max() == area.max()


def test_four_pictures_are_on_the_page_and_one_is_coronal(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(case.results["report.pdf.dcm"].EncapsulatedDocument)
    listed = subprocess.run(["pdfimages", "-list", path], check=True, capture_output=True, text=True).stdout
    assert sum(line.split()[2] == "image" for line in listed.splitlines()[2:]) == 4
    assert "Coronal, where the area of lesion is largest" in text_of(path.read_bytes())


def test_right_is_marked_on_the_left_of_every_picture(upright: Case) -> None:
    pdf = report_pdf(upright.volume, upright.findings)
    boxes = subprocess.run(["pdftotext", "-bbox", "-", "-"], input=pdf, capture_output=True, check=True).stdout.decode()
    marks = re.findall(r'xMin="([\d.]+)" yMin="([\d.]+)"[^>]*>([RL])</word>', boxes)
    by_height = sorted(marks, key=lambda mark: (float(mark[1]), float(mark[0])))
    assert [name for *_, name in by_height] == ["R", "L"] * 4


def test_the_coronal_plane_is_seen_from_the_front_head_up(case: Case) -> None:
    plane = StandardView(case.volume, case.findings).coronal()
    lesions = case.volume.to_lps(case.findings.lesions)
    # Lesions lie at the back of the right lung, which is on the picture's left, up to 60 % of its height from below.
    rows, columns = np.nonzero(plane.lesions)
    assert plane.lesions.shape[0] - 1 - rows.max() <= rows.min()
    assert columns.mean() < plane.lesions.shape[1] / 2
    assert np.count_nonzero(plane.lesions) == np.count_nonzero(lesions, axis=(0, 2)).max()
    assert np.array_equal(plane.lesions[plane.lesions > 0], lesions[::-1, plane.index][lesions[::-1, plane.index] > 0])


def test_a_single_slice_of_lesion_is_shown_between_others() -> None:
    case = make_case(Geometry(), ground_glass=False, consolidation=False)
    case.findings.lesions[17, 40:60, 20:40] = LesionKind.GROUND_GLASS
    planes = StandardView(case.volume, case.findings).key_planes()
    assert len(planes) == 3
    assert [plane.index for plane in planes if plane.lesions.any()] == [17]


def test_key_images_show_most_of_lesions_that_lie_far_apart() -> None:
    case = make_case(Geometry(), ground_glass=False, consolidation=False)
    lesions = case.findings.lesions
    widths = {2: 20, 3: 21, 4: 22, 5: 24, 6: 23, 7: 22, 8: 21, 9: 20, 13: 1, 18: 8, 19: 10, 20: 9}
    for index, width in widths.items():
        lesions[index, 40:60, 20 : 20 + width] = LesionKind.GROUND_GLASS
    planes = StandardView(case.volume, case.findings).key_planes()
    # Not slice 13, though it lies in the middle of their height.
    assert sorted(np.count_nonzero(plane.lesions) for plane in planes) == [20 * 10, 20 * 20, 20 * 24]


def test_right_to_left_scripts_are_written_from_right_to_left(upright: Case) -> None:
    case = with_header(upright, SpecificCharacterSet="ISO_IR 192", PatientName="كريم^سارة")
    text = unicodedata.normalize("NFKC", text_of(report_pdf(case.volume, case.findings)))
    if "box or question mark" in text:
        pytest.skip("no font with Arabic letters is installed here")
    assert "كريم" in text
    assert "سارة" in text
