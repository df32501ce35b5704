"""Single attributes of headers that anyone may have written, so that each can be missing, empty or broken."""

import math
import struct
from functools import lru_cache
from typing import Any

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag, Tag

from covid_ct.errors import Reason, SeriesRefused

DECODING_ERRORS = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What pydicom raises for broken files, and for broken elements, which it decodes on their first use."""

LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
"""What tells that an image went through lossy compression once, which is inherited by all that is made of it."""


LONGEST = 1024
"""Length in bytes above which a text or number is not decoded: none that is asked for here is nearly so long."""

PATIENT = 0x0010
"""Group of the patient's attributes."""


def optional(header: Dataset, keyword: str) -> Any:
    """Value of an attribute, or None where it is missing, empty or cannot be decoded."""
    try:
        value = _value(header, keyword)
    except DECODING_ERRORS:
        return None
    return None if value is None or value == "" else value


def _value(header: Dataset, keyword: str) -> Any:
    """Value of an attribute; what is the same in the images of a series is decoded once."""
    tag, of_itself = _tag(keyword)
    try:
        element = header.get_item(tag)
    except KeyError:
        return None
    if not isinstance(element, RawDataElement) or element.value is None:
        return header.get(keyword)
    if len(element.value) > LONGEST:
        raise ValueError(f"{keyword} is too long")
    if not of_itself:
        return header.get(keyword)
    # Of whom images are is not remembered beyond them.
    decode = _decoded.__wrapped__ if tag.group == PATIENT else _decoded
    encoding = header.original_character_set
    return decode(
        element.tag,
        element.VR,
        element.value,
        element.is_implicit_VR,
        element.is_little_endian,
        encoding if isinstance(encoding, str) else tuple(encoding),
    )


@lru_cache(maxsize=1024)
def _tag(keyword: str) -> tuple[BaseTag, bool]:
    """Tag of an attribute, and whether its VR does not depend on others, which only the dataset can look up."""
    tag = Tag(keyword)
    return tag, "or" not in dictionary_VR(tag)


@lru_cache(maxsize=1024)
def _decoded(  # noqa: PLR0917 - what it is remembered by
    tag: BaseTag,
    vr: str | None,
    value: bytes,
    is_implicit_vr: bool,
    is_little_endian: bool,
    encoding: str | tuple[str, ...],
) -> Any:
    """Value of an element as read; `encoding` is what its dataset says of the characters."""
    element = RawDataElement(tag, vr, len(value), value, 0, is_implicit_vr, is_little_endian)
    return convert_raw_data_element(element, encoding=encoding if isinstance(encoding, str) else list(encoding)).value


def attribute(header: Dataset, keyword: str) -> Any:
    """Value of an attribute that the analysis needs.

    Raises
    ------
    SeriesRefused
        If it is missing, empty or cannot be decoded.
    """
    value = optional(header, keyword)
    if value is None:
        raise bad_header(header, f"{keyword} is missing or not readable")
    return value


def numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    """Numbers of an attribute that the analysis needs.

    Raises
    ------
    SeriesRefused
        If it is missing or holds anything else.
    """
    value = attribute(header, keyword)
    try:
        return tuple(map(float, value)) if hasattr(value, "__iter__") else (float(value),)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise bad_header(header, f"{keyword} is no number") from error


def number(header: Dataset, keyword: str) -> float:
    """A number that the analysis needs.

    Raises
    ------
    SeriesRefused
        If the attribute is missing, is no number or holds several.
    """
    values = numbers(header, keyword)
    if len(values) != 1:
        raise bad_header(header, f"{keyword} holds {len(values)} numbers, not one")
    return values[0]


def positive(header: Dataset, keyword: str) -> float | None:
    """A number above zero, or None where the attribute is missing or holds anything else."""
    try:
        value = number(header, keyword)
    except SeriesRefused:
        return None
    return value if 0 < value < math.inf else None


def whole_number(header: Dataset, keyword: str) -> int:
    """A whole number that the analysis needs.

    Raises
    ------
    SeriesRefused
        If the attribute is missing or holds anything else.
    """
    value = number(header, keyword)
    if not value.is_integer():
        raise bad_header(header, f"{keyword} is no whole number")
    return int(value)


def text(header: Dataset, keyword: str) -> str:
    """Text of an attribute, empty where there is none; values after the first are left out."""
    value = optional(header, keyword)
    if value is not None and not isinstance(value, str) and hasattr(value, "__iter__"):
        value = next(iter(value), None)
    return "" if value is None else str(value).strip()


def name_image(header: Dataset) -> str:
    """The image and its series by their UIDs, for the beginning of a sentence."""
    series, image = text(header, "SeriesInstanceUID"), text(header, "SOPInstanceUID")
    return f"Image {image or 'without SOPInstanceUID'} of series {series or 'without SeriesInstanceUID'}"


def bad_header(header: Dataset, what: str) -> SeriesRefused:
    """Refusal for a broken header."""
    return SeriesRefused(Reason.BAD_HEADER, f"{name_image(header)}: {what}; correct it and send the series again.")


def bad_pixels(header: Dataset, what: str) -> SeriesRefused:
    """Refusal for broken pixels."""
    return SeriesRefused(Reason.BAD_PIXELS, f"{name_image(header)}: {what}; send the series again from its source.")
