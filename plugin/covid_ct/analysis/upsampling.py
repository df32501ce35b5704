"""From a network's grid back to the voxels of the CT, smoothly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from covid_ct.inference.grid import Grid
from covid_ct.inference.preprocessing import axis_weights, mask_box, resample_plane
from covid_ct.parallel import SLICES_AT_ONCE, in_parallel


@dataclass(frozen=True)
class GridMap:
    """Labels on a network's grid, with what is needed to bring them back smoothly.

    Attributes
    ----------
    grid: Grid
    probabilities: NDArray[np.uint8]
        That a cell has any label, shape (slices, rows, columns of the grid); 255 stands for 1. Above one half where
        `labels` is nonzero, below elsewhere.
    labels: NDArray[np.uint8]
        Same shape.
    """

    grid: Grid
    probabilities: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def paint(target: NDArray[np.uint8], grid_map: GridMap) -> None:
    """Write labels into a full-resolution map wherever the interpolated probability is above one half.

    Parameters
    ----------
    target: NDArray[np.uint8]
        Shape (slices, rows, columns) of the CT; written in place from the grid's first slice to its last.
    grid_map: GridMap
    """
    grid, probabilities, labels = grid_map.grid, grid_map.probabilities, grid_map.labels
    if not labels.any():
        return
    occupied = mask_box(labels, (1, 1, 1))
    crop = occupied.index[1:]
    rows, row_weights, row_cells = _axis(grid.cells[0], grid.rows, occupied.rows)
    columns, column_weights, column_cells = _axis(grid.cells[1], grid.columns, occupied.columns)

    def work(first: int) -> None:
        end = first + SLICES_AT_ONCE
        # With the next batch's first slice, for what lies between the two.
        numbers = slice(first, min(end + 1, occupied.slices[1]))
        surplus = resample_plane(probabilities[numbers, *crop], row_weights, column_weights)
        surplus -= np.float32(127.5)
        own = labels[numbers, *crop]
        spread = np.where(own > 0, own, ndimage.maximum_filter(own, (1, 3, 3)))
        names = spread[:, row_cells][:, :, column_cells]
        places = grid.slices[numbers]
        for index in range(places[0], places[-1] + (end >= occupied.slices[1])):
            near, far, share = grid.around(index)
            name = names[near - first]
            if share:
                # (1 - share) * near + share * far > 0, in two passes over the arrays instead of four.
                inside = surplus[near - first] > np.float32(-share / (1.0 - share)) * surplus[far - first]
                name = np.where(name, name, names[far - first])
            else:
                inside = surplus[near - first] > 0
            target[index, rows, columns] = name * inside

    for _ in in_parallel(work, range(occupied.slices[0], occupied.slices[1], SLICES_AT_ONCE)):
        pass


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
