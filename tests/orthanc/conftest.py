"""A real Orthanc with this plugin, and a phantom series that it has analysed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from covid_ct.phantom import Phantom, PhantomOptions, make_phantom, write_folder
from tests.inference.tiny_models import write_all
from tests.orthanc.driving import ORTHANC_ROOT, ended_in_order, store_scu, wait_for_jobs
from tests.orthanc.faults import PROPERTY, Tried
from tools.orthanc_server import OrthancServer

STABLE_AGE_S = 1


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    return make_phantom(PhantomOptions())


@pytest.fixture(scope="session")
def phantom_files(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_folder(phantom, tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="session")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A phantom of few slices, for tests that need a job rather than figures."""
    options = PhantomOptions(slices=20, spacing_mm=8.0, thickness_mm=8.0)
    return write_folder(make_phantom(options), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of a few nodes, for tests that need a job rather than figures."""
    return write_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    """The repository's configuration, but for a short StableAge."""
    folder = tmp_path_factory.mktemp("orthanc")
    with OrthancServer(folder, changes={"StableAge": STABLE_AGE_S}, root=ORTHANC_ROOT) as started:
        yield started
    assert ended_in_order(started), started.log.read_text(errors="replace")[-3000:]


@pytest.fixture(scope="session")
def phantom_job(server: OrthancServer, phantom_files: list[Path]) -> dict[str, Any]:
    """The ended job of the phantom, which came by C-STORE and was analysed unasked."""
    store_scu(server, phantom_files)
    return wait_for_jobs(server, 1)[0]


@pytest.fixture(scope="session")
def phantom_series(phantom_job: dict[str, Any]) -> str:
    """Orthanc id of the analysed phantom."""
    series: str = phantom_job["Content"]["Series"]
    return series


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., OrthancServer]]:
    """Starts servers of a test's own, by default one that analyses only what is asked for."""
    started: list[OrthancServer] = []

    def start_one(name: str = "orthanc", **changes: Any) -> OrthancServer:
        changes.setdefault("StableAge", STABLE_AGE_S)
        changes["CovidCt"] = {"Automatic": False, **changes.get("CovidCt", {})}
        server = OrthancServer(tmp_path / name, changes=changes, root=ORTHANC_ROOT)
        server.start()
        started.append(server)
        return server

    yield start_one
    for server in started:
        server.stop()


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Tried:
    """Takes a fault and what came of it, for the table of docs/reliability.md."""
    return lambda fault, outcome: record_property(PROPERTY, (fault, outcome))
