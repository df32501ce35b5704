"""Where in the lungs the lesions lie, as numbers that a classifier may use beside the image."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from covid_ct.analysis.findings import LesionKind, Side, where_label
from covid_ct.inference.manifest import FEATURES
from covid_ct.inference.preprocessing import mask_box

PERIPHERAL_DEPTH = 0.12
"""Lesion is peripheral if it is nearer to the lung's edge than this share of the root of the lungs' area in its slice.

About 25 mm in a slice through the middle of an adult's chest.
"""


def distribution(lungs: NDArray[np.uint8], lesions: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Numbers that describe lesions in a stack of slices, or in a single one, whatever their pixels measure.

    Parameters
    ----------
    lungs: NDArray[np.uint8]
        Label map of `Side` in the standard axial view, shape (slices, rows, columns).
    lesions: NDArray[np.uint8]
        Label map of `LesionKind`, same shape.

    Returns
    -------
    NDArray[np.float32]
        In the order of `covid_ct.inference.manifest.FEATURES`, each 0-1:

        lesion_ratio
            Lesion by lung.
        consolidation_share
            Consolidation by lesion.
        bilateral
            Lesion ratio of the lung that has less by that of the one that has more.
        peripheral
            Share of the lesion near the lungs' edge (`PERIPHERAL_DEPTH`).
        posterior
            Share of the lesion behind the lungs' median row.
        lower
            Share of the lesion below the lungs' median slice; one half in a single slice.
        multifocal
            Share of the lesion outside the largest connected one.

        Without lesion all are zero.
    """
    lesion = (lesions > 0) & (lungs > 0)
    total = np.count_nonzero(lesion)
    if total == 0:
        return np.zeros(len(FEATURES), np.float32)
    sides = [np.count_nonzero(where_label(lungs, side)) for side in Side]
    ratios = [
        np.count_nonzero(lesion & where_label(lungs, side)) / count if count else 0.0
        for side, count in zip(Side, sides, strict=True)
    ]
    values = {
        "lesion_ratio": total / sum(sides),
        "consolidation_share": np.count_nonzero(lesion & where_label(lesions, LesionKind.CONSOLIDATION)) / total,
        "bilateral": min(ratios) / max(ratios),
        "peripheral": _peripheral(lungs, lesion) / total,
        "posterior": _beyond_median(lungs, lesion, axis=1),
        "lower": 1.0 - _beyond_median(lungs, lesion, axis=0),
        "multifocal": 1.0 - _largest_part(lesion) / total,
    }
    return np.array([values[name] for name in FEATURES], np.float32)


def _peripheral(lungs: NDArray[np.uint8], lesion: NDArray[np.bool_]) -> int:
    """Voxels of lesion near the edge of the lungs."""
    near = 0
    for lung, part in zip(lungs, lesion, strict=True):
        if part.any():
            # The nearest voxel outside is no further away than the rim of the lungs' box.
            box = mask_box(lung[np.newaxis], (0, 1, 1)).index[1:]
            mask = lung[box] > 0
            depth = ndimage.distance_transform_edt(mask)
            near += int(np.count_nonzero(depth[part[box]] <= PERIPHERAL_DEPTH * np.sqrt(np.count_nonzero(mask))))
    return near


def _beyond_median(lungs: NDArray[np.uint8], lesion: NDArray[np.bool_], axis: int) -> float:
    """Share of the lesion beyond the lungs' median index along an axis; the median itself counts half."""
    others = tuple(each for each in range(3) if each != axis)
    lung_line = np.count_nonzero(lungs, axis=others)
    lesion_line = np.count_nonzero(lesion, axis=others)
    median = int(np.searchsorted(np.cumsum(lung_line), lung_line.sum() / 2))
    return float((lesion_line[median + 1 :].sum() + lesion_line[median] / 2) / lesion_line.sum())


def _largest_part(lesion: NDArray[np.bool_]) -> int:
    """Voxels of the largest connected lesion."""
    parts, _ = ndimage.label(lesion, np.ones((3, 3, 3)))
    return int(np.bincount(parts.ravel())[1:].max())
