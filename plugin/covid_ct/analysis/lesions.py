"""From a lesion network's probabilities to ground glass and consolidation of the lungs."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from covid_ct.analysis.findings import LesionKind, Side, where_label
from covid_ct.analysis.lungs import HALF, sum_classes
from covid_ct.analysis.parts import part_sizes
from covid_ct.analysis.upsampling import GridMap
from covid_ct.inference.preprocessing import mask_box, resize
from covid_ct.inference.scan import Scan
from covid_ct.inference.windows import Prediction
from covid_ct.parallel import in_parallel

MIN_LESION_ML = 0.1
"""Connected lesions smaller than this (a ball of 6 mm) are left out: vessels cut across look no different."""

REACH_MM = 10.0
"""How far a lesion may reach beyond what the lung network took for lung; dense lung is easily taken for chest wall.

It is what our lesion network sees around the lungs. On ten MedSeg slices that no training saw the mean Dice was 0.738
with all lesions cut to the lungs, 0.746 with 2.8 mm, 0.750 with 5.6 mm, 0.752 with 11 mm, and 0.754 without a limit.
"""

MIN_SHARE_IN_LUNGS = 0.3
"""A connected lesion of which less than this share lies in the lungs is heart, liver or chest wall beyond them."""

KIND_CELLS = 5
"""Side, in cells of the network's grid, of the square over which a lesion's kind is told; one cell alone is noise."""

CONSOLIDATION_HU = -300
"""Lesion above this density counts as consolidation where a network does not tell the kinds apart.

The threshold that told COVID-19 pneumonia best among eight tried by Li et al. 2021 (doi:10.1186/s12879-021-06556-z).
"""


def find_lesions(prediction: Prediction, scan: Scan) -> tuple[GridMap, NDArray[np.uint8]]:
    """Keep lesions of the lungs that are large enough, and tell their kind.

    Parameters
    ----------
    prediction: Prediction
        Of a network with the classes ground glass, consolidation, or lesion.
    scan: Scan
        With its lungs.

    Returns
    -------
    lesions: GridMap
        Labels are `LesionKind`, on the grid of the prediction.
    lungs: NDArray[np.uint8]
        Labels are `Side`, on the same grid: the lungs of the scan and what lesions reach beyond them.
    """
    probabilities = sum_classes(prediction.probabilities)
    cell_mm = prediction.grid.cell_mm(scan.spacing)
    if scan.lungs is None:
        raise ValueError("lesions are looked for in lungs that are known")
    lungs = prediction.grid.at_centres(scan.lungs)
    found = probabilities > HALF
    kept = in_lungs(found, lungs, (cell_mm[1], cell_mm[2]), MIN_LESION_ML / (float(np.prod(cell_mm)) / 1000.0))
    probabilities[found & ~kept] = 0
    kinds = np.zeros(kept.shape, np.uint8)
    dense = _consolidated(prediction, kept) if len(prediction.probabilities) == 2 else _dense(prediction, scan, kept)
    kinds[kept] = LesionKind.GROUND_GLASS
    kinds[kept & dense] = LesionKind.CONSOLIDATION
    grow(lungs, kept, (cell_mm[1], cell_mm[2]))
    return GridMap(prediction.grid, probabilities, kinds), lungs


def in_lungs(
    found: NDArray[np.bool_], lungs: NDArray[np.uint8], cell_mm: tuple[float, float], min_cells: float
) -> NDArray[np.bool_]:
    """Cut what a network found to the lungs, but for lesions that reach a little beyond them, and leave out specks.

    Parameters
    ----------
    found: NDArray[np.bool_]
        Shape (slices, rows, columns).
    lungs: NDArray[np.uint8]
        Label map of `Side`, same shape.
    cell_mm: tuple[float, float]
        Size of a cell along rows and columns.
    min_cells: float
        Connected lesions of which less is kept are left out.

    Returns
    -------
    NDArray[np.bool_]
        Same shape. Connected lesions with `MIN_SHARE_IN_LUNGS` in the lungs are kept up to `REACH_MM` around these.
    """
    inside = found & (lungs > 0)
    kept = inside.copy()
    if not inside.any():
        return kept
    box = mask_box(found)
    parts, count = ndimage.label(found[box.index], np.ones((3, 3, 3)))
    whole = _sizes_within(parts, inside[box.index], count) >= MIN_SHARE_IN_LUNGS * part_sizes(parts, count)
    whole[0] = False
    place = box.index[1:]

    def work(index: int) -> None:
        beyond = np.zeros(found.shape[1:], bool)
        beyond[place] = whole[parts[index - box.slices[0]]] & ~inside[index][place]
        if beyond.any():
            near = _around(beyond, cell_mm)
            kept[index][near] |= beyond[near] & (ndimage.maximum_filter(lungs[index][near], _window(cell_mm)) > 0)

    for _ in in_parallel(work, range(*box.slices)):
        pass
    small = _sizes_within(parts, kept[box.index], count) < min_cells
    kept[box.index] &= ~small[parts]
    return kept


def _sizes_within(parts: NDArray[np.int32], mask: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Number of cells of every connected part that lie in a mask."""
    return part_sizes((image[inside] for image, inside in zip(parts, mask, strict=True)), count)


def grow(lungs: NDArray[np.uint8], lesions: NDArray[np.bool_], cell_mm: tuple[float, float]) -> None:
    """Take what lesions reach beyond the lungs into them, in place, on the side of which more is around.

    Parameters
    ----------
    lungs: NDArray[np.uint8]
        Label map of `Side`, shape (slices, rows, columns).
    lesions: NDArray[np.bool_]
        Same shape, nowhere further than `REACH_MM` from the lungs.
    cell_mm: tuple[float, float]
        Size of a cell along rows and columns.
    """
    all_beyond = lesions & (lungs == 0)

    def work(index: int) -> None:
        near = _around(all_beyond[index], cell_mm)
        own, beyond = lungs[index][near], all_beyond[index][near]
        right, left = (
            ndimage.uniform_filter(where_label(own, side).astype(np.float32), _window(cell_mm))
            for side in (Side.RIGHT, Side.LEFT)
        )
        own[beyond] = np.where(left > right, np.uint8(Side.LEFT), np.uint8(Side.RIGHT))[beyond]

    for _ in in_parallel(work, np.flatnonzero(all_beyond.any(axis=(1, 2))).tolist()):
        pass


def _around(mask: NDArray[np.bool_], cell_mm: tuple[float, float]) -> tuple[slice, slice]:
    """Rows and columns that a window around any cell of a mask, shape (rows, columns), reaches."""
    _, rows, columns = mask_box(mask[np.newaxis], (0, *_window(cell_mm))).index
    return rows, columns


def _window(cell_mm: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of the window that reaches `REACH_MM` from its middle."""
    rows, columns = (2 * round(REACH_MM / step) + 1 for step in cell_mm)
    return rows, columns


def _consolidated(prediction: Prediction, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells in whose neighbourhood consolidation is the more probable kind, around the lesions."""
    dense = np.zeros_like(kept)
    if kept.any():
        place = mask_box(kept, (0, KIND_CELLS, KIND_CELLS)).index
        ground_glass, consolidation = (part[place] for part in prediction.probabilities)
        surplus = np.subtract(consolidation, ground_glass, dtype=np.int16)
        dense[place] = ndimage.uniform_filter(surplus, (1, KIND_CELLS, KIND_CELLS)) > 0
    return dense


def _dense(prediction: Prediction, scan: Scan, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells whose mean density is that of consolidation, in slices that hold lesions."""
    dense = np.zeros_like(kept)
    size = (kept.shape[1], kept.shape[2])

    def work(index: int) -> None:
        dense[index] = resize(scan.hu[prediction.grid.place(index)], size) > CONSOLIDATION_HU

    for _ in in_parallel(work, np.flatnonzero(kept.any(axis=(1, 2))).tolist()):
        pass
    return dense
