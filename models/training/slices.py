"""The shipped models on single slices, as the labelled data are: lungs, then lesions in the lungs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from covid_ct.analysis.lesions import CONSOLIDATION_HU, grow, in_lungs
from covid_ct.analysis.lungs import HALF
from covid_ct.inference.preprocessing import axis_weights, resample_plane
from covid_ct.inference.scan import Scan
from covid_ct.inference.session import Model
from covid_ct.inference.windows import predict

FIELD_MM = 358.4
"""Assumed size of the whole image, 1.4 mm for a pixel of 256; nobody knows the true one."""

DENSITY_MM = 4.2
"""Size of the square in which density is averaged before it tells the kind of lesion."""

MIN_PART = 0.02
"""Connected parts of less than this share of a slice's lung are dropped, as whole series drop small parts in 3-D."""


@dataclass(frozen=True)
class SliceMaps:
    """Lungs (0, 1 right, 2 left) and lesions (0, 1 ground glass, 2 consolidation) of one slice."""

    lungs: NDArray[np.uint8]
    lesions: NDArray[np.uint8]


def _nothing(_fraction: float) -> None:
    """Single slices need no progress."""


def _full_size(model: Model, scan: Scan) -> NDArray[np.float32]:
    """Probabilities of the classes, without background, at the size of the slice."""
    prediction = predict(model, scan, _nothing)
    grid, classes = prediction.grid, prediction.probabilities[:, 0]
    _, rows, columns = grid.place(0)
    full = np.zeros((len(classes), *scan.hu.shape[1:]), np.float32)
    full[:, rows, columns] = resample_plane(
        classes,
        axis_weights(grid.cells[0], (0, grid.cells[0]), rows.stop - rows.start),
        axis_weights(grid.cells[1], (0, grid.cells[1]), columns.stop - columns.start),
    )
    return full


def spacing_mm(hu: NDArray[np.int16]) -> tuple[float, float, float]:
    """Assumed mm between slices, rows and columns of a slice of shape (rows, columns)."""
    return 5.0, FIELD_MM / hu.shape[0], FIELD_MM / hu.shape[1]


def segment_lungs(model: Model, hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Label map of the lungs of one slice of shape (rows, columns)."""
    classes = _full_size(model, Scan(hu[np.newaxis], spacing_mm(hu)))
    mask = classes.sum(axis=0) > HALF
    parts, count = ndimage.label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    mask = (sizes >= MIN_PART * sizes.sum())[parts] & mask
    return np.where(mask, 1 + classes.argmax(axis=0), 0).astype(np.uint8)


def segment_slice(lungs_model: Model, lesions_model: Model, hu: NDArray[np.int16]) -> SliceMaps:
    """Lungs and lesions of one slice of shape (rows, columns), the kinds of lesion told by density.

    Lesions that reach beyond the lungs are taken into them, as in whole series.
    """
    lungs = segment_lungs(lungs_model, hu)
    if not lungs.any():
        return SliceMaps(lungs, np.zeros_like(lungs))
    spacing = spacing_mm(hu)
    classes = _full_size(lesions_model, Scan(hu[np.newaxis], spacing, lungs[np.newaxis]))
    cell_mm = spacing[1:]
    # A single slice does not tell how large a lesion is.
    found = in_lungs(classes > HALF, lungs[np.newaxis], cell_mm, min_cells=0)
    grow(lungs[np.newaxis], found, cell_mm)
    dense = ndimage.uniform_filter(hu.astype(np.float32), round(DENSITY_MM / cell_mm[0])) > CONSOLIDATION_HU
    return SliceMaps(lungs, np.where(found[0], np.where(dense, 2, 1), 0).astype(np.uint8))


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Dice coefficient of each image; 1 where both are empty."""
    axes = tuple(range(1, truth.ndim))
    total = predicted.sum(axis=axes) + truth.sum(axis=axes)
    return np.where(total > 0, 2.0 * (predicted & truth).sum(axis=axes) / np.maximum(total, 1), 1.0)


def auc(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties one half."""
    difference = positive[:, np.newaxis] - negative[np.newaxis]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())
