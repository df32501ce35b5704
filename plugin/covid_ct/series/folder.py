"""A series from a folder of DICOM files."""

import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from covid_ct.errors import CovidCtError
from covid_ct.series.headers import SeriesRules
from covid_ct.series.reading import read_series
from covid_ct.series.volume import Volume


class FolderError(CovidCtError):
    """Raised if a folder does not hold just one CT series, or not the one asked for."""


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

    Raises
    ------
    FolderError
        If the series cannot be told.
    SeriesRefused
        If it may not be analysed.
    """
    if not folder.is_dir():
        raise FolderError(f"{folder} is not a folder.")
    series: dict[str, list[Path]] = defaultdict(list)
    modalities: dict[str, str] = {}
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        try:
            header = pydicom.dcmread(path, specific_tags=["SeriesInstanceUID", "Modality"], stop_before_pixels=True)
        except (InvalidDicomError, EOFError, OSError):
            continue
        uid = str(header.get("SeriesInstanceUID", ""))
        series[uid].append(path)
        modalities[uid] = str(header.get("Modality", ""))
    if not series:
        raise FolderError(f"{folder} holds no DICOM files.")
    chosen = _choose(folder, {uid: len(paths) for uid, paths in series.items()}, modalities, series_uid)
    return read_series((path.read_bytes() for path in series[chosen]), decode, rules)


def _choose(folder: Path, counts: dict[str, int], modalities: dict[str, str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in counts:
            raise FolderError(f"{folder} holds no series {wanted}.")
        return wanted
    candidates = [uid for uid in counts if modalities[uid] == "CT"] or list(counts)
    if len(candidates) > 1:
        found = ", ".join(f"{uid} ({counts[uid]} images)" for uid in candidates)
        raise FolderError(f"{folder} holds {len(candidates)} series: {found}. Say which one is meant.")
    return candidates[0]


def decode(content: bytes) -> NDArray[Any]:
    """Stored values of a compressed image by pydicom's decoders.

    Raises
    ------
    ValueError
        If none can decode it.
    """
    try:
        return pydicom.dcmread(io.BytesIO(content)).pixel_array
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error
