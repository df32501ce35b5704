import numpy as np
import pytest

from covid_ct.analysis.findings import LesionKind, Side
from covid_ct.analysis.measurements import measure
from tests.analysis import chest


@pytest.fixture
def maps():
    lungs, lesions = np.zeros(chest.SHAPE, np.uint8), np.zeros(chest.SHAPE, np.uint8)
    lungs[chest.RIGHT], lungs[chest.LEFT] = Side.RIGHT, Side.LEFT
    lesions[chest.GLASS], lesions[chest.SOLID] = LesionKind.GROUND_GLASS, LesionKind.CONSOLIDATION
    return lungs, lesions


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_every_number(maps, flips):
    volume = chest.volume(flips=flips)
    values = measure(volume, *(volume.from_lps(array) for array in maps))
    right, left = chest.millilitres(chest.RIGHT), chest.millilitres(chest.LEFT)
    glass, solid = chest.millilitres(chest.GLASS), chest.millilitres(chest.SOLID)
    assert values.lung_volume_ml.right == pytest.approx(right)
    assert values.lung_volume_ml.left == pytest.approx(left)
    assert values.lung_volume_ml.total == pytest.approx(right + left)
    assert values.lesion_volume_ml.total == pytest.approx(glass + solid)
    assert values.ground_glass_volume_ml.right == pytest.approx(glass)
    assert values.ground_glass_volume_ml.left == 0
    assert values.consolidation_volume_ml.left == pytest.approx(solid)
    assert values.lesion_to_lung_ratio.total == pytest.approx((glass + solid) / (right + left))
    assert values.ground_glass_to_lung_ratio.right == pytest.approx(glass / right)
    assert values.consolidation_to_lung_ratio.total == pytest.approx(solid / (right + left))
    # 32 slices of lung, 4 to 35: thirds end at 14.67 and 25.33, a slice belongs where its middle is.
    thirds = values.lesion_to_lung_ratio_of_thirds
    assert (thirds["right"].upper, thirds["right"].middle) == (0, 0)
    assert thirds["right"].lower == pytest.approx(glass / (right * 11 / 32))
    assert thirds["left"].upper == pytest.approx(solid / (left * 11 / 32))
    assert (thirds["left"].middle, thirds["left"].lower) == (0, 0)


def test_thirds_are_those_of_each_lungs_own_height(maps):
    """As where one diaphragm stands higher than the other."""
    lungs, lesions = maps
    lungs[:20][lungs[:20] == Side.LEFT] = 0
    lesions[:] = 0
    # 16 slices of the left lung, 20 to 35: thirds end at 25.33 and 30.67.
    lesions[26:30, 76:86, 104:114] = LesionKind.CONSOLIDATION
    left = measure(chest.volume(), lungs, lesions).lesion_to_lung_ratio_of_thirds["left"]
    assert (left.upper, left.lower) == (0, 0)
    assert left.middle > 0


def test_specks_are_measured_but_are_no_lesions_of_their_own(maps):
    """What lies corner to corner is one lesion."""
    lungs, lesions = maps
    lesions[:] = 0
    lesions[6, 60:62, 30:34] = LesionKind.GROUND_GLASS  # 8 voxels of 0.02 ml
    lesions[7, 62:64, 34:38] = LesionKind.GROUND_GLASS  # touches it at a corner
    lesions[20, 60:62, 30:32] = LesionKind.GROUND_GLASS  # 0.08 ml
    values = measure(chest.volume(), lungs, lesions)
    assert [lesion.volume_ml for lesion in values.lesions] == pytest.approx([0.32])
    assert values.lesion_volume_ml.right == pytest.approx(0.4)


def test_single_lesions_have_side_slice_and_centre(maps):
    lungs, lesions = maps
    lesions[11, 60:70, 30:44] = LesionKind.CONSOLIDATION  # makes slice 11 the largest of the first lesion
    volume = chest.volume()
    first, second = measure(volume, lungs, lesions).lesions
    assert (first.side, first.slice_index) == ("right", 11)
    assert (second.side, second.volume_ml) == ("left", pytest.approx(chest.millilitres(chest.SOLID)))
    middle = [(block.start + block.stop - 1) / 2 for block in chest.SOLID]
    assert second.center_mm == pytest.approx((volume.affine @ [*middle, 1])[:3])


def test_a_lesion_in_both_lungs_is_one_of_each():
    lungs, lesions = np.zeros(chest.SHAPE, np.uint8), np.zeros(chest.SHAPE, np.uint8)
    lungs[:, :, :80], lungs[:, :, 80:] = Side.RIGHT, Side.LEFT
    lesions[5, 20:30, 70:95] = LesionKind.GROUND_GLASS
    found = measure(chest.volume(), lungs, lesions).lesions
    assert [(lesion.side, round(lesion.volume_ml, 3)) for lesion in found] == [("left", 3.0), ("right", 2.0)]


def test_no_lesion_and_one_lung(maps):
    lungs, lesions = maps
    lungs[lungs == Side.LEFT] = 0
    values = measure(chest.volume(), lungs, np.zeros_like(lesions))
    assert values.lesions == ()
    assert values.lesion_to_lung_ratio.left == 0
    assert values.lesion_to_lung_ratio_of_thirds["left"].upper == 0


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_the_standard_affine_meets_the_volumes(flips):
    volume = chest.volume(flips=flips)
    affine = volume.lps_affine
    np.testing.assert_allclose(affine, chest.volume().affine)
