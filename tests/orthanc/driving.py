"""What a modality, a person or a script does to an Orthanc."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.orthanc_server import OrthancServer
from tools.ports import is_free

JOB_TIMEOUT_S = 180

ORTHANC_ROOT = Path(os.environ["ORTHANC_ROOT"]) if "ORTHANC_ROOT" in os.environ else None
"""Folder of another Debian whose Orthanc the tests are to run, as `make test-orthanc VERSION=` sets it."""


def store_scu(server: OrthancServer, files: Sequence[Path], called: str = "ORTHANC", calling: str = "STORESCU") -> None:
    """Send files as a modality does."""
    subprocess.run(
        ["storescu", "-xs", "-aet", calling, "-aec", called, "127.0.0.1", str(server.dicom_port), *map(str, files)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip


@contextmanager
def storage_scp(port: int, folder: Path, *options: str) -> Iterator[None]:
    """A DICOM node, DCMTK's, that keeps in a folder what it is sent; its port is free again afterwards."""
    process = subprocess.Popen(
        ["storescp", "+xa", "-od", folder, *options, str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        # With --fork an association has a process of its own, which holds the port as long as it lives.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while not is_free(port):
            time.sleep(0.05)


def upload(server: OrthancServer, files: Sequence[Path]) -> str:
    """Send files by REST; the Orthanc id of their series."""
    answers = [server.upload(path.read_bytes()) for path in files]
    return answers[0]["ParentSeries"]


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


def result_files(server: OrthancServer, job: dict[str, Any]) -> dict[str, bytes]:
    """The results of a job that Orthanc holds, by their kind."""
    return {
        result["Kind"]: server.request("GET", f"/instances/{result['ID']}/file") for result in job["Content"]["Results"]
    }


def ended_in_order(server: OrthancServer) -> bool:
    """Whether a stopped Orthanc said its farewell and left without an error."""
    assert server.process is not None
    if server.process.returncode == 0:
        return True
    # Orthanc's Python plugin 7.1 crashes when it is unloaded while an event waits for any OnChange callback, even one
    # that does nothing. All threads of ours have ended by then.
    farewell = server.log.read_text(errors="replace").rstrip().splitlines()[-2:]
    said = any(words in line for line in farewell for words in ("Python plugin is finalizing", "Orthanc has stopped"))
    return server.process.returncode in (-signal.SIGABRT, -signal.SIGSEGV) and said
