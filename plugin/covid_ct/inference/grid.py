"""Where a network's answers lie in a scan."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covid_ct.inference.preprocessing import Box


@dataclass(frozen=True)
class Grid:
    """Some slices of a scan, and equal cells over a part of their rows and columns.

    Attributes
    ----------
    slices: NDArray[np.int64]
        Indices of the scan's slices, ascending.
    rows, columns: tuple[int, int]
        The scan's rows and columns that the cells cover: the first, and the one after the last.
    cells: tuple[int, int]
        Number of cells along rows and columns.
    """

    slices: NDArray[np.int64]
    rows: tuple[int, int]
    columns: tuple[int, int]
    cells: tuple[int, int]

    @classmethod
    def of_box(cls, box: Box, cells: tuple[int, int]) -> "Grid":
        """All slices of a box, and its rows and columns."""
        return cls(np.arange(*box.slices), box.rows, box.columns, cells)

    def cell_mm(self, spacing: tuple[float, float, float]) -> tuple[float, float, float]:
        """Distance in mm between the slices, on average, and size of a cell; from the spacing of the scan."""
        steps = (self.slices[-1] - self.slices[0]) / (len(self.slices) - 1) if len(self.slices) > 1 else 1.0
        rows, columns = (
            step * (stop - start) / count
            for step, (start, stop), count in zip(spacing[1:], (self.rows, self.columns), self.cells, strict=True)
        )
        return spacing[0] * float(steps), rows, columns

    def place(self, number: int) -> tuple[int, slice, slice]:
        """What to index the scan with for one of the slices."""
        return int(self.slices[number]), slice(*self.rows), slice(*self.columns)

    def at_centres(self, array: NDArray[Any]) -> NDArray[Any]:
        """The values of an array on the scan's grid at each cell's centre, shape (slices, *cells)."""
        rows, columns = (
            start + ((np.arange(count) + 0.5) * (stop - start) / count).astype(np.int64)
            for (start, stop), count in zip((self.rows, self.columns), self.cells, strict=True)
        )
        # A third of the time of indexing all at once.
        return np.stack([array[index].take(rows, axis=0).take(columns, axis=1) for index in self.slices])

    def cell_of(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The cell that holds the centre of each of some voxels, all of them covered."""
        row_cells, column_cells = (
            (2 * (places - start) + 1) * count // (2 * (stop - start))
            for places, (start, stop), count in zip((rows, columns), (self.rows, self.columns), self.cells, strict=True)
        )
        return row_cells, column_cells

    def around(self, index: int) -> tuple[int, int, float]:
        """Between which of the slices one of the scan lies.

        Returns
        -------
        tuple[int, int, float]
            Numbers of the nearer and of the farther one, and the farther one's weight in a linear interpolation, 0 to
            one half; twice the same and 0 for a slice that is one of them.
        """
        above = int(np.searchsorted(self.slices, index))
        if self.slices[above] == index:
            return above, above, 0.0
        share = float((index - self.slices[above - 1]) / (self.slices[above] - self.slices[above - 1]))
        return (above - 1, above, share) if share <= 0.5 else (above, above - 1, 1.0 - share)
