"""Studies whose masks are known, with the results that are to open in every reader."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covid_ct.analysis.findings import Findings, LesionKind, ModelIdentity, Side
from covid_ct.analysis.measurements import measure
from covid_ct.phantom import Anatomy, Lesions, PhantomOptions, Position, build_anatomy, scan, write_folder
from covid_ct.results.objects import build_results, write_result
from covid_ct.results.terms import STRUCTURES_OF_LESIONS, STRUCTURES_OF_LUNGS, Structure
from covid_ct.series.folder import read_folder
from covid_ct.series.volume import Volume

REAL_SERIES = Path(__file__).resolve().parents[2] / "../shared/data/series"

SMALL = 160
"""Rows and columns of the phantoms of which only the geometry is of interest."""

PHANTOMS: Mapping[str, PhantomOptions] = {
    "upright": PhantomOptions(),
    "feet-first": PhantomOptions(position=Position.FFS, matrix=SMALL),
    "prone": PhantomOptions(position=Position.HFP, matrix=SMALL),
    "columns-to-front": PhantomOptions(columns_to_front=True, matrix=SMALL),
    "reversed": PhantomOptions(reversed_order=True, matrix=SMALL),
    "1-mm": PhantomOptions(slices=300, spacing_mm=1, matrix=SMALL),
    "2.5-mm": PhantomOptions(slices=120, spacing_mm=2.5, matrix=SMALL),
    "5-mm": PhantomOptions(slices=60, spacing_mm=5, matrix=SMALL),
    "8-mm": PhantomOptions(slices=38, spacing_mm=8, matrix=SMALL),
    "thick-overlapping": PhantomOptions(slices=60, spacing_mm=5, thickness_mm=10, matrix=SMALL),
    "thin-with-gaps": PhantomOptions(slices=60, spacing_mm=5, thickness_mm=1, matrix=SMALL),
    "600-slices": PhantomOptions(slices=600, spacing_mm=0.5, matrix=SMALL),
    # Everything that can be turned round at once, on slices that overlap.
    "all-turned": PhantomOptions(
        slices=60,
        spacing_mm=5,
        thickness_mm=10,
        matrix=SMALL,
        position=Position.HFP,
        columns_to_front=True,
        reversed_order=True,
    ),
    "no-lesion": PhantomOptions(lesions=Lesions.NONE, matrix=SMALL),
    "one-sided": PhantomOptions(lesions=Lesions.RIGHT, matrix=SMALL),
    "single-lesion-slice": PhantomOptions(lesions=Lesions.SINGLE_SLICE, matrix=SMALL),
}
REAL = ("covid-positive", "healthy", "tumour-8mm")

ANALYSED = "analysed"
"""A phantom that came by C-STORE and that a real Orthanc analysed with the real models."""

HARDEST = ("upright", "columns-to-front", "single-lesion-slice", "all-turned", ANALYSED)
"""What goes through every reader in CI: the upright phantom, the three that have most that can go wrong, and ours."""

MODELS = tuple(
    ModelIdentity(role, f"{role} truth", "1", digit * 64, "CPUExecutionProvider", "the phantom's truth, no network")
    for role, digit in (("lungs", "a"), ("lesions", "b"), ("covid", "c"))
)


@dataclass(frozen=True)
class Segmentation:
    """What one of the segmentations must come out as in a reader.

    Attributes
    ----------
    path: Path
    labels: NDArray[np.uint8]
        Label map on the volume's grid.
    structures: Mapping[int, Structure]
        Structures by label, of those that have voxels.
    """

    path: Path
    labels: NDArray[np.uint8]
    structures: Mapping[int, Structure]

    @property
    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """Mask of each structure on the volume's grid, by its name."""
        return {structure.label: self.labels == label for label, structure in self.structures.items()}


@dataclass(frozen=True)
class Case:
    """One study on disk.

    Attributes
    ----------
    name: str
    source: tuple[Path, ...]
        The CT's files.
    results: Mapping[str, Path]
        Files of the results, by the name of the result.
    volume: Volume
    findings: Findings
    """

    name: str
    source: tuple[Path, ...]
    results: Mapping[str, Path]
    volume: Volume = field(repr=False)
    findings: Findings = field(repr=False)

    @property
    def segmentations(self) -> list[Segmentation]:
        """The lungs', and where there are lesions the lesions'."""
        both = (
            ("lungs.seg.dcm", self.findings.lungs, STRUCTURES_OF_LUNGS),
            ("lesions.seg.dcm", self.findings.lesions, STRUCTURES_OF_LESIONS),
        )
        return [
            Segmentation(
                self.results[name], labels, {label: of for label, of in structures.items() if (labels == label).any()}
            )
            for name, labels, structures in both
            if labels.any()
        ]

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID."""
        return str(self.volume.headers[0].StudyInstanceUID)


def make_case(name: str, folder: Path) -> Case:
    """Write the study of a phantom or of a real series, with results from masks that no network made."""
    if name in PHANTOMS:
        options = PHANTOMS[name]
        phantom = scan(anatomy(options.seed, options.lesions), options)
        source = tuple(write_folder(phantom, folder / "ct"))
        volume = read_folder(folder / "ct")
        assert np.array_equal(volume.hu, phantom.hu)
        lungs, lesions = phantom.truth.lungs, phantom.truth.lesions
    else:
        source = tuple(sorted(path for path in (REAL_SERIES / name).rglob("*") if path.is_file()))
        volume = read_folder(REAL_SERIES / name)
        lungs, lesions = masks_by_density(volume)
    findings = Findings(lungs, lesions, measure(volume, lungs, lesions), 0.5, MODELS, volume.warnings)
    (folder / "results").mkdir(parents=True)
    results = {}
    for result in build_results(volume, findings):
        results[result.name] = folder / "results" / result.name
        write_result(result.dataset, results[result.name])
    return Case(name, source, results, volume, findings)


@lru_cache(maxsize=1)
def anatomy(seed: int, lesions: Lesions) -> Anatomy:
    """The thorax that most phantoms are scans of."""
    return build_anatomy(seed, lesions)


def masks_by_density(volume: Volume) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Masks of a real series that any reader must return: no claim about the patient, but ragged and not symmetric."""
    hu = volume.to_lps(volume.hu)
    slices, rows, columns = hu.shape
    inside = np.zeros(hu.shape, bool)
    inside[slices // 5 : -slices // 8, rows // 4 : -rows // 5, columns // 6 : -columns // 5] = True
    lungs = np.where(np.arange(columns) < columns // 2, Side.RIGHT, Side.LEFT) * (inside & (hu < -200))
    lesions = np.where(hu < -400, LesionKind.GROUND_GLASS, LesionKind.CONSOLIDATION) * ((lungs > 0) & (hu > -600))
    on_grid = (np.ascontiguousarray(volume.from_lps(labels.astype(np.uint8))) for labels in (lungs, lesions))
    return next(on_grid), next(on_grid)
