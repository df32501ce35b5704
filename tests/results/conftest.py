"""Small volumes and findings with every orientation that real series come in."""

import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from covid_ct.analysis.findings import (
    BySide,
    Findings,
    Lesion,
    LesionKind,
    Measurements,
    ModelIdentity,
    Side,
    Thirds,
)
from covid_ct.results.objects import build_results, write_result
from covid_ct.series.volume import Volume

BIN = Path(sys.executable).parent

MODELS = tuple(
    ModelIdentity(role, f"{role} network", "1.0", digit * 64, "CPUExecutionProvider", "Dice 0.98 on synthetic boxes")
    for role, digit in (("lungs", "a"), ("lesions", "b"), ("covid", "c"))
)


@dataclass
class Case:
    """A volume with findings on it, and the results once they were asked for."""

    volume: Volume
    findings: Findings

    @cached_property
    def results(self) -> dict[str, Dataset]:
        return {result.name: result.dataset for result in build_results(self.volume, self.findings)}

    def written(self, folder: Path) -> dict[str, Path]:
        """Files of the results but for the overlay's: its first stands for all."""
        paths = {}
        for name, dataset in self.results.items():
            if not name.startswith("overlay") or name.endswith("01.dcm"):
                paths[name] = folder / name
                write_result(dataset, paths[name])
        return paths


def dciodvfy(path: Path) -> str:
    """What the validator says about a file."""
    command = [BIN / "dciodvfy", "-new", path]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    return outcome.stdout + outcome.stderr


@dataclass(frozen=True)
class Geometry:
    """How a synthetic series lies in the patient."""

    row_cosine: tuple[float, float, float] = (1, 0, 0)
    column_cosine: tuple[float, float, float] = (0, 1, 0)
    spacing: tuple[float, float, float] = (2.0, 0.8, 0.7)
    thickness: str = "2"
    shape: tuple[int, int, int] = (24, 90, 110)


GEOMETRIES = {
    "upright": Geometry(),
    "thickness is not spacing": Geometry(spacing=(5.0, 0.8, 0.7), thickness="10"),
    "prone": Geometry(row_cosine=(-1, 0, 0), column_cosine=(0, -1, 0)),
    "feet first": Geometry(row_cosine=(-1, 0, 0), column_cosine=(0, 1, 0)),
    "column cosine to -y": Geometry(column_cosine=(0, -1, 0)),
    "rows run to the back": Geometry(row_cosine=(0, 1, 0), column_cosine=(1, 0, 0)),
    "odd size": Geometry(shape=(11, 91, 111)),
    "one slice apart by 8 mm": Geometry(spacing=(8.0, 0.8, 0.7), shape=(5, 90, 110)),
}


def make_volume(geometry: Geometry) -> Volume:
    """Volume of soft tissue and air whose place in the patient is known, with headers as a scanner writes them."""
    row, column = np.array(geometry.row_cosine), np.array(geometry.column_cosine)
    normal = np.cross(row, column)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = (
        normal * geometry.spacing[0],
        column * geometry.spacing[1],
        row * geometry.spacing[2],
    )
    affine[:3, 3] = -affine[:3, :3] @ (np.array(geometry.shape) // 2) + np.array([3.0, -12.5, 100.0])
    headers = []
    for index in range(geometry.shape[0]):
        header = Dataset()
        header.SOPClassUID = CTImageStorage
        header.SOPInstanceUID = f"1.2.3.4.{index + 1}"
        header.StudyInstanceUID = "1.2.3.1"
        header.SeriesInstanceUID = "1.2.3.2"
        header.FrameOfReferenceUID = "1.2.3.3"
        header.Modality = "CT"
        header.PatientName = "Doe^Jane"
        header.PatientID = "4711"
        header.StudyDate, header.StudyTime = "20200401", "101112"
        header.AcquisitionDate, header.AcquisitionTime = "20200401", "101512.25"
        header.SeriesDescription = "Thorax 2.0 B60f"
        header.ConvolutionKernel = "B60f"
        header.Manufacturer = "Maker"
        header.Rows, header.Columns = geometry.shape[1:]
        header.PixelSpacing = [geometry.spacing[1], geometry.spacing[2]]
        header.SliceThickness = geometry.thickness
        header.ImageOrientationPatient = [*geometry.row_cosine, *geometry.column_cosine]
        header.ImagePositionPatient = [round(float(value), 6) for value in affine[:3] @ [index, 0, 0, 1]]
        headers.append(header)
    hu = np.full(geometry.shape, -1000, np.int16)
    volume = Volume(hu, affine, tuple(headers), ("The series has 8 mm slices.",))
    volume.to_lps(hu)[:, 6:-6, 6:-6] = 40
    return volume


def box(volume: Volume, slices: slice, rows: slice, columns: slice) -> NDArray[np.bool_]:
    """Mask on the volume's grid of a box given in fractions of the standard axial view (feet-head, front-back, R-L)."""
    mask = np.zeros(volume.hu.shape, bool)
    view = volume.to_lps(mask)
    index = tuple(
        slice(round(part.start * size / 100), round(part.stop * size / 100))
        for part, size in zip((slices, rows, columns), view.shape, strict=True)
    )
    view[index] = True
    return mask


def make_findings(volume: Volume, lesions: NDArray[np.uint8], lungs: NDArray[np.uint8]) -> Findings:
    """Findings that measure the masks."""

    def measure(mask: NDArray[np.bool_]) -> BySide:
        right, left = (float((mask & (lungs == side)).sum()) * volume.voxel_ml for side in Side)
        return BySide(right + left, right, left)

    def share(part: BySide, whole: BySide) -> BySide:
        return BySide(
            *(
                a / b if b else 0.0
                for a, b in zip(
                    (part.total, part.right, part.left), (whole.total, whole.right, whole.left), strict=True
                )
            )
        )

    lung, lesion = measure(lungs > 0), measure(lesions > 0)
    ground_glass, consolidation = (measure(lesions == kind) for kind in LesionKind)
    largest = []
    for side in Side:
        mask = (lesions > 0) & (lungs == side)
        if mask.any():
            index = int(mask.sum(axis=(1, 2)).argmax())
            center = volume.affine @ [*np.argwhere(mask).mean(axis=0), 1]
            largest.append(
                Lesion(side.name.lower(), float(mask.sum()) * volume.voxel_ml, index, tuple(map(float, center[:3])))
            )
    measurements = Measurements(
        lung,
        lesion,
        share(lesion, lung),
        ground_glass,
        consolidation,
        share(ground_glass, lung),
        share(consolidation, lung),
        {"right": Thirds(0.01, 0.05, 0.1), "left": Thirds(0.0, 0.02, 0.03)},
        tuple(largest),
    )
    return Findings(lungs, lesions, measurements, 0.81, MODELS, volume.warnings)


def make_case(geometry: Geometry, *, ground_glass: bool = True, consolidation: bool = True) -> Case:
    """Two unequal lungs; ground glass low in the right and a little in the left, consolidation inside the right."""
    volume = make_volume(geometry)
    lungs = np.zeros(volume.hu.shape, np.uint8)
    lesions = np.zeros(volume.hu.shape, np.uint8)
    lungs[box(volume, slice(10, 90), slice(20, 80), slice(12, 46))] = Side.RIGHT
    lungs[box(volume, slice(15, 95), slice(25, 75), slice(58, 86))] = Side.LEFT
    volume.hu[lungs > 0] = -850
    if ground_glass:
        lesions[box(volume, slice(20, 60), slice(50, 75), slice(14, 35))] = LesionKind.GROUND_GLASS
        lesions[box(volume, slice(60, 75), slice(60, 74), slice(70, 84))] = LesionKind.GROUND_GLASS
        volume.hu[lesions > 0] = -600
    if consolidation:
        dense = box(volume, slice(25, 45), slice(55, 70), slice(16, 25))
        lesions[dense] = LesionKind.CONSOLIDATION
        volume.hu[dense] = 20
    return Case(volume, make_findings(volume, lesions, lungs))


@pytest.fixture(scope="session", params=GEOMETRIES.values(), ids=GEOMETRIES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param)


@pytest.fixture(scope="session")
def upright() -> Case:
    return make_case(Geometry())
