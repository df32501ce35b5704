"""Studies for the readers, one Orthanc that holds them, and the readers that `make test-viewers` installs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from tests.viewers.cases import HARDEST, PHANTOMS, REAL, REAL_SERIES, Case, make_case
from tests.viewers.ohif import chromium
from tests.viewers.ohif_server import serve_ohif
from tools.orthanc_server import OrthancServer, free_port

READERS = Path(__file__).resolve().parents[2] / "build/viewers"
CLIENT_AET = "VIEWER"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_case: runs on every case in CI too, not on the hardest alone")
    config.addinivalue_line("markers", "whole_matrix: what CI leaves to `make test-viewers`")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The readers take long and are to be installed first: they run only where they are asked for by name."""
    named = any("viewers" in Path(argument.partition("::")[0]).parts for argument in config.args)
    return None if named else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        name = callspec.params.get("case") if callspec else None
        if name in REAL or (name is not None and name not in HARDEST and not item.get_closest_marker("every_case")):
            item.add_marker("whole_matrix")


@pytest.fixture(scope="session", params=[*PHANTOMS, *REAL])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    if request.param in REAL and not (REAL_SERIES / request.param).is_dir():
        pytest.skip("shared/data is not there")
    return make_case(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def client_port() -> int:
    """Where the DIMSE client listens."""
    return free_port()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, client_port: int) -> Iterator[OrthancServer]:
    """An Orthanc that knows the DIMSE client."""
    changes = {
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
    application = READERS / "package/dist"
    if not application.is_dir():
        pytest.fail("OHIF is not installed; run `make test-viewers`.")
    with serve_ohif(application, server.url) as url:
        yield url


@pytest.fixture(scope="session")
def slicer_python() -> Path:
    """Python with 3D Slicer's core libraries."""
    python = READERS / "slicer/bin/python"
    if not python.exists():
        pytest.fail("3D Slicer's libraries are not installed; run `make test-viewers`.")
    return python
