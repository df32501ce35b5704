"""Datasets as bytes in Explicit VR Little Endian.

pydicom's own writer looks for ambiguous VRs anew at each level of nesting: it takes nine times longer for a report, and
a millisecond for each item of a frame.
"""

import struct
from collections.abc import Iterable, Iterator
from functools import cache

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

_PREAMBLE = b"\0" * 128 + b"DICM"
_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_DELIMITATION = b"\xfe\xff\xdd\xe0\0\0\0\0"
_UNDEFINED_LENGTH = 0xFFFFFFFF
_PADDED_WITH_NULL = ("UI", "OB")
_NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
"""The binary VRs, and what `struct` calls one of their numbers."""


def element(keyword: str, value: bytes) -> bytes:
    """Data element (PS3.5 7.1.2), its value encoded already."""
    tag, vr = _tag_and_vr(keyword)
    padded = _padded(vr, value)
    return _head(tag, vr, len(padded)) + padded


def items(contents: Iterable[bytes]) -> bytes:
    """Value of a sequence: items of defined length (PS3.5 7.5.1), their content encoded already."""
    return b"".join(_ITEM + struct.pack("<I", len(content)) + content for content in contents)


def sequence(keyword: str, *contents: bytes) -> bytes:
    """Data element of a sequence, its items' content encoded already."""
    return element(keyword, items(contents))


def set_sequence(dataset: Dataset, keyword: str, contents: Iterable[bytes]) -> None:
    """Give a dataset a sequence whose items' content is encoded already; pydicom parses it when it is asked for.

    Parameters
    ----------
    dataset: Dataset
    keyword: str
        Of the sequence.
    contents: Iterable[bytes]
        Elements of each item in the order of their tags, as `element` and `sequence` make them.
    """
    tag = Tag(keyword)
    value = items(contents)
    dataset[tag] = RawDataElement(tag, "SQ", len(value), value, 0, is_implicit_VR=False, is_little_endian=True)


def encoded(dataset: Dataset) -> bytes:
    """All elements of a dataset, text in UTF-8."""
    return b"".join(_elements(dataset))


def part_10(dataset: Dataset) -> Iterator[bytes]:
    """A dataset with file meta information as a DICOM file (PS3.10 7.1), in parts: pixels are not copied.

    Parameters
    ----------
    dataset: Dataset
        Its specific character set is UTF-8; no VR is ambiguous.

    Yields
    ------
    bytes
    """
    meta = encoded(dataset.file_meta)
    yield _PREAMBLE + element("FileMetaInformationGroupLength", struct.pack("<I", len(meta))) + meta
    yield from _elements(dataset)


@cache
def _tag_and_vr(keyword: str) -> tuple[int, str]:
    """Tag and VR of an attribute."""
    return int(Tag(keyword)), dictionary_VR(keyword)


@cache
def _tag_with_vr(tag: int, vr: str) -> bytes:
    """What an element begins with, up to its length."""
    return struct.pack("<HH2s2x" if vr in EXPLICIT_VR_LENGTH_32 else "<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())


def _head(tag: int, vr: str, length: int) -> bytes:
    """What stands before an element's value."""
    return _tag_with_vr(tag, vr) + struct.pack("<I" if vr in EXPLICIT_VR_LENGTH_32 else "<H", length)


def _padded(vr: str, value: bytes) -> bytes:
    """Value of an even length."""
    return value + (b"\0" if vr in _PADDED_WITH_NULL else b" ") if len(value) % 2 else value


def _elements(dataset: Dataset) -> Iterator[bytes]:
    """Parts of the elements in the order of their tags."""
    for part in dataset.elements():
        tag, vr = part.tag, str(part.VR)
        if isinstance(part, RawDataElement):
            value = part.value or b""
        elif part.is_undefined_length:
            yield _head(tag, vr, _UNDEFINED_LENGTH)
            yield part.value
            yield _SEQUENCE_DELIMITATION
            continue
        else:
            value = _padded(vr, _value(part))
        yield _head(tag, vr, len(value))
        yield value


def _value(part: DataElement) -> bytes:
    """Value of an element."""
    value = part.value
    if part.VR == "SQ":
        return items(map(encoded, value))
    if isinstance(value, bytes):
        return value
    values = value if isinstance(value, (list, MultiValue)) else [value] * (value not in (None, ""))
    if part.VR in _NUMBERS:
        return struct.pack(f"<{len(values)}{_NUMBERS[part.VR]}", *values)
    if part.VR == "AT":
        return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in values)
    return "\\".join(map(str, values)).encode()
