import numpy as np
import pytest

from covid_ct.analysis.findings import BySide, Side
from covid_ct.analysis.lungs import cut_off_warning, cut_through_warning, find_lungs, one_sided_warning, sum_classes
from covid_ct.errors import Reason, SeriesRefused
from covid_ct.inference.grid import Grid
from covid_ct.inference.scan import Scan
from covid_ct.inference.windows import Prediction

SHAPE = (40, 60, 90)
SCAN = Scan(np.full(SHAPE, -800, np.int16), (5.0, 3.0, 3.0))
RIGHT = (slice(5, 35), slice(15, 45), slice(10, 40))
LEFT = (slice(5, 35), slice(15, 45), slice(50, 78))


def prediction(*classes):
    stack = np.stack(classes)
    return Prediction(Grid(np.arange(SHAPE[0]), (0, SHAPE[1]), (0, SHAPE[2]), SHAPE[1:]), stack)


def blank():
    return np.zeros(SHAPE, np.uint8)


@pytest.fixture
def two():
    """Certain probabilities of the right and of the left lung."""
    right, left = blank(), blank()
    right[RIGHT] = left[LEFT] = 250
    return right, left


def test_sides_come_from_the_classes(two):
    found = find_lungs(prediction(*two), SCAN, "1.2")
    assert (found.labels[RIGHT] == Side.RIGHT).all()
    assert (found.labels[LEFT] == Side.LEFT).all()
    assert np.count_nonzero(found.labels) == found.labels[RIGHT].size + found.labels[LEFT].size
    np.testing.assert_array_equal(found.probabilities > 127, found.labels > 0)


def test_sides_come_from_the_position_where_there_is_one_class(two):
    """Even where the lungs touch in front of the heart."""
    either = np.maximum(*two)
    either[10:30, 15:18, 38:52] = 250
    found = find_lungs(prediction(either), SCAN, "1.2")
    assert (found.labels[RIGHT] == Side.RIGHT).all()
    assert (found.labels[LEFT] == Side.LEFT).all()
    bridge = found.labels[10:30, 15:18, 40:50]
    assert set(np.unique(bridge)) == {Side.RIGHT, Side.LEFT}


@pytest.mark.parametrize(("place", "side"), [(RIGHT, Side.RIGHT), (LEFT, Side.LEFT)])
def test_one_lung_alone_is_not_halved_where_there_is_one_class(place, side):
    """As after a pneumonectomy."""
    either = blank()
    either[place] = 250
    found = find_lungs(prediction(either), SCAN, "1.2")
    assert (found.labels[place] == side).all()


def test_a_patch_of_the_wrong_side_gets_the_right_one(two):
    right, left = two
    left[12:15, 20:25, 12:16], right[12:15, 20:25, 12:16] = 200, 50
    found = find_lungs(prediction(right, left), SCAN, "1.2")
    assert (found.labels[RIGHT] == Side.RIGHT).all()


def test_vessels_are_filled_in_and_the_mediastinum_is_not(two):
    right, left = two
    right[10:20, 30:34, 20:24] = 0
    # Both lungs meet before and behind the heart, so that it is a hole too.
    for rows in (slice(15, 18), slice(42, 45)):
        right[15:18, rows, 40:45] = 250
        left[15:18, rows, 45:50] = 250
    found = find_lungs(prediction(right, left), SCAN, "1.2")
    assert (found.labels[10:20, 30:34, 20:24] == Side.RIGHT).all()
    assert (found.probabilities[10:20, 30:34, 20:24] > 127).all()
    assert not found.labels[15:18, 18:42, 40:50].any()


def trachea(hu, slices):
    """Air of 18 mm between the lungs."""
    rows, columns = np.ogrid[: SHAPE[1], : SHAPE[2]]
    disc = np.hypot(rows - 28, columns - 45) < 3
    hu[slices, disc] = -1000
    return disc


def test_the_trachea_is_no_lung(two):
    right, left = two
    hu = np.where(np.maximum(right, left) > 0, -850, 40).astype(np.int16)
    disc = trachea(hu, slice(22, 40))
    right[22:38, disc] = 250
    found = find_lungs(prediction(right, left), Scan(hu, SCAN.spacing), "1.2")
    assert not found.labels[22:38, disc].any()
    assert (found.labels[RIGHT] == Side.RIGHT).all()


def test_an_airway_that_lung_surrounds_is_no_hole_to_be_filled(two):
    right, left = two
    hu = np.where(np.maximum(right, left) > 0, -850, 40).astype(np.int16)
    disc = trachea(hu, slice(22, 40))
    right[22:35, 22:36, 40:50] = 250
    hu[22:35, 22:36, 40:50] = -850
    hu[22:40, disc] = -1000
    found = find_lungs(prediction(right, left), Scan(hu, SCAN.spacing), "1.2")
    assert not found.labels[24:34, disc].any()
    assert found.labels[24:34, 23, 45].all()


def test_emphysema_is_no_trachea(two):
    """As dark as air, but in the lung, and a bubble that ends."""
    right, left = two
    hu = np.where(np.maximum(right, left) > 0, -850, 40).astype(np.int16)
    hu[6:34, 17:43, 12:38] = -960
    trachea(hu, slice(30, 34))
    right[30:34] = np.maximum(right[30:34], hu[30:34] == -1000)
    found = find_lungs(prediction(right, left), Scan(hu, SCAN.spacing), "1.2")
    assert (found.labels[RIGHT] == Side.RIGHT).all()


def test_gas_in_the_stomach_and_specks_are_no_lung(two):
    right, left = two
    left[0:8, 46:58, 60:75] = 250  # below the left lung, against the front wall of the abdomen
    left[5:8, 46:58, 60:75] = 0
    right[38, 2, 2] = 250
    found = find_lungs(prediction(right, left), SCAN, "1.2")
    assert not found.labels[:, 46:].any()
    assert not found.labels[38].any()
    assert found.probabilities[38, 2, 2] == 0


def test_a_collapsed_lung_is_kept(two):
    """A left lung of a tenth of the right one, in the middle of the chest."""
    right, left = two
    left[:] = 0
    left[12:30, 30:40, 50:65] = 250
    found = find_lungs(prediction(right, left), SCAN, "1.2")
    assert np.count_nonzero(found.labels == Side.LEFT) == 18 * 10 * 15


@pytest.mark.parametrize("size", [0, 9])
def test_too_little_is_no_lungs(size):
    right = blank()
    right[10 : 10 + size, 10 : 10 + size, 10 : 10 + size] = 255
    with pytest.raises(SeriesRefused, match=r"series 1\.2") as caught:
        find_lungs(prediction(right, blank()), SCAN, "1.2")
    assert caught.value.reason is Reason.NO_LUNGS


def test_specks_together_are_no_lungs():
    """As gas in the bowel: none of it is a lung, though all of it would be one."""
    right = blank()
    right[::2, ::2, ::2] = 255
    right[10:15, 10:15, 10:15] = 255
    assert np.count_nonzero(right) * 0.045 > 300
    with pytest.raises(SeriesRefused) as caught:
        find_lungs(prediction(right, blank()), SCAN, "1.2")
    assert caught.value.reason is Reason.NO_LUNGS


def test_probabilities_of_classes_add_up_without_wrapping_round():
    parts = np.array([[[[200, 3, 128]]], [[[100, 4, 128]]]], np.uint8)
    assert sum_classes(parts).ravel().tolist() == [255, 7, 255]
    assert parts.ravel().tolist() == [200, 3, 128, 100, 4, 128]


def test_warnings():
    assert one_sided_warning(BySide(total=3000, right=1800, left=1200)) is None
    assert "right lung was found (20 ml" in str(one_sided_warning(BySide(total=2000, right=20, left=1980)))
    labels = blank()
    assert cut_off_warning(labels, 9.0) is None
    labels[-1, :20, :20] = 1
    assert "highest slice" in str(cut_off_warning(labels, 9.0))
    labels[0, :20, :20] = 1
    assert "lowest and the highest slice" in str(cut_off_warning(labels, 9.0))


def test_images_that_end_within_the_chest_are_told_of():
    """Those that leave out an arm's or a flank's edge are not."""
    rows, columns = np.ogrid[-30:30, -45:45]
    body = np.broadcast_to((rows / 24) ** 2 + (columns / 42) ** 2 < 1, SHAPE)
    labels = blank()
    labels[RIGHT], labels[LEFT] = Side.RIGHT, Side.LEFT
    hu = np.where(body, np.int16(40), np.int16(-1000))
    hu[labels > 0] = -850
    assert cut_through_warning(hu, labels) is None
    assert cut_through_warning(hu[:, :, 6:-6], labels[:, :, 6:-6]) is None
    right_only = str(cut_through_warning(hu[:, :, :46], labels[:, :, :46]))
    assert "patient's left:" in right_only
    assert "patient's right and left:" in str(cut_through_warning(hu[:, :, 25:60], labels[:, :, 25:60]))
