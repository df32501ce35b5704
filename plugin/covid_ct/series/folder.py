"""A series from a folder of DICOM files."""

from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom import Dataset

from covid_ct.errors import CovidCtError, SeriesRefused
from covid_ct.series.attributes import DECODING_ERRORS, text
from covid_ct.series.decoding import decode
from covid_ct.series.headers import SeriesHeader, SeriesRules, check_series
from covid_ct.series.reading import read_series, series_header
from covid_ct.series.volume import Volume

LOOKED_AT = [
    "SOPClassUID", "SeriesInstanceUID", "SeriesDescription", "Modality", "ImageType", "Manufacturer",
    "ManufacturerModelName",
]  # fmt: skip
"""Attributes that tell which series of a folder is meant."""


class FolderError(CovidCtError):
    """Raised if a folder does not hold just one CT series, or not the one asked for."""


@dataclass
class _Series:
    first: Dataset
    paths: list[Path] = field(default_factory=list)

    @property
    def header(self) -> SeriesHeader:
        return series_header(self.first, len(self.paths))

    def __str__(self) -> str:
        return f'{self.header.series_uid} "{text(self.first, "SeriesDescription")}" ({len(self.paths)} images)'


def read_folder(folder: Path, *, series_uid: str | None = None, rules: SeriesRules | None = None) -> Volume:
    """Read the CT series of a folder and its subfolders.

    Parameters
    ----------
    folder: Path
        Files in it that are not DICOM are passed over.
    series_uid: str | None
        SeriesInstanceUID, where the folder holds several CT series.
    rules: SeriesRules
        Which series may be analysed.

    Returns
    -------
    Volume

    Raises
    ------
    FolderError
        If the series cannot be told.
    SeriesRefused
        If it may not be analysed.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder.")
    found: dict[str, _Series] = {}
    others = 0
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        header = _look_at(path)
        if header is None:
            others += 1
            continue
        found.setdefault(text(header, "SeriesInstanceUID"), _Series(header)).paths.append(path)
    if not found:
        raise FolderError(f"{folder} holds no DICOM images ({others} other files).")
    chosen = _choose(folder, found, series_uid, rules or SeriesRules())
    return read_series((path.read_bytes() for path in chosen.paths), decode, rules)


def _look_at(path: Path) -> Dataset | None:
    """The few attributes of a DICOM object, or nothing where the file is none."""
    try:
        header = pydicom.dcmread(path, specific_tags=LOOKED_AT, stop_before_pixels=True)
    except DECODING_ERRORS:
        return None
    # A DICOMDIR is DICOM too, but no image.
    return header if text(header, "SOPClassUID") else None


def _choose(folder: Path, found: dict[str, _Series], wanted: str | None, rules: SeriesRules) -> _Series:
    if wanted is not None:
        if wanted not in found:
            raise FolderError(f"{folder} holds no series {wanted}, but {_listed(list(found.values()))}.")
        return found[wanted]
    if len(found) == 1:
        return next(iter(found.values()))
    refusals = [_refusal(series.header, rules) for series in found.values()]
    fitting = [series for series, refusal in zip(found.values(), refusals, strict=True) if not refusal]
    if not fitting:
        raise FolderError(f"{folder} holds no series that can be analysed. {' '.join(refusals)}")
    if len(fitting) > 1:
        raise FolderError(f"{folder} holds {len(fitting)} CT series: {_listed(fitting)}. Say which one is meant.")
    return fitting[0]


def _refusal(header: SeriesHeader, rules: SeriesRules) -> str:
    """Why a series cannot be analysed, or nothing."""
    try:
        check_series(header, rules)
    except SeriesRefused as refusal:
        return str(refusal)
    return ""


def _listed(series: list[_Series]) -> str:
    return ", ".join(map(str, series))
