"""Outlines of lesions on their slices."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from covid_ct.analysis.findings import Findings, Lesion, Side, where_label
from covid_ct.series.volume import Volume

MAX_POINTS = 8191
"""Most points of an outline: GraphicData has a length of 16 bits and two numbers of 4 bytes for each point."""


def part_of_lesion(volume: Volume, findings: Findings, lesion: Lesion) -> NDArray[np.bool_]:
    """The connected part of a lesion on the slice where it is largest.

    Parameters
    ----------
    volume: Volume
    findings: Findings
    lesion: Lesion
        One of the findings' lesions.

    Returns
    -------
    NDArray[np.bool_]
        Shape (rows, columns) of the slice; where several lesions of its lung meet the slice, the part nearest to the
        lesion's centroid.
    """
    side = Side[lesion.side.upper()]
    index = lesion.slice_index
    mask: NDArray[np.bool_] = (findings.lesions[index] > 0) & where_label(findings.lungs[index], side)
    box = _box(mask)
    # Corners connect, as they do where single lesions are told apart.
    parts, count = ndimage.label(mask[box], np.ones((3, 3)))
    if count <= 1:
        return mask
    _, row, column, _ = np.linalg.inv(volume.affine) @ [*lesion.center_mm, 1]
    rows, columns = np.nonzero(parts)
    _, row_mm, column_mm = volume.spacing
    distance = np.hypot((rows + box[0].start - row) * row_mm, (columns + box[1].start - column) * column_mm)
    mask[box] = parts == parts[rows[distance.argmin()], columns[distance.argmin()]]
    return mask


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Smallest box that holds all of a mask; empty where there is nothing."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def outer_outline(mask: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Outer outline of the largest edge-connected part of a mask, along the edges of its pixels.

    Parameters
    ----------
    mask: NDArray[np.bool_]
        Shape (rows, columns), with at least one pixel.

    Returns
    -------
    list[tuple[float, float]]
        Column and row of each corner, the last as the first, in DICOM's image coordinates: (0, 0) is the top left
        corner of the top left pixel. At most `MAX_POINTS`: evenly thinned out where there are more.
    """
    rows, columns = _box(mask)
    parts, _ = ndimage.label(mask[rows, columns])
    part = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    top, left = rows.start - 1, columns.start - 1
    corners = [
        (float(left + column), float(top + row)) for row, column in _walk(np.pad(ndimage.binary_fill_holes(part), 1))
    ]
    return [*corners[: -1 : -(-len(corners) // MAX_POINTS)], corners[0]]


_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Row and column of one step to the right, down, to the left and up: each a right turn after the one before."""
_AHEAD_RIGHT = ((0, 0), (0, -1), (-1, -1), (-1, 0))
"""For each step the pixel ahead on the right hand, as an offset from the corner that was reached."""
_AHEAD_LEFT = ((-1, 0), (0, 0), (0, -1), (-1, -1))


def _walk(filled: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Corners (row, column) of an edge-connected shape without holes and with an empty border, clockwise.

    Walks along pixel edges with the shape on the right hand. The top left corner of the first pixel touches no other
    pixel of the shape, so it is passed only once, at the end.
    """
    pixels = filled.tolist()
    row, column = start = divmod(int(filled.argmax()), filled.shape[1])
    corners = [start]
    direction = 0
    while True:
        row, column = row + _STEPS[direction][0], column + _STEPS[direction][1]
        if (row, column) == start:
            return [*corners, corners[0]]
        right, left = _AHEAD_RIGHT[direction], _AHEAD_LEFT[direction]
        if not pixels[row + right[0]][column + right[1]]:
            turn = 1
        elif pixels[row + left[0]][column + left[1]]:
            turn = -1
        else:
            continue
        corners.append((row, column))
        direction = (direction + turn) % 4
