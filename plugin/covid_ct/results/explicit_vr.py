"""What recurs hundreds of times, encoded once: pydicom takes a millisecond for each item of a frame."""

import struct
from collections.abc import Iterable
from functools import cache
from io import BytesIO

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag

_ITEM = b"\xfe\xff\x00\xe0"


@cache
def _tag_and_vr(keyword: str) -> tuple[bytes, str]:
    """Encoded tag and VR of an attribute."""
    tag, vr = Tag(keyword), dictionary_VR(keyword)
    return struct.pack("<HH2s", tag.group, tag.element, vr.encode()), vr


def element(keyword: str, value: bytes) -> bytes:
    """Data element in Explicit VR Little Endian (PS3.5 7.1.2), its value encoded already."""
    head, vr = _tag_and_vr(keyword)
    if vr == "SQ":
        return head + struct.pack("<HI", 0, len(value)) + value
    padded = value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return head + struct.pack("<H", len(padded)) + padded


def items(contents: Iterable[bytes]) -> bytes:
    """Value of a sequence: items of defined length (PS3.5 7.5.1), their content encoded already."""
    return b"".join(_ITEM + struct.pack("<I", len(content)) + content for content in contents)


def sequence(keyword: str, *contents: bytes) -> bytes:
    """Data element of a sequence, its items' content encoded already."""
    return element(keyword, items(contents))


def encoded(dataset: Dataset) -> bytes:
    """Content of an item that pydicom encodes, for what is the same in many items."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def encoded_elements(dataset: Dataset) -> Dataset:
    """The same attributes, encoded, for what is the same in many objects; pydicom parses each when it is asked for."""
    return read_dataset(BytesIO(encoded(dataset)), is_implicit_VR=False, is_little_endian=True)


def set_sequence(dataset: Dataset, keyword: str, contents: Iterable[bytes]) -> None:
    """Give a dataset a sequence whose items' content is encoded already; pydicom parses it when it is asked for.

    Parameters
    ----------
    dataset: Dataset
        One that is written in Explicit VR Little Endian.
    keyword: str
        Of the sequence.
    contents: Iterable[bytes]
        Elements of each item in the order of their tags, as `element` and `sequence` make them.
    """
    tag = Tag(keyword)
    value = items(contents)
    dataset[tag] = RawDataElement(tag, "SQ", len(value), value, 0, is_implicit_VR=False, is_little_endian=True)
