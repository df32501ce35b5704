"""From a network's grid back to the voxels of the CT, smoothly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from covid_ct.inference.preprocessing import Box, axis_weights, mask_box, resample_plane
from covid_ct.parallel import cores, in_parallel

SLICES_AT_ONCE = 8
"""Slices that are resampled together."""


@dataclass(frozen=True)
class GridMap:
    """Labels on a network's grid, with what is needed to bring them back smoothly.

    Attributes
    ----------
    probabilities: NDArray[np.uint8]
        That a cell has any label, shape (slices, rows, columns); 255 stands for 1. Above one half where `labels` is
        nonzero, below elsewhere.
    labels: NDArray[np.uint8]
        Same shape.
    """

    probabilities: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def paint(target: NDArray[np.uint8], box: Box, grid_map: GridMap) -> None:
    """Write labels into a full-resolution map wherever the interpolated probability is above one half.

    Parameters
    ----------
    target: NDArray[np.uint8]
        Shape (slices, rows, columns) of the CT; written in place within the box.
    box: Box
        The part of `target` that the grid divides evenly.
    grid_map: GridMap
        With as many slices as the box.
    """
    probabilities, labels = grid_map.probabilities, grid_map.labels
    occupied = np.flatnonzero(labels.any(axis=(1, 2)))
    if occupied.size == 0:
        return
    crop = _grid_crop(labels)
    rows, row_weights, row_cells = _axis(labels.shape[1], box.rows, crop[0])
    columns, column_weights, column_cells = _axis(labels.shape[2], box.columns, crop[1])

    def work(indices: NDArray[np.int64]) -> None:
        part = (indices, slice(*crop[0]), slice(*crop[1]))
        inside = resample_plane(probabilities[part], row_weights, column_weights) > 127.5
        own = labels[part]
        spread = np.where(own > 0, own, ndimage.maximum_filter(own, (1, 3, 3)))
        painted = spread[:, row_cells][:, :, column_cells] * inside
        target[indices + box.slices[0], rows, columns] = painted

    for _ in in_parallel(work, np.array_split(occupied, -(-occupied.size // SLICES_AT_ONCE)), cores()):
        pass


def _grid_crop(labels: NDArray[np.uint8]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of the grid that hold labels, and a rim for the interpolation."""
    box = mask_box(labels, (0, 1, 1))
    return box.rows, box.columns


def _axis(
    cells: int, interval: tuple[int, int], crop: tuple[int, int]
) -> tuple[slice, sparse.csr_array, NDArray[np.int64]]:
    """Voxels of the CT that a crop of the grid covers, the weights that lead there, and each one's nearest cell."""
    voxels = interval[1] - interval[0]
    scale = cells / voxels
    first = int(np.ceil(crop[0] / scale))
    last = int(np.floor(crop[1] / scale))
    weights = axis_weights(crop[1] - crop[0], (first * scale - crop[0], last * scale - crop[0]), last - first)
    nearest = np.clip(((np.arange(first, last) + 0.5) * scale).astype(np.int64) - crop[0], 0, crop[1] - crop[0] - 1)
    return slice(interval[0] + first, interval[0] + last), weights, nearest
