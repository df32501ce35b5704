"""DICOM files to a `Volume`, in one pass and with one copy of the pixels."""

import io
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from covid_ct.errors import AnalysisCancelled, Reason, SeriesRefused
from covid_ct.series.headers import Arrangement, SeriesHeader, SeriesRules, SliceHeader, arrange, check_series
from covid_ct.series.volume import AIR_HU, Volume

Decode = Callable[[bytes], NDArray[Any]]
"""Stored values, shape (rows, columns), of a DICOM file in a compressed syntax; raises ValueError if it cannot."""

THICK_SLICE_MM = 5.0
"""Slice thickness in mm above which small lesions and vessels are hard to tell apart."""

SHARP_KERNELS = re.compile(r"^(B[6-9]\d|BL[5-9]\d|BR[6-9]\d|LUNG|BONE|EDGE|FC(5|8)\d|YC|D$|E$|L$)", re.IGNORECASE)
"""Names of sharp convolution kernels of the large makers, whose noise networks may take for disease."""

SAME_FOR_ALL = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""Attributes that all images of a series must share."""

UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
"""Unique identifiers that results refer to."""


def read_series(
    files: Iterable[bytes],
    decode: Decode,
    rules: SeriesRules | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Volume:
    """Read the images of one series.

    Parameters
    ----------
    files: Iterable[bytes]
        DICOM files, in any order, read one at a time.
    decode: Callable
        Decodes compressed images.
    rules: SeriesRules
        Which series may be analysed.
    cancelled: Callable
        Asked before each image.

    Raises
    ------
    SeriesRefused
        If the series may not be analysed or an image cannot be read.
    AnalysisCancelled
        If `cancelled` said so.
    """
    rules = rules or SeriesRules()
    headers: list[Dataset] = []
    slices: list[SliceHeader] = []
    images: list[NDArray[np.int16] | None] = []
    for content in files:
        if cancelled():
            raise AnalysisCancelled
        header = _parse(content)
        _check_identity(header, headers[0] if headers else header)
        if not headers:
            check_series(series_header(header, rules.min_slices), rules)
        if len(headers) == rules.max_slices:
            check_series(series_header(header, len(headers) + 1), rules)
        slices.append(slice_header(header))
        images.append(_hounsfield_units(header, _stored_values(header, content, decode)))
        del header.PixelData
        headers.append(header)
    if not headers:
        raise SeriesRefused(Reason.TOO_FEW_SLICES, "The series has no images.")
    check_series(series_header(headers[0], len(headers)), rules)
    arrangement = arrange(str(headers[0].SeriesInstanceUID), slices, rules)
    ordered = tuple(headers[index] for index in arrangement.order)
    return Volume(_stack(images, arrangement), arrangement.affine, ordered, _warnings(ordered[0], arrangement))


def series_header(header: Dataset, slices: int) -> SeriesHeader:
    """What `check_series` looks at, from one of the images."""
    image_type = header.get("ImageType") or ()
    return SeriesHeader(
        series_uid=str(header.get("SeriesInstanceUID", "without SeriesInstanceUID")),
        modality=str(header.get("Modality", "")),
        sop_class_uid=str(header.get("SOPClassUID", "")),
        manufacturer=str(header.get("Manufacturer", "")),
        model_name=str(header.get("ManufacturerModelName", "")),
        image_type=(image_type,) if isinstance(image_type, str) else tuple(map(str, image_type)),
        slices=slices,
    )


def slice_header(header: Dataset) -> SliceHeader:
    """What `arrange` looks at, from one image.

    Raises
    ------
    SeriesRefused
        If an attribute is missing or no number.
    """
    numbers: dict[str, tuple[float, ...]] = {}
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        value = _attribute(header, keyword)
        try:
            numbers[keyword] = tuple(map(float, value)) if keyword not in ("Rows", "Columns") else (float(value),)
        except (TypeError, ValueError) as error:
            raise _bad_header(header, f"{keyword} is not what it must be") from error
    return SliceHeader(
        position=numbers["ImagePositionPatient"],
        orientation=numbers["ImageOrientationPatient"],
        pixel_spacing=numbers["PixelSpacing"],
        rows=numbers["Rows"][0],
        columns=numbers["Columns"][0],
    )


def _parse(content: bytes) -> Dataset:
    try:
        header = pydicom.dcmread(io.BytesIO(content))
        # Reading is lazy: what is looked at later must be readable now.
        header.get("SeriesInstanceUID")
    except (InvalidDicomError, EOFError, ValueError, NotImplementedError, OSError) as error:
        raise SeriesRefused(Reason.BAD_HEADER, f"An image of the series is not readable DICOM: {error}") from error
    return header


def _check_identity(header: Dataset, first: Dataset) -> None:
    """Refuse images of other patients or studies under one series, and identifiers that cannot be referred to."""
    for keyword in UIDS:
        uid = UID(str(_attribute(header, keyword)))
        if not uid.is_valid:
            raise _bad_header(header, f'{keyword} "{uid}" is not a valid identifier')
    for keyword in SAME_FOR_ALL:
        if header.get(keyword) != first.get(keyword):
            raise SeriesRefused(
                Reason.MIXED_IDENTITY,
                f"Series {first.SeriesInstanceUID} holds images that differ in {keyword}; "
                "correct the identifiers and send it again.",
            )


def _attribute(header: Dataset, keyword: str) -> Any:
    try:
        value = header.get(keyword)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _bad_header(header, f"{keyword} cannot be read") from error
    if value is None or value == "":
        raise _bad_header(header, f"{keyword} is missing")
    return value


def _bad_header(header: Dataset, what: str) -> SeriesRefused:
    return SeriesRefused(Reason.BAD_HEADER, f"{_image(header)}: {what}.")


def _bad_pixels(header: Dataset, what: str) -> SeriesRefused:
    return SeriesRefused(Reason.BAD_PIXELS, f"{_image(header)}: {what}; send it again.")


def _image(header: Dataset) -> str:
    return f"Image {header.get('SOPInstanceUID', '?')} of series {header.get('SeriesInstanceUID', '?')}"


def _stored_values(header: Dataset, content: bytes, decode: Decode) -> NDArray[Any]:
    """Pixels as stored, shape (rows, columns)."""
    shape = (int(header.Rows), int(header.Columns))
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise SeriesRefused(Reason.MULTI_FRAME, f"{_image(header)} has several frames, which are not read.")
    if "PixelData" not in header:
        raise _bad_pixels(header, "it has no pixels")
    samples, photometric = header.get("SamplesPerPixel", 1), header.get("PhotometricInterpretation", "MONOCHROME2")
    if samples != 1 or photometric != "MONOCHROME2":
        raise _bad_pixels(header, f"its pixels are {photometric} with {samples} samples, not MONOCHROME2 with one")
    allocated, stored = header.get("BitsAllocated"), header.get("BitsStored")
    if allocated != 16 or not isinstance(stored, int) or not 8 <= stored <= 16:
        raise _bad_pixels(header, f"its pixels have {stored} of {allocated} bits, not 8 to 16 of 16")
    syntax = header.file_meta.get("TransferSyntaxUID", "")
    if UID(syntax).is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        try:
            values = decode(content)
        except ValueError as error:
            raise _bad_pixels(header, f"its pixels cannot be decoded ({error})") from error
        if values.shape != shape:
            raise _bad_pixels(header, f"its pixels decode to {values.shape}, not to {shape}")
        return values
    pixels = header.PixelData
    if len(pixels) < 2 * shape[0] * shape[1]:
        raise _bad_pixels(header, f"it holds {len(pixels)} bytes of pixels where {2 * shape[0] * shape[1]} are needed")
    kind = np.dtype(">u2" if UID(syntax).is_little_endian is False else "<u2")
    raw = np.frombuffer(pixels, kind, shape[0] * shape[1]).reshape(shape)
    # Bits above BitsStored are no part of the value; shifting there and back fills them with the sign, or with zero.
    unused = 16 - stored
    signed = header.get("PixelRepresentation", 0) == 1
    native = raw.astype(np.uint16, copy=False).view(np.int16 if signed else np.uint16)
    return (native << unused) >> unused if unused else native


def _hounsfield_units(header: Dataset, stored: NDArray[Any]) -> NDArray[np.int16]:
    """Rescaled pixels (PS3.3 C.11.1.1.2), padding and all below air as air; shape (rows, columns)."""
    try:
        slope, intercept = float(_attribute(header, "RescaleSlope")), float(_attribute(header, "RescaleIntercept"))
    except (TypeError, ValueError) as error:
        raise _bad_header(header, "RescaleSlope or RescaleIntercept is no number") from error
    if not np.isfinite([slope, intercept]).all() or slope <= 0 or abs(intercept) > np.iinfo(np.int16).max:
        raise _bad_header(header, f"RescaleSlope {slope} with RescaleIntercept {intercept} gives no Hounsfield units")
    if slope == 1 and intercept.is_integer():
        values = stored.astype(np.int32) + int(intercept)
    else:
        values = np.rint(np.clip(stored * slope + intercept, -32768, 32767)).astype(np.int32)
    units = np.clip(values, AIR_HU, np.iinfo(np.int16).max).astype(np.int16)
    padding = header.get("PixelPaddingValue")
    if isinstance(padding, int):
        limit = header.get("PixelPaddingRangeLimit", padding)
        low, high = sorted((padding, limit if isinstance(limit, int) else padding))
        units[(stored >= low) & (stored <= high)] = AIR_HU
    return units


def _stack(images: list[NDArray[np.int16] | None], arrangement: Arrangement) -> NDArray[np.int16]:
    """Images in order as one array; each is let go once it is copied, so that memory holds about one copy."""
    first = images[0]
    assert first is not None  # noqa: S101 - images are let go below only
    volume = np.empty((len(images), *first.shape), np.int16)
    for place, index in enumerate(arrangement.order):
        volume[place] = images[index]
        images[index] = None
    return volume


def _warnings(header: Dataset, arrangement: Arrangement) -> tuple[str, ...]:
    """What a reader of the results should know about the series."""
    spacing = float(np.linalg.norm(arrangement.affine[:3, 0]))
    thickness = float(header.get("SliceThickness") or spacing)
    kernel = header.get("ConvolutionKernel") or ""
    kernel = kernel if isinstance(kernel, str) else str(kernel[0])
    found = []
    if thickness > THICK_SLICE_MM:
        found.append(f"Slices are {thickness:g} mm thick: small lesions may be missed and vessels taken for lesions.")
    if spacing > thickness * 1.1:
        found.append(f"Slices of {thickness:g} mm lie {spacing:.1f} mm apart: what lies between them was not seen.")
    if header.get("ContrastBolusAgent"):
        found.append("Contrast medium was given: vessels and atelectasis may be taken for lesions.")
    if SHARP_KERNELS.match(kernel.strip()):
        found.append(f"The sharp kernel {kernel} makes noise that may be taken for lesions; a soft kernel is better.")
    return tuple(found)
