"""What every result takes from its source series: patient, study, equipment, dates and frame of reference.

highdicom's `SOPClass` refuses malformed attributes of the source, writes the clock and may log the patient's name.
"""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from pydicom import Dataset, config
from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds, validate_value

from covid_ct import __version__, identity
from covid_ct.results.explicit_vr import element, encoded_elements
from covid_ct.results.uids import ResultUids
from covid_ct.series.attributes import optional
from covid_ct.series.volume import Volume

IMPLEMENTATION_CLASS_UID = UID("2.25.298912814122997368992912399954831882916")
"""Implementation Class UID (0002,0012) of every file that we write."""

UNKNOWN_DATE = "19000101"
"""Content Date of results whose source holds no valid date; the attribute is of type 1 and the clock is no answer."""

_LENGTH_OF_DS = 16
_LENGTH_OF_LO = 64
# Type 2 first: present in a result even where the source lacks them.
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)
_COPIED_WHERE_PRESENT = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "DeidentificationMethod",
    "StudyDescription",
    "TimezoneOffsetFromUTC",
)
# Identifiers stay as they are, valid or not: on them hangs which patient and study a result belongs to.
_KEPT_VERBATIM = {"PatientName", "PatientID", "AccessionNumber", "StudyID", "IssuerOfPatientID", "StudyDescription"}
_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")


def text_of(header: Dataset, keyword: str) -> str:
    """Value of an attribute as DICOM writes it, or nothing where it is missing or cannot be read.

    Parameters
    ----------
    header: Dataset
    keyword: str

    Returns
    -------
    str
        Several values joined by backslashes.
    """
    value = optional(header, keyword)
    if value is None:
        return ""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return str(value).strip()
    return "\\".join(str(part).strip() for part in value)


def is_valid(keyword: str, text: str) -> bool:
    """Whether a text is a valid value of an attribute, or several; of a date or a time, one and no range."""
    vr = dictionary_VR(keyword)
    try:
        for part in text.split("\\"):
            validate_value(vr, part, config.RAISE)
        if vr == "DA":
            # pydicom takes any two digits for a month or a day.
            datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return vr != "TM" or not set("-\\") & set(text)


def in_ascii(text: str) -> str:
    """A text of ours in the characters that mean the same in every character set that a source may have.

    Letters lose their accents; what has no like becomes a question mark.
    """
    parts = unicodedata.normalize("NFKD", text)
    return "".join(part for part in parts if not unicodedata.combining(part)).encode("ascii", "replace").decode()


def as_long_string(text: str) -> str:
    """A text of ours as one value of an LO attribute: `in_ascii`, without backslashes or control characters, and cut.

    DICOM takes a backslash for the end of the value, and allows 64 characters.
    """
    return "".join(part if part.isprintable() and part != "\\" else " " for part in in_ascii(text))[:_LENGTH_OF_LO]


def content_date_time(header: Dataset) -> tuple[str, str]:
    """Date and time that stand for the results' content: those of the images, never those of the analysis.

    Parameters
    ----------
    header: Dataset
        Header of one source image.

    Returns
    -------
    tuple[str, str]
        DICOM DA and TM.
    """
    for of in ("Acquisition", "Content", "Series", "Study"):
        date, time = text_of(header, f"{of}Date"), text_of(header, f"{of}Time")
        if date and is_valid(f"{of}Date", date):
            if not time or not is_valid(f"{of}Time", time):
                return date, "000000"
            # A leap second, which DICOM knows and hardly anybody else.
            return date, f"{time[:4]}59" if time[4:6] == "60" else time
    return UNKNOWN_DATE, "000000"


def new_result(
    header: Dataset,
    uids: ResultUids,
    role: str,
    *,
    sop_class_uid: UID,
    modality: str,
    series_number: int,
    series_description: str,
    transfer_syntax_uid: UID = ExplicitVRLittleEndian,
) -> Dataset:
    """Result with the modules that all have in common: patient, study, series, equipment and SOP common.

    Parameters
    ----------
    header: Dataset
        Header of the first source image; it is not changed.
    uids: ResultUids
    role: str
        Names the series that the result is in, and decides its UIDs.
    sop_class_uid: UID
    modality: str
    series_number: int
    series_description: str
        At most 64 characters.
    transfer_syntax_uid: UID
        One of Explicit VR Little Endian.

    Returns
    -------
    Dataset
        With file meta information, for `covid_ct.results.objects.write_result`. It is in the source's character set,
        right or wrong: other texts than the source's have to be `in_ascii`.
    """
    result = Dataset()
    copy_identity(header, result)
    result.StudyInstanceUID = header.StudyInstanceUID
    result.Modality = modality
    result.SeriesInstanceUID = uids.derive(role, "series")
    result.SeriesNumber = series_number
    result.SeriesDescription = series_description
    result.Manufacturer = identity.MANUFACTURER
    result.ManufacturerModelName = identity.MODEL_NAME
    result.DeviceSerialNumber = identity.DEVICE_SERIAL_NUMBER
    result.SoftwareVersions = __version__
    result.SeriesDate, result.SeriesTime = content_date_time(header)
    result.ContentDate, result.ContentTime = result.SeriesDate, result.SeriesTime
    result.SOPClassUID = sop_class_uid
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = sop_class_uid
    meta.TransferSyntaxUID = transfer_syntax_uid
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = f"COVIDCT_{__version__}"
    result.file_meta = meta
    _number(result, uids, role, 1)
    return result


def instances_of(common: Dataset, uids: ResultUids, role: str, count: int) -> Iterator[Dataset]:
    """So many instances of a result's series, with all its attributes but number and UID.

    Parameters
    ----------
    common: Dataset
        From `new_result`, with the same `uids` and `role`.
    uids: ResultUids
    role: str
    count: int

    Yields
    ------
    Dataset
        With InstanceNumber 1 and on.
    """
    shared = encoded_elements(common)
    for number in range(1, count + 1):
        result = _written_as_it_is(Dataset(dict(shared.items())))
        result.file_meta = FileMetaDataset(dict(common.file_meta.items()))
        # The element is shared, and setting the attribute while it is there would change it in all instances.
        del result.file_meta.MediaStorageSOPInstanceUID
        _number(result, uids, role, number)
        yield result


def _written_as_it_is(result: Dataset) -> Dataset:
    """Have pydicom write what is encoded already without decoding it on the way."""
    named = result.get("SpecificCharacterSet")
    result.set_original_encoding(False, True, convert_encodings(named) if named else default_encoding)
    return result


def _number(result: Dataset, uids: ResultUids, role: str, number: int) -> None:
    """Give an instance its number and its UID."""
    result.InstanceNumber = number
    result.SOPInstanceUID = uids.derive(role, "instance", str(number))
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID


def copy_identity(header: Dataset, result: Dataset) -> None:
    """Copy patient and study attributes; malformed dates and codes become empty, identifiers stay as they are.

    They stay so byte by byte, and with the character set that the source names, or none: servers file objects by what
    they make of these bytes, each in its way where they break the standard.
    """
    if charset := text_of(header, "SpecificCharacterSet"):
        _set_quietly(result, "SpecificCharacterSet", charset)
    _written_as_it_is(result)
    for keyword in (*_TYPE_2, *_COPIED_WHERE_PRESENT):
        if keyword in header and keyword in _KEPT_VERBATIM:
            _copy_encoded(header, result, keyword)
        elif not copy_if_valid(header, result, keyword) and keyword in _TYPE_2:
            _set_quietly(result, keyword, "")
    _copy_deidentification(header, result)


def _copy_deidentification(header: Dataset, result: Dataset) -> None:
    """Copy the codes of how the identity was removed, and whether it was: without a method DICOM allows no "YES"."""
    codes = []
    for item in optional(header, "DeidentificationMethodCodeSequence") or ():
        values = {keyword: text_of(item, keyword) for keyword in _CODE}
        if all(value and is_valid(keyword, value) for keyword, value in values.items()):
            code = Dataset()
            for keyword, value in values.items():
                setattr(code, keyword, value)
            codes.append(code)
    if codes:
        result.DeidentificationMethodCodeSequence = codes
    removed = text_of(header, "PatientIdentityRemoved")
    if removed == "NO" or (removed == "YES" and (codes or "DeidentificationMethod" in result)):
        result.PatientIdentityRemoved = removed


def copy_if_valid(header: Dataset, result: Dataset, keyword: str) -> bool:
    """Copy an attribute of the source that is a text where it is not empty and as DICOM allows it, and say whether."""
    text = text_of(header, keyword)
    valid = bool(text) and is_valid(keyword, text)
    if valid:
        _copy_encoded(header, result, keyword)
    return valid


def _copy_encoded(header: Dataset, result: Dataset, keyword: str) -> None:
    """Copy an attribute of the source that is a text, byte by byte."""
    tag = Tag(keyword)
    source = header.get_item(tag)
    if not isinstance(source, RawDataElement):
        # Somebody asked for it, upon which pydicom decoded it and kept that.
        decoded = Dataset({of: header[of] for of in (Tag("SpecificCharacterSet"), tag) if of in header})
        source = encoded_elements(decoded).get_item(tag)
    value = source.value or b""
    value += b" " * (len(value) % 2)
    vr = source.VR or dictionary_VR(tag)
    result[tag] = RawDataElement(tag, vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True)


def _set_quietly(result: Dataset, keyword: str, value: Any) -> None:
    """Set an attribute without pydicom's warning, which would put an invalid value into the log."""
    result[keyword] = DataElement(keyword, dictionary_VR(keyword), value, validation_mode=config.IGNORE)


def copy_frame_of_reference(header: Dataset, result: Dataset, uids: ResultUids) -> None:
    """Give a result the source's frame of reference.

    Its UID is derived where the source, against the standard, has none: viewers overlay nothing without.
    """
    result.FrameOfReferenceUID = text_of(header, "FrameOfReferenceUID") or uids.derive("frame of reference")
    if not copy_if_valid(header, result, "PositionReferenceIndicator"):
        result.PositionReferenceIndicator = ""


def decimal_strings(header: Dataset, keyword: str) -> list[str]:
    """Values of a DS attribute as the source writes them, shortened to the 16 characters that DICOM allows."""
    return [
        text if len(text) <= _LENGTH_OF_DS else format_number_as_ds(float(text))
        for text in text_of(header, keyword).split("\\")
    ]


def positive_number(header: Dataset, keyword: str) -> str:
    """Value of a DS attribute where it is one positive number that DICOM allows, else nothing."""
    text = text_of(header, keyword)
    try:
        return text if is_valid(keyword, text) and 0 < float(text) < math.inf else ""
    except ValueError:
        return ""


def source_slice(volume: Volume, standard_index: int) -> int:
    """Index of the source slice that a slice of the standard axial view is."""
    own = np.broadcast_to(np.arange(volume.hu.shape[0])[:, None, None], volume.hu.shape)
    return int(volume.to_lps(own)[standard_index, 0, 0])


def slice_corner(volume: Volume, standard_index: int) -> tuple[float, float, float]:
    """Patient coordinates, in mm, of the first voxel of a slice of the standard axial view.

    They are those of its source image, which may lie a few mm from where evenly spaced slices would.
    """
    index = source_slice(volume, standard_index)
    position = np.array([float(text) for text in decimal_strings(volume.headers[index], "ImagePositionPatient")])
    turned = volume.lps_affine[:3] @ [standard_index, 0, 0, 1] - volume.affine[:3] @ [index, 0, 0, 1]
    x, y, z = map(float, position + turned)
    return x, y, z


def reference(header: Dataset) -> bytes:
    """Encoded content of an item that references one image."""
    return element("ReferencedSOPClassUID", str(header.SOPClassUID).encode()) + element(
        "ReferencedSOPInstanceUID", str(header.SOPInstanceUID).encode()
    )
