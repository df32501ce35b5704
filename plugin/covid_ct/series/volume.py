"""The value that reading makes: a CT volume in HU with its place in the patient."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

AIR_HU = -1024
"""HU that stands for padding outside the scan circle."""


@dataclass(frozen=True)
class Volume:
    """A CT series as one array, with its geometry and its source headers.

    Attributes
    ----------
    hu: NDArray[np.int16]
        Hounsfield units, shape (slices, rows, columns), rows and columns as stored in the source
        images, slices ascending along the normal (row cosine x column cosine). Padding is AIR_HU.
    affine: NDArray[np.float64]
        4x4 matrix from (slice, row, column) indices of a voxel's centre to patient coordinates (LPS, mm).
    headers: tuple[Dataset, ...]
        The source images' headers, in the order of the slices: the first without pixel data, of the others what
        results use of every image.
    warnings: tuple[str, ...]
        What a reader of the results should know about the series, as sentences.
    """

    hu: NDArray[np.int16]
    affine: NDArray[np.float64]
    headers: tuple[Dataset, ...]
    warnings: tuple[str, ...] = ()

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring slices, rows and columns, from positions, never from SliceThickness."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(np.prod(self.spacing)) / 1000.0

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID of the source."""
        return str(self.headers[0].SeriesInstanceUID)

    def to_lps(self, array: NDArray[Any]) -> NDArray[Any]:
        """View of an array on the volume's grid, turned to the standard axial view.

        Parameters
        ----------
        array: NDArray
            Shape (slices, rows, columns), as `hu`.

        Returns
        -------
        NDArray
            A view (nothing is copied) whose slices go from feet to head, rows from anterior to posterior
            and columns from the patient's right to left.
        """
        order, flips = self._turn
        return array.transpose(order)[flips]

    def from_lps(self, array: NDArray[Any]) -> NDArray[Any]:
        """Inverse of `to_lps`: a view of an array in the standard axial view, back on the volume's grid."""
        order, flips = self._turn
        inverse = np.argsort(order)
        return array[flips].transpose(inverse)

    @property
    def lps_affine(self) -> NDArray[np.float64]:
        """4x4 matrix from indices of the standard axial view to patient coordinates (LPS, mm); for `to_lps`."""
        order, flips = self._turn
        turned = self.affine.copy()
        for axis, (own, flip) in enumerate(zip(order, flips, strict=True)):
            reverse = flip.step == -1
            turned[:3, axis] = -self.affine[:3, own] if reverse else self.affine[:3, own]
            if reverse:
                turned[:3, 3] += self.affine[:3, own] * (self.hu.shape[own] - 1)
        return turned

    @property
    def lps_spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring slices, rows and columns of the standard axial view."""
        lengths = np.linalg.norm(self.lps_affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def _turn(self) -> tuple[tuple[int, int, int], tuple[slice, slice, slice]]:
        """The volume's axes in the order (head, posterior, left) and the flips that make them ascend."""
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        # Patient axes in the order of the standard axial view: z to the head, y to the back, x to the left.
        head = int(np.argmax(np.abs(directions[2])))
        rest = [axis for axis in range(3) if axis != head]
        back = max(rest, key=lambda axis: abs(directions[1, axis]))
        left = next(axis for axis in rest if axis != back)
        order = (head, back, left)
        flips = tuple(
            slice(None, None, -1 if directions[patient, axis] < 0 else 1)
            for patient, axis in zip((2, 1, 0), order, strict=True)
        )
        return order, flips  # type: ignore[return-value]
