"""Which series may be analysed and why not, from headers alone. Pure functions: no files, no Orthanc."""

import re
from dataclasses import dataclass

from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from covid_ct.errors import Reason, SeriesRefused
from covid_ct.identity import is_own_result

PROJECTION = re.compile(r"(?<![A-Z])(M(AX|IN)?[ _]?IP|PROJECTION IMAGE)(?![A-Z])", re.IGNORECASE)
"""Values of ImageType that name a projection of the highest or lowest value of a slab."""


@dataclass(frozen=True)
class SeriesRules:
    """Which series may be analysed.

    Attributes
    ----------
    min_slices: int
        Fewest slices; one alone has no spacing, so at least 2. Default: 16.
    max_slices: int
        Most slices. Default: 3000.
    min_length_mm: float
        Shortest extent along the patient in mm. Default: 60.
    max_spacing_mm: float
        Largest distance between slices in mm. Default: 10.
    max_voxels: int
        Most voxels, each of 2 bytes in memory. Default: 800 million, 3000 slices of 512 x 512.
    """

    min_slices: int = 16
    max_slices: int = 3000
    min_length_mm: float = 60.0
    max_spacing_mm: float = 10.0
    max_voxels: int = 800_000_000


@dataclass(frozen=True)
class SeriesHeader:
    """What is the same in all images of a series, and how many there are; texts as in DICOM, empty where missing.

    Attributes
    ----------
    series_uid: str
        SeriesInstanceUID.
    modality, sop_class_uid, manufacturer, model_name: str
        (0008,0060), (0008,0016), (0008,0070), (0008,1090).
    image_type: tuple[str, ...]
        (0008,0008).
    slices: int
        Number of images.
    """

    series_uid: str
    modality: str
    sop_class_uid: str
    manufacturer: str
    model_name: str
    image_type: tuple[str, ...]
    slices: int


@dataclass(frozen=True)
class SliceHeader:
    """Where one image lies.

    Attributes
    ----------
    position: tuple[float, ...]
        ImagePositionPatient (0020,0032), centre of the first pixel, LPS, mm.
    orientation: tuple[float, ...]
        ImageOrientationPatient (0020,0037): direction cosines of a row, then of a column, LPS.
    pixel_spacing: tuple[float, float]
        PixelSpacing (0028,0030): distance between rows, then between columns, mm.
    rows, columns: float
        (0028,0010), (0028,0011); NaN where missing.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    rows: float
    columns: float


def check_series(series: SeriesHeader, rules: SeriesRules) -> None:
    """Refuse what is no axial chest CT of single images by its series' headers.

    Raises
    ------
    SeriesRefused
        With the reason.
    """
    name = f"Series {series.series_uid}"
    if is_own_result(series.manufacturer, series.model_name):
        raise SeriesRefused(Reason.OWN_RESULT, f"{name} is itself a result of this analysis; choose the CT series.")
    if series.sop_class_uid in (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage):
        raise SeriesRefused(
            Reason.MULTI_FRAME, f"{name} is a multi-frame CT, which is not read; send it as single images."
        )
    if series.modality != "CT" or series.sop_class_uid != CTImageStorage:
        kind = f"modality is {series.modality or 'missing'}"
        if series.modality == "CT":
            kind = f"images are {UID(series.sop_class_uid).name or 'of no SOP class'}"
        raise SeriesRefused(Reason.NOT_CT, f"{name} is not a CT image series: its {kind}; choose a chest CT.")
    if "LOCALIZER" in (value.strip().upper() for value in series.image_type):
        raise SeriesRefused(
            Reason.LOCALIZER,
            f"{name} holds a localizer (scout); choose the axial chest CT, or send its axial images as a series of "
            "their own.",
        )
    projection = next(filter(PROJECTION.search, series.image_type), None)
    if projection is not None:
        raise SeriesRefused(
            Reason.NOT_CT,
            f"{name} is a projection of the highest or lowest values (ImageType {projection.strip()}), which are not "
            "those of tissue; choose the axial chest CT.",
        )
    fewest = max(2, rules.min_slices)
    if series.slices < fewest:
        raise SeriesRefused(
            Reason.TOO_FEW_SLICES,
            f"{name} has {series.slices} slices, at least {fewest} are needed; send the whole series.",
        )
    if series.slices > rules.max_slices:
        raise SeriesRefused(
            Reason.TOO_MANY_SLICES,
            f"{name} has {series.slices} slices, at most {rules.max_slices} are read; send only the chest.",
        )
