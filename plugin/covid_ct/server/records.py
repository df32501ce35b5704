"""What Orthanc's database tells of series, slices, DICOM nodes and changes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from covid_ct.series.headers import SeriesHeader, SliceHeader

SEPARATOR = re.compile(r"[\\¥]")
"""What stands between an attribute's values: a backslash, which Orthanc decodes as a yen sign in images from Japan that
declare JIS X 0201 (ISO_IR 13)."""


@dataclass(frozen=True)
class SeriesRecord:
    """What Orthanc's database knows of a series, without opening a file.

    Attributes
    ----------
    id: str
        Orthanc id.
    uid: str
        SeriesInstanceUID.
    modality: str
        Modality (0008,0060).
    manufacturer: str
        Manufacturer (0008,0070), or nothing.
    instances: tuple[str, ...]
        Orthanc ids of its instances, sorted.
    stable: bool
        Whether no instance came to this Orthanc for StableAge seconds, or none since its start.
    updated: datetime
        When its last instance came, to whichever Orthanc.
    """

    id: str
    uid: str
    modality: str
    manufacturer: str
    instances: tuple[str, ...]
    stable: bool
    updated: datetime

    @classmethod
    def of(cls, series: str, answer: Mapping[str, Any]) -> Self:
        """What Orthanc answers of a series."""
        tags = answer["MainDicomTags"]
        return cls(
            id=series,
            uid=str(tags.get("SeriesInstanceUID", "")),
            modality=str(tags.get("Modality", "")),
            manufacturer=str(tags.get("Manufacturer", "")),
            instances=tuple(sorted(answer["Instances"])),
            stable=bool(answer["IsStable"]),
            updated=datetime.strptime(answer["LastUpdate"], "%Y%m%dT%H%M%S").replace(tzinfo=UTC),
        )


@dataclass(frozen=True)
class SliceRecord:
    """What Orthanc's database knows of one image of a series.

    Attributes
    ----------
    id: str
        Orthanc id.
    uid: str
        SOPInstanceUID.
    header: SliceHeader
        Numbers that are missing or none are NaN, so that `arrange` refuses them.
    """

    id: str
    uid: str
    header: SliceHeader

    @classmethod
    def of(cls, instance: Mapping[str, Any], image: Mapping[str, Any]) -> Self:
        """What Orthanc answers of an instance, with size and spacing from the tags of one image of its series."""
        tags = instance["MainDicomTags"]
        return cls(
            str(instance["ID"]),
            str(tags["SOPInstanceUID"]),
            SliceHeader(
                position=_numbers(tags, "ImagePositionPatient"),
                orientation=_numbers(tags, "ImageOrientationPatient"),
                pixel_spacing=_numbers(image, "PixelSpacing"),
                rows=_numbers(image, "Rows")[0],
                columns=_numbers(image, "Columns")[0],
            ),
        )


@dataclass(frozen=True)
class Modality:
    """A DICOM node that Orthanc knows: its AE title, and its address or host name."""

    title: str
    host: str


@dataclass(frozen=True)
class Change:
    """One line of Orthanc's list of changes."""

    sequence: int
    kind: str
    id: str


def series_header(record: SeriesRecord, image: Mapping[str, Any]) -> SeriesHeader:
    """The header of a series from Orthanc's database and `Pacs.image_tags`."""
    return SeriesHeader(
        series_uid=record.uid,
        modality=record.modality,
        sop_class_uid=_text(image, "SOPClassUID"),
        manufacturer=record.manufacturer,
        model_name=_text(image, "ManufacturerModelName"),
        image_type=tuple(SEPARATOR.split(_text(image, "ImageType"))),
        slices=len(record.instances),
    )


def _text(tags: Mapping[str, Any], keyword: str) -> str:
    value = tags.get(keyword, "")
    return value if isinstance(value, str) else ""


def _numbers(tags: Mapping[str, Any], keyword: str) -> tuple[float, ...]:
    try:
        return tuple(float(number) for number in SEPARATOR.split(_text(tags, keyword)))
    except ValueError:
        return (float("nan"),)
