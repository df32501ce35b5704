from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from covid_ct.results.outlines import MAX_POINTS, outer_outline


def area(points: list[tuple[float, float]]) -> float:
    """Signed area by the shoelace formula, positive for clockwise in image coordinates."""
    x, y = np.array(points).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def expected(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(mask)
    return ndimage.binary_fill_holes(parts == np.bincount(parts.ravel())[1:].argmax() + 1)


@settings(max_examples=150, deadline=None)
@given(arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)).filter(lambda m: m.any()))
def test_outline_encloses_the_filled_part_and_nothing_else(mask: NDArray[np.bool_]) -> None:
    points = outer_outline(mask)
    assert points[0] == points[-1]
    assert area(points) == expected(mask).sum()
    assert all(x1 == x2 or y1 == y2 for (x1, y1), (x2, y2) in pairwise(points))
    canvas = Image.new("1", (4 * mask.shape[1], 4 * mask.shape[0]))
    ImageDraw.Draw(canvas).polygon([(4 * x - 0.5, 4 * y - 0.5) for x, y in points], fill=1)
    assert np.array_equal(np.asarray(canvas)[2::4, 2::4], expected(mask))


def test_a_single_pixel_is_a_square() -> None:
    mask = np.zeros((5, 6), bool)
    mask[2, 3] = True
    assert outer_outline(mask) == [(3, 2), (4, 2), (4, 3), (3, 3), (3, 2)]


@pytest.mark.parametrize("transpose", [False, True])
def test_corners_only_where_the_outline_turns(transpose: bool) -> None:
    mask = np.ones((20, 30), bool)
    assert len(outer_outline(mask.T if transpose else mask)) == 5


@given(st.integers(0, 3))
def test_pixels_that_touch_at_a_corner_are_not_joined(turns: int) -> None:
    mask = np.rot90(np.array([[1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]], bool), turns)
    assert abs(area(outer_outline(mask))) == 3


def test_outlines_fit_into_graphic_data() -> None:
    comb = np.zeros((100, 400), bool)
    comb[:, 0] = True
    comb[::3] = True
    comb[1::3, 2::2] = True
    points = outer_outline(comb)
    assert MAX_POINTS / 2 < len(points) <= MAX_POINTS
    assert points[0] == points[-1]
    assert len(points) * 8 < 2**16
