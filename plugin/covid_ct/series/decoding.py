"""Compressed pixels of one image to stored values."""

import io
import struct
from collections.abc import Callable
from typing import Any

import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from covid_ct.errors import Reason, SeriesRefused
from covid_ct.series.attributes import DECODING_ERRORS, name_image, text, whole_number

Decode = Callable[[bytes], NDArray[Any]]
"""Stored values, shape (rows, columns), of a DICOM file; raises ValueError if it cannot."""

JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
"""Transfer syntaxes that Orthanc itself decodes, JPEG Lossless in less than half of the time that pydicom takes."""

START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers that say how large a JPEG or JPEG-LS image is."""

END_OF_IMAGE = b"\xff\xd9"

SIZE_2000 = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 image begins, within a file of it or alone; its size is told eight bytes on."""


def decompress(header: Dataset, content: bytes, decode_jpeg: Decode) -> NDArray[Any]:
    """Stored values of a compressed image, if it is whole.

    Parameters
    ----------
    header: Dataset
        The image, with its pixel data.
    content: bytes
        The DICOM file that it was read from.
    decode_jpeg: Decode
        Decodes JPEG and JPEG-LS; `decode` has all else, since Orthanc's decoder knows JPEG 2000 on some machines only,
        and fills up RLE that is cut short.

    Returns
    -------
    NDArray
        Shape (rows, columns).

    Raises
    ------
    ValueError
        If it cannot be decoded.
    SeriesRefused
        If nothing here decodes its transfer syntax.
    """
    syntax = UID(text(header.file_meta, "TransferSyntaxUID"))
    if syntax in JPEG:
        _check_jpeg(header)
        return decode_jpeg(content)
    if syntax in JPEG2000TransferSyntaxes:
        _check_jpeg_2000(header)
    try:
        get_decoder(syntax)
    except NotImplementedError as error:
        raise SeriesRefused(
            Reason.BAD_PIXELS,
            f"{name_image(header)}: its transfer syntax, {syntax.name or 'which is missing'}, is not read; send the "
            "series uncompressed.",
        ) from error
    return decode(content)


def decode(content: bytes) -> NDArray[Any]:
    """Stored values of a compressed image by pydicom's decoders, with those that do not fit into BitsStored as written.

    Raises
    ------
    ValueError
        If none can decode it.
    """
    try:
        image = pydicom.dcmread(io.BytesIO(content))
        image.pixel_array_options(correct_unused_bits=False)
        return image.pixel_array
    except Exception as error:
        # pydicom passes on whatever its plugins raise, each in a line of its own.
        raise ValueError(" ".join(str(error).split())) from error


def _check_jpeg(header: Dataset) -> None:
    """Raise ValueError for what is filled up in silence: by Orthanc a smaller image, by pydicom one cut short."""
    try:
        frame = get_frame(header.PixelData, 0, number_of_frames=1)
        rows, columns, place = _jpeg_size(frame)
    except DECODING_ERRORS as error:
        raise ValueError("no JPEG image") from error
    _check_size(header, rows, columns)
    if frame.find(END_OF_IMAGE, place) < 0:
        raise ValueError("a JPEG image that is cut short")


def _check_jpeg_2000(header: Dataset) -> None:
    """Raise ValueError for an image of another shape: as many pixels in other rows pydicom takes for those wanted."""
    try:
        frame = get_frame(header.PixelData, 0, number_of_frames=1)
        right, bottom, left, top = struct.unpack_from(">4I", frame, frame.index(SIZE_2000) + 8)
    except DECODING_ERRORS as error:
        raise ValueError("no JPEG 2000 image") from error
    _check_size(header, bottom - top, right - left)


def _check_size(header: Dataset, rows: int, columns: int) -> None:
    expected = whole_number(header, "Rows"), whole_number(header, "Columns")
    if (rows, columns) != expected:
        raise ValueError(f"a JPEG image of {rows} x {columns}, not of {expected[0]} x {expected[1]}")


def _jpeg_size(frame: bytes) -> tuple[int, int, int]:
    """Rows and columns of a JPEG image by its own header, and where in it that stands."""
    place = 2
    while frame[place] == 0xFF:
        if frame[place + 1] in START_OF_FRAME:
            rows, columns = struct.unpack_from(">HH", frame, place + 5)
            return rows, columns, place
        # Before a marker there may be more of its first byte.
        place += 1 if frame[place + 1] == 0xFF else 2 + struct.unpack_from(">H", frame, place + 2)[0]
    raise ValueError
