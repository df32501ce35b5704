import numpy as np
import pytest

from covid_ct.inference.preprocessing import (
    Box,
    axis_weights,
    body_boxes,
    coarse_size,
    mask_box,
    prepare_slices,
    resample_plane,
    resize,
    scale_intensities,
    set_outside,
)


def test_area_averages_what_a_cell_covers():
    image = np.array([[1, 3, 5, 7], [1, 3, 5, 7]], np.int16)
    np.testing.assert_allclose(resize(image, (1, 2)), [[2, 6]])
    # Cells of 4/3 pixels: 1 and a third of 3, two thirds of 3 and of 5, a third of 5 and 7.
    np.testing.assert_allclose(resize(image, (2, 3))[0], [1.5, 4, 6.5])


def test_linear_takes_the_two_nearest_whatever_the_scale():
    line = np.array([[0, 0, 0, 100, 0, 0, 0, 0, 0]], np.float32)
    assert resize(line, (1, 3), "linear").max() == 0.0
    assert resize(line, (1, 3), "area").max() == pytest.approx(100 / 3)


@pytest.mark.parametrize("interpolation", ["area", "linear"])
@pytest.mark.parametrize("target", [5, 7, 12, 31])
def test_resampling_keeps_a_ramp_where_it_is(target, interpolation):
    """A ramp's value at a cell's centre is the centre, so a shift by a fraction of a cell would show."""
    centres = np.arange(12) + 0.5
    weights = axis_weights(12, (0, 12), target, interpolation)
    wanted = (np.arange(target) + 0.5) * 12 / target
    # At the ends linear interpolation has but one neighbour.
    inner = (wanted > 0.5) & (wanted < 11.5)
    # A mean over pixels takes each as even all over, which costs a few hundredths of one.
    np.testing.assert_allclose(
        (weights @ centres)[inner], wanted[inner], atol=0.07 if interpolation == "area" else 1e-5
    )


def test_weights_outside_the_source_are_zero():
    weights = axis_weights(4, (-2, 6), 8).toarray()
    np.testing.assert_array_equal(weights, np.eye(8, 4, -2))


def test_down_and_up_again_keeps_a_disc():
    rows, columns = np.mgrid[:300, :420]
    disc = np.hypot(rows - 140, columns - 230) < 90
    small = resize(disc, (256, 256))
    back = resample_plane(small, axis_weights(256, (0, 256), 300), axis_weights(256, (0, 256), 420)) > 0.5
    assert 2 * np.count_nonzero(back & disc) / (np.count_nonzero(back) + np.count_nonzero(disc)) > 0.995


def test_intensities_are_clipped_mapped_and_standardised():
    images = np.array([[[-2000, -1000, 500, 3000]], [[7, 7, 7, 7]]], np.float32)
    scaled = scale_intensities(images.copy(), (-1000, 500), (0, 1))
    np.testing.assert_allclose(scaled[0, 0], [0, 0, 1, 1])
    standard = scale_intensities(images.copy(), (-1000, 500), (0, 1), standardise=True)
    assert standard[0].mean() == pytest.approx(0, abs=1e-6)
    assert standard[0].std() == pytest.approx(1, rel=1e-5)
    # An even image is no division by zero.
    np.testing.assert_allclose(standard[1], 0, atol=1e-3)


def test_clipping_comes_before_resizing():
    """Metal of 20000 HU beside air may not turn its neighbourhood to bone."""
    hu = np.full((1, 4, 4), -1000, np.int16)
    hu[0, 0, 0] = 20000
    prepared = prepare_slices(hu, (2, 2), clip_hu=(-1000, 600), scale_to=(-1000, 600))
    assert prepared[0, 0, 0] == pytest.approx(-600)


def test_coarse_pixels_are_never_finer_than_those_there_are():
    assert coarse_size((400, 512), (0.9, 0.6), 1.8) == (200, 171)
    assert coarse_size((100, 512), (2.0, 0.6), 1.8) == (100, 171)
    assert coarse_size((1, 1), (0.5, 0.5), 1.8) == (1, 1)


def test_coarsened_slices_lose_noise_and_keep_what_is_large():
    hu = np.random.default_rng(0).normal(-800, 100, (1, 400, 400))
    hu[:, 100:300, 100:300] += 400
    fine, coarse = (
        prepare_slices(hu, (400, 400), clip_hu=(-1200, 200), scale_to=(-1200, 200), coarse=size)
        for size in (None, (100, 100))
    )
    assert coarse[0, :90].std() < fine[0, :90].std() / 3
    assert coarse[0, 150:250, 150:250].mean() == pytest.approx(-400, abs=5)
    assert coarse[0, :90].mean() == pytest.approx(-800, abs=5)


def test_mask_box_is_cut_at_the_edges():
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[2, 3:5, 0] = 1
    assert mask_box(mask) == Box((2, 3), (3, 5), (0, 1))
    assert mask_box(mask, (1, 2, 3)) == Box((1, 4), (1, 6), (0, 4))
    assert mask_box(mask).shape == (1, 2, 1)


def test_body_box_leaves_out_the_table():
    hu = np.full((2, 512, 512), -1024, np.int16)
    rows, columns = np.mgrid[:512, :512]
    hu[0][((rows - 240) / 130) ** 2 + ((columns - 260) / 200) ** 2 < 1] = 40
    hu[0][((rows - 240) / 90) ** 2 + ((columns - 180) / 60) ** 2 < 1] = -850
    hu[0, 420:428, 60:460] = 100
    body, nothing = body_boxes(hu)
    assert body.slices == (0, 1)
    np.testing.assert_allclose(body.rows, (110, 370), atol=8)
    np.testing.assert_allclose(body.columns, (60, 460), atol=8)
    assert nothing == Box((1, 2), (0, 512), (0, 512))


def test_outside_the_lungs_is_blanked_but_for_the_pleura():
    hu = np.full((1, 9, 9), 40, np.int16)
    mask = np.zeros((1, 9, 9), bool)
    mask[0, 4, 4] = True
    blank = set_outside(hu, mask, -1000)
    assert blank[0, 4, 6] == 40
    assert blank[0, 4, 7] == -1000
    assert hu.min() == 40
