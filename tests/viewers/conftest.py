"""Studies for the readers, one Orthanc that holds them, and the readers that `make test-viewers` installs."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from pydicom import dcmread

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.phantom import PhantomOptions, make_phantom, write_folder
from covid_ct.series.folder import read_folder
from tests.orthanc.driving import storage_scp, store_scu, wait_for_jobs
from tests.viewers.cases import ANALYSED, HARDEST, PHANTOMS, REAL, REAL_SERIES, Case, make_case
from tests.viewers.ohif import chromium
from tests.viewers.ohif_server import serve_ohif
from tools.orthanc_server import REPOSITORY, OrthancServer
from tools.ports import free_port

OHIF = REPOSITORY / "build/viewers/package/dist"
SLICER_PYTHON = REPOSITORY / "build/viewers/slicer/bin/python"
CLIENT_AET = "VIEWER"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_case: runs on every case in CI too, not on the hardest alone")
    config.addinivalue_line("markers", "whole_matrix: what CI leaves to `make test-viewers`")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        name = callspec.params.get("case") if callspec else None
        if name in REAL or (name is not None and name not in HARDEST and not item.get_closest_marker("every_case")):
            item.add_marker("whole_matrix")


@pytest.fixture(scope="session", params=[*PHANTOMS, ANALYSED, *REAL])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    if name == ANALYSED:
        return analysed_case(request.getfixturevalue("server"), request.getfixturevalue("client_port"), folder)
    if name in REAL and not (REAL_SERIES / name).is_dir():
        pytest.skip("shared/data is not there")
    return make_case(name, folder)


def analysed_case(server: OrthancServer, client_port: int, folder: Path) -> Case:
    """Send a phantom to COVIDAET as a viewer with a listener does; the results are what comes back to the listener."""
    source = write_folder(make_phantom(PhantomOptions(seed=2)), folder / "ct")
    (folder / "results").mkdir()
    with storage_scp(client_port, folder / "results"):
        store_scu(server, source, called="COVIDAET", calling=CLIENT_AET)
        (job,) = wait_for_jobs(server, 1, timeout_s=600)
        assert job["State"] == "Success", job["ErrorDescription"]
        wait_for_deliveries(server, job["ID"])
    received = {str(dcmread(path).SOPInstanceUID): path for path in (folder / "results").iterdir()}
    results = {
        f"{result['Kind']}.dcm": received[server.get(f"/instances/{result['ID']}")["MainDicomTags"]["SOPInstanceUID"]]
        for result in job["Content"]["Results"]
    }
    assert len(results) == len(received)
    volume = read_folder(folder / "ct")
    return Case(ANALYSED, tuple(source), results, volume, Analyzer(REPOSITORY / "models").analyze(volume))


def wait_for_deliveries(server: OrthancServer, job_id: str, timeout_s: float = 120) -> None:
    """Wait until all results have arrived where they go."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        deliveries = server.get(f"/covid/jobs/{job_id}")["Content"]["Deliveries"]
        assert deliveries, "The sender is a known modality, so it gets the results."
        if all(delivery["State"] == "Success" for delivery in deliveries):
            return
        time.sleep(0.5)
    raise AssertionError(deliveries)


@pytest.fixture(scope="session")
def client_port() -> int:
    """Where the DIMSE client listens."""
    return free_port()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, client_port: int) -> Iterator[OrthancServer]:
    """An Orthanc that knows the DIMSE client."""
    changes = {
        "StableAge": 2,
        "CovidCt": {"Automatic": False},
        "DicomModalities": {"viewer": [CLIENT_AET, "127.0.0.1", client_port]},
    }
    with OrthancServer(tmp_path_factory.mktemp("orthanc"), changes=changes) as started:
        yield started


@pytest.fixture(scope="session")
def stored(server: OrthancServer, case: Case) -> Case:
    """The case, once Orthanc holds its CT and results."""
    for path in (*case.source, *case.results.values()):
        server.upload(path.read_bytes())
    return case


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[Callable[[], OrthancServer]]:
    """Starts an Orthanc that holds nothing."""
    started: list[OrthancServer] = []

    def start() -> OrthancServer:
        started.append(OrthancServer(tmp_path / f"orthanc{len(started)}", changes={"CovidCt": {"Automatic": False}}))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="session")
def ohif_url(server: OrthancServer) -> Iterator[str]:
    """OHIF with Orthanc behind it."""
    if not OHIF.is_dir():
        pytest.fail("OHIF is not installed; run `make test-viewers`.")
    with serve_ohif(OHIF, server.url) as url:
        yield url


@pytest.fixture(scope="session")
def slicer_python() -> Path:
    """Python with 3D Slicer's core libraries."""
    if not SLICER_PYTHON.exists():
        pytest.fail("3D Slicer's libraries are not installed; run `make test-viewers`.")
    return SLICER_PYTHON
