"""DICOM files to a `Volume`, in one pass and with one copy of the pixels."""

import io
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from covid_ct.errors import AnalysisCancelled, Reason, SeriesRefused
from covid_ct.parallel import in_parallel
from covid_ct.series.attributes import (
    DECODING_ERRORS,
    LOSSY,
    attribute,
    bad_header,
    numbers,
    optional,
    positive,
    text,
    whole_number,
)
from covid_ct.series.decoding import Decode
from covid_ct.series.geometry import Arrangement, arrange, check_slice, check_voxels, normal_of, slice_affine
from covid_ct.series.headers import SeriesHeader, SeriesRules, SliceHeader, check_series
from covid_ct.series.pixels import hounsfield_units, is_compressed, stored_values
from covid_ct.series.volume import Volume

THICK_SLICE_MM = 5.0
"""Slice thickness in mm above which small lesions and vessels are hard to tell apart."""

SHARP_KERNELS = re.compile(
    r"^([BDI][6-9]\d|BL[5-9]\d|[BHQU]R(5[5-9]|[6-9]\d)|LUNG|BONE|EDGE|FC[358]\d|Y[CD]|B_V?SHARP|D$|E$|L$)",
    re.IGNORECASE,
)
"""Names of sharp convolution kernels of the large makers, whose noise networks may take for disease."""

SAME_FOR_ALL = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
"""Attributes that all images of a series must share."""

UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
"""Unique identifiers that results refer to."""


def read_series(
    files: Iterable[bytes],
    decode_jpeg: Decode,
    rules: SeriesRules | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    seen: Callable[[Volume], None] = lambda _image: None,
) -> Volume:
    """Read the images of one series.

    Parameters
    ----------
    files: Iterable[bytes]
        DICOM files, in any order, taken one at a time; few of them are held at once.
    decode_jpeg: Decode
        Decodes JPEG and JPEG-LS images; called on several threads.
    rules: SeriesRules
        Which series may be analysed.
    cancelled: Callable
        Asked before each image.
    seen: Callable
        Called with every image that is read, on several threads at once where images are compressed: a volume of one
        slice, whose pixels are there during the call.

    Returns
    -------
    Volume

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
    heights: list[float] = []
    origins: list[tuple[str, str]] = []
    pixels = np.empty((0, 0, 0), np.int16)

    def checked() -> Iterator[tuple[int, Dataset, bytes]]:
        nonlocal pixels
        seen: set[str] = set()
        first: Dataset | None = None
        normal = (0.0, 0.0, 0.0)
        for number, content in enumerate(files):
            if cancelled():
                raise AnalysisCancelled
            header = _parse(content, number)
            first = header if first is None else first
            _check_identity(header, first, seen)
            # What one image can betray is found before its pixels are decoded, and before all of them fill the memory.
            check_series(series_header(header, max(number + 1, rules.min_slices, 2)), rules)
            slices.append(slice_header(header))
            check_slice(text(header, "SeriesInstanceUID"), slices[-1], slices[0])
            check_voxels(text(header, "SeriesInstanceUID"), len(slices), slices[0], rules)
            if not headers:
                normal = normal_of(slices[0])
                shape = (int(slices[0].rows), int(slices[0].columns))
                # Memory that is set aside but never written to costs nothing.
                pixels = np.empty((min(rules.max_slices, rules.max_voxels // (shape[0] * shape[1])), *shape), np.int16)
            heights.append(sum(map(operator.mul, slices[-1].position, normal)))
            origins.append((text(header, "ConvolutionKernel"), text(header, "AcquisitionNumber")))
            headers.append(header)
            yield number, header, content

    def convert(image: tuple[int, Dataset, bytes]) -> int:
        number, header, content = image
        pixels[number] = hounsfield_units(header, stored_values(header, content, decode_jpeg))
        del header["PixelData"]
        seen(Volume(pixels[number : number + 1], slice_affine(slices[number], 1.0), (header,)))
        return number

    lowest = 0
    for number in _converted(convert, checked()):
        # The lowest so far may turn out to be the first of all, of which results use more.
        higher = number
        if heights[number] < heights[lowest]:
            lowest, higher = number, lowest
        if higher != lowest:
            headers[higher] = _thinned(headers[higher])
    if not headers:
        raise SeriesRefused(Reason.TOO_FEW_SLICES, "The series has no images; send it again.")
    check_series(series_header(headers[lowest], len(headers)), rules)
    arrangement = arrange(text(headers[lowest], "SeriesInstanceUID"), slices, rules)
    ordered = tuple(headers[index] for index in arrangement.order)
    pixels.resize((len(headers), *pixels.shape[1:]), refcheck=False)
    _reorder(pixels, arrangement.order.tolist())
    warnings = (
        *_warnings(ordered[0], arrangement),
        *_warnings_of_origins([origins[index] for index in arrangement.order]),
    )
    if any(text(header, "LossyImageCompression") == "01" for header in ordered):
        warnings += ("Images were compressed with loss: fine structures may be missing.",)
    return Volume(pixels, arrangement.affine, ordered, warnings)


def _converted(
    convert: Callable[[tuple[int, Dataset, bytes]], int], images: Iterator[tuple[int, Dataset, bytes]]
) -> Iterator[int]:
    """What a function makes of images, on several threads if the first is compressed.

    Where there is nothing to decompress, threads wait for Python's lock as long as they gain.
    """
    first = list(islice(images, 1))
    compressed = any(is_compressed(header) for _, header, _ in first)
    images = chain(first, images)
    return in_parallel(convert, images) if compressed else map(convert, images)


def series_header(header: Dataset, slices: int) -> SeriesHeader:
    """What `check_series` looks at, from one of the images."""
    image_type = optional(header, "ImageType") or ()
    return SeriesHeader(
        series_uid=text(header, "SeriesInstanceUID") or "without SeriesInstanceUID",
        modality=text(header, "Modality"),
        sop_class_uid=text(header, "SOPClassUID"),
        manufacturer=text(header, "Manufacturer"),
        model_name=text(header, "ManufacturerModelName"),
        image_type=tuple(map(str, image_type if isinstance(image_type, MultiValue | tuple) else (image_type,))),
        slices=slices,
    )


def slice_header(header: Dataset) -> SliceHeader:
    """What `arrange` looks at, from one image.

    Raises
    ------
    SeriesRefused
        If an attribute is missing or no number.
    """
    return SliceHeader(
        position=numbers(header, "ImagePositionPatient"),
        orientation=numbers(header, "ImageOrientationPatient"),
        pixel_spacing=numbers(header, "PixelSpacing"),
        rows=whole_number(header, "Rows"),
        columns=whole_number(header, "Columns"),
    )


def _parse(content: bytes, number: int) -> Dataset:
    try:
        # pydicom keeps the buffer with the header; closed, it no longer keeps the pixels.
        with io.BytesIO(content) as buffer:
            return pydicom.dcmread(buffer)
    except DECODING_ERRORS as error:
        raise SeriesRefused(
            Reason.BAD_HEADER,
            f"Image {number + 1} of the series, as received, is not readable DICOM ({type(error).__name__}); "
            "send the series again from its source.",
        ) from error


def _check_identity(header: Dataset, first: Dataset, seen: set[str]) -> None:
    """Refuse images of other patients or studies under one series, and identifiers that cannot be referred to."""
    for keyword in UIDS:
        value = str(attribute(header, keyword))
        if not UID(value).is_valid:
            raise bad_header(header, f'{keyword} "{value[:64]}" is not a valid identifier')
    for keyword in SAME_FOR_ALL:
        if optional(header, keyword) != optional(first, keyword):
            raise SeriesRefused(
                Reason.MIXED_IDENTITY,
                f"Series {text(first, 'SeriesInstanceUID')} holds images that differ in {keyword}; "
                "correct the identifiers and send it again.",
            )
    uid = text(header, "SOPInstanceUID")
    if uid in seen:
        raise SeriesRefused(
            Reason.MIXED_IDENTITY,
            f"Series {text(first, 'SeriesInstanceUID')} holds the image {uid} more than once; take the copies out.",
        )
    seen.add(uid)


def _thinned(header: Dataset) -> Dataset:
    """What results use of every image; of the first they use more.

    Whole headers would be the most of all objects that Python's garbage collection has to go through, with Python's
    lock held: 66 ms at 1,200 slices.
    """
    thinned = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "ImagePositionPatient", *LOSSY):
        if keyword in header:
            # As it is, since not all can be decoded.
            thinned[keyword] = header.get_item(keyword)
    return thinned


def _reorder(images: NDArray[np.int16], order: list[int]) -> None:
    """Put images in order, in place: each goes where the one before it in its cycle has just left."""
    for start in range(len(order)):
        if order[start] == start:
            continue
        held = images[start].copy()
        place = start
        while order[place] != start:
            images[place] = images[order[place]]
            order[place], place = place, order[place]
        images[place] = held
        order[place] = place


def _warnings(header: Dataset, arrangement: Arrangement) -> tuple[str, ...]:
    """What a reader of the results should know about the series."""
    spacing = float(np.linalg.norm(arrangement.affine[:3, 0]))
    thickness = positive(header, "SliceThickness")
    found = []
    if thickness is not None and thickness > THICK_SLICE_MM:
        found.append(f"Slices are {thickness:g} mm thick: small lesions may be missed and vessels taken for lesions.")
    if thickness is not None and spacing > thickness * 1.1:
        found.append(f"Slices of {thickness:g} mm lie {spacing:.1f} mm apart: what lies between them was not seen.")
    if optional(header, "ContrastBolusAgent"):
        found.append("Contrast medium was given: vessels and atelectasis may be taken for lesions.")
    if text(header, "ImageType").upper() == "DERIVED":
        found.append("The images were derived from others (ImageType DERIVED): noise and edges may be changed.")
    if text(header, "RescaleType") not in ("", "HU"):
        found.append(f"The values are called {text(header, 'RescaleType')}, not HU; they were taken for HU.")
    return tuple(found)


def _warnings_of_origins(origins: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What a reader should know of the slices' ConvolutionKernel and AcquisitionNumber, given in their order."""
    names = sorted({kernel for kernel, _ in origins if kernel})
    sharp = next(filter(SHARP_KERNELS.match, names), None)
    if sharp is not None:
        yield f"The sharp kernel {sharp} makes noise that may be taken for lesions; a soft kernel is better."
    if len(names) > 1:
        yield f"Images of {len(names)} kernels are mixed, such as {names[0]} and {names[1]}: their noise differs."
    # Scans in several parts are usual, one part above the other.
    acquisitions = [acquisition for _, acquisition in origins]
    if sum(map(operator.ne, acquisitions, acquisitions[1:])) >= len(set(acquisitions)) > 1:
        yield "Images of several acquisitions alternate: the patient may have moved or breathed between neighbours."
