"""The three real series of `../shared/data`, where it is, in a real Orthanc with the shipped models."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from covid_ct.library import Analyzer, analyze_folder
from covid_ct.series.folder import read_folder
from tests.orthanc.driving import result_files, upload, wait_for_job
from tests.results.conftest import dciodvfy
from tests.results.test_segmentation import dcmqi_label_map
from tools.orthanc_server import REPOSITORY, OrthancServer

DATA = REPOSITORY / "../shared/data/series"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")

LESION_RATIOS = {"covid-positive": (0.01, 0.05), "healthy": (0.0, 0.003), "tumour-8mm": (0.0, 0.05)}
"""Between what the lesion to lung ratio has to lie: a few percent are seen in the first, nothing in the second."""


def test_real_series_are_analysed_as_without_orthanc(start: Callable[..., OrthancServer], tmp_path: Path) -> None:
    """The same bytes, though Orthanc's decoder read the JPEG Lossless here and pydicom's there."""
    server = start()
    analyzer = Analyzer(REPOSITORY / "models")
    probabilities = {}
    for name, (lowest, highest) in LESION_RATIOS.items():
        series = upload(server, sorted((DATA / name).glob("*.dcm")))
        job = wait_for_job(server, server.post("/covid/analyze", {"Series": series})["ID"])
        assert job["State"] == "Success", job["ErrorDescription"]
        findings = job["Content"]["Findings"]
        assert lowest <= findings["lesion_to_lung_ratio"]["total"] <= highest, name
        probabilities[name] = findings["covid_probability"]
        alone = analyze_folder(analyzer, DATA / name, tmp_path / name)
        files = {path.stem: path for path in (tmp_path / name).glob("*.dcm")}
        assert result_files(server, job) == {kind: path.read_bytes() for kind, path in files.items()}, name
        volume = read_folder(DATA / name)
        for kind, labels in (("lungs.seg", alone.lungs), ("lesions.seg", alone.lesions)):
            if kind in files:
                label_map, _ = dcmqi_label_map(files[kind], volume, tmp_path / f"{name} {kind}")
                assert np.array_equal(label_map, labels), (name, kind)
        for kind in ("lungs.seg", "lesions.seg", "report.pdf", "measurements.sr", "overlay.sc.01"):
            assert kind not in files or "Error" not in dciodvfy(files[kind]), (name, kind)
    assert max(probabilities, key=lambda name: probabilities[name]) == "covid-positive"
