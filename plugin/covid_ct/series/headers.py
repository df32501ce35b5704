"""Which series may be analysed and why not, from headers alone. Pure functions: no files, no Orthanc."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from covid_ct.errors import Reason, SeriesRefused
from covid_ct.identity import is_own_result

SAME_DIRECTION = 1e-3
"""Largest difference of two direction cosines that are taken as equal; scanners round to four digits or more."""

SAME_PIXEL_SPACING = 1e-3
"""Largest relative difference of two pixel spacings that are taken as equal."""

SAME_POSITION_MM = 0.01
"""Slices that lie closer than this, in mm, are at one position."""

EVEN_SPACING = 0.1
"""Largest deviation of a distance between slices from their median, as a fraction of the median."""

EVEN_SPACING_MM = 0.11
"""Deviation in mm that is allowed even where it is more than that fraction: some scanners round to 0.1 mm."""

GAP = 1.5
"""A distance between slices of more than this many times their median is a gap."""

MAX_SHIFT_MM = 1.0
"""How far, in mm, slices may be shifted against the normal over the whole series; more is a tilted gantry."""

MAX_OBLIQUITY_DEG = 25.0
"""Angle in degrees between the slices' normal and the patient's long axis, above which slices are not axial."""

MIN_PIXEL_SPACING_MM, MAX_PIXEL_SPACING_MM = 0.1, 3.0
"""Pixel spacings between which a chest CT is plausible."""

MIN_MATRIX, MAX_MATRIX = 64, 2048
"""Rows and columns between which a chest CT is plausible."""


@dataclass(frozen=True)
class SeriesRules:
    """Which series may be analysed.

    Attributes
    ----------
    min_slices: int
        Fewest slices. Default: 16.
    max_slices: int
        Most slices. Default: 2000.
    min_length_mm: float
        Shortest extent along the patient in mm. Default: 60.
    max_spacing_mm: float
        Largest distance between slices in mm. Default: 10.
    """

    min_slices: int = 16
    max_slices: int = 2000
    min_length_mm: float = 60.0
    max_spacing_mm: float = 10.0


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


@dataclass(frozen=True)
class Arrangement:
    """How the images of a series lie in the patient.

    Attributes
    ----------
    order: NDArray[np.intp]
        Indices of the images, ascending along the normal (row cosine x column cosine).
    affine: NDArray[np.float64]
        As `Volume.affine`.
    """

    order: NDArray[np.intp]
    affine: NDArray[np.float64]


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
        raise SeriesRefused(
            Reason.NOT_CT,
            f"{name} is not a CT image series: its modality is {series.modality or 'missing'}; choose a chest CT.",
        )
    if "LOCALIZER" in (value.strip().upper() for value in series.image_type):
        raise SeriesRefused(Reason.LOCALIZER, f"{name} is a localizer (scout); choose the axial chest CT.")
    if series.slices < rules.min_slices:
        raise SeriesRefused(
            Reason.TOO_FEW_SLICES,
            f"{name} has {series.slices} slices, at least {rules.min_slices} are needed; send the whole series.",
        )
    if series.slices > rules.max_slices:
        raise SeriesRefused(
            Reason.TOO_MANY_SLICES,
            f"{name} has {series.slices} slices, at most {rules.max_slices} are read; send only the chest.",
        )


def arrange(series_uid: str, slices: Sequence[SliceHeader], rules: SeriesRules) -> Arrangement:
    """Order of the slices and their place in the patient.

    Parameters
    ----------
    series_uid: str
        SeriesInstanceUID, for the sentence of a refusal.
    slices: Sequence[SliceHeader]
        In any order; at least two.
    rules: SeriesRules
        Which series may be analysed.

    Raises
    ------
    SeriesRefused
        If the slices are no evenly spaced stack of axial images; nothing is ever interpolated in silence.
    """
    name = f"Series {series_uid}"
    first = slices[0]
    _check_values(name, slices)
    _check_sameness(name, slices)
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(row, column)
    angle = np.degrees(np.arccos(min(1.0, abs(normal[2]))))
    if angle > MAX_OBLIQUITY_DEG:
        raise SeriesRefused(
            Reason.NOT_AXIAL,
            f"{name} is not axial: its slices are turned by {angle:.0f} degrees; choose the axial series.",
        )
    positions = np.array([item.position for item in slices])
    order = np.argsort(positions @ normal, kind="stable")
    heights = (positions @ normal)[order]
    spacing = _check_spacing(name, heights, rules)
    sideways = positions - np.outer(positions @ normal, normal)
    shift = float(np.linalg.norm(sideways - sideways[order[0]], axis=1).max())
    if shift > MAX_SHIFT_MM:
        raise SeriesRefused(
            Reason.GANTRY_TILT,
            f"{name} was taken with a tilted gantry: its slices are shifted by up to {shift:.1f} mm against their "
            "normal; send a series reconstructed without tilt.",
        )
    affine = np.eye(4)
    affine[:3, 0] = normal * spacing
    affine[:3, 1] = column * first.pixel_spacing[0]
    affine[:3, 2] = row * first.pixel_spacing[1]
    affine[:3, 3] = positions[order[0]]
    return Arrangement(order, affine)


def _check_values(name: str, slices: Sequence[SliceHeader]) -> None:
    """Refuse geometry that cannot be that of a chest CT."""
    for item in slices:
        numbers = (*item.position, *item.orientation, *item.pixel_spacing)
        if len(numbers) != 11 or not np.isfinite(numbers).all():
            raise _bad_geometry(name, "a position, an orientation or a pixel spacing is not a set of numbers")
        cosines = np.array(item.orientation).reshape(2, 3)
        if np.abs(cosines @ cosines.T - np.eye(2)).max() > SAME_DIRECTION * 10:
            raise _bad_geometry(name, "the direction cosines of an image are not at right angles and of length one")
        if not all(MIN_PIXEL_SPACING_MM <= spacing <= MAX_PIXEL_SPACING_MM for spacing in item.pixel_spacing):
            spacing = " x ".join(f"{value:g}" for value in item.pixel_spacing)
            raise _bad_geometry(name, f"its pixel spacing of {spacing} mm is not that of a chest CT")
        # A NaN is in no range.
        if not all(MIN_MATRIX <= size <= MAX_MATRIX for size in (item.rows, item.columns)):
            raise _bad_geometry(name, f"its matrix of {item.rows} x {item.columns} is not that of a chest CT")


def _bad_geometry(name: str, what: str) -> SeriesRefused:
    return SeriesRefused(Reason.BAD_GEOMETRY, f"{name} has headers that cannot be right: {what}.")


def _check_sameness(name: str, slices: Sequence[SliceHeader]) -> None:
    """Refuse images of different orientation or size under one series."""
    first = slices[0]
    for item in slices:
        if np.abs(np.subtract(item.orientation, first.orientation)).max() > SAME_DIRECTION:
            raise SeriesRefused(
                Reason.MIXED_ORIENTATION,
                f"{name} mixes images of different orientation, such as a localizer or reformats; send the axial "
                "images as a series of their own.",
            )
        same_spacing = np.allclose(item.pixel_spacing, first.pixel_spacing, rtol=SAME_PIXEL_SPACING)
        if (item.rows, item.columns) != (first.rows, first.columns) or not same_spacing:
            raise SeriesRefused(
                Reason.MIXED_SIZE,
                f"{name} mixes images of different size ({first.rows} x {first.columns} and {item.rows} x "
                f"{item.columns}) or pixel spacing; send them as series of their own.",
            )


def _check_spacing(name: str, heights: NDArray[np.float64], rules: SeriesRules) -> float:
    """The distance between neighbouring slices in mm, if it is one; heights ascend."""
    steps = np.diff(heights)
    spacing = float(np.median(steps))
    duplicates = np.flatnonzero(steps < SAME_POSITION_MM)
    if len(duplicates):
        raise SeriesRefused(
            Reason.DUPLICATE_POSITIONS,
            f"{name} has {len(duplicates)} positions with more than one image, the first at "
            f"{heights[duplicates[0]]:.1f} mm; send each reconstruction as a series of its own.",
        )
    gaps = np.flatnonzero(steps > GAP * spacing)
    if len(gaps):
        raise SeriesRefused(
            Reason.GAPS,
            f"{name} has {len(gaps)} gaps, the first between the slices at {heights[gaps[0]]:.1f} mm and "
            f"{heights[gaps[0] + 1]:.1f} mm where {spacing:.2f} mm are expected; send the missing images.",
        )
    deviation = float(np.abs(steps - spacing).max())
    if deviation > max(EVEN_SPACING * spacing, EVEN_SPACING_MM):
        raise SeriesRefused(
            Reason.UNEVEN_SPACING,
            f"{name} is unevenly spaced: distances between slices go from {steps.min():.2f} mm to {steps.max():.2f} "
            "mm; send a series of even spacing.",
        )
    if spacing > rules.max_spacing_mm:
        raise SeriesRefused(
            Reason.BAD_GEOMETRY,
            f"{name} has slices {spacing:.1f} mm apart, at most {rules.max_spacing_mm:g} mm are analysed.",
        )
    length = float(heights[-1] - heights[0])
    if length < rules.min_length_mm:
        raise SeriesRefused(
            Reason.TOO_FEW_SLICES,
            f"{name} covers {length:.0f} mm of the patient, at least {rules.min_length_mm:g} mm are needed.",
        )
    return length / len(steps)
