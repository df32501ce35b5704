"""The three real series of `../shared/data`, where it is."""

from pathlib import Path

import numpy as np
import pytest

from covid_ct.series.folder import read_folder

DATA = Path(__file__).resolve().parents[2] / "../shared/data/series"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


@pytest.mark.parametrize(
    ("name", "slices", "spacing", "lowest_z"),
    [("covid-positive", 148, 2.0, -346.1), ("healthy", 154, 2.0, -330.5), ("tumour-8mm", 30, 8.0, 80.0)],
)
def test_real_series_are_read(name: str, slices: int, spacing: float, lowest_z: float) -> None:
    volume = read_folder(DATA / name)
    assert volume.hu.shape == (slices, 512, 512)
    assert volume.spacing[0] == pytest.approx(spacing)
    assert volume.affine[2, 3] == pytest.approx(lowest_z)
    assert any("8 mm thick" in warning for warning in volume.warnings) == (name == "tumour-8mm")
    # Air around the patient, soft tissue in the middle: the rescale was applied.
    assert np.median(volume.hu[:, :8, 200:300]) < -950
    assert -100 < np.median(volume.hu[slices // 2, 250:300, 230:280]) < 150
