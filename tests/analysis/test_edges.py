import numpy as np

from covid_ct.analysis.edges import trim_edge


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
