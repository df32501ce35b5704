import numpy as np

from covid_ct.analysis.findings import LesionKind
from covid_ct.analysis.lesions import find_lesions
from covid_ct.inference.grid import Grid
from covid_ct.inference.scan import Scan
from covid_ct.inference.windows import Prediction

SHAPE = (12, 40, 60)


def scan(hu=None):
    """Lungs in all but the rim."""
    lungs = np.zeros(SHAPE, np.uint8)
    lungs[2:10, 6:35, 5:55] = 1
    return Scan(np.full(SHAPE, -850, np.int16) if hu is None else hu, (5, 1, 1), lungs)


def prediction(*classes):
    """On half the rows and columns of the box of the lungs."""
    return Prediction(Grid(np.arange(2, 10), (4, 36), (4, 56), (16, 26)), np.stack(classes))


def blank():
    return np.zeros((8, 16, 26), np.uint8)


def test_kinds_come_from_the_classes():
    glass, solid = blank(), blank()
    glass[2:4, 2:8, 4:12] = 200
    solid[2:4, 8:14, 4:12] = 255
    solid[2:4, 4, 8] = 201  # noise
    # Neither kind alone is probable, lesion is.
    glass[6:8, 4:9, 4:9], solid[6:8, 4:9, 4:9] = 70, 90
    found, _ = find_lesions(prediction(glass, solid), scan())
    assert (found.labels[2:4, 2:8, 4:12] == LesionKind.GROUND_GLASS).all()
    assert (found.labels[2:4, 8:14, 4:12] == LesionKind.CONSOLIDATION).all()
    assert (found.labels[6:8, 4:9, 4:9] == LesionKind.CONSOLIDATION).all()
    np.testing.assert_array_equal(found.probabilities > 127, found.labels > 0)


def test_kinds_come_from_the_density_where_there_is_one_class():
    hu = np.full(SHAPE, -850, np.int16)
    hu[4:6, 12:22, 12:22] = -500
    hu[4:6, 16:22, 12:22] = 20
    lesion = blank()
    lesion[2:4, 4:9, 4:9] = 255
    found, _ = find_lesions(prediction(lesion), scan(hu))
    assert (found.labels[2:4, 4:6, 4:9] == LesionKind.GROUND_GLASS).all()
    assert (found.labels[2:4, 6:9, 4:9] == LesionKind.CONSOLIDATION).all()


def test_lesions_outside_the_lungs_or_too_small_are_left_out():
    lesion = blank()
    lesion[:, 0, :] = 255  # before the lungs
    lesion[4, 8, 8:12] = 255  # 4 cells of 20 mm3
    found, _ = find_lesions(prediction(lesion), scan())
    assert not found.labels.any()
    assert found.probabilities.max() <= 127
    lesion[4, 9, 8] = 255  # 5 cells, 0.1 ml
    assert np.count_nonzero(find_lesions(prediction(lesion), scan())[0].labels) == 5


def test_a_lesion_that_reaches_beyond_the_lungs_takes_them_along():
    two_sided = scan()
    two_sided.lungs[:, :, 30:][two_sided.lungs[:, :, 30:] > 0] = 2
    lesion = blank()
    lesion[2:5, 6:16, 18:26] = 255  # to the rim of the box, a cell or two beyond the left lung
    found, lungs = find_lesions(prediction(lesion), two_sided)
    assert (found.labels[2:5, 6:16, 18:26] > 0).all()
    assert (lungs[2:5, 6:16, 18:26] == 2).all()
    assert (lungs[:, 8, 1:12] == 1).all()
    assert not lungs[6, :, 25].any()


def test_what_lies_mostly_outside_is_cut_to_the_lungs():
    far = Scan(np.full(SHAPE, -850, np.int16), (5, 1, 1), np.zeros(SHAPE, np.uint8))
    far.lungs[2:10, 6:35, 5:20] = 1
    lesion = blank()
    lesion[2:5, 6:10, 4:13] = 255  # four columns of cells in the lung, five outside
    lesion[2:5, 12:14, 6:26] = 255  # two inside, eighteen outside, five of these near
    found, lungs = find_lesions(prediction(lesion), far)
    assert (found.labels[2:5, 6:10, 4:13] > 0).all()
    assert (found.labels[2:5, 12:14, 6:8] > 0).all()
    assert not found.labels[2:5, 12:14, 8:].any()
    np.testing.assert_array_equal(lungs[3, 12] > 0, np.arange(26) < 8)


def test_nothing_reaches_further_than_ten_millimetres():
    half = Scan(np.full(SHAPE, -850, np.int16), (5, 1, 1), np.zeros(SHAPE, np.uint8))
    half.lungs[2:10, 6:35, 5:34] = 1
    lesion = blank()
    lesion[2:5, 6:10, 6:26] = 255
    found, _ = find_lesions(prediction(lesion), half)
    np.testing.assert_array_equal(found.labels[3, 8] > 0, (np.arange(26) >= 6) & (np.arange(26) < 20))
