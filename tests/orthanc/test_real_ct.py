"""Real series in a real Orthanc with the shipped models: those of `../shared/data`, and tumours that were fetched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covid_ct.library import Analyzer, analyze_folder
from covid_ct.series.folder import read_folder
from models.training.data import TUMOURS
from tests.models.shipped import needs_tumours
from tests.orthanc.driving import result_files, upload, wait_for_job
from tests.results.conftest import dciodvfy
from tests.results.test_segmentation import dcmqi_label_map
from tools.orthanc_server import REPOSITORY, OrthancServer

DATA = REPOSITORY / "../shared/data/series"

LESION_RATIOS = {"covid-positive": (0.01, 0.05), "healthy": (0.0, 0.003), "tumour-8mm": (0.0, 0.05)}
"""Between what the lesion to lung ratio has to lie: a few percent are seen in the first, nothing in the second."""


def analysed_as_without_orthanc(
    server: OrthancServer, analyzer: Analyzer, series: Path, output: Path
) -> dict[str, Any]:
    """Findings of a series, once Orthanc has the same bytes as come without it, which dcmqi and dciodvfy read well."""
    files = sorted(series.glob("*.dcm"))
    job = wait_for_job(server, server.post("/covid/analyze", {"Series": upload(server, files)})["ID"])
    assert job["State"] == "Success", job["ErrorDescription"]
    alone = analyze_folder(analyzer, series, output)
    results = {path.stem: path for path in output.glob("*.dcm")}
    assert result_files(server, job) == {kind: path.read_bytes() for kind, path in results.items()}, series.name
    volume = read_folder(series)
    for kind, labels in (("lungs.seg", alone.lungs), ("lesions.seg", alone.lesions)):
        if kind in results:
            label_map, _ = dcmqi_label_map(results[kind], volume, output / f"read {kind}")
            assert np.array_equal(label_map, labels), (series.name, kind)
    for kind in ("lungs.seg", "lesions.seg", "report.pdf", "measurements.sr", "overlay.sc.01"):
        assert kind not in results or "Error" not in dciodvfy(results[kind]), (series.name, kind)
    findings: dict[str, Any] = job["Content"]["Findings"]
    return findings


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
def test_real_series_are_analysed_as_without_orthanc(start: Callable[..., OrthancServer], tmp_path: Path) -> None:
    """Though Orthanc's decoder reads the JPEG Lossless here and pydicom's there."""
    server = start()
    analyzer = Analyzer(REPOSITORY / "models")
    probabilities = {}
    for name, (lowest, highest) in LESION_RATIOS.items():
        findings = analysed_as_without_orthanc(server, analyzer, DATA / name, tmp_path / name)
        assert lowest <= findings["lesion_to_lung_ratio"]["total"] <= highest, name
        probabilities[name] = findings["covid_probability"]
    assert max(probabilities, key=lambda name: probabilities[name]) == "covid-positive"


@pytest.mark.slow
@needs_tumours
def test_fetched_series_are_analysed_as_without_orthanc(start: Callable[..., OrthancServer], tmp_path: Path) -> None:
    """Of other scanners, with headers that others have de-identified."""
    server = start()
    analyzer = Analyzer(REPOSITORY / "models")
    for series in TUMOURS.glob("*/"):
        analysed_as_without_orthanc(server, analyzer, series, tmp_path / series.name)
