import numpy as np

from covid_ct.analysis.parts import part_sizes


def test_sizes_are_those_of_one_count():
    parts = np.random.default_rng(0).integers(0, 9, (7, 20, 30)).astype(np.int32)
    parts[3] = 0
    expected = np.bincount(parts.ravel(), minlength=12)
    expected[0] = 0
    np.testing.assert_array_equal(part_sizes(parts, 11), expected)
