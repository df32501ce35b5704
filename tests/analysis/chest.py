"""A chest of blocks, whose truth is simple arithmetic."""

import numpy as np
from pydicom import Dataset

from covid_ct.series.volume import Volume

SHAPE = (40, 128, 160)
SPACING = (5.0, 2.0, 2.0)

RIGHT = (slice(4, 36), slice(36, 92), slice(20, 70))
LEFT = (slice(4, 36), slice(36, 92), slice(90, 135))
GLASS = (slice(10, 14), slice(70, 84), slice(26, 40))
SOLID = (slice(28, 31), slice(76, 86), slice(104, 114))


def hu(left: bool = True) -> np.ndarray:
    """Standard axial view: slices feet to head, rows front to back, columns the patient's right to left."""
    array = np.full(SHAPE, -1024, np.int16)
    array[:, 16:112, 8:152] = 40
    array[RIGHT] = -850
    array[GLASS] = -550
    if left:
        array[LEFT] = -850
        array[SOLID] = 0
    return array


def volume(array: np.ndarray | None = None, flips: tuple[int, int, int] = (1, 1, 1)) -> Volume:
    """The chest as a volume, some axes stored the other way round; the patient stays where it is."""
    array = hu() if array is None else array
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = SPACING
    affine[:3, 3] = (-160, -120, -90)
    affine[3, 3] = 1
    for axis, flip in enumerate(flips):
        if flip < 0:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    header = Dataset()
    header.SeriesInstanceUID = "1.2.3.4"
    return Volume(np.ascontiguousarray(array), affine, (header,), ("The volume's own warning.",))


def millilitres(*part: tuple[slice, slice, slice]) -> float:
    """Volume of blocks."""
    return sum(float(np.prod([piece.stop - piece.start for piece in block])) for block in part) * 0.02
