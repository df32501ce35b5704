"""How the images of a series lie in the patient, and why they may not be analysed. Pure functions: no files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covid_ct.errors import Reason, SeriesRefused
from covid_ct.series.headers import SeriesRules, SliceHeader

SAME_DIRECTION = 1e-3
"""Largest difference of two direction cosines that are taken as equal; scanners round to four digits or more."""

SAME_PIXEL_SPACING = 1e-3
"""Largest relative difference of two pixel spacings that are taken as equal."""

SAME_POSITION_MM = 0.1
"""Slices that lie closer than this, in mm, are at one position; no chest CT is reconstructed so finely."""

EVEN_SPACING = 0.1
"""Largest deviation of a distance between slices from their median, as a fraction of the median."""

EVEN_SPACING_MM = 0.11
"""Deviation in mm that is allowed even where it is more than that fraction: some scanners round to 0.1 mm."""

MAX_STRAY = 0.5
"""How far a slice may lie from where even spacing has it, as a fraction of the spacing: where distances that differ
little add up to more, results would lie over a neighbour."""

GAP = 1.5
"""A distance between slices of more than this many times their median is a gap."""

MAX_SHIFT_MM = 1.0
"""How far, in mm, slices may be shifted sideways over the whole series; a steady shift of more is a tilted gantry."""

MAX_OBLIQUITY_DEG = 25.0
"""Angle in degrees between the slices' normal and the patient's long axis, and between rows or columns and the line
from right to left, above which slices are not axial."""

MIN_PIXEL_SPACING_MM, MAX_PIXEL_SPACING_MM = 0.1, 3.0
"""Pixel spacings between which a chest CT is plausible."""

MAX_NUMBER = 1e5
"""Numbers of this size or more, in mm, are no position; NaN is none either."""

MIN_MATRIX, MAX_MATRIX = 64, 2048
"""Rows and columns between which a chest CT is plausible."""


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


def check_slice(series_uid: str, item: SliceHeader, first: SliceHeader) -> None:
    """Refuse an image that cannot be of an axial chest CT, or that does not belong with the first one.

    Parameters
    ----------
    series_uid: str
        SeriesInstanceUID, for the sentence of a refusal.
    item, first: SliceHeader
        The image, and any other image of the series, already checked.

    Raises
    ------
    SeriesRefused
        With the reason.
    """
    name = f"Series {series_uid}"
    _check_values(name, item)
    _check_sameness(name, item, first)


def check_voxels(series_uid: str, slices: int, size: SliceHeader, rules: SeriesRules) -> None:
    """Refuse what would not fit into memory.

    Raises
    ------
    SeriesRefused
        With the reason.
    """
    if slices * size.rows * size.columns > rules.max_voxels:
        raise SeriesRefused(
            Reason.TOO_MANY_SLICES,
            f"Series {series_uid} has {slices} slices of {size.rows} x {size.columns} pixels or more, at most "
            f"{rules.max_voxels / 1e6:.0f} million pixels are read; send only the chest.",
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
    for item in slices:
        check_slice(series_uid, item, first)
    check_voxels(series_uid, len(slices), first, rules)
    row, column, normal = _axes(first)
    # Patients lie on their back, belly or side, so that rows or columns run across them.
    for what, cosine in (("slices", abs(normal[2])), ("rows and columns", max(abs(row[0]), abs(column[0])))):
        angle = np.degrees(np.arccos(min(1.0, cosine)))
        if angle > MAX_OBLIQUITY_DEG:
            raise SeriesRefused(
                Reason.NOT_AXIAL,
                f"{name} is not axial: its {what} are turned by {angle:.0f} degrees; choose the axial series.",
            )
    positions = np.array([item.position for item in slices])
    order = np.argsort(positions @ normal, kind="stable")
    heights = (positions @ normal)[order]
    spacing = _check_spacing(name, heights, positions[order, 2], rules)
    _check_shift(name, heights, positions[order] - np.outer(heights, normal))
    affine = slice_affine(first, spacing)
    affine[:3, 3] = positions[order[0]]
    return Arrangement(order, affine)


def normal_of(item: SliceHeader) -> tuple[float, float, float]:
    """Direction, of length one, in which the slices of a series ascend (`arrange`), by one that is checked already."""
    x, y, z = map(float, _axes(item)[2])
    return x, y, z


def slice_affine(item: SliceHeader, spacing_mm: float) -> NDArray[np.float64]:
    """As `Volume.affine`, of a volume that begins with a slice.

    Parameters
    ----------
    item: SliceHeader
        Already checked.
    spacing_mm: float
        Distance in mm to the next slice.
    """
    row, column, normal = _axes(item)
    affine = np.eye(4)
    affine[:3, 0] = normal * spacing_mm
    affine[:3, 1] = column * item.pixel_spacing[0]
    affine[:3, 2] = row * item.pixel_spacing[1]
    affine[:3, 3] = item.position
    return affine


def _axes(item: SliceHeader) -> NDArray[np.float64]:
    """Directions of a row, of a column and of their normal, exactly of length one and at right angles; shape (3, 3)."""
    row, column = np.array(item.orientation[:3]), np.array(item.orientation[3:])
    normal = np.cross(row, column)
    row, normal = row / np.linalg.norm(row), normal / np.linalg.norm(normal)
    return np.array([row, np.cross(normal, row), normal])


def _check_values(name: str, item: SliceHeader) -> None:
    """Refuse geometry that cannot be that of a chest CT."""
    for what, numbers, count in (
        ("position", item.position, 3),
        ("orientation", item.orientation, 6),
        ("pixel spacing", item.pixel_spacing, 2),
    ):
        if len(numbers) != count or not all(abs(number) < MAX_NUMBER for number in numbers):
            raise _bad_geometry(name, f"the {what} of an image is missing or not {count} plausible numbers")
    row, column = item.orientation[:3], item.orientation[3:]
    products = (_dot(row, row) - 1, _dot(column, column) - 1, _dot(row, column))
    if max(map(abs, products)) > SAME_DIRECTION * 10:
        raise _bad_geometry(name, "the direction cosines of an image are not at right angles and of length one")
    if not all(MIN_PIXEL_SPACING_MM <= spacing <= MAX_PIXEL_SPACING_MM for spacing in item.pixel_spacing):
        spacing = " x ".join(f"{value:g}" for value in item.pixel_spacing)
        raise _bad_geometry(name, f"its pixel spacing of {spacing} mm is not that of a chest CT")
    if not all(MIN_MATRIX <= size <= MAX_MATRIX for size in (item.rows, item.columns)):
        raise _bad_geometry(name, f"its matrix of {item.rows} x {item.columns} is not that of a chest CT")


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _bad_geometry(name: str, what: str) -> SeriesRefused:
    return SeriesRefused(
        Reason.BAD_GEOMETRY, f"{name} has headers that cannot be right: {what}; correct them and send the series again."
    )


def _check_sameness(name: str, item: SliceHeader, first: SliceHeader) -> None:
    """Refuse images of different orientation or size under one series."""
    if max(abs(a - b) for a, b in zip(item.orientation, first.orientation, strict=True)) > SAME_DIRECTION:
        raise SeriesRefused(
            Reason.MIXED_ORIENTATION,
            f"{name} mixes images of different orientation, such as a localizer or reformats; send the axial "
            "images as a series of their own.",
        )
    if (item.rows, item.columns) != (first.rows, first.columns):
        raise SeriesRefused(
            Reason.MIXED_SIZE,
            f"{name} mixes images of {first.rows} x {first.columns} and of {item.rows} x {item.columns} pixels; "
            "send them as series of their own.",
        )
    if any(abs(a / b - 1) > SAME_PIXEL_SPACING for a, b in zip(item.pixel_spacing, first.pixel_spacing, strict=True)):
        raise SeriesRefused(
            Reason.MIXED_SIZE,
            f"{name} mixes images with pixels of {first.pixel_spacing[0]:g} mm and of {item.pixel_spacing[0]:g} mm; "
            "send them as series of their own.",
        )


def _check_shift(name: str, heights: NDArray[np.float64], sideways: NDArray[np.float64]) -> None:
    """Refuse slices that do not lie straight above each other.

    Parameters
    ----------
    name: str
        Names the series.
    heights: NDArray
        Positions along the normal in mm, shape (slices,), ascending.
    sideways: NDArray
        The rest of the positions in mm, shape (slices, 3).
    """
    shift = sideways - sideways[0]
    largest = float(np.linalg.norm(shift, axis=1).max())
    if largest <= MAX_SHIFT_MM:
        return
    steady = np.outer((heights - heights[0]) / (heights[-1] - heights[0]), shift[-1])
    if np.linalg.norm(shift - steady, axis=1).max() > MAX_SHIFT_MM:
        raise _bad_geometry(name, f"its slices do not lie above each other but jump sideways by up to {largest:.1f} mm")
    raise SeriesRefused(
        Reason.GANTRY_TILT,
        f"{name} was taken with a tilted gantry: its slices are shifted by up to {largest:.1f} mm against their "
        "normal; send a series reconstructed without tilt.",
    )


def _check_spacing(name: str, heights: NDArray[np.float64], z: NDArray[np.float64], rules: SeriesRules) -> float:
    """The distance between neighbouring slices in mm, if it is one.

    Parameters
    ----------
    name: str
        Names the series.
    heights: NDArray
        Positions along the normal in mm, ascending.
    z: NDArray
        The same slices' z of ImagePositionPatient, by which people know them.
    rules: SeriesRules
        Which series may be analysed.
    """
    steps = np.diff(heights)
    spacing = float(np.median(steps))
    duplicates = np.flatnonzero(steps < SAME_POSITION_MM)
    if len(duplicates):
        raise SeriesRefused(
            Reason.DUPLICATE_POSITIONS,
            f"{name} has more than one image at {_count(len(duplicates), 'position')}, the first at "
            f"z {z[duplicates[0]]:.1f} mm; send each reconstruction as a series of its own.",
        )
    gaps = np.flatnonzero(steps > GAP * spacing)
    if len(gaps):
        raise SeriesRefused(
            Reason.GAPS,
            f"{name} has {_count(len(gaps), 'gap')}, the first between the slices at z {z[gaps[0]]:.1f} mm and "
            f"{z[gaps[0] + 1]:.1f} mm where {spacing:.2f} mm are expected; send the missing images, or "
            "each reconstruction as a series of its own.",
        )
    deviation = float(np.abs(steps - spacing).max())
    stray = float(np.abs(heights - np.linspace(heights[0], heights[-1], len(heights))).max())
    if deviation > max(EVEN_SPACING * spacing, EVEN_SPACING_MM) or stray > MAX_STRAY * spacing:
        raise SeriesRefused(
            Reason.UNEVEN_SPACING,
            f"{name} is unevenly spaced: distances between slices go from {steps.min():.2f} mm to {steps.max():.2f} "
            "mm; send a series of even spacing.",
        )
    if spacing > rules.max_spacing_mm:
        raise SeriesRefused(
            Reason.BAD_GEOMETRY,
            f"{name} has slices {spacing:.1f} mm apart, at most {rules.max_spacing_mm:g} mm are analysed; send the "
            "series with closer slices.",
        )
    length = float(heights[-1] - heights[0])
    if length < rules.min_length_mm:
        raise SeriesRefused(
            Reason.TOO_FEW_SLICES,
            f"{name} covers {length:.0f} mm of the patient, at least {rules.min_length_mm:g} mm are needed; send the "
            "whole chest.",
        )
    return length / len(steps)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
