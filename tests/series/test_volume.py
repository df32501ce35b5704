import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covid_ct.series.volume import Volume

SPACING = (5.0, 0.5, 0.75)


def turned_volume(order: tuple[int, ...], signs: tuple[int, ...]) -> tuple[Volume, np.ndarray]:
    """A volume whose axes run along (head, posterior, left) in this order and direction; and its voxels' LPS places."""
    shape = (4, 5, 6)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (patient, sign) in enumerate(zip(order, signs, strict=True)):
        affine[(2, 1, 0)[patient], axis] = sign * SPACING[axis]
    affine[:3, 3] = (11, -7, 130)
    indices = np.moveaxis(np.indices(shape), 0, -1)
    places = indices @ affine[:3, :3].T + affine[:3, 3]
    return Volume(np.arange(120, dtype=np.int16).reshape(shape), affine, ()), places


orders = st.permutations([0, 1, 2]).map(tuple)
signs = st.tuples(*[st.sampled_from([-1, 1])] * 3)


@given(orders, signs)
def test_standard_view_runs_to_head_back_and_left(order: tuple[int, ...], sign: tuple[int, ...]) -> None:
    volume, places = turned_volume(order, sign)
    x, y, z = (volume.to_lps(places[..., axis]) for axis in range(3))
    assert (np.diff(z, axis=0) > 0).all()
    assert (np.diff(y, axis=1) > 0).all()
    assert (np.diff(x, axis=2) > 0).all()
    indices = np.moveaxis(np.indices(x.shape), 0, -1)
    expected = indices @ volume.lps_affine[:3, :3].T + volume.lps_affine[:3, 3]
    assert np.allclose(np.stack([x, y, z], -1), expected)


@given(orders, signs)
def test_there_and_back_without_a_copy(order: tuple[int, ...], sign: tuple[int, ...]) -> None:
    volume, _ = turned_volume(order, sign)
    turned = volume.to_lps(volume.hu)
    assert np.shares_memory(turned, volume.hu)
    assert np.array_equal(volume.from_lps(turned), volume.hu)


def test_spacing_and_voxel() -> None:
    volume, _ = turned_volume((0, 1, 2), (1, 1, 1))
    assert volume.spacing == pytest.approx(SPACING)
    assert volume.voxel_ml == pytest.approx(5 * 0.5 * 0.75 / 1000)
