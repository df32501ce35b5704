"""The grid that the anatomy is drawn on, and the small tools to draw with.

All coordinates are the patient's (LPS) in mm with the origin in the middle of the chest: x to the left, y to the back,
z to the head. Arrays are in the order (z, y, x). A signed distance is in mm and negative inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, PchipInterpolator
from scipy.sparse import csr_array

Array: TypeAlias = Any
"""An array of float32, in shapes that broadcast; numpy's types cannot follow it through arithmetic."""

Place: TypeAlias = Sequence[float]
"""A point, or three lengths, in mm as (z, y, x)."""

Points: TypeAlias = tuple[Array, Array, Array]
"""Coordinates (z, y, x) in mm that broadcast with each other."""

FIELD_OF_VIEW_MM = 358.4
"""Width and depth in mm of the images."""

GRID = 256
"""Rows and columns of the drawing grid."""

PIXEL_MM = FIELD_OF_VIEW_MM / GRID
"""Distance in mm between the drawing grid's pixels."""

STEP_MM = 2.0
"""Distance in mm between the drawing grid's slices."""

MARGIN_MM = 3.0
"""Width in mm around a shape that its partial volume surely stays within."""

HEIGHT_MM = 400.0
"""Height in mm of the drawn part of the body; beyond its ends the last slice goes on."""


def grid_z() -> Array:
    """Heights in mm of the drawing grid's slices."""
    count = int(HEIGHT_MM / STEP_MM)
    return ((np.arange(count) - (count - 1) / 2) * STEP_MM).astype(np.float32)


def pixel_centres(matrix: int) -> Array:
    """Positions in mm, along x or y alike, of the pixels' centres of a matrix over the field of view."""
    return ((np.arange(matrix) + 0.5) * (FIELD_OF_VIEW_MM / matrix) - FIELD_OF_VIEW_MM / 2).astype(np.float32)


def profile(z: Array, heights: Sequence[float], values: Sequence[float]) -> Array:
    """Smooth curve over the height through the given points, constant beyond them."""
    inside = np.clip(z, heights[0], heights[-1])
    return np.asarray(PchipInterpolator(heights, values)(inside), np.float32)


def coverage(distance: Array) -> Array:
    """Fraction 0-1 of a voxel inside a surface at this signed distance: the partial volume effect."""
    return np.clip(0.5 - distance / np.float32(PIXEL_MM), 0, 1)


def smooth_max(first: Array, second: Array, rounding_mm: float) -> Array:
    """Intersection of two signed distances with a rounded edge."""
    return np.float32(0.5) * (first + second + np.sqrt((first - second) ** 2 + np.float32(rounding_mm**2)))


def smooth_min(first: Array, second: Array, rounding_mm: float) -> Array:
    """Union of two signed distances with a rounded edge."""
    return -smooth_max(-first, -second, rounding_mm)


def ellipsoid(at: Points, centre: Place, radii: Place) -> Array:
    """Signed distance, right near the surface, to an ellipsoid."""
    terms = [((axis - c) / r) ** 2 for axis, c, r in zip(at, centre, radii, strict=True)]
    return ((np.sqrt(terms[0] + terms[1] + terms[2]) - 1) * min(radii)).astype(np.float32)


def rod(at: Points, start: Place, end: Place, radii: tuple[float, float]) -> Array:
    """Signed distance to a rod with round ends whose radius goes from one value at `start` to another at `end`."""
    axis = np.subtract(end, start)
    along = sum((c - s) * a for c, s, a in zip(at, start, axis, strict=True)) / float(axis @ axis)
    t = np.clip(along, 0, 1)
    squared = sum((c - s - t * a) ** 2 for c, s, a in zip(at, start, axis, strict=True))
    return (np.sqrt(squared) - (radii[0] + t * (radii[1] - radii[0]))).astype(np.float32)


def linear_neighbours(at: Array, origin: float, step: float, count: int) -> tuple[NDArray[np.intp], Array]:
    """For linear interpolation between `count` samples from `origin` on: the lower one, and the upper one's share."""
    index = np.clip((np.asarray(at, np.float64) - origin) / step, 0, count - 1)
    lower = np.minimum(index.astype(np.intp), count - 2)
    return lower, (index - lower).astype(np.float32)


class Texture:
    """A smooth random field of mean 0 and deviation about 1 over the drawing grid: a cubic spline of random knots.

    Parameters
    ----------
    grain_mm: float
        Distance in mm between the knots.
    rng: np.random.Generator
        Source of the knots.
    """

    def __init__(self, grain_mm: float, rng: np.random.Generator) -> None:
        across = self._spline(pixel_centres(GRID), grain_mm)
        self._up = self._spline(grid_z(), grain_mm)
        planes, width = self._up.shape[1], across.shape[1]
        # A spline smooths; three axes' worth of it leave a third of the knots' deviation.
        knots = 3.0 * rng.standard_normal((width, planes * width), np.float32)
        rows = (across @ knots).reshape(GRID, planes, width)
        columns = across @ rows.transpose(2, 1, 0).reshape(width, planes * GRID)
        self._planes = columns.reshape(GRID, planes, GRID).transpose(1, 2, 0).reshape(planes, GRID * GRID)

    @staticmethod
    def _spline(at: Array, grain_mm: float) -> csr_array:
        start = float(at[0]) - 2 * grain_mm
        count = int(np.ceil((float(at[-1]) - start) / grain_mm)) + 4
        knots = start + grain_mm * (np.arange(count + 4) - 1.5)
        return csr_array(BSpline.design_matrix(np.asarray(at, float), knots, 3), dtype=np.float32)

    def __getitem__(self, chunk: slice) -> Array:
        """Values on some slices of the drawing grid, shape (slices, GRID, GRID)."""
        return (self._up[chunk] @ self._planes).reshape(-1, GRID, GRID)


@dataclass(frozen=True)
class Canvas:
    """Some slices of the drawing grid, to be painted in HU.

    Attributes
    ----------
    z: Array
        Heights in mm of the slices.
    hu: Array
        Shape (slices, GRID, GRID).
    """

    z: Array
    hu: Array

    def window(self, low: Place, high: Place) -> "Window | None":
        """The part of the canvas within a box from `low` to `high`, or None where there is none."""
        across = pixel_centres(GRID)
        rz, ry, rx = (
            slice(int(np.searchsorted(axis, lo)), int(np.searchsorted(axis, hi)))
            for axis, lo, hi in zip((self.z, across, across), low, high, strict=True)
        )
        if any(r.start >= r.stop for r in (rz, ry, rx)):
            return None
        at = (self.z[rz, None, None], across[None, ry, None], across[None, None, rx])
        return Window((rz, ry, rx), at, self.hu[rz, ry, rx])

    def paint_ellipsoid(self, centre: Place, radii: Place, hu: float) -> None:
        """Fill an ellipsoid."""
        low, high = zip(
            *[(c - r - MARGIN_MM, c + r + MARGIN_MM) for c, r in zip(centre, radii, strict=True)], strict=True
        )
        if part := self.window(low, high):
            part.paint(ellipsoid(part.at, centre, radii), hu)

    def paint_rod(self, points: Sequence[Place], radii: Sequence[float], hu: float) -> None:
        """Fill a bent rod through points, with one radius in mm for each of them."""
        for (start, near), (end, far) in pairwise(zip(points, radii, strict=True)):
            reach = max(near, far) + MARGIN_MM
            low = [min(pair) - reach for pair in zip(start, end, strict=True)]
            high = [max(pair) + reach for pair in zip(start, end, strict=True)]
            if part := self.window(low, high):
                part.paint(rod(part.at, start, end, (near, far)), hu)


@dataclass(frozen=True)
class Window:
    """A box of a canvas.

    Attributes
    ----------
    box: tuple[slice, slice, slice]
        Which part of the canvas.
    at: Points
        Its voxels' centres.
    hu: Array
        A view of the canvas.
    """

    box: tuple[slice, slice, slice]
    at: Points
    hu: Array

    def paint(self, distance: Array, hu: Array | float) -> None:
        """Mix `hu` in where the signed distance says inside."""
        mix(self.hu, distance, hu)


def mix(canvas: Array, distance: Array, hu: Array | float) -> None:
    """Mix `hu` into an array in place, where the signed distance says inside."""
    canvas += coverage(distance) * (hu - canvas)
