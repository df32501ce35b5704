from dataclasses import replace

import numpy as np
import pytest

from covid_ct.inference.drawn_chest import drawn_chest
from covid_ct.inference.manifest import load_manifest
from tests.inference import tiny_models


@pytest.fixture
def flat(tmp_path):
    tiny_models.write_all(tmp_path)
    return load_manifest(tmp_path / "lungs", "lungs").input


def test_it_has_lungs_in_a_body_in_air(flat):
    chest = drawn_chest(replace(flat, size=(60, 80)))
    assert chest.shape == (1, 60, 80)
    assert chest.dtype == np.float32
    assert chest[0, 0, 0] == -1000
    assert chest[0, 30, 40] == 40
    assert chest[0, 30, 18] == chest[0, 30, 62] == -860
    assert {-500.0, 20.0} <= set(np.unique(chest))


def test_it_comes_as_the_manifest_wants_it(flat):
    deep = replace(flat, dimensions=3, size=(6, 60, 80), axes="xyz", scale_to=(0.0, 1.0), standardise=False)
    chest = drawn_chest(deep)
    assert chest.shape == (1, 80, 60, 6)
    assert 0 <= chest.min() < chest.max() <= 1
    np.testing.assert_array_equal(chest[..., 0], chest[..., -1])
    standard = drawn_chest(replace(deep, standardise=True))
    np.testing.assert_allclose([standard.mean(), standard.std()], [0, 1], atol=1e-4)
