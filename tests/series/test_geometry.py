import contextlib
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covid_ct.errors import Reason, SeriesRefused
from covid_ct.series.geometry import arrange
from covid_ct.series.headers import SeriesRules, SliceHeader

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
RULES = SeriesRules()


def stack(heights: list[float], orientation: tuple[float, ...] = AXIAL) -> list[SliceHeader]:
    return [SliceHeader((-170.0, -160.0, z), orientation, (0.7, 0.8), 512, 512) for z in heights]


def even(count: int = 40, spacing: float = 5.0) -> list[float]:
    return [-100 + spacing * index for index in range(count)]


def refused(slices: list[SliceHeader], reason: Reason, rules: SeriesRules = RULES) -> str:
    with pytest.raises(SeriesRefused) as refusal:
        arrange("1.2.3", slices, rules)
    assert refusal.value.reason is reason
    sentence = str(refusal.value)
    assert sentence.startswith("Series 1.2.3 ")
    assert sentence.endswith(".")
    return sentence


def test_slices_are_sorted_along_the_normal() -> None:
    slices = stack(even())
    shuffled = np.random.default_rng(1).permutation(len(slices))
    arrangement = arrange("1.2.3", [slices[index] for index in shuffled], RULES)
    assert np.array_equal(shuffled[arrangement.order], np.arange(len(slices)))


def test_affine_leads_to_each_pixel() -> None:
    arrangement = arrange("1.2.3", stack(even()), RULES)
    assert np.allclose(arrangement.affine @ [3, 0, 0, 1], [-170, -160, -85, 1])
    # PS3.3 C.7.6.2.1.1: columns advance along the row cosine by the second pixel spacing.
    assert np.allclose(arrangement.affine @ [0, 10, 20, 1], [-170 + 20 * 0.8, -160 + 10 * 0.7, -100, 1])


@pytest.mark.parametrize(
    ("orientation", "ascends"),
    [(AXIAL, 1), ((-1.0, 0, 0, 0, 1.0, 0), -1), ((-1.0, 0, 0, 0, -1.0, 0), 1), ((1.0, 0, 0, 0, -1.0, 0), -1)],
)
def test_order_follows_the_normal_however_images_are_turned(orientation: tuple[float, ...], ascends: int) -> None:
    arrangement = arrange("1.2.3", stack(even(), orientation), RULES)
    assert np.sign(arrangement.order[1] - arrangement.order[0]) == ascends
    assert np.linalg.det(arrangement.affine[:3, [2, 1, 0]]) > 0


def test_rounded_cosines_give_an_orthogonal_affine() -> None:
    orientation = (0.9998, 0.0175, 0.0, -0.0175, 0.9998, 0.001)
    normal = np.cross(orientation[:3], orientation[3:])
    slices = [SliceHeader(tuple(normal * 5 * index), orientation, (0.7, 0.7), 512, 512) for index in range(40)]
    axes = arrange("1.2.3", slices, RULES).affine[:3, :3]
    assert np.allclose(axes.T @ axes, np.diag(np.linalg.norm(axes, axis=0) ** 2), atol=1e-9)
    assert np.linalg.norm(axes[:, 1]) == pytest.approx(0.7)


def test_gaps_are_counted_and_placed() -> None:
    sentence = refused(stack([z for z in even() if z not in (-75.0, 0.0)]), Reason.GAPS)
    assert "2 gaps" in sentence
    assert "z -80.0 mm and -70.0 mm where 5.00 mm" in sentence


def test_gap_of_images_stored_feet_first_is_told_by_their_own_positions() -> None:
    slices = stack([z for z in even() if z != 0.0], (-1.0, 0, 0, 0, 1.0, 0))
    assert "z 5.0 mm and -5.0 mm" in refused(slices, Reason.GAPS)


def test_two_images_at_one_position() -> None:
    sentence = refused(stack([*even(), -50.0, 0.02]), Reason.DUPLICATE_POSITIONS)
    assert "2 positions, the first at z -50.0 mm" in sentence
    refused(stack([0.0] * 40), Reason.DUPLICATE_POSITIONS)


def test_uneven_spacing() -> None:
    heights = even()
    heights[20] += 1.0
    assert "4.00 mm to 6.00 mm" in refused(stack(heights), Reason.UNEVEN_SPACING)


def test_spacing_that_changes_by_little_until_slices_lie_elsewhere() -> None:
    heights = [5.0 * index + max(0, index - 30) * 0.45 for index in range(60)]
    assert "5.00 mm to 5.45 mm" in refused(stack(heights), Reason.UNEVEN_SPACING)
    arrange("1.2.3", stack(heights[:36]), RULES)


def test_positions_rounded_by_the_scanner_are_even_enough() -> None:
    heights = [round(0.625 * index, 1) for index in range(200)]
    assert arrange("1.2.3", stack(heights), RULES).affine[2, 0] == pytest.approx(0.625, abs=0.001)


def test_tilted_gantry() -> None:
    angle = math.radians(12)
    tilted = (1.0, 0.0, 0.0, 0.0, math.cos(angle), math.sin(angle))
    assert "tilted gantry" in refused(stack(even(), tilted), Reason.GANTRY_TILT)
    leaning = [
        replace(item, position=(item.position[0], item.position[1] + 0.3 * index, item.position[2]))
        for index, item in enumerate(stack(even()))
    ]
    assert "11.7 mm" in refused(leaning, Reason.GANTRY_TILT)


def test_sideways_jump_is_no_tilt() -> None:
    slices = stack(even())
    slices[25:] = [replace(item, position=(-150.0, *item.position[1:])) for item in slices[25:]]
    assert "20.0 mm" in refused(slices, Reason.BAD_GEOMETRY)


def test_oblique_stack_without_tilt_passes() -> None:
    angle = math.radians(12)
    orientation = (1.0, 0.0, 0.0, 0.0, math.cos(angle), math.sin(angle))
    normal = np.cross(orientation[:3], orientation[3:])
    slices = [SliceHeader(tuple(normal * 5.0 * index), orientation, (0.7, 0.7), 512, 512) for index in range(40)]
    assert np.allclose(arrange("1.2.3", slices, RULES).affine[:3, 0], 5 * normal)


@pytest.mark.parametrize("orientation", [(1.0, 0, 0, 0, 0, -1.0), (0, 1.0, 0, 0, 0, -1.0)])
def test_coronal_and_sagittal_are_not_axial(orientation: tuple[float, ...]) -> None:
    assert "90 degrees" in refused(stack(even(), orientation), Reason.NOT_AXIAL)


def turned(degrees: float) -> tuple[float, ...]:
    """Orientation of axial images turned within their plane."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (cosine, sine, 0.0, -sine, cosine, 0.0)


@pytest.mark.parametrize("degrees", [40, -50, 130])
def test_images_turned_within_their_plane_are_not_axial(degrees: float) -> None:
    """Sides would be mixed up."""
    assert "rows and columns are turned by 40 degrees" in refused(stack(even(), turned(degrees)), Reason.NOT_AXIAL)


@pytest.mark.parametrize("degrees", [20, -20, 90, 270, 180])
def test_whoever_lies_askew_or_on_the_side_is_read(degrees: float) -> None:
    arrange("1.2.3", stack(even(), turned(degrees)), RULES)


def test_mixed_orientation() -> None:
    refused(stack(even()) + stack([200.0], (1.0, 0, 0, 0, 0, -1.0)), Reason.MIXED_ORIENTATION)


def test_mixed_size() -> None:
    slices = stack(even())
    assert "512 x 512 and of 256 x 512" in refused([*slices[:-1], replace(slices[-1], rows=256)], Reason.MIXED_SIZE)
    refused([*slices[:-1], replace(slices[-1], pixel_spacing=(0.7, 0.9))], Reason.MIXED_SIZE)


@pytest.mark.parametrize(
    "change",
    [
        {"pixel_spacing": (0.0, 0.0)},
        {"pixel_spacing": (-0.7, 0.7)},
        {"pixel_spacing": (50.0, 50.0)},
        {"pixel_spacing": (0.7,)},
        {"pixel_spacing": (float("nan"), 0.7)},
        {"position": (0.0, float("inf"), 0.0)},
        {"position": (0.0, 1e300, 0.0)},
        {"position": (0.0, 0.0)},
        {"orientation": (1.0, 0, 0, 0, float("nan"), 0)},
        {"orientation": (1.0, 0, 0, 1.0, 0, 0)},
        {"orientation": (0.0, 0, 0, 0, 0, 0)},
        {"orientation": (2.0, 0, 0, 0, 2.0, 0)},
        {"rows": 4096, "columns": 4096},
        {"rows": 0},
        {"columns": float("nan")},
    ],
)
def test_impossible_values(change: dict[str, object]) -> None:
    slices = stack(even())
    refused([slices[0], replace(slices[1], **change), *slices[2:]], Reason.BAD_GEOMETRY)
    refused([replace(slices[0], **change), *slices[1:]], Reason.BAD_GEOMETRY)


def test_rules_set_the_limits() -> None:
    assert "12.0 mm apart, at most 10" in refused(stack(even(20, 12.0)), Reason.BAD_GEOMETRY)
    arrange("1.2.3", stack(even(20, 12.0)), SeriesRules(max_spacing_mm=15))
    assert "19 mm of the patient" in refused(stack(even(20, 1.0)), Reason.TOO_FEW_SLICES)
    assert "at most 10 million" in refused(stack(even()), Reason.TOO_MANY_SLICES, SeriesRules(max_voxels=10_000_000))


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(16, 60),
    spacing=st.floats(4.0, 9.9),
    start=st.floats(-2000, 2000),
    turned=st.sampled_from([AXIAL, (-1.0, 0, 0, 0, 1.0, 0), (-1.0, 0, 0, 0, -1.0, 0), (1.0, 0, 0, 0, -1.0, 0)]),
    seed=st.integers(0, 1000),
)
def test_every_even_stack_comes_back_whole(
    count: int, spacing: float, start: float, turned: tuple[float, ...], seed: int
) -> None:
    slices = stack([start + spacing * index for index in range(count)], turned)
    shuffled = np.random.default_rng(seed).permutation(count)
    arrangement = arrange("1.2.3", [slices[index] for index in shuffled], RULES)
    for place, index in enumerate(arrangement.order):
        assert np.allclose(arrangement.affine @ [place, 0, 0, 1], [*slices[shuffled[index]].position, 1], atol=1e-6)


any_number = st.floats(allow_nan=True, allow_infinity=True)
sensible = st.floats(-500, 500)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            SliceHeader,
            position=st.lists(any_number | sensible, min_size=2, max_size=4).map(tuple) | st.just((0.0, 0.0, 0.0)),
            orientation=st.just(AXIAL) | st.lists(any_number, min_size=5, max_size=7).map(tuple),
            pixel_spacing=st.just((0.7, 0.7)) | st.lists(any_number, min_size=1, max_size=3).map(tuple),
            rows=st.just(512) | st.integers(-5, 70000),
            columns=st.just(512) | st.integers(-5, 70000),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_any_geometry_is_arranged_or_refused(slices: list[SliceHeader]) -> None:
    # Anything but a refusal would be a bug of ours.
    with contextlib.suppress(SeriesRefused):
        arrangement = arrange("1.2.3", slices, SeriesRules(min_slices=2, min_length_mm=1))
        assert np.isfinite(arrangement.affine).all()
        assert abs(np.linalg.det(arrangement.affine)) > 0
