"""Volumes, ratios and single lesions from the two label maps."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from covid_ct.analysis.findings import BySide, Lesion, LesionKind, Measurements, Side, Thirds, where_label
from covid_ct.analysis.lesions import MIN_LESION_ML
from covid_ct.inference.preprocessing import Box, mask_box
from covid_ct.parallel import SLICES_AT_ONCE, in_parallel
from covid_ct.series.volume import Volume

BLOCK = 2
"""Rows and columns of voxels that are one cell when connected lesions are looked for; volumes count voxels."""


def measure(volume: Volume, lungs: NDArray[np.uint8], lesions: NDArray[np.uint8]) -> Measurements:
    """Measure the lungs and their lesions.

    Parameters
    ----------
    volume: Volume
        For spacing and position.
    lungs: NDArray[np.uint8]
        Label map of `Side` on the volume's grid, shape (slices, rows, columns). At least one voxel is lung.
    lesions: NDArray[np.uint8]
        Label map of `LesionKind` on the same grid, nonzero only where `lungs` is.

    Returns
    -------
    Measurements
    """
    lungs, lesions = volume.to_lps(lungs), volume.to_lps(lesions)
    box = mask_box(lungs)
    counts = _count(lungs[box.index], lesions[box.index])
    voxel_ml = volume.voxel_ml
    by_side = counts.sum(axis=0)
    lung = by_side.sum(axis=1)
    ground_glass = by_side[:, LesionKind.GROUND_GLASS]
    consolidation = by_side[:, LesionKind.CONSOLIDATION]
    lesion = ground_glass + consolidation
    return Measurements(
        lung_volume_ml=_by_side(lung * voxel_ml),
        lesion_volume_ml=_by_side(lesion * voxel_ml),
        lesion_to_lung_ratio=_ratio_by_side(lesion, lung),
        ground_glass_volume_ml=_by_side(ground_glass * voxel_ml),
        consolidation_volume_ml=_by_side(consolidation * voxel_ml),
        ground_glass_to_lung_ratio=_ratio_by_side(ground_glass, lung),
        consolidation_to_lung_ratio=_ratio_by_side(consolidation, lung),
        lesion_to_lung_ratio_of_thirds={
            side.name.lower(): _thirds(counts[:, index]) for index, side in enumerate(Side)
        },
        lesions=_single_lesions(volume, box, lungs[box.index], lesions[box.index]) if lesion.any() else (),
    )


def _count(lungs: NDArray[np.uint8], lesions: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Voxels by slice, side and lesion kind (0 for none), shape (slices, 2, 3)."""
    counts = np.zeros((len(lungs), len(Side), len(LesionKind) + 1), np.int64)

    def work(first: int) -> None:
        some = slice(first, first + SLICES_AT_ONCE)
        lung, lesion = lungs[some], lesions[some]
        kinds = {kind: where_label(lesion, kind) for kind in LesionKind} if lesion.any() else {}
        for row, side in enumerate(Side):
            of_side = where_label(lung, side)
            counts[some, row, 0] = [np.count_nonzero(image) for image in of_side]
            for kind, of_kind in kinds.items():
                counts[some, row, kind] = [np.count_nonzero(image) for image in of_side & of_kind]

    for _ in in_parallel(work, range(0, len(lungs), SLICES_AT_ONCE)):
        pass
    counts[:, :, 0] -= counts[:, :, 1:].sum(axis=2)
    return counts


def _by_side(values: NDArray[np.float64]) -> BySide:
    return BySide(total=float(values.sum()), right=float(values[0]), left=float(values[1]))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _ratio_by_side(part: NDArray[np.int64], whole: NDArray[np.int64]) -> BySide:
    return BySide(
        total=_ratio(part.sum(), whole.sum()), right=_ratio(part[0], whole[0]), left=_ratio(part[1], whole[1])
    )


def _thirds(counts: NDArray[np.int64]) -> Thirds:
    """Lesion ratio of the thirds of one lung's height, from its voxels by slice (feet first) and lesion kind."""
    occupied = np.flatnonzero(counts.any(axis=1))
    if occupied.size == 0:
        return Thirds(0.0, 0.0, 0.0)
    height = occupied[-1] + 1 - occupied[0]
    middles = (np.arange(len(counts)) + 0.5 - occupied[0]) / height
    # Slices outside the lung's height hold nothing and may fall where they will.
    third = np.clip((3 * middles).astype(np.int64), 0, 2)
    lower, middle, upper = (
        _ratio(counts[third == number, 1:].sum(), counts[third == number].sum()) for number in range(3)
    )
    return Thirds(upper=upper, middle=middle, lower=lower)


def _single_lesions(
    volume: Volume, box: Box, lungs: NDArray[np.uint8], lesions: NDArray[np.uint8]
) -> tuple[Lesion, ...]:
    """Connected lesions of each lung, the largest first, from the part of both maps in a box; there is at least one."""
    affine = volume.lps_affine
    slice_indices = volume.to_lps(
        np.broadcast_to(np.arange(len(volume.hu))[:, np.newaxis, np.newaxis], volume.hu.shape)
    )[:, 0, 0]
    inner = mask_box(lesions)
    first_slice, first_row, first_column = (
        outer[0] + own[0]
        for outer, own in ((box.slices, inner.slices), (box.rows, inner.rows), (box.columns, inner.columns))
    )

    def of_side(side: Side) -> list[Lesion]:
        cells = _blocks(lungs[inner.index], lesions[inner.index], side)
        parts, count = ndimage.label(cells, np.ones((3, 3, 3)))
        if count == 0:
            return []
        # Many times quicker than nonzero() of three dimensions.
        places = np.unravel_index(np.flatnonzero(cells), cells.shape)
        voxels = cells[places].astype(np.float64)
        labels = parts[places] - 1
        sizes = np.bincount(labels, voxels)
        # A block's centre in voxels: half a block beyond its first voxel's edge.
        centres = np.stack(
            [
                first_slice + np.bincount(labels, voxels * places[0]) / sizes,
                first_row + BLOCK * (np.bincount(labels, voxels * places[1]) / sizes + 0.5) - 0.5,
                first_column + BLOCK * (np.bincount(labels, voxels * places[2]) / sizes + 0.5) - 0.5,
                np.ones(count),
            ]
        )
        positions = (affine @ centres)[:3].T
        areas = np.bincount(labels * cells.shape[0] + places[0], voxels, count * cells.shape[0])
        largest = first_slice + np.argmax(areas.reshape(count, -1), axis=1)
        return [
            Lesion(
                side=side.name.lower(),
                volume_ml=float(size * volume.voxel_ml),
                slice_index=int(slice_indices[index]),
                center_mm=(float(position[0]), float(position[1]), float(position[2])),
            )
            for size, index, position in zip(sizes, largest, positions, strict=True)
            # What the border between the lungs or the smoothing cut off is measured, but no lesion of its own.
            if size * volume.voxel_ml >= MIN_LESION_ML
        ]

    found = [lesion for lesions_of_side in in_parallel(of_side, Side) for lesion in lesions_of_side]
    return tuple(sorted(found, key=lambda lesion: -lesion.volume_ml))


def _blocks(lungs: NDArray[np.uint8], lesions: NDArray[np.uint8], side: Side) -> NDArray[np.uint8]:
    """Lesion voxels of one side in every BLOCK x BLOCK pixels of every slice."""
    slices, rows, columns = lungs.shape
    cells = np.zeros((slices, -(-rows // BLOCK), -(-columns // BLOCK)), np.uint8)
    for first in range(0, slices, SLICES_AT_ONCE):
        some = slice(first, first + SLICES_AT_ONCE)
        mask = (where_label(lungs[some], side) & (lesions[some] > 0)).view(np.uint8)
        for row in range(BLOCK):
            for column in range(BLOCK):
                part = mask[:, row::BLOCK, column::BLOCK]
                cells[some, : part.shape[1], : part.shape[2]] += part
    return cells
