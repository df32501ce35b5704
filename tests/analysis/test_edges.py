import numpy as np

from covid_ct.analysis.edges import join_edges, trim_edge
from covid_ct.inference.grid import Grid


def test_lesions_beyond_the_lungs_become_lung_where_the_grid_says_so_and_vanish_elsewhere() -> None:
    lungs = np.zeros((5, 20, 20), np.uint8)
    lungs[1:3, 4:12, 4:12] = 1
    lesions = np.zeros_like(lungs)
    lesions[1:3, 10:14, 8:16] = 2
    grown = np.zeros((2, 8, 8), np.uint8)  # over rows and columns 2 to 18 of slices 1 and 4
    grown[0, 1:5, 1:5] = 1
    grown[0, 4:6, 3:6] = 1  # rows 10 to 14, columns 8 to 14
    join_edges(lungs, lesions, Grid(np.array([1, 4]), (2, 18), (2, 18), (8, 8)), grown)
    # Slice 2 lies between: what one of the two knows counts.
    for index in (1, 2):
        assert (lungs[index, 4:12, 4:12] == 1).all()
        assert (lungs[index, 10:14, 8:14] == 1).all()
        assert np.count_nonzero(lungs[index]) == 64 + 24 - 8
        assert np.count_nonzero(lesions[index]) == 24
    assert not lesions[lungs == 0].any()


def test_tissue_is_taken_off_the_edge_and_vessels_inside_stay() -> None:
    hu = np.full((1, 20, 20), 40, np.int16)
    hu[0, 5:15, 5:15] = -850
    hu[0, 9, 9] = 40
    lungs = np.zeros((1, 20, 20), np.uint8)
    lungs[0, 3:17, 3:17] = 2
    trim_edge(lungs, np.zeros_like(lungs), hu, pixel_mm=0.7)
    expected = np.zeros_like(lungs)
    expected[0, 5:15, 5:15] = 2
    assert (lungs == expected).all()


def test_lesions_at_the_edge_stay_and_no_more_is_taken_than_the_network_can_miss() -> None:
    hu = np.full((1, 20, 20), 40, np.int16)
    lungs = np.ones((1, 20, 20), np.uint8)
    lesions = np.zeros_like(lungs)
    lesions[0, :, :4] = 2
    trim_edge(lungs, lesions, hu, pixel_mm=1.4)
    assert lungs[0, 1:19, :19].all()
    assert lungs[0, :, :4].all()
    assert not lungs[0, :, 19].any()
