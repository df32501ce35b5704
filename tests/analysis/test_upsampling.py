import numpy as np

from covid_ct.analysis.upsampling import GridMap, paint
from covid_ct.inference.grid import Grid
from covid_ct.parallel import SLICES_AT_ONCE


def cube(first: int, last: int, count: int) -> GridMap:
    """A block of label 2 in some slices of a grid of every third slice."""
    probabilities = np.zeros((count, 12, 12), np.uint8)
    probabilities[first:last, 3:9, 3:9] = 250
    labels = np.where(probabilities > 0, np.uint8(2), np.uint8(0))
    return GridMap(Grid(np.arange(count) * 3 + 1, (4, 28), (2, 38), (12, 12)), probabilities, labels)


def test_a_block_becomes_a_block_with_ends_between_the_slices_that_were_looked_at() -> None:
    target = np.zeros((20, 32, 40), np.uint8)
    paint(target, cube(2, 4, 6))  # slices 7 and 10; 4 and 13 are empty
    assert set(np.unique(target)) == {0, 2}
    occupied = np.flatnonzero(target.any(axis=(1, 2)))
    # Where 250 goes to 0 in three steps, one half lies between the first and the second.
    assert occupied.tolist() == [6, 7, 8, 9, 10, 11]
    rows, columns = np.nonzero(target[8])
    assert (rows.min(), rows.max()) == (4 + 2 * 3, 3 + 2 * 9)
    assert (columns.min(), columns.max()) == (2 + 3 * 3, 1 + 3 * 9)
    assert len(rows) > 0.95 * 12 * 18  # all but rounded corners


def test_batches_meet_without_a_gap() -> None:
    for count in (SLICES_AT_ONCE - 1, SLICES_AT_ONCE, SLICES_AT_ONCE + 1, 2 * SLICES_AT_ONCE + 1):
        target = np.zeros((3 * count, 32, 40), np.uint8)
        paint(target, cube(0, count, count))
        assert np.flatnonzero(target.any(axis=(1, 2))).tolist() == list(range(1, 3 * count - 1))


def test_a_label_stops_halfway_to_another() -> None:
    both = cube(0, 2, 2)
    both.labels[1][both.labels[1] > 0] = 1
    target = np.zeros((8, 32, 40), np.uint8)
    paint(target, both)
    assert [int(target[index].max()) for index in range(1, 5)] == [2, 2, 1, 1]


def test_between_slices_the_nearer_one_counts_more() -> None:
    """Of 250 beside 100, both thirds in between are above one half; of 178 beside 0, none."""
    unequal = cube(0, 2, 2)
    unequal.probabilities[1][unequal.labels[1] > 0] = 100
    unequal.labels[1] = 0
    target = np.zeros((8, 32, 40), np.uint8)
    paint(target, unequal)
    assert [int(target[index].max()) for index in range(1, 5)] == [2, 2, 2, 0]
    unequal.probabilities[0][unequal.labels[0] > 0] = 178
    unequal.probabilities[1] = 0
    target[:] = 0
    paint(target, unequal)
    assert [int(target[index].max()) for index in range(1, 5)] == [2, 0, 0, 0]


def test_sides_meet_where_the_grid_says_so() -> None:
    both = cube(0, 2, 2)
    both.labels[:, :, 3:6][both.labels[:, :, 3:6] > 0] = 1
    target = np.zeros((8, 32, 40), np.uint8)
    paint(target, both)
    # Six cells of three columns each: the border lies in their middle.
    assert set(target[2, 16, 2 + 10 : 2 + 18]) == {1}
    assert set(target[2, 16, 2 + 18 : 2 + 26]) == {2}


def test_nothing_is_painted_where_there_is_nothing() -> None:
    target = np.zeros((20, 32, 40), np.uint8)
    paint(target, cube(0, 0, 6))
    assert not target.any()
