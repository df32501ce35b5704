"""The grid that the anatomy is drawn on, and the small tools to draw with.

All coordinates are the patient's (LPS) in mm with the origin in the middle of the chest: x to the left, y to the back,
z to the head. Arrays are in the order (z, y, x). A signed distance is in mm and negative inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline, PchipInterpolator

Array = NDArray[np.float32]

FIELD_OF_VIEW_MM = 358.4
"""Width and depth in mm of the images."""

GRID = 256
"""Rows and columns of the drawing grid."""

PIXEL_MM = FIELD_OF_VIEW_MM / GRID
"""Distance in mm between the drawing grid's pixels."""

STEP_MM = 2.0
"""Distance in mm between the drawing grid's slices."""

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


def coverage(distance: Array, softness_mm: float = PIXEL_MM) -> Array:
    """Fraction 0-1 of a voxel inside a surface at this signed distance: the partial volume effect."""
    return np.clip(0.5 - distance / np.float32(softness_mm), 0, 1)


def smooth_max(first: Array, second: Array, rounding_mm: float) -> Array:
    """Intersection of two signed distances with a rounded edge."""
    return np.float32(0.5) * (first + second + np.sqrt((first - second) ** 2 + np.float32(rounding_mm**2)))


def smooth_min(first: Array, second: Array, rounding_mm: float) -> Array:
    """Union of two signed distances with a rounded edge."""
    return -smooth_max(-first, -second, rounding_mm)


def ellipsoid(z: Array, y: Array, x: Array, centre: Sequence[float], radii: Sequence[float]) -> Array:
    """Signed distance, right near the surface, to an ellipsoid; centre and radii as (z, y, x)."""
    terms = [((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radii, strict=True)]
    return ((np.sqrt(terms[0] + terms[1] + terms[2]) - 1) * min(radii)).astype(np.float32)


def capsule(
    z: Array, y: Array, x: Array, start: Sequence[float], end: Sequence[float], radii: Sequence[float]
) -> Array:
    """Signed distance to a rod with round ends from `start` to `end` as (z, y, x), its radius going from one to another."""
    axis = np.subtract(end, start)
    along = ((z - start[0]) * axis[0] + (y - start[1]) * axis[1] + (x - start[2]) * axis[2]) / float(axis @ axis)
    t = np.clip(along, 0, 1)
    squared = sum((c - s - t * a) ** 2 for c, s, a in zip((z, y, x), start, axis, strict=True))
    return (np.sqrt(squared) - (radii[0] + t * (radii[1] - radii[0]))).astype(np.float32)


def linear_neighbours(at: Array, origin: float, step: float, count: int) -> tuple[NDArray[np.intp], Array]:
    """For linear interpolation between `count` samples from `origin` on: the lower sample, and the upper one's share."""
    index = np.clip((np.asarray(at, np.float64) - origin) / step, 0, count - 1)
    lower = np.minimum(index.astype(np.intp), count - 2)
    return lower, (index - lower).astype(np.float32)


@dataclass(frozen=True)
class Texture:
    """A smooth random field of mean 0 and deviation about 1 over the drawing grid.

    Attributes
    ----------
    grain_mm: float
        Distance in mm between its random knots.
    rng: np.random.Generator
        Source of the knots.
    """

    grain_mm: float
    rng: np.random.Generator
    _plane: Array = field(init=False, repr=False)
    _heights: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        across = self._spline(pixel_centres(GRID))
        up = self._spline(grid_z())
        knots = self.rng.standard_normal((up.shape[1], across.shape[1], across.shape[1]), np.float32)
        # A cubic B-spline of white knots has about a tenth of their deviation left over three axes' averaging.
        object.__setattr__(self, "_plane", np.float32(3.0) * (across @ knots @ across.T))
        object.__setattr__(self, "_heights", up)

    def _spline(self, at: Array) -> Array:
        start = float(at[0]) - 2 * self.grain_mm
        count = int(np.ceil((float(at[-1]) - start) / self.grain_mm)) + 4
        knots = start + self.grain_mm * (np.arange(count + 4) - 1.5)
        return np.asarray(BSpline.design_matrix(np.asarray(at, float), knots, 3).toarray(), np.float32)

    def __getitem__(self, chunk: slice) -> Array:
        """Values on some slices of the drawing grid, shape (slices, GRID, GRID)."""
        weights = self._heights[chunk]
        used = np.flatnonzero(weights.any(0))
        near = slice(used[0], used[-1] + 1)
        return np.tensordot(weights[:, near], self._plane[near], axes=1)


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

    def window(self, low: Sequence[float], high: Sequence[float]) -> "Window | None":
        """The part of the canvas within a box from `low` to `high` as (z, y, x) in mm, or None where there is none."""
        across = pixel_centres(GRID)
        ranges = [
            slice(int(np.searchsorted(axis, lo)), int(np.searchsorted(axis, hi)))
            for axis, lo, hi in zip((self.z, across, across), low, high, strict=True)
        ]
        if any(r.start >= r.stop for r in ranges):
            return None
        rz, ry, rx = ranges
        return Window(self.z[rz, None, None], across[None, ry, None], across[None, None, rx], self.hu[rz, ry, rx])

    def paint_ellipsoid(self, centre: Sequence[float], radii: Sequence[float], hu: float) -> None:
        """Fill an ellipsoid; centre and radii as (z, y, x) in mm."""
        reach = np.asarray(radii) + 3
        if part := self.window(np.subtract(centre, reach), np.add(centre, reach)):
            part.paint(ellipsoid(part.z, part.y, part.x, centre, radii), hu)

    def paint_rod(self, points: Sequence[Sequence[float]], radii: Sequence[float], hu: float) -> None:
        """Fill a bent rod through points as (z, y, x) in mm, one radius in mm for each point."""
        for start, end, near, far in zip(points, points[1:], radii, radii[1:], strict=False):
            reach = max(near, far) + 3
            if part := self.window(np.minimum(start, end) - reach, np.maximum(start, end) + reach):
                part.paint(capsule(part.z, part.y, part.x, start, end, (near, far)), hu)


@dataclass(frozen=True)
class Window:
    """A box of a canvas with its coordinates, ready to broadcast."""

    z: Array
    y: Array
    x: Array
    hu: Array

    def paint(self, distance: Array, hu: Array | float, softness_mm: float = PIXEL_MM) -> None:
        """Mix `hu` in where the signed distance says inside."""
        self.hu[:] += coverage(distance, softness_mm) * (hu - self.hu)
