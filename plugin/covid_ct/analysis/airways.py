"""The trachea and the main bronchi, which a lung network may take for lung."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from covid_ct.inference.grid import Grid
from covid_ct.inference.preprocessing import Box, axis_weights, mask_box, resample_plane
from covid_ct.inference.scan import Scan

LUMEN_HU = -920
"""The air of the large airways is below this on a network's grid; lung is above but for emphysema."""

LUMEN_MM2 = (40.0, 1000.0)
"""Area of an airway in a slice: the smallest main bronchus is 7 mm wide, the largest the bifurcation."""

MIDDLE = (0.25, 0.75)
"""Share of the lungs' width in which the trachea and the main bronchi lie."""

SEED_FILL = 0.55
"""Share of its bounding box that the trachea fills where it begins; a disc fills 0.79 of it."""

MIN_HEIGHT_MM = 40.0
"""What cannot be followed down so far is no trachea."""


def find_airways(scan: Scan, grid: Grid, lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Follow the air of the trachea from the top of the lungs down into the main bronchi.

    Slice by slice, the air that lies below that of the slice above is followed as long as it is neither as small as a
    lobar bronchus nor so large that it has to be lung.

    Parameters
    ----------
    scan: Scan
    grid: Grid
    lungs: NDArray[np.bool_]
        Shape (slices, rows, columns of the grid), not all False: what a network took for lung, airways perhaps
        included.

    Returns
    -------
    NDArray[np.bool_]
        Same shape, a cell of wall included; all False where no trachea was found.
    """
    airways = np.zeros(lungs.shape, bool)
    # Within the lungs' own rows and columns there is neither table nor air around the patient.
    where = _middle(mask_box(lungs))
    rows, columns = (
        axis_weights(
            stop - start,
            tuple(edge * (stop - start) / cells for edge in (span.start, span.stop)),
            span.stop - span.start,
        )
        for (start, stop), cells, span in zip((grid.rows, grid.columns), grid.cells, where[1:], strict=True)
    )
    slice_mm, row_mm, column_mm = grid.cell_mm(scan.spacing)
    areas = np.array(LUMEN_MM2) / (row_mm * column_mm)
    followed: list[int] = []
    for index in reversed(range(where[0].start, where[0].stop)):
        parts, count = ndimage.label(resample_plane(scan.hu[grid.place(index)], rows, columns) < LUMEN_HU)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        fitting = (sizes >= areas[0]) & (sizes <= areas[1])
        fitting[0] = False
        if followed:
            fitting &= np.bincount(parts[airways[index + 1][where[1:]]], minlength=count + 1) > 0
        else:
            fitting &= _seeds(parts, sizes, fitting)
        if fitting.any():
            airways[index][where[1:]] = fitting[parts]
            followed.append(index)
        elif len(followed) * slice_mm >= MIN_HEIGHT_MM:
            break
        else:
            airways[followed] = False
            followed.clear()
    if len(followed) * slice_mm < MIN_HEIGHT_MM:
        return np.zeros_like(airways)
    inside = mask_box(airways, (0, 1, 1)).index
    airways[inside] = ndimage.maximum_filter(airways[inside].view(np.uint8), (1, 3, 3), mode="constant").view(bool)
    return airways


def _middle(box: Box) -> tuple[slice, slice, slice]:
    """Index of the middle of a box's width."""
    first, last = (round(box.columns[0] + share * box.shape[2]) for share in MIDDLE)
    return slice(*box.slices), slice(*box.rows), slice(first, max(first + 1, last))


def _seeds(parts: NDArray[np.int32], sizes: NDArray[np.int64], fitting: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which parts of a slice may be where the trachea begins: round, and not cut by the search's sides."""
    seeds = np.zeros(len(sizes), bool)
    boxes = ndimage.find_objects(parts)
    for part in np.flatnonzero(fitting):
        rows, columns = boxes[part - 1]
        fill = sizes[part] / ((rows.stop - rows.start) * (columns.stop - columns.start))
        seeds[part] = columns.start > 0 and columns.stop < parts.shape[1] and fill >= SEED_FILL
    return seeds
