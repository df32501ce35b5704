import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from covid_ct.identity import is_own_result
from covid_ct.phantom import Anatomy, Phantom, PhantomOptions, Position, scan, to_datasets, write_folder
from covid_ct.series.reading import read_series

PLUGIN = Path(__file__).resolve().parents[2] / "plugin"
DCIODVFY = Path(sys.executable).with_name("dciodvfy")


def test_images_hold_the_phantom(phantom: Phantom) -> None:
    datasets = to_datasets(phantom)
    assert [item.InstanceNumber for item in datasets] == list(range(1, 51))
    for index, dataset in enumerate(datasets):
        hu = dataset.pixel_array.astype(int) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        assert np.array_equal(hu, phantom.hu[index])
        expected = phantom.affine @ [index, 0, 0, 1]
        assert np.allclose(np.array(dataset.ImagePositionPatient, float), expected[:3], atol=1e-5)
    steps = np.diff([item.ImagePositionPatient[2] for item in datasets])
    assert np.allclose(steps, 6.0)
    assert float(datasets[0].PixelSpacing[0]) == pytest.approx(2.8)


def test_one_series_of_a_made_up_patient_that_is_no_result(phantom: Phantom) -> None:
    datasets = to_datasets(phantom)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert len({str(item[keyword].value) for item in datasets}) == 1
    assert len({str(item.SOPInstanceUID) for item in datasets}) == len(datasets)
    first = datasets[0]
    assert str(first.PatientName) == "Phantom^Thorax"
    assert not is_own_result(first.Manufacturer, first.ManufacturerModelName)


def test_uids_depend_on_the_options_alone(phantom: Phantom, anatomy: Anatomy) -> None:
    first, again = to_datasets(phantom)[0], to_datasets(phantom)[0]
    other = to_datasets(scan(anatomy, replace(phantom.options, position=Position.FFS)))[0]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert first[keyword].value == again[keyword].value != other[keyword].value


def test_reversed_order_only_renumbers(anatomy: Anatomy) -> None:
    options = PhantomOptions(matrix=64, slices=20, spacing_mm=5.0)
    forwards = to_datasets(scan(anatomy, options))
    backwards = to_datasets(scan(anatomy, replace(options, reversed_order=True)))
    assert [item.InstanceNumber for item in backwards] == list(range(1, 21))
    assert [item.SliceLocation for item in backwards] == [item.SliceLocation for item in forwards[::-1]]
    assert backwards[0].PixelData == forwards[-1].PixelData


@pytest.mark.parametrize("position", list(Position))
def test_images_are_valid_ct(position: Position, anatomy: Anatomy, tmp_path: Path) -> None:
    phantom = scan(
        anatomy, PhantomOptions(matrix=64, slices=3, spacing_mm=5.0, position=position, columns_to_front=True)
    )
    files = write_folder(phantom, tmp_path)
    report = subprocess.run([DCIODVFY, "-new", files[1]], capture_output=True, text=True, check=False)
    assert "CTImage" in report.stdout + report.stderr
    assert "Error" not in report.stdout + report.stderr


@pytest.mark.parametrize("position", list(Position))
@pytest.mark.parametrize("columns_to_front", [False, True])
def test_the_reader_finds_the_phantom_as_it_was_made(
    position: Position, columns_to_front: bool, anatomy: Anatomy
) -> None:
    phantom = scan(
        anatomy,
        PhantomOptions(
            matrix=128, slices=60, spacing_mm=5.0, thickness_mm=7.5,
            position=position, columns_to_front=columns_to_front, reversed_order=True,
        ),
    )  # fmt: skip
    files = []
    for dataset in to_datasets(phantom):
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    volume = read_series(files, never_decode)
    assert np.array_equal(volume.hu, phantom.hu)
    assert np.allclose(volume.affine, phantom.affine, atol=1e-5)
    assert any("7.5 mm thick" in warning for warning in volume.warnings)


def never_decode(content: bytes) -> np.ndarray:
    raise AssertionError("the phantom is not compressed")


def test_command_writes_series_and_truth(tmp_path: Path) -> None:
    given = ["--slices", "20", "--spacing", "15", "--matrix", "64", "--lesions", "right", "--position", "HFP"]
    subprocess.run(
        [sys.executable, "-m", "covid_ct.phantom", tmp_path, *given],
        check=True, env={"PYTHONPATH": str(PLUGIN)}, capture_output=True,
    )  # fmt: skip
    files = sorted((tmp_path / "series").iterdir())
    assert len(files) == 20
    assert pydicom.dcmread(files[0]).PatientPosition == "HFP"
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert truth["lesion_volume_ml"]["left"] == 0 < truth["lesion_volume_ml"]["right"]


def test_command_refuses_impossible_options(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "covid_ct.phantom", tmp_path, "--slices", "0"],
        check=False, env={"PYTHONPATH": str(PLUGIN)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "A phantom has 1 to 2000 slices, not 0." in done.stderr
