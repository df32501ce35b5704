from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import label

from covid_ct.analysis.findings import LesionKind, Side
from covid_ct.phantom import Anatomy, Lesions, Phantom, PhantomOptions, Position, make_phantom, scan
from covid_ct.phantom.lesions import SINGLE_SLICE_MM
from covid_ct.phantom.make import CENTRE_MM
from covid_ct.series.volume import Volume

SMALL = PhantomOptions(matrix=128, slices=50, spacing_mm=6.0)

VARIANTS = [
    PhantomOptions(matrix=128, slices=50, spacing_mm=6.0, position=position, columns_to_front=turned)
    for position in Position
    for turned in (False, True)
]


def in_lps(phantom: Phantom, array: np.ndarray) -> np.ndarray:
    return Volume(phantom.hu, phantom.affine, ()).to_lps(array)


def test_truth_is_what_the_label_maps_count(phantom: Phantom) -> None:
    truth = phantom.truth
    voxel_ml = abs(np.linalg.det(phantom.affine[:3, :3])) / 1000
    report = truth.to_dict()
    assert truth.voxel_ml == pytest.approx(voxel_ml)
    assert report["lung_volume_ml"]["right"] == pytest.approx(voxel_ml * (truth.lungs == Side.RIGHT).sum())
    assert report["lesion_volume_ml"]["total"] == pytest.approx(voxel_ml * (truth.lesions > 0).sum())
    left_glass = (truth.lungs == Side.LEFT) & (truth.lesions == LesionKind.GROUND_GLASS)
    assert report["ground_glass_volume_ml"]["left"] == pytest.approx(voxel_ml * left_glass.sum())
    assert report["lesion_to_lung_ratio"]["total"] == pytest.approx((truth.lesions > 0).sum() / (truth.lungs > 0).sum())


def test_volumes_are_those_of_an_ill_adult(phantom: Phantom) -> None:
    report = phantom.truth.to_dict()
    assert 3000 < report["lung_volume_ml"]["total"] < 6000
    assert 1.03 < report["lung_volume_ml"]["right"] / report["lung_volume_ml"]["left"] < 1.4
    assert 0.02 < report["lesion_to_lung_ratio"]["total"] < 0.15
    assert report["lesion_volume_ml"]["right"] > 1.2 * report["lesion_volume_ml"]["left"] > 0
    assert report["ground_glass_volume_ml"]["total"] > report["consolidation_volume_ml"]["total"] > 5


def test_tissues_have_their_hu(phantom: Phantom) -> None:
    hu, lungs, lesions = phantom.hu, phantom.truth.lungs, phantom.truth.lesions
    assert -880 < np.median(hu[(lungs > 0) & (lesions == 0)]) < -800
    assert -700 < np.median(hu[lesions == LesionKind.GROUND_GLASS]) < -500
    assert -20 < np.median(hu[lesions == LesionKind.CONSOLIDATION]) < 60
    # The upper left corner sees air; the body's middle, between the lungs, soft tissue.
    assert np.median(hu[:, :5, :5]) == pytest.approx(-1000, abs=5)
    middle = hu[len(hu) // 2, 50:60, 64:70]
    assert -60 < np.median(middle) < 60


def test_lesions_lie_in_the_lungs(phantom: Phantom) -> None:
    assert not phantom.truth.lesions[phantom.truth.lungs == 0].any()


def test_each_lung_is_one_piece_on_its_own_side(phantom: Phantom) -> None:
    for side in Side:
        mask = in_lps(phantom, phantom.truth.lungs == side)
        pieces, count = label(mask)
        sizes = np.bincount(pieces.ravel())[1:]
        assert sizes.max() > 0.999 * sizes.sum(), count
        middle = np.argwhere(mask).mean(0)[2]
        assert middle < 55 if side is Side.RIGHT else middle > 73


def test_body_is_asymmetrical_along_every_axis(phantom: Phantom) -> None:
    lungs = in_lps(phantom, phantom.truth.lungs > 0)
    for axis in range(3):
        mirrored = np.flip(lungs, axis)
        assert np.count_nonzero(lungs != mirrored) > 0.15 * np.count_nonzero(lungs)
    # The stomach's bubble: air below the left dome, in front.
    hu = in_lps(phantom, phantom.hu)
    low = hu[:12, 25:60] < -900
    outside = in_lps(phantom, phantom.truth.lungs)[:12, 25:60] > 0
    bubble = np.argwhere(low & ~outside & (np.arange(128) > 50) & (np.arange(128) < 110))
    assert bubble[:, 2].mean() > 75


def test_same_options_give_the_same_phantom_and_another_seed_does_not(phantom: Phantom, anatomy: Anatomy) -> None:
    again = make_phantom(SMALL)
    assert np.array_equal(again.hu, phantom.hu)
    assert np.array_equal(again.truth.lesions, phantom.truth.lesions)
    other = scan(anatomy, replace(SMALL, seed=2))
    assert not np.array_equal(other.hu, phantom.hu)


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: f"{o.position}{'-turned' if o.columns_to_front else ''}")
def test_turned_scans_show_the_same_thorax_in_the_patient(
    options: PhantomOptions, phantom: Phantom, anatomy: Anatomy
) -> None:
    turned = scan(anatomy, options)
    assert np.array_equal(in_lps(turned, turned.truth.lungs), in_lps(phantom, phantom.truth.lungs))
    assert np.array_equal(in_lps(turned, turned.truth.lesions), in_lps(phantom, phantom.truth.lesions))
    ours, theirs = (in_lps(item, item.hu)[:, 30:98] for item in (turned, phantom))
    lungs = in_lps(phantom, phantom.truth.lungs)[:, 30:98] > 0
    assert np.array_equal(ours[lungs], theirs[lungs])
    one, other = (Volume(item.hu, item.affine, ()).lps_affine for item in (turned, phantom))
    assert np.allclose(one, other)
    # Slices ascend along the normal, as in a Volume.
    normal = np.cross(turned.affine[:3, 2], turned.affine[:3, 1])
    assert normal @ turned.affine[:3, 0] > 0


@pytest.mark.parametrize(("spacing", "thickness"), [(1.0, 1.0), (8.0, 8.0), (4.0, 8.0), (5.0, 1.5)])
def test_volumes_do_not_depend_on_the_slices(
    spacing: float, thickness: float, phantom: Phantom, anatomy: Anatomy
) -> None:
    options = PhantomOptions(matrix=128, slices=round(300 / spacing), spacing_mm=spacing, thickness_mm=thickness)
    volume = scan(anatomy, options).truth.to_dict()
    usual = phantom.truth.to_dict()
    assert volume["lung_volume_ml"]["total"] == pytest.approx(usual["lung_volume_ml"]["total"], rel=0.02)
    assert volume["lesion_volume_ml"]["total"] == pytest.approx(usual["lesion_volume_ml"]["total"], rel=0.08)


def test_thinner_slabs_are_noisier(anatomy: Anatomy) -> None:
    thick, thin = (
        scan(anatomy, PhantomOptions(matrix=256, slices=3, spacing_mm=5.0, thickness_mm=thickness))
        .hu[1, :20, :20]
        .std()
        for thickness in (4.0, 1.0)
    )
    assert thin == pytest.approx(2 * thick, rel=0.3)


def test_no_lesions() -> None:
    healthy = make_phantom(replace(SMALL, lesions=Lesions.NONE))
    assert not healthy.truth.lesions.any()
    assert healthy.truth.to_dict()["lesion_to_lung_ratio"] == {"total": 0, "right": 0, "left": 0}


def test_lesions_on_the_right_alone() -> None:
    truth = make_phantom(replace(SMALL, lesions=Lesions.RIGHT)).truth
    assert truth.lesion_volume_ml(side=Side.RIGHT) > 20
    assert truth.lesion_volume_ml(side=Side.LEFT) == 0


def test_lesions_on_one_slice_alone() -> None:
    phantom = make_phantom(replace(SMALL, lesions=Lesions.SINGLE_SLICE))
    shown = np.flatnonzero(phantom.truth.lesions.any((1, 2)))
    assert len(shown) == 1
    height = phantom.affine[2] @ [shown[0], 0, 0, 1]
    assert height == pytest.approx(CENTRE_MM[2] + SINGLE_SLICE_MM, abs=SMALL.spacing_mm / 2)
    assert set(np.unique(phantom.truth.lesions)) == {0, *LesionKind}


@pytest.mark.parametrize(
    "wrong",
    [{"slices": 0}, {"spacing_mm": 0.0}, {"spacing_mm": float("nan")}, {"thickness_mm": -1.0}, {"matrix": 4096}],
)
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="phantom"):
        PhantomOptions(**wrong)
