"""Pixel data of one image to Hounsfield units."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from covid_ct.errors import Reason, SeriesRefused
from covid_ct.series.attributes import bad_header, bad_pixels, name_image, number, optional, text, whole_number
from covid_ct.series.decoding import Decode, decompress
from covid_ct.series.volume import AIR_HU

MAX_HU = 32767
"""Largest value in HU that is read. Metal reaches some 30,000 on extended scales; more means broken pixels."""

NATIVE_TYPES: dict[str, np.dtype[np.uint16]] = {
    ImplicitVRLittleEndian: np.dtype("<u2"),
    ExplicitVRLittleEndian: np.dtype("<u2"),
    DeflatedExplicitVRLittleEndian: np.dtype("<u2"),
    ExplicitVRBigEndian: np.dtype(">u2"),
}
"""How the transfer syntaxes without compression store a pixel."""

OVERLAYS = [(Tag(group, 0x0102), Tag(group, 0x3000)) for group in range(0x6000, 0x6020, 2)]
"""OverlayBitPosition and OverlayData of each overlay; one without data lies in the upper bits of pixels (retired)."""


def is_compressed(header: Dataset) -> bool:
    """Whether the pixels of an image have to be decompressed."""
    return str(header.file_meta.get("TransferSyntaxUID")) not in NATIVE_TYPES


def stored_values(header: Dataset, content: bytes, decode_jpeg: Decode) -> NDArray[Any]:
    """Pixels of one image as stored.

    Parameters
    ----------
    header: Dataset
        The image, with its pixel data.
    content: bytes
        The DICOM file that it was read from.
    decode_jpeg: Decode
        Decodes JPEG and JPEG-LS.

    Returns
    -------
    NDArray
        Shape (rows, columns), 16-bit integers; always the caller's own. Values that do not fit into BitsStored, such as
        a padding of -2000 in twelve bits, are there as written.

    Raises
    ------
    SeriesRefused
        If they are not the pixels of a CT image.
    """
    shape = (whole_number(header, "Rows"), whole_number(header, "Columns"))
    stored, signed = _check_format(header)
    # A damaged file may name two.
    native = NATIVE_TYPES.get(str(header.file_meta.get("TransferSyntaxUID")))
    if native is not None:
        pixels = header.get_item("PixelData", keep_deferred=True).value
        needed = 2 * shape[0] * shape[1]
        if not isinstance(pixels, bytes) or len(pixels) < needed:
            length = len(pixels) if isinstance(pixels, bytes) else 0
            raise bad_pixels(header, f"it holds {length} bytes of pixels where {needed} are needed")
        values = np.frombuffer(pixels, native, shape[0] * shape[1]).reshape(shape).astype(np.uint16)
    else:
        try:
            decoded = decompress(header, content, decode_jpeg)
        except ValueError as error:
            raise bad_pixels(header, f"its pixels cannot be decoded ({error})") from error
        if decoded.shape != shape or decoded.dtype.kind not in "iu" or decoded.dtype.itemsize > 2:
            raise bad_pixels(header, f"its pixels decode to {decoded.dtype} {decoded.shape}, not to {shape} of 16 bits")
        # Decoders differ in what they make of the sign; the bits are the same.
        values = decoded.astype(np.int16 if decoded.dtype.kind == "i" else np.uint16).view(np.uint16)
    return _own_bits(header, values, stored, signed)


def hounsfield_units(header: Dataset, stored: NDArray[Any]) -> NDArray[np.int16]:
    """Rescaled pixels (PS3.3 C.11.1.1.2) of one image.

    Parameters
    ----------
    header: Dataset
    stored: NDArray
        Shape (rows, columns), from `stored_values`. Overwritten.

    Returns
    -------
    NDArray[np.int16]
        HU, same shape; padding and all below air is `AIR_HU`.

    Raises
    ------
    SeriesRefused
        If the rescale gives no Hounsfield units.
    """
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    if not 0 < slope < MAX_HU or not -MAX_HU - 1 <= intercept <= MAX_HU:
        raise bad_header(header, f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g} give no Hounsfield units")
    padded = _padding(header, stored)
    values = stored if padded is None else stored[~padded]
    highest = slope * float(values.max(initial=0)) + intercept
    if highest > MAX_HU:
        raise bad_pixels(header, f"its values reach {highest:.0f} HU, which no CT has")
    units: NDArray[np.int16]
    if slope == 1 and intercept.is_integer():
        # What is below air could fall out of 16 bits; all the rest is known to fit.
        lowest = max(AIR_HU - int(intercept), np.iinfo(stored.dtype).min)
        units = np.maximum(stored, lowest, out=stored).view(np.int16)
        units += np.int16(intercept)
    else:
        units = np.maximum(np.rint(stored * slope + intercept), AIR_HU).astype(np.int16)
    if padded is not None:
        units[padded] = AIR_HU
    return units


def _own_bits(header: Dataset, values: NDArray[np.uint16], stored: int, signed: bool) -> NDArray[Any]:
    """Pixels as numbers, from the 16 bits of each, in place; `stored` is BitsStored."""
    if stored == 16:
        return values.view(np.int16) if signed else values
    # Unsigned values of fewer bits are the same in this type, and a padding of -2000 is what its writer meant.
    numbers = values.view(np.int16)
    if any(place in header and data not in header for place, data in OVERLAYS):
        # Then the bits above are no part of the value; shifting there and back fills them with the sign, or with zero.
        shifted = numbers if signed else values
        shifted <<= 16 - stored
        shifted >>= 16 - stored
    elif signed and numbers.max() >= 1 << (stored - 1):
        numbers[(numbers >= 1 << (stored - 1)) & (numbers < 1 << stored)] |= -1 << stored
    return numbers


def _check_format(header: Dataset) -> tuple[int, bool]:
    """BitsStored and whether pixels are signed, if they are those of a CT image."""
    if (optional(header, "NumberOfFrames") or 1) != 1:
        raise SeriesRefused(
            Reason.MULTI_FRAME, f"{name_image(header)} has several frames, which are not read; send single images."
        )
    if "PixelData" not in header:
        raise bad_pixels(header, "it has no pixels")
    samples, photometric = whole_number(header, "SamplesPerPixel"), text(header, "PhotometricInterpretation")
    if samples != 1 or photometric != "MONOCHROME2":
        raise bad_pixels(header, f"its pixels are {photometric} with {samples} samples, not MONOCHROME2 with one")
    allocated, stored, high = (whole_number(header, key) for key in ("BitsAllocated", "BitsStored", "HighBit"))
    if allocated != 16 or not 8 <= stored <= 16 or high != stored - 1:
        raise bad_pixels(
            header, f"its pixels have {stored} bits up to bit {high} of {allocated}, not 8 to 16 of 16 from bit 0 on"
        )
    return stored, whole_number(header, "PixelRepresentation") == 1


def _padding(header: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Which pixels are padding (PS3.3 C.7.5.1.1.2), if there can be any."""
    if optional(header, "PixelPaddingValue") is None:
        return None
    limits = [
        # Writers take the wrong sign for this value now and then.
        np.array(whole_number(header, keyword)).astype(stored.dtype)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
        if optional(header, keyword) is not None
    ]
    return np.asarray((stored >= min(limits)) & (stored <= max(limits)))
