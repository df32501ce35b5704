"""What happens to Hounsfield units before a network sees them: the one place for inference and for training.

All arrays are in the standard axial view (`Volume.to_lps`): slices from feet to head, rows from anterior to
posterior, columns from the patient's right to left. An axis of n cells is the interval 0-n, a cell's centre lies at
its index plus one half, so that an image keeps its outer edges whatever size it is resampled to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

Interpolation = Literal["area", "linear"]
"""`area` averages what a larger cell covers (no aliasing); `linear` takes the two nearest cells at whatever scale."""

BODY_HU = -500
"""HU above which a voxel is taken for body rather than air (as lungmask's own body mask does)."""

BODY_MASK_SIZE = 128
"""Rows and columns, about, of the coarse image in which the body is looked for."""


@dataclass(frozen=True)
class Box:
    """A part of an array in the standard axial view, as half-open intervals of indices.

    Attributes
    ----------
    slices, rows, columns: tuple[int, int]
        First index, and the one after the last.
    """

    slices: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def index(self) -> tuple[slice, slice, slice]:
        """What to index a (slices, rows, columns) array with."""
        return slice(*self.slices), slice(*self.rows), slice(*self.columns)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, rows and columns."""
        return (
            self.slices[1] - self.slices[0],
            self.rows[1] - self.rows[0],
            self.columns[1] - self.columns[0],
        )


def field_box(shape: tuple[int, ...]) -> Box:
    """Box that holds a whole array of shape (slices, rows, columns)."""
    return Box((0, shape[0]), (0, shape[1]), (0, shape[2]))


def mask_box(mask: NDArray[Any], margins: Sequence[int] = (0, 0, 0)) -> Box:
    """Bounding box of a mask, widened by a margin and cut at the array's edges.

    Parameters
    ----------
    mask: NDArray
        Shape (slices, rows, columns); what is nonzero counts. At least one voxel has to be.
    margins: Sequence[int]
        Number of slices, rows and columns to add on either side.

    Returns
    -------
    Box
    """
    # max() takes half the time of any() on whole numbers.
    across = mask.max(axis=0)
    occupied = (mask.max(axis=(1, 2)), across.any(axis=1), across.any(axis=0))
    intervals = []
    for line, margin, length in zip(occupied, margins, mask.shape, strict=True):
        found = np.flatnonzero(line)
        intervals.append((max(0, int(found[0]) - margin), min(length, int(found[-1]) + 1 + margin)))
    return Box(*intervals)


def body_boxes(hu: NDArray[np.int16], margins: tuple[int, int] = (0, 0)) -> list[Box]:
    """Bounding box of the body in every slice, so that the air and most of the table around it are left out.

    The largest region above `BODY_HU` of a coarse image, holes filled, after an opening that cuts off table and
    clothes: the method of lungmask (Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2).

    Parameters
    ----------
    hu: NDArray[np.int16]
        Shape (slices, rows, columns).
    margins: tuple[int, int]
        Number of rows and columns to add on either side.

    Returns
    -------
    list[Box]
        One for each slice, one slice thick. A slice without body gets its whole field.
    """
    return [_body_box(index, image, margins) for index, image in enumerate(hu)]


def _body_box(index: int, image: NDArray[np.int16], margins: tuple[int, int]) -> Box:
    steps = [max(1, count // BODY_MASK_SIZE) for count in image.shape]
    coarse = image[steps[0] // 2 :: steps[0], steps[1] // 2 :: steps[1]] > BODY_HU
    coarse = ndimage.binary_fill_holes(ndimage.binary_closing(coarse))
    coarse = ndimage.binary_erosion(coarse, iterations=2)
    regions, count = ndimage.label(coarse)
    if count == 0:
        return Box((index, index + 1), (0, image.shape[0]), (0, image.shape[1]))
    largest = regions == 1 + np.argmax(np.bincount(regions.ravel())[1:])
    largest = ndimage.binary_dilation(largest, iterations=2)
    box = mask_box(largest[np.newaxis])
    rows, columns = (
        (max(0, start * step - margin), min(length, stop * step + margin))
        for (start, stop), step, margin, length in zip(
            (box.rows, box.columns), steps, margins, image.shape, strict=True
        )
    )
    return Box((index, index + 1), rows, columns)


@lru_cache(maxsize=64)
def axis_weights(
    source: int, interval: tuple[float, float], target: int, interpolation: Interpolation = "area"
) -> sparse.csr_array:
    """Sparse matrix that resamples one axis.

    Parameters
    ----------
    source: int
        Number of cells of the axis.
    interval: tuple[float, float]
        Part of the axis to sample, in cells of the source; what lies outside 0-source becomes zero.
    target: int
        Number of equal cells that the interval is divided into.
    interpolation: Interpolation
        Meets cells of the target that are larger than the source's; smaller ones are always linear.

    Returns
    -------
    sparse.csr_array
        float32, shape (target, source); to be multiplied from the left. Kept for the next call: not to be changed.
    """
    step = (interval[1] - interval[0]) / target
    weights = np.zeros((target, source))
    if interpolation == "area" and step > 1.0:
        edges = interval[0] + step * np.arange(target + 1)
        cells = np.arange(source)
        overlap = np.minimum(edges[1:, np.newaxis], cells + 1) - np.maximum(edges[:-1, np.newaxis], cells)
        weights = np.maximum(overlap, 0.0)
        covered = weights.sum(axis=1, keepdims=True)
        weights /= np.where(covered > 0.0, covered, 1.0)
    else:
        centres = interval[0] + step * (np.arange(target) + 0.5) - 0.5
        inside = np.flatnonzero((centres >= -0.5) & (centres <= source - 0.5))
        centres = np.clip(centres[inside], 0.0, source - 1.0)
        lower = np.minimum(centres.astype(int), max(0, source - 2))
        weights[inside, lower] = 1.0 - (centres - lower)
        if source > 1:
            weights[inside, lower + 1] = centres - lower
    return sparse.csr_array(weights.astype(np.float32))


def resample_plane(images: NDArray[Any], rows: sparse.csr_array, columns: sparse.csr_array) -> NDArray[np.float32]:
    """Resample the last two axes of an array with two matrices of `axis_weights`.

    Sparse and slice by slice: four times faster than dense matrices, and without the threads of a BLAS, which wait
    for each other for tens of milliseconds as soon as the machine has anything else to do.

    Parameters
    ----------
    images: NDArray
        Shape (..., rows, columns).
    rows, columns: sparse.csr_array
        Shapes (new rows, rows) and (new columns, columns).

    Returns
    -------
    NDArray[np.float32]
        Shape (..., new rows, new columns).
    """
    flat = images.reshape(-1, *images.shape[-2:])
    resampled = np.empty((len(flat), rows.shape[0], columns.shape[0]), np.float32)
    for target, image in zip(resampled, flat, strict=True):
        within = rows @ image.astype(np.float32, copy=False)
        target[:] = (columns @ np.ascontiguousarray(within.T)).T
    return resampled.reshape(*images.shape[:-2], *resampled.shape[1:])


def resize(images: NDArray[Any], size: tuple[int, int], interpolation: Interpolation = "area") -> NDArray[np.float32]:
    """Scale the last two axes of an array to a size.

    Parameters
    ----------
    images: NDArray
        Shape (..., rows, columns).
    size: tuple[int, int]
        New rows and columns.
    interpolation: Interpolation

    Returns
    -------
    NDArray[np.float32]
        Shape (..., *size).
    """
    height, width = images.shape[-2:]
    if (height, width) == size:
        return images.astype(np.float32)
    return resample_plane(
        images,
        axis_weights(height, (0, height), size[0], interpolation),
        axis_weights(width, (0, width), size[1], interpolation),
    )


def scale_intensities(
    images: NDArray[np.float32],
    clip_hu: tuple[float, float],
    scale_to: tuple[float, float],
    standardise: bool = False,
) -> NDArray[np.float32]:
    """Clip, map linearly and standardise, in place.

    Parameters
    ----------
    images: NDArray[np.float32]
        Shape (images, ...), in HU. Overwritten.
    clip_hu: tuple[float, float]
        Range in HU that is kept.
    scale_to: tuple[float, float]
        What the ends of that range become.
    standardise: bool
        Whether every image gets zero mean and unit variance afterwards.

    Returns
    -------
    NDArray[np.float32]
        The same array.
    """
    np.clip(images, clip_hu[0], clip_hu[1], out=images)
    slope = (scale_to[1] - scale_to[0]) / (clip_hu[1] - clip_hu[0])
    images *= np.float32(slope)
    images += np.float32(scale_to[0] - slope * clip_hu[0])
    if standardise:
        axes = tuple(range(1, images.ndim))
        images -= images.mean(axis=axes, keepdims=True)
        deviation = images.std(axis=axes, keepdims=True)
        # An even image (all air) stays at zero.
        images /= np.where(deviation > np.finfo(np.float32).eps, deviation, np.float32(1.0))
    return images


def prepare_slices(
    hu: NDArray[Any],
    size: tuple[int, int],
    *,
    clip_hu: tuple[float, float],
    scale_to: tuple[float, float],
    standardise: bool = False,
    interpolation: Interpolation = "area",
    coarse: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Slices as a 2-D network gets them: clipped, coarsened, resized, scaled, standardised, in this order.

    Clipping comes first, so that metal or padding does not bleed into its neighbours.

    Parameters
    ----------
    hu: NDArray
        Shape (slices, rows, columns), cropped to the model's region already.
    size: tuple[int, int]
        The network's rows and columns.
    clip_hu, scale_to, standardise
        As in `scale_intensities`.
    interpolation: Interpolation
    coarse: tuple[int, int] | None
        Rows and columns to which the slices are averaged before they are scaled to `size`, as of `coarse_size`.

    Returns
    -------
    NDArray[np.float32]
        Shape (slices, *size).
    """
    clipped = np.clip(hu, np.float32(clip_hu[0]), np.float32(clip_hu[1]))
    if coarse is not None:
        clipped = resize(clipped, coarse)
    return scale_intensities(resize(clipped, size, interpolation), clip_hu, scale_to, standardise)


def coarse_size(size: tuple[int, int], pixel_mm: tuple[float, float], finest_mm: float) -> tuple[int, int]:
    """Rows and columns of an image whose pixels are about so large, and no smaller than they are.

    Parameters
    ----------
    size: tuple[int, int]
        Rows and columns that it has.
    pixel_mm: tuple[float, float]
        Distance of its rows and columns in mm.
    finest_mm: float

    Returns
    -------
    tuple[int, int]
    """
    rows, columns = (
        min(count, max(1, round(count * step / finest_mm))) for count, step in zip(size, pixel_mm, strict=True)
    )
    return rows, columns


def set_outside(hu: NDArray[np.int16], mask: NDArray[np.bool_], value: int, dilation: int = 2) -> NDArray[np.int16]:
    """Copy of slices in which everything outside a mask is one value, so that a network sees nothing else.

    Parameters
    ----------
    hu: NDArray[np.int16]
        Shape (slices, rows, columns).
    mask: NDArray[np.bool_]
        Same shape; the lungs.
    value: int
        HU that the outside gets.
    dilation: int
        Number of pixels by which the mask is widened in-plane first, to keep the pleura.

    Returns
    -------
    NDArray[np.int16]
    """
    cross = ndimage.generate_binary_structure(2, 1)[np.newaxis]
    kept = ndimage.binary_dilation(mask, cross, iterations=dilation) if dilation else mask
    return np.where(kept, hu, np.int16(value))
