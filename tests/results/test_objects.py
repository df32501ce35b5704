import hashlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import DataElement, Dataset, config, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import SecondaryCaptureImageStorage

from covid_ct import __version__, identity
from covid_ct.results.objects import build_results, write_result
from covid_ct.results.source import UNKNOWN_DATE, content_date_time, in_ascii, new_result
from covid_ct.results.uids import ResultUids

from .conftest import Case, Geometry, dciodvfy, make_case


def digests(case: Case, folder: Path) -> dict[str, str]:
    folder.mkdir()
    for result in build_results(case.volume, case.findings):
        write_result(result.dataset, folder / result.name)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def without(case: Case, *keywords: str) -> Case:
    headers = deepcopy(case.volume.headers)
    for header in headers:
        for keyword in keywords:
            header.pop(keyword, None)
    return Case(replace(case.volume, headers=headers), case.findings)


def test_a_second_analysis_gives_the_same_bytes(tmp_path: Path) -> None:
    assert digests(make_case(Geometry()), tmp_path / "a") == digests(make_case(Geometry()), tmp_path / "b")


def test_dciodvfy_finds_no_error(case: Case, tmp_path: Path) -> None:
    paths = case.written(tmp_path)
    assert len(paths) == 5
    for path in paths.values():
        assert "Error" not in dciodvfy(path)


def test_the_clock_is_not_in_it(upright: Case) -> None:
    for dataset in upright.results.values():
        assert (dataset.ContentDate, dataset.ContentTime) == ("20200401", "101512.25")
        assert "InstanceCreationDate" not in dataset


def test_all_are_of_the_sources_study_and_made_by_us(upright: Case) -> None:
    header = upright.volume.headers[0]
    for dataset in upright.results.values():
        for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "StudyDate", "StudyTime"):
            assert dataset[keyword].value == header[keyword].value
        assert identity.is_own_result(dataset.Manufacturer, dataset.ManufacturerModelName)
        assert dataset.SoftwareVersions == __version__
        assert dataset.SeriesNumber > 9000
        assert "research use only" in dataset.SeriesDescription
        assert len(dataset.SeriesDescription) <= 64
    assert len({dataset.SOPInstanceUID for dataset in upright.results.values()}) == len(upright.results)


def test_no_folder_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orthanc's may all be read-only but the one for its storage."""

    def none() -> str:
        raise FileNotFoundError("No usable temporary directory")

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert len(make_case(Geometry()).results) > 4


def test_what_tells_patients_apart_and_dates_the_study_goes_along(upright: Case) -> None:
    """Two hospitals may have given the same PatientID."""
    told = {
        "IssuerOfPatientID": "HOSPITAL", "PatientAge": "039Y", "PatientSize": "1.8", "PatientWeight": "80",
        "StudyDescription": "Thorax", "TimezoneOffsetFromUTC": "+0100", "AccessionNumber": "A1", "StudyID": "S1",
        "ReferringPhysicianName": "Roe^R", "PatientBirthDate": "19800101", "PatientSex": "F",
    }  # fmt: skip
    case = without(upright)
    for header in case.volume.headers:
        for keyword, value in told.items():
            setattr(header, keyword, value)
    for dataset in case.results.values():
        assert {keyword: str(dataset[keyword].value) for keyword in told} == told


def test_settings_change_every_uid(upright: Case) -> None:
    for other in build_results(upright.volume, upright.findings, {"Precision": "fp16"}):
        assert other.dataset.SOPInstanceUID != upright.results[other.name].SOPInstanceUID
        assert other.dataset.SeriesInstanceUID != upright.results[other.name].SeriesInstanceUID


@pytest.mark.parametrize(
    "missing",
    [
        (
            "PatientName",
            "PatientID",
            "StudyDate",
            "StudyTime",
            "SeriesDescription",
            "ConvolutionKernel",
            "Manufacturer",
        ),
        ("SliceThickness", "FrameOfReferenceUID", "AcquisitionDate", "AcquisitionTime"),
    ],
)
def test_attributes_that_sources_lack_stop_nothing(upright: Case, missing: tuple[str, ...], tmp_path: Path) -> None:
    case = without(upright, *missing)
    before = deepcopy(case.volume.headers)
    for path in case.written(tmp_path).values():
        assert "Error" not in dciodvfy(path)
        assert "PatientBirthDate" in dcmread(path)
        assert dcmread(path).get("FrameOfReferenceUID", "2.25") != ""
    assert case.volume.headers == before


def test_no_date_at_all_is_a_fixed_one(upright: Case) -> None:
    case = without(upright, "StudyDate", "StudyTime", "AcquisitionDate", "AcquisitionTime")
    assert content_date_time(case.volume.headers[0]) == (UNKNOWN_DATE, "000000")


def malformed(header: Dataset) -> None:
    from pydicom import config
    from pydicom.dataelem import DataElement

    for tag, vr, value in (
        (0x00100020, "LO", "ID" * 50),
        (0x00100030, "DA", "yesterday"),
        (0x00100040, "CS", "männlich"),
        (0x00080020, "DA", "2020-04-01"),
        (0x00080022, "DA", "20209999999"),
        (0x00080030, "TM", "noon"),
        (0x00101010, "AS", "forty"),
    ):
        header[tag] = DataElement(tag, vr, value, validation_mode=config.IGNORE)


@pytest.mark.filterwarnings("error")
def test_malformed_values_stop_nothing_and_are_not_logged(upright: Case, tmp_path: Path) -> None:
    case = without(upright)
    for header in case.volume.headers:
        malformed(header)
    for name, path in case.written(tmp_path).items():
        assert path.stat().st_size > 0
        # What is encoded already is parsed, and warned of, as soon as somebody asks for it.
        with config.disable_value_validation():
            assert case.results[name].PatientID == "ID" * 50
        assert case.results[name].PatientBirthDate == ""
        assert "PatientAge" not in case.results[name]


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("20200101", "235960", ("20200101", "235959")),
        ("20200101", "-1200", ("20200101", "000000")),
        ("20210230", "101112", ("20200401", "101512.25")),
        ("20210200", "101112", ("20200401", "101512.25")),
        ("00000101", "101112", ("20200401", "101512.25")),
        ("20200101-20200202", "101112", ("20200401", "101512.25")),
    ],
)
def test_dates_that_are_none_stop_nothing(
    upright: Case, date: str, time: str, expected: tuple[str, str], tmp_path: Path
) -> None:
    case = without(upright)
    for header in case.volume.headers:
        header.ContentDate, header.ContentTime = header.AcquisitionDate, header.AcquisitionTime
        for keyword, vr, value in (("AcquisitionDate", "DA", date), ("AcquisitionTime", "TM", time)):
            header[keyword] = DataElement(keyword, vr, value, validation_mode=config.IGNORE)
    assert content_date_time(case.volume.headers[0]) == expected
    for path in case.written(tmp_path).values():
        assert "Error" not in dciodvfy(path)


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("ImageOrientationPatient", "DS", ["0.999", "0.003", "0", "-0.001", "1.001", "0"]),
        ("LossyImageCompressionMethod", "CS", "jpeg lossy"),
    ],
)
def test_what_dicom_does_not_allow_is_not_copied(
    upright: Case, keyword: str, vr: str, value: str | list[str], tmp_path: Path
) -> None:
    headers = deepcopy(upright.volume.headers)
    for header in headers:
        header.LossyImageCompression, header.LossyImageCompressionRatio = "01", "10"
        header[keyword] = DataElement(keyword, vr, value, validation_mode=config.IGNORE)
    for path in Case(replace(upright.volume, headers=headers), upright.findings).written(tmp_path).values():
        assert "Error" not in dciodvfy(path)


def test_a_position_reference_that_is_too_long_is_not_copied(upright: Case, tmp_path: Path) -> None:
    case = without(upright)
    for header in case.volume.headers:
        header["PositionReferenceIndicator"] = DataElement(
            "PositionReferenceIndicator", "LO", "Q" * 80, validation_mode=config.IGNORE
        )
    assert not [path for path in case.written(tmp_path).values() if b"Q" * 8 in path.read_bytes()]


def deidentified_by_code(header: Dataset) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", "Basic Application Profile"
    header.DeidentificationMethodCodeSequence = [code]


def deidentified_by_several(header: Dataset) -> None:
    header.DeidentificationMethod = ["x" * 60, "y" * 60]


def deidentified_somehow(header: Dataset) -> None:
    header.DeidentificationMethodCodeSequence = [Dataset()]


@pytest.mark.parametrize("how", [deidentified_by_code, deidentified_by_several, deidentified_somehow])
def test_how_the_source_was_deidentified_goes_with_it(
    upright: Case, how: Callable[[Dataset], None], tmp_path: Path
) -> None:
    case = without(upright)
    for header in case.volume.headers:
        header.PatientIdentityRemoved = "YES"
        how(header)
    source = case.volume.headers[0]
    for path in case.written(tmp_path).values():
        assert "Error" not in dciodvfy(path)
        result = dcmread(path)
        assert ("PatientIdentityRemoved" in result) == (how is not deidentified_somehow)
        if how is deidentified_by_code:
            assert result.DeidentificationMethodCodeSequence == source.DeidentificationMethodCodeSequence
        assert result.get("DeidentificationMethod") == source.get("DeidentificationMethod")


@pytest.mark.parametrize("name", ["Müller^Jürgen", "Παπαδόπουλος^Γιώργος", "Иванов^Иван", "山田^太郎", "محمد^علي"])
def test_names_in_any_script_come_back(upright: Case, name: str, tmp_path: Path) -> None:
    header = deepcopy(upright.volume.headers[0])
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName = name
    result = new_result(
        header,
        ResultUids("key"),
        "test",
        sop_class_uid=SecondaryCaptureImageStorage,
        modality="OT",
        series_number=1,
        series_description="test",
    )
    write_result(result, tmp_path / "one.dcm")
    assert str(dcmread(tmp_path / "one.dcm").PatientName) == name


@pytest.mark.parametrize("vr", ["PN", None])
@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (None, b"\xc8\xe2\xe0\xed^\xcf "),
        ("ISO_IR 192", b" M\xfcller \\ ^ J"),
        ("WINDOWS-1252", b"M\xfcller^J "),
        (["", "ISO 2022 IR 87"], b"Yamada=\x1b$B;3ED\x1b(B"),
    ],
)
def test_identity_is_copied_byte_by_byte(
    upright: Case, character_set: str | list[str] | None, name: bytes, vr: str | None, tmp_path: Path
) -> None:
    """Of explicit and implicit VR, whatever character set it is said to be in."""
    case = without(upright)
    tag = Tag("PatientName")
    for header in case.volume.headers:
        if character_set is not None:
            header["SpecificCharacterSet"] = DataElement(
                "SpecificCharacterSet", "CS", character_set, validation_mode=config.IGNORE
            )
        header[tag] = RawDataElement(tag, vr, len(name), name, 0, vr is None, True)
    for path in case.written(tmp_path).values():
        result = dcmread(path)
        assert result.get("SpecificCharacterSet") == character_set
        assert result.get_item(tag).value == name + b" " * (len(name) % 2)
        assert result.get_item(tag).VR == "PN"


def test_texts_of_ours_are_the_same_in_every_character_set() -> None:
    assert in_ascii("Réseau de Zoë, Ω 5 mm²") == "Reseau de Zoe, ? 5 mm2"
