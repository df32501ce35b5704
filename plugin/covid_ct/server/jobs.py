"""Jobs and where they are kept: SQLite beside Orthanc's storage, so that no accepted work is lost."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from covid_ct.errors import Reason
from covid_ct.server.database import Database, due_after, seconds_between, timestamp

MAX_ATTEMPTS = 3
"""Attempts before a job that keeps failing, for other reasons than its series, is given up."""

MAX_CRASHES = 2
"""Times that a job may be found running after the process died; then it is set aside."""

SAFE_STAGES = ("storing", "forwarding")
"""Stages after the results were finished: a process that dies there was not brought down by the series."""

ORTHANC_ERRORS = {"Success": 0, "InternalError": -1, "CanceledJob": 37, "BadFileFormat": 15, "UnknownResource": 17}
"""Orthanc's own error codes, for the fields `ErrorCode` and `ErrorDetails`."""


class State(StrEnum):
    """States of a job, as in Orthanc's `/jobs`."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCESS = "Success"
    FAILURE = "Failure"
    RETRY = "Retry"


class Trigger(StrEnum):
    """What asked for an analysis."""

    STABLE_SERIES = "StableSeries"
    CALLED_AET = "CalledAET"
    SENT_TO_AET = "SentToAET"
    REST = "Rest"


@dataclass(frozen=True)
class Job:
    """One analysis of one series in one state of completeness.

    Attributes
    ----------
    id: str
        Derived from the series' instances and all that makes its results, so that the same work has one job.
    series: str
        Orthanc id of the series.
    series_uid: str
        SeriesInstanceUID.
    trigger: Trigger
        What asked for it.
    state: State
        As in Orthanc's `/jobs`.
    stage: str
        What is being done, or was when the job ended.
    progress: float
        0-1.
    created, started, completed: str
        Orthanc's notation of UTC times; empty where not yet.
    attempts: int
        How often it was begun.
    crashes: int
        How often the process died while it was read or analysed.
    reason: str
        Code of a failure; empty without one.
    error: str
        The failure in a sentence.
    not_before: str
        Time before which a job in `Retry` is left alone.
    findings: dict
        As `Findings.to_dict`; empty before success.
    results: list
        `Kind`, `ID`, `Path` and `ParentSeries` of each stored object.
    """

    id: str
    series: str
    series_uid: str
    trigger: Trigger
    state: State = State.PENDING
    stage: str = "waiting"
    progress: float = 0.0
    created: str = ""
    started: str = ""
    completed: str = ""
    attempts: int = 0
    crashes: int = 0
    reason: str = ""
    error: str = ""
    not_before: str = ""
    findings: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, str]] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether it failed for what its series is, so that trying again is of no use."""
        return self.state == State.FAILURE and self.reason in set(Reason)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in (State.SUCCESS, State.FAILURE)

    def to_dict(self) -> dict[str, Any]:
        """The job with the fields of Orthanc's `/jobs/{id}`."""
        error = self._error_name
        answer: dict[str, Any] = {
            "ID": self.id,
            "Type": "CovidCtAnalysis",
            "State": str(self.state),
            "Progress": round(100 * self.progress),
            "Priority": 0,
            "CreationTime": self.created,
            "Timestamp": timestamp(),
            "EffectiveRuntime": seconds_between(self.started, self.completed or timestamp()) if self.started else 0.0,
            "ErrorCode": ORTHANC_ERRORS[error],
            "ErrorDescription": self.error or "Success",
            "ErrorDetails": error if self.error else "",
            "Content": {
                "Series": self.series,
                "SeriesInstanceUID": self.series_uid,
                "Trigger": str(self.trigger),
                "Stage": self.stage,
                "Attempts": self.attempts,
                "Reason": self.reason,
                "Findings": self.findings,
                "Results": self.results,
            },
        }
        if self.ended:
            answer["CompletionTime"] = self.completed
        return answer

    @property
    def _error_name(self) -> str:
        if not self.error:
            return "Success"
        if self.refused:
            return "BadFileFormat"
        return {"Cancelled": "CanceledJob", "SeriesChanged": "UnknownResource"}.get(self.reason, "InternalError")


_COLUMNS = (
    "id", "series", "series_uid", "trigger", "state", "stage", "progress", "created", "started", "completed",
    "attempts", "crashes", "reason", "error", "not_before", "findings", "results",
)  # fmt: skip


class JobStore:
    """The jobs of one Orthanc; safe to use from any thread.

    Parameters
    ----------
    database: Database
        Where they are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._progress: dict[str, float] = {}
        self._cancelled: set[str] = set()

    def add(self, job: Job) -> Job:
        """Keep a new job, on disk when this returns. Where one of its id exists, that one is left and returned."""
        values = [_to_column(name, getattr(job, name)) for name in _COLUMNS]
        values[_COLUMNS.index("created")] = job.created or timestamp()
        marks = ", ".join("?" for _ in _COLUMNS)
        self._database.change(
            f"INSERT OR IGNORE INTO jobs ({', '.join(_COLUMNS)}) VALUES ({marks})",  # noqa: S608 - constant names
            values,
        )
        return self[job.id]

    def __getitem__(self, job_id: str) -> Job:
        job = self.get(job_id)
        if job is None:
            raise KeyError(job_id)
        return job

    def get(self, job_id: str) -> Job | None:
        """One job, or none of that id."""
        jobs = self._select("WHERE id = ?", (job_id,))
        return jobs[0] if jobs else None

    def all(self) -> list[Job]:
        """All jobs, oldest first."""
        return self._select("ORDER BY created, id")

    def of_series(self, series: str) -> list[Job]:
        """The jobs of a series by its Orthanc id, newest first."""
        return self._select("WHERE series = ? ORDER BY created DESC", (series,))

    def failures(self, limit: int) -> list[Job]:
        """The last failed jobs, newest first."""
        return self._select("WHERE state = ? ORDER BY completed DESC LIMIT ?", (State.FAILURE, limit))

    def count(self) -> dict[str, int]:
        """Number of jobs in each state."""
        rows = self._database.select("SELECT state, COUNT(*) FROM jobs GROUP BY state")
        return {str(state): 0 for state in State} | {str(state): int(number) for state, number in rows}

    def take(self, timeout_s: float) -> Job | None:
        """The oldest job that waits, now Running and one attempt further; none where none came within the timeout."""
        with self._database.changed:
            job = self._take()
            if job is None:
                self._database.changed.wait(timeout_s)
                job = self._take()
            return job

    def _take(self) -> Job | None:
        due = self._select(
            "WHERE state = ? OR (state = ? AND not_before <= ?) ORDER BY created LIMIT 1",
            (State.PENDING, State.RETRY, timestamp()),
        )
        if not due:
            return None
        job = due[0]
        self._cancelled.discard(job.id)
        self._update(
            job.id, state=State.RUNNING, stage="reading", attempts=job.attempts + 1, started=timestamp(), completed="",
            reason="", error="",
        )  # fmt: skip
        return self[job.id]

    def enter(self, job_id: str, stage: str) -> None:
        """Note on disk the stage that a job has come to."""
        self._update(job_id, stage=stage)

    def progress(self, job_id: str, fraction: float) -> None:
        """Note, in memory only, how far a running job is (0-1)."""
        self._progress[job_id] = fraction

    def succeed(self, job_id: str, findings: dict[str, Any], results: list[dict[str, str]]) -> None:
        """End a job with its findings and stored results."""
        self._end(job_id, state=State.SUCCESS, stage="done", progress=1.0, findings=findings, results=results)

    def fail(self, job_id: str, reason: str, sentence: str) -> None:
        """End a job with a reason."""
        self._end(job_id, state=State.FAILURE, reason=reason, error=sentence)

    def retry_later(self, job: Job, reason: str, sentence: str) -> None:
        """Have a failed job tried again after a growing delay, or give it up after `MAX_ATTEMPTS`."""
        if job.attempts >= MAX_ATTEMPTS:
            self.fail(job.id, reason, sentence)
            return
        self._update(job.id, state=State.RETRY, reason=reason, error=sentence, not_before=due_after(job.attempts))

    def requeue(self, job_id: str) -> Job:
        """Begin a job anew, as if it had just been asked for."""
        self._update(
            job_id, state=State.PENDING, stage="waiting", progress=0.0, attempts=0, crashes=0, completed="",
            reason="", error="", not_before="",
        )  # fmt: skip
        return self[job_id]

    def put_back(self, job: Job) -> None:
        """Undo `take`, where Orthanc stops before the job could end."""
        self._update(job.id, state=State.PENDING, stage="waiting", attempts=job.attempts - 1)

    def cancel(self, job_id: str) -> Job:
        """Ask a running job to end; end a waiting one at once."""
        with self._database.changed:
            job = self[job_id]
            if job.state == State.RUNNING:
                self._cancelled.add(job_id)
            elif not job.ended:
                self.fail(job_id, "Cancelled", f"The analysis of series {job.series_uid} was cancelled.")
        return self[job_id]

    def is_cancelled(self, job_id: str) -> bool:
        """Whether a running job was asked to end."""
        return job_id in self._cancelled

    def recover(self) -> None:
        """After a start: put back what ran when the process died, and set aside what was there twice."""
        for job in self._select("WHERE state = ?", (State.RUNNING,)):
            crashes = job.crashes + (job.stage not in SAFE_STAGES)
            if crashes < MAX_CRASHES:
                # Its stage is that of the next attempt, which has not begun.
                self._update(job.id, state=State.PENDING, stage="waiting", crashes=crashes)
            else:
                self._update(job.id, crashes=crashes)
                self.fail(
                    job.id,
                    "CrashedRepeatedly",
                    f"Orthanc died {crashes} times while series {job.series_uid} was analysed, the last time in the "
                    f'stage "{job.stage}"; the series is set aside. POST /covid/jobs/{job.id}/retry tries it again.',
                )

    def _end(self, job_id: str, **values: object) -> None:
        self._update(job_id, completed=timestamp(), **values)
        self._progress.pop(job_id, None)

    def _update(self, job_id: str, **values: object) -> None:
        assignments = ", ".join(f"{name} = ?" for name in values)
        row = [_to_column(name, value) for name, value in values.items()]
        self._database.change(f"UPDATE jobs SET {assignments} WHERE id = ?", (*row, job_id))  # noqa: S608 - constant names

    def _select(self, clause: str, values: Sequence[object] = ()) -> list[Job]:
        rows = self._database.select(
            f"SELECT {', '.join(_COLUMNS)} FROM jobs {clause}",  # noqa: S608 - constant clauses of this module
            values,
        )
        return [self._to_job(row) for row in rows]

    def _to_job(self, row: Sequence[Any]) -> Job:
        values = dict(zip(_COLUMNS, row, strict=True))
        values["trigger"] = Trigger(values["trigger"])
        values["state"] = State(values["state"])
        values["findings"] = json.loads(values["findings"])
        values["results"] = json.loads(values["results"])
        values["progress"] = self._progress.get(values["id"], values["progress"])
        return Job(**values)


def _to_column(name: str, value: object) -> object:
    return json.dumps(value) if name in ("findings", "results") else value
