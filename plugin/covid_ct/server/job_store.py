"""Where jobs are kept, so that no accepted work is lost and none is done twice."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from covid_ct.server.database import Database, due_after, timestamp
from covid_ct.server.jobs import Failure, Job, State, Trigger
from covid_ct.server.requests import JobsRequest

MAX_ATTEMPTS = 3
"""Attempts before a job that keeps failing, for other reasons than its series, is given up."""

MAX_CRASHES = 2
"""Times that a job may be found running after the process died; then it is set aside."""

SAFE_STAGE = "storing"
"""Stage after the results were finished: a process that dies there was not brought down by the series."""

_COLUMNS = tuple(column.name for column in fields(Job))


class JobStore:
    """The jobs in a database, as one Orthanc sees them; safe to use from any thread.

    A running job is changed by the Orthanc that took it and by no other, until that one is dead.

    Parameters
    ----------
    database: Database
        Where they are kept.
    me: str
        Name of this Orthanc since its start, as in `Servers`.
    """

    def __init__(self, database: Database, me: str) -> None:
        self._database = database
        self._me = me
        self._taken: dict[str, tuple[str, float]] = {}
        """Stage and progress of each job that runs here."""
        self._cancelled: set[str] = set()

    def add(self, job: Job) -> Job:
        """Keep a new job, on disk when this returns. Where one of its id exists, that one is left and returned."""
        self._database.insert("jobs", _to_columns({**vars(job), "created": job.created or timestamp()}))
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

    def select(self, wanted: JobsRequest) -> list[Job]:
        """The jobs that somebody asked for, the newest first."""
        return self._select(*_clause(wanted))

    def ids(self, wanted: JobsRequest) -> list[str]:
        """Their identifiers alone; thousands of findings would fill the memory."""
        clause, values = _clause(wanted)
        rows = self._database.select(f"SELECT id FROM jobs {clause}", values)  # noqa: S608 - of this module
        return [str(row[0]) for row in rows]

    def failures(self, limit: int) -> list[Job]:
        """The last failed jobs, newest first."""
        return self._select("WHERE state = ? ORDER BY completed DESC LIMIT ?", (State.FAILURE, limit))

    def count(self) -> dict[str, int]:
        """Number of jobs in each state."""
        rows = self._database.select("SELECT state, COUNT(*) FROM jobs GROUP BY state")
        return {str(state): 0 for state in State} | {str(state): int(number) for state, number in rows}

    def take(self, timeout_s: float) -> Job | None:
        """The oldest job that waits, now Running here and one attempt further; none where none came in time."""
        with self._database.changed:
            job = self._take()
            if job is None:
                self._database.changed.wait(timeout_s)
                job = self._take()
            return job

    def _take(self) -> Job | None:
        while due := self._select(
            "WHERE state = ? OR (state = ? AND not_before <= ?) ORDER BY created LIMIT 1",
            (State.PENDING, State.RETRY, timestamp()),
        ):
            job = due[0]
            if self._change(
                job, state=State.RUNNING, stage="reading", progress=0.0, attempts=job.attempts + 1,
                started=timestamp(), completed="", reason="", error="", server=self._me, cancelled=0,
            ):  # fmt: skip
                taken = self[job.id]
                self._cancelled.discard(job.id)
                self._taken[job.id] = (taken.stage, taken.progress)
                return taken
            # Another Orthanc was quicker.
        return None

    def advance(self, job_id: str, stage: str, progress: float) -> None:
        """Note how far (0-1) a running job is: a new stage on disk, progress in memory only."""
        # A write waits for the disk, and there are hundreds of steps of progress.
        if self._taken.get(job_id, ("", 0.0))[0] != stage:
            self._change_mine(job_id, stage=stage)
        self._taken[job_id] = (stage, progress)

    def begin(self, job: Job, series_updated: str) -> Job:
        """Note when the last image had come to the series that a running job is about to read."""
        self._change_mine(job.id, series_updated=series_updated)
        return self[job.id]

    def succeed(self, job_id: str, findings: dict[str, Any], results: list[dict[str, str]]) -> None:
        """End a job with its findings and stored results."""
        self._release(
            job_id, state=State.SUCCESS, stage="done", progress=1.0, completed=timestamp(), findings=findings,
            results=results,
        )  # fmt: skip

    def fail(self, job_id: str, reason: str, sentence: str) -> None:
        """End a job with a reason."""
        self._release(job_id, **_failure(reason, sentence))

    def retry_later(self, job: Job, reason: str, sentence: str) -> None:
        """Have a failed job tried again after a growing delay, or give it up after `MAX_ATTEMPTS`."""
        if self._ended_as_asked(job):
            return
        if job.attempts >= MAX_ATTEMPTS:
            self.fail(job.id, reason, sentence)
            return
        self._release(
            job.id, state=State.RETRY, reason=reason, error=sentence, not_before=due_after(job.attempts), server=""
        )

    def put_back(self, job: Job) -> None:
        """Undo `take`, where Orthanc stops before the job could end."""
        if self._ended_as_asked(job):
            return
        self._release(job.id, state=State.PENDING, stage="waiting", attempts=job.attempts - 1, server="")

    def requeue(self, job_id: str) -> Job:
        """Begin a job that has ended anew, as if it had just been asked for."""
        job = self[job_id]
        if job.ended:
            self._change(
                job, state=State.PENDING, stage="waiting", progress=0.0, attempts=0, crashes=0, completed="",
                reason="", error="", not_before="", server="",
            )  # fmt: skip
        return self[job_id]

    def cancel(self, job_id: str) -> Job:
        """Ask a running job to end; end a waiting one at once."""
        job = self[job_id]
        if job.state == State.RUNNING:
            self._change(job, cancelled=1)
            self._cancelled.add(job_id)
        elif not job.ended and not self._change(job, **_cancellation(job)):
            # It was taken in between.
            return self.cancel(job_id)
        return self[job_id]

    def _ended_as_asked(self, job: Job) -> bool:
        """Whether a job that runs here, and would begin anew, was to end, as it does now."""
        if not self._database.select("SELECT id FROM jobs WHERE id = ? AND cancelled = 1", (job.id,)):
            return False
        self._release(job.id, **_cancellation(job))
        return True

    def is_cancelled(self, job_id: str) -> bool:
        """Whether a job that runs here was asked to end, or is no longer this Orthanc's."""
        return job_id in self._cancelled

    def exchange(self) -> None:
        """Tell the Orthancs that share the database how far our jobs are, and learn what they ask of them."""
        if not self._database.shared:
            return
        with self._database.changed:
            rows = self._database.select(
                "SELECT id, cancelled FROM jobs WHERE state = ? AND server = ?", (State.RUNNING, self._me)
            )
            ours = dict(rows)
            self._cancelled |= {job_id for job_id in self._taken if ours.get(job_id, 1)}
            for job_id, (_, progress) in list(self._taken.items()):
                self._change_mine(job_id, progress=progress)

    def recover(self, alive: Collection[str]) -> list[Job]:
        """Put back what ran where Orthanc died, and set aside what was there twice.

        Parameters
        ----------
        alive: Collection[str]
            The Orthancs that live.

        Returns
        -------
        list[Job]
            The jobs as they are now, but with the Orthanc that died.
        """
        recovered = []
        with self._database.changed:
            asked = {row[0] for row in self._database.select("SELECT id FROM jobs WHERE cancelled = 1")}
            for job in self._select("WHERE state = ?", (State.RUNNING,)):
                # One taken here whose worker never heard of it, for the connection broke, runs nowhere.
                unheard = job.server == self._me and job.id not in self._taken
                if job.server in alive and not unheard:
                    continue
                crashes = job.crashes + (job.stage != SAFE_STAGE and not unheard)
                if job.id in asked:
                    changed = self._change(job, crashes=crashes, **_cancellation(job))
                elif crashes < MAX_CRASHES:
                    # Its stage is that of the next attempt, which has not begun.
                    changed = self._change(job, state=State.PENDING, stage="waiting", crashes=crashes, server="")
                else:
                    sentence = (
                        f"Orthanc died {crashes} times while series {job.series_uid} was analysed, the last time in "
                        f'the stage "{job.stage}"; the series is set aside. '
                        f"POST /covid/jobs/{job.id}/retry tries it again."
                    )
                    changed = self._change(job, crashes=crashes, **_failure(Failure.CRASHED_REPEATEDLY, sentence))
                if changed:
                    recovered.append(replace(self[job.id], server=job.server))
        return recovered

    def _release(self, job_id: str, **values: object) -> None:
        """End what is done here for a job."""
        self._change_mine(job_id, **values)
        self._taken.pop(job_id, None)

    def _change_mine(self, job_id: str, **values: object) -> None:
        """Change a job that runs here; nothing where another Orthanc thought this one dead and took it over."""
        self._database.update("jobs", {"id": job_id, "state": State.RUNNING, "server": self._me}, _to_columns(values))

    def _change(self, job: Job, **values: object) -> bool:
        """Change a job, if it is still as it was read."""
        as_read = {name: getattr(job, name) for name in ("id", "state", "server", "attempts")}
        return self._database.update("jobs", as_read, _to_columns(values))

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
        _, values["progress"] = self._taken.get(values["id"], ("", values["progress"]))
        return Job(**values)


def _clause(wanted: JobsRequest) -> tuple[str, list[str]]:
    """What chooses and orders jobs in SQL, and the values in it."""
    where, values = ["1 = 1"], []
    if wanted.series:
        where.append("series = ?")
        values.append(wanted.series)
    if wanted.states:
        where.append(f"state IN ({', '.join('?' for _ in wanted.states)})")
        values += wanted.states
    clause = f"WHERE {' AND '.join(where)} ORDER BY created DESC, id"
    return (f"{clause} LIMIT {wanted.limit}" if wanted.limit else clause), values


def _cancellation(job: Job) -> dict[str, Any]:
    """Columns of a job that somebody ended."""
    return _failure(Failure.CANCELLED, f"The analysis of series {job.series_uid} was cancelled.")


def _failure(reason: str, sentence: str) -> dict[str, Any]:
    """Columns of a job that failed."""
    return {"state": State.FAILURE, "completed": timestamp(), "reason": reason, "error": sentence}


def _to_columns(values: Mapping[str, object]) -> dict[str, object]:
    return {name: json.dumps(value) if name in ("findings", "results") else value for name, value in values.items()}
