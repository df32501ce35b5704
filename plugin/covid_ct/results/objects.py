"""All results of one analysis, in a fixed order, and how they become files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset

from covid_ct.analysis.findings import Findings
from covid_ct.results import encapsulated_pdf, measurement_report, overlay
from covid_ct.results.segmentation import LESIONS, LUNGS, segmentation
from covid_ct.results.uids import ResultUids
from covid_ct.series.volume import Volume


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


def build_results(
    volume: Volume, findings: Findings, settings: Mapping[str, object] | None = None
) -> list[ResultObject]:
    """Make all result objects of an analysis, in the study of its source.

    Parameters
    ----------
    volume: Volume
    findings: Findings
        On the volume's grid.
    settings: Mapping[str, object], optional
        Every setting of the analysis that changes the content of a result, by its name; values that JSON can hold.

    Returns
    -------
    list[ResultObject]
        Segmentations of the lungs and of the lesions (each only where there is any), report,
        measurement report, and the pictures of the overlay series. The same
        source, models, version and settings give the same bytes.
    """
    uids = ResultUids.of_analysis(
        (str(header.SOPInstanceUID) for header in volume.headers),
        (model.sha256 for model in findings.models),
        settings or {},
    )
    models = {model.role: model for model in findings.models}
    segmentations = {
        LUNGS.name: segmentation(volume, findings.lungs, LUNGS, models["lungs"], uids),
        LESIONS.name: segmentation(volume, findings.lesions, LESIONS, models["lesions"], uids),
    }
    present = {name: dataset for name, dataset in segmentations.items() if dataset is not None}
    pictures = overlay.overlay_series(volume, findings, uids)
    named = {
        **present,
        encapsulated_pdf.NAME: encapsulated_pdf.encapsulated_report(volume, findings, uids),
        measurement_report.NAME: measurement_report.measurement_report(volume, findings, list(present.values()), uids),
        **{f"{overlay.NAME}.{picture.InstanceNumber:02}": picture for picture in pictures},
    }
    return [ResultObject(f"{name}.dcm", dataset) for name, dataset in named.items()]


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
