"""A real Orthanc with this plugin, and a phantom series that it has analysed."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from covid_ct.phantom import Phantom, PhantomOptions, make_phantom, write_folder

from tools.orthanc_server import OrthancServer

STABLE_AGE_S = 1
JOB_TIMEOUT_S = 180


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
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    """The repository's configuration, but for a short StableAge."""
    with OrthancServer(tmp_path_factory.mktemp("orthanc"), changes={"StableAge": STABLE_AGE_S}) as started:
        yield started
        log = started.log.read_text(errors="replace")
    assert started.process is not None
    assert started.process.returncode == 0, f"Orthanc did not end in order:\n{log[-3000:]}"


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
        server = OrthancServer(tmp_path / name, changes=changes)
        server.start()
        started.append(server)
        return server

    yield start_one
    for server in started:
        server.stop()


def store_scu(server: OrthancServer, files: Sequence[Path], called: str = "ORTHANC", calling: str = "STORESCU") -> None:
    """Send files as a modality does."""
    subprocess.run(
        ["storescu", "-xs", "-aet", calling, "-aec", called, "127.0.0.1", str(server.dicom_port), *map(str, files)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def upload(server: OrthancServer, files: Sequence[Path]) -> str:
    """Send files by REST; the Orthanc id of their series."""
    return [server.upload(path.read_bytes())["ParentSeries"] for path in files][0]


def wait_for_jobs(server: OrthancServer, count: int, timeout_s: float = JOB_TIMEOUT_S) -> list[dict[str, Any]]:
    """All jobs, once there are so many and all have ended."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        jobs: list[dict[str, Any]] = server.get("/covid/jobs?expand")
        if len(jobs) >= count and all(job["State"] in ("Success", "Failure") for job in jobs):
            return jobs
        time.sleep(0.2)
    raise AssertionError(f"The jobs did not end: {jobs}\n{server.log.read_text(errors='replace')[-3000:]}")


def wait_for_job(server: OrthancServer, job_id: str, timeout_s: float = JOB_TIMEOUT_S) -> dict[str, Any]:
    """One job, once it has ended."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        job: dict[str, Any] = server.get(f"/covid/jobs/{job_id}")
        if job["State"] in ("Success", "Failure"):
            return job
        time.sleep(0.2)
    raise AssertionError(f"The job did not end: {job}\n{server.log.read_text(errors='replace')[-3000:]}")
