"""All results of one analysis, in a fixed order, and how they become files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset

from covid_ct.analysis.findings import Findings, LabelMaps, ModelIdentity
from covid_ct.results import encapsulated_pdf, measurement_report, overlay
from covid_ct.results.segmentation import LESIONS, LUNGS, segmentation
from covid_ct.results.uids import ResultUids
from covid_ct.series.volume import Volume

FILES = (
    *(f"{name}.dcm" for name in (LUNGS.name, LESIONS.name, encapsulated_pdf.NAME, measurement_report.NAME)),
    f"{overlay.NAME}.*.dcm",
)
"""Names of the files of results, of which the last stands for several."""


@dataclass(frozen=True)
class ResultObject:
    """One finished DICOM object.

    Attributes
    ----------
    name: str
        Name of its file, the same for every analysis.
    dataset: Dataset
        With file meta information.
    """

    name: str
    dataset: Dataset


class ResultBuilder:
    """Makes the result objects of one analysis, in the study of its source.

    First `images`, which the label maps are enough for, then `documents`. The same source, models, version and
    settings give the same bytes.

    Parameters
    ----------
    volume: Volume
    models: Sequence[ModelIdentity]
        Of the analysis, in any order; the providers make no difference.
    settings: Mapping[str, object], optional
        Every setting of the analysis that changes the content of a result, by its name; values that JSON can hold.
    """

    def __init__(
        self, volume: Volume, models: Sequence[ModelIdentity], settings: Mapping[str, object] | None = None
    ) -> None:
        self._volume = volume
        self._models = {model.role: model for model in models}
        self._uids = ResultUids.of_analysis(
            (str(header.SOPInstanceUID) for header in volume.headers),
            (model.sha256 for model in models),
            settings or {},
        )
        self._segmentations: dict[str, Dataset] = {}

    def images(self, maps: LabelMaps) -> list[ResultObject]:
        """Segmentations of the lungs and of the lesions, each only where there is any, and the overlay series."""
        for kind, labels, role in ((LUNGS, maps.lungs, "lungs"), (LESIONS, maps.lesions, "lesions")):
            made = segmentation(self._volume, labels, kind, self._models[role], self._uids)
            if made is not None:
                self._segmentations[kind.name] = made
        pictures = overlay.overlay_series(self._volume, maps, self._uids)
        return _named(
            {
                **self._segmentations,
                **{f"{overlay.NAME}.{picture.InstanceNumber:02}": picture for picture in pictures},
            }
        )

    def documents(self, findings: Findings) -> list[ResultObject]:
        """Report and measurement report, which refers to the segmentations that `images` made of the same maps."""
        volume, uids = self._volume, self._uids
        segmentations = list(self._segmentations.values())
        return _named(
            {
                encapsulated_pdf.NAME: encapsulated_pdf.encapsulated_report(volume, findings, uids),
                measurement_report.NAME: measurement_report.measurement_report(volume, findings, segmentations, uids),
            }
        )


def build_results(
    volume: Volume, findings: Findings, settings: Mapping[str, object] | None = None
) -> list[ResultObject]:
    """Make all result objects of an analysis that is done, as `ResultBuilder` makes them.

    Parameters
    ----------
    volume: Volume
    findings: Findings
        On the volume's grid.
    settings: Mapping[str, object], optional
    """
    builder = ResultBuilder(volume, findings.models, settings)
    return [*builder.images(findings), *builder.documents(findings)]


def _named(datasets: Mapping[str, Dataset]) -> list[ResultObject]:
    return [ResultObject(f"{name}.dcm", dataset) for name, dataset in datasets.items()]


def write_result(dataset: Dataset, target: Path | BinaryIO) -> None:
    """Write a result as a DICOM Part 10 file.

    Parameters
    ----------
    dataset: Dataset
        From `build_results`.
    target: Path | BinaryIO
        File to write, of which an existing one is replaced; or an open one.

    Raises
    ------
    OSError
        Raised if the file cannot be written.
    """
    dataset.save_as(target, enforce_file_format=True)
