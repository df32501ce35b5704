import numpy as np
import pytest

from covid_ct.inference.grid import Grid

GRID = Grid(np.array([2, 6, 9]), (10, 22), (0, 10), (4, 5))


def test_distances_and_places():
    assert GRID.cell_mm((2.0, 1.0, 0.5)) == (7.0, 3.0, 1.0)
    assert Grid(np.array([3]), (0, 8), (0, 8), (8, 8)).cell_mm((5.0, 1.0, 1.0)) == (5.0, 1.0, 1.0)
    assert GRID.place(1) == (6, slice(10, 22), slice(0, 10))


def test_every_cells_centre_lies_in_that_cell():
    scan = np.arange(12 * 24 * 12).reshape(12, 24, 12)
    slices, rows, columns = np.unravel_index(GRID.at_centres(scan), scan.shape)
    assert slices[:, 0, 0].tolist() == [2, 6, 9]
    row_cells, column_cells = GRID.cell_of(rows[0].ravel(), columns[0].ravel())
    assert row_cells.tolist() == np.repeat(range(4), 5).tolist()
    assert column_cells.tolist() == list(range(5)) * 4


@pytest.mark.parametrize(
    ("index", "expected"),
    [(2, (0, 0, 0)), (3, (0, 1, 0.25)), (4, (0, 1, 0.5)), (5, (1, 0, 0.25)), (8, (2, 1, 1 / 3)), (9, (2, 2, 0))],
)
def test_between_which_slices_one_lies(index, expected):
    assert GRID.around(index) == pytest.approx(expected)
