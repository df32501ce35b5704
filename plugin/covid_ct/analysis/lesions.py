"""From a lesion network's probabilities to ground glass and consolidation inside the lungs."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from covid_ct.analysis.findings import LesionKind
from covid_ct.analysis.lungs import HALF, sum_classes
from covid_ct.analysis.parts import part_sizes
from covid_ct.analysis.upsampling import GridMap
from covid_ct.inference.preprocessing import mask_box, resize
from covid_ct.inference.scan import Scan
from covid_ct.inference.windows import Prediction
from covid_ct.parallel import cores, in_parallel

MIN_LESION_ML = 0.1
"""Connected lesions smaller than this (a ball of 6 mm) are left out: vessels cut across look no different."""

KIND_CELLS = 5
"""Side, in cells of the network's grid, of the square over which a lesion's kind is told; one cell alone is noise."""

CONSOLIDATION_HU = -300
"""Lesion above this density counts as consolidation where a network does not tell the kinds apart.

The threshold that told COVID-19 pneumonia best among eight tried by Li et al. 2021 (doi:10.1186/s12879-021-06556-z).
"""


def find_lesions(prediction: Prediction, scan: Scan) -> GridMap:
    """Keep lesions that lie in the lungs and are large enough, and tell their kind.

    Parameters
    ----------
    prediction: Prediction
        Of a network with the classes ground glass, consolidation, or lesion.
    scan: Scan
        With its lungs.

    Returns
    -------
    GridMap
        Labels are `LesionKind`, on the grid of the prediction.
    """
    probabilities = sum_classes(prediction.probabilities)
    mask = (probabilities > HALF) & _lungs_on_grid(prediction, scan)
    cell_ml = float(np.prod(prediction.cell_mm(scan.spacing))) / 1000.0
    kept = _large_parts(mask, MIN_LESION_ML / cell_ml)
    probabilities[(probabilities > HALF) & ~kept] = 0
    kinds = np.zeros(mask.shape, np.uint8)
    dense = _consolidated(prediction, kept) if len(prediction.probabilities) == 2 else _dense(prediction, scan, kept)
    kinds[kept] = LesionKind.GROUND_GLASS
    kinds[kept & dense] = LesionKind.CONSOLIDATION
    return GridMap(probabilities, kinds)


def _lungs_on_grid(prediction: Prediction, scan: Scan) -> NDArray[np.bool_]:
    """The lungs at the centre of every cell of the prediction's grid."""
    if scan.lungs is None:
        raise ValueError("lesions are looked for in lungs that are known")
    rows, columns = (
        ((np.arange(cells) + 0.5) * (interval[1] - interval[0]) / cells).astype(np.int64) + interval[0]
        for cells, interval in zip(
            prediction.probabilities.shape[2:], (prediction.box.rows, prediction.box.columns), strict=True
        )
    )
    return np.asarray(scan.lungs[slice(*prediction.box.slices)][:, rows[:, np.newaxis], columns] > 0)


def _large_parts(mask: NDArray[np.bool_], min_cells: float) -> NDArray[np.bool_]:
    """The connected parts of a mask that have at least a number of cells."""
    kept = np.zeros_like(mask)
    if mask.any():
        box = mask_box(mask)
        parts, count = ndimage.label(mask[box.index], np.ones((3, 3, 3)))
        large = part_sizes(parts, count) >= min_cells
        large[0] = False
        kept[box.index] = large[parts]
    return kept


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
        place = (index + prediction.box.slices[0], *prediction.box.index[1:])
        dense[index] = resize(scan.hu[place], size) > CONSOLIDATION_HU

    for _ in in_parallel(work, np.flatnonzero(kept.any(axis=(1, 2))).tolist(), cores()):
        pass
    return dense
