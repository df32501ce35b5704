"""Compressed pixels of one image to stored values."""

import io
import struct
from collections.abc import Callable
from typing import Any

import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import (
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from covid_ct.series.attributes import DECODING_ERRORS, whole_number

Decode = Callable[[bytes], NDArray[Any]]
"""Stored values, shape (rows, columns), of a DICOM file; raises ValueError if it cannot."""

JPEG = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
"""Transfer syntaxes that Orthanc itself decodes, JPEG Lossless in less than half of the time that pydicom takes."""

START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers that say how large a JPEG or JPEG-LS image is."""

END_OF_IMAGE = b"\xff\xd9"


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
    """
    if header.file_meta.get("TransferSyntaxUID") not in JPEG:
        return decode(content)
    _check_jpeg(header)
    return decode_jpeg(content)


def decode(content: bytes) -> NDArray[Any]:
    """Stored values of a compressed image by pydicom's decoders.

    Raises
    ------
    ValueError
        If none can decode it.
    """
    try:
        return pydicom.dcmread(io.BytesIO(content)).pixel_array
    except Exception as error:
        # pydicom passes on whatever its plugins raise.
        raise ValueError(str(error).partition("\n")[0]) from error


def _check_jpeg(header: Dataset) -> None:
    """Raise ValueError for what is filled up in silence: by Orthanc a smaller image, by pydicom one cut short."""
    try:
        frame = get_frame(header.PixelData, 0, number_of_frames=1)
        rows, columns, place = _jpeg_size(frame)
    except DECODING_ERRORS as error:
        raise ValueError("no JPEG image") from error
    expected = whole_number(header, "Rows"), whole_number(header, "Columns")
    if (rows, columns) != expected:
        raise ValueError(f"a JPEG image of {rows} x {columns}, not of {expected[0]} x {expected[1]}")
    if frame.find(END_OF_IMAGE, place) < 0:
        raise ValueError("a JPEG image that is cut short")


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
