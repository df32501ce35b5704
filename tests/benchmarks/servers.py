"""Orthanc with the plugin, watched, and what one job did in it."""

import json
import os
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.report import BUILD
from tools.orthanc_server import OrthancServer

PROBE = Path(__file__).with_name("probe.py")

STAGE = re.compile(r"covid-ct: Job (\S+): (\w+) took ([\d.]+) s")
"""The plugin's own line in Orthanc's log for each stage."""

TIMEOUT_S = 240.0
STABLE_AGE_S = 3
"""Longer than any pause between two images of an upload on a busy machine: a series that grows again is another job."""

QUIET_S = 2.0
"""Pause before a measurement, so that what came before is over."""


@dataclass(frozen=True)
class Job:
    """What one analysis took, in seconds and MB.

    Attributes
    ----------
    total: float
        From the moment when Orthanc told that the series is stable until the last result and the findings are stored.
    stages: dict[str, float]
        reading, analysing, writing, storing, from the plugin's own log.
    networks: float
        Time during which at least one network ran.
    decoding: float
        Spent in Orthanc's decoder.
    peak_mb: float
        Most memory of Orthanc beyond what it had when it was started and idle.
    """

    total: float
    stages: dict[str, float]
    networks: float
    runs: dict[str, int]
    decoding: float
    peak_mb: float

    @property
    def rest(self) -> float:
        """Everything but the networks."""
        return self.total - self.networks


class WatchedServer:
    """A server whose script is the probe.

    Parameters
    ----------
    server: OrthancServer
    events: Path
        Where the probe writes.
    """

    def __init__(self, server: OrthancServer, events: Path) -> None:
        self.server = server
        self._events = events
        self.idle_mb = self.memory_mb("VmRSS")

    def memory_mb(self, field: str) -> float:
        """Memory of the process as the kernel counts it."""
        assert self.server.process is not None
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field)) / 1024

    def forget_peak(self) -> None:
        """Begin the peak of memory anew."""
        assert self.server.process is not None
        Path(f"/proc/{self.server.process.pid}/clear_refs").write_text("5")

    def events(self, begin: float, end: float) -> list[dict[str, Any]]:
        """What the probe noted between two moments."""
        time.sleep(1.0)
        if not self._events.exists():
            return []
        noted = [json.loads(line) for line in self._events.read_text().splitlines()]
        return [event for event in noted if begin <= event["time"] <= end]

    def upload(self, contents: Iterable[bytes]) -> str:
        """Store a series; its Orthanc id."""
        answers = [self.server.upload(content) for content in contents]
        return answers[0]["ParentSeries"]

    def ask(self, series: str) -> str:
        """Ask for an analysis; the job's id."""
        return str(self.server.post("/covid/analyze", {"Series": series})["ID"])

    def wait(self, jobs: Sequence[str]) -> list[dict[str, Any]]:
        """Jobs once they have ended well."""
        return _until(lambda: [self._ended(self.server.get(f"/covid/jobs/{job}")) for job in jobs])

    def job_of(self, series: str) -> dict[str, Any]:
        """The job of a series that began by itself, once it has ended well."""

        def find() -> list[dict[str, Any] | None]:
            # Of this series alone: the answer takes Python's lock from the job that is measured.
            return [self._ended(job) for job in self.server.get(f"/covid/jobs?expand&series={series}")] or [None]

        return _until(find)[0]

    @staticmethod
    def _ended(job: dict[str, Any]) -> dict[str, Any] | None:
        if job["State"] not in ("Success", "Failure"):
            return None
        assert job["State"] == "Success", job["ErrorDescription"]
        return job

    def measure(self, contents: Sequence[bytes]) -> Job:
        """Send a series that was never there, wait for what comes of it by itself, and delete it."""
        self.forget_peak()
        begin = time.time()
        series = self.upload(contents)
        self.forget_peak()
        job = self.job_of(series)
        end = moment(job["CompletionTime"])
        peak_mb = self.memory_mb("VmHWM") - self.idle_mb
        events = self.events(begin, end)
        stable = next(event["time"] for event in events if event["event"] == "stable" and event["series"] == series)
        runs = [event for event in events if event["event"] == "run"]
        stages = self.stages(job["ID"])
        self.server.request("DELETE", f"/studies/{self.server.get(f'/series/{series}')['ParentStudy']}")
        return Job(
            total=end - stable,
            stages=stages,
            networks=covered((event["begin"], event["time"]) for event in runs),
            runs={
                role: sum(event["slices"] for event in runs if event["role"] == role)
                for role in ("lungs", "lesions", "covid")
            },
            decoding=sum(event["time"] - event["begin"] for event in events if event["event"] == "decode"),
            peak_mb=peak_mb,
        )

    def stages(self, job: str) -> dict[str, float]:
        """Seconds of each stage of a job, from the log."""
        found = STAGE.findall(self.server.log.read_text(errors="replace"))
        return {stage: float(seconds) for name, stage, seconds in found if name == job}


def _until(look: Callable[[], list[dict[str, Any] | None]]) -> list[dict[str, Any]]:
    """Look twice a second until all that is looked for is there; looking takes Python's lock from the job."""
    end = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end:
        looked = look()
        found = [job for job in looked if job is not None]
        if len(found) == len(looked):
            return found
        time.sleep(0.5)
    raise AssertionError(f"The jobs did not end within {TIMEOUT_S:.0f} s.")


def median(jobs: Sequence[Job]) -> Job:
    """The job in the middle of several, by its total."""
    return sorted(jobs, key=lambda job: job.total)[(len(jobs) - 1) // 2]


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, -float("inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that so many percent of all do not exceed, between neighbours."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def moment(timestamp: str) -> float:
    """Seconds since 1970 of a time as Orthanc writes it."""
    return datetime.strptime(timestamp, "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC).timestamp()


@contextmanager
def watched_server(
    name: str,
    covid_ct: Mapping[str, Any] | None = None,
    *,
    ticking: bool = False,
    root: Path | None = None,
    **changes: Any,
) -> Iterator[WatchedServer]:
    """Orthanc in a folder of its own, with other settings where they are given, once it is idle.

    Where `ticking`, the probe watches Python's lock, which slows the plugin. `root` is as of `OrthancServer`.
    """
    folder = BUILD / "orthanc" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    events = folder / "events.jsonl"
    server = OrthancServer(
        folder,
        changes={
            "StableAge": STABLE_AGE_S,
            "PythonScript": str(PROBE),
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "CovidCt": dict(covid_ct or {}),
            **changes,
        },
        root=root,
    )
    os.environ["COVID_CT_BENCHMARK"] = str(events)
    os.environ.pop("COVID_CT_TICK", None)
    if ticking:
        os.environ["COVID_CT_TICK"] = "1"
    with server:
        time.sleep(QUIET_S)
        yield WatchedServer(server, events)
    shutil.rmtree(folder / "storage", ignore_errors=True)
