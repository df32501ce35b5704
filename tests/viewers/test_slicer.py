"""3D Slicer's core libraries open the CT and both segmentations."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from covid_ct.series.volume import AIR_HU
from tests.results.test_segmentation import BIN
from tests.viewers.cases import Case

SCRIPT = Path(__file__).with_name("slicer_reader.py")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def on_our_grid(array: NDArray, ijk_to_ras: list[list[float]], case: Case) -> NDArray:
    """Slicer's array (k, j, i) on the volume's grid, by Slicer's own matrix; the grids must be the same points."""
    ours = LPS_TO_RAS @ case.volume.affine
    theirs = np.array(ijk_to_ras)[:, [2, 1, 0, 3]]
    to_ours = np.linalg.inv(ours) @ theirs
    # A thousandth of a voxel over the whole volume is rounding in the headers' decimal strings.
    assert np.allclose(to_ours[:3, :3], np.diag(np.sign(np.diag(to_ours[:3, :3]))), atol=1e-3 / max(array.shape))
    for axis in range(3):
        if to_ours[axis, axis] < 0:
            array = np.flip(array, axis)
            to_ours[axis, 3] -= array.shape[axis] - 1
    assert np.allclose(to_ours[:3, 3], 0, atol=1e-3)
    assert array.shape == case.volume.hu.shape
    return array


def test_slicer_shows_ct_and_segmentations(case: Case, tmp_path: Path, slicer_python: Path) -> None:
    folders = []
    for number, segmentation in enumerate(case.segmentations):
        folders.append(tmp_path / str(number))
        folders[-1].mkdir()
        subprocess.run(
            [BIN / "segimage2itkimage", "--inputDICOM", segmentation.path, "--outputDirectory", folders[-1],
             "--mergeSegments"], check=True, capture_output=True,
        )  # fmt: skip
    outcome = subprocess.run(
        [slicer_python, SCRIPT, case.source[0].parent, tmp_path, *folders],
        check=False, capture_output=True, text=True, env={},
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    arrays = np.load(tmp_path / "slicer.npz")
    report = json.loads((tmp_path / "slicer.json").read_text())

    ct = on_our_grid(arrays["ct"], report["ijk_to_ras"], case)
    # Our reading makes air of what lies below -1024 HU or is padding; Slicer does not.
    assert np.array_equal(np.maximum(ct, AIR_HU), case.volume.hu)

    structures = {
        structure.label: (structure, segmentation.masks[structure.label])
        for segmentation in case.segmentations
        for structure in segmentation.structures.values()
    }
    assert [segment["name"] for segment in report["segments"]] == list(structures)
    for segment in report["segments"]:
        structure, mask = structures[segment["name"]]
        assert np.array_equal(on_our_grid(arrays[segment["name"]], segment["ijk_to_ras"], case), mask), segment["name"]
        assert segment["color"] == pytest.approx(structure.color, abs=1)
        assert segment["category"] == structure.category.meaning
        assert segment["type"] == structure.type.meaning
        assert segment["modifier"] == (structure.modifier.meaning if structure.modifier else None)
        assert segment["region"] == (structure.region.meaning if structure.region else None)
