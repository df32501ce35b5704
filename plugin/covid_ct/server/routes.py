"""The REST routes under /covid/.

Orthanc calls them on HTTP threads with a stack of 100 KiB, so they only check the request and have the work done on a
thread of ours.
"""

import json
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

from covid_ct.server.database import DatabaseError
from covid_ct.server.intake import Intake
from covid_ct.server.job_store import JobStore
from covid_ct.server.jobs import Job
from covid_ct.server.pacs import NotFoundError, Pacs
from covid_ct.server.pages import FILES
from covid_ct.server.requests import RequestError, parse_analyze_request, parse_jobs_request, require_json
from covid_ct.server.sdk import RestOutput

MAX_SYNCHRONOUS = 4
"""Requests that may wait for their findings at the same time; each holds one of Orthanc's HTTP threads."""

WAIT_POLL_S = 0.2
"""How often, in seconds, it is looked whether such a request's jobs have ended."""

DESK_THREADS = 4
"""Threads that serve requests."""

ANSWER_TIMEOUT_S = 60.0
"""Longest time to look something up, in seconds."""

PATHS = {
    "analyze": "/covid/analyze",
    "list_jobs": "/covid/jobs",
    "show_job": "/covid/jobs/([ -.0-~]+)",
    "act_on_job": "/covid/jobs/([ -.0-~]+)/(cancel|retry)",
    "show_series": "/covid/series/([ -.0-~]+)",
    "show_status": "/covid/status",
    "serve_page": "/covid/app/([a-z0-9-]+[.][a-z]+)",
}
"""The paths, as regular expressions, by the method of `Routes` that serves them.

An identifier is of ASCII: bytes that are not UTF-8 fail in Orthanc's Python plugin, before any of this is called.
"""

PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
}
"""What comes with a page: it takes nothing from elsewhere, and no page from elsewhere shows it within itself."""

JSON_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""What comes with an answer on series and jobs, which no browser or proxy is to keep."""


class Routes:
    """Answers REST requests.

    Parameters
    ----------
    pacs: Pacs
        Orthanc.
    intake: Intake | None
        Accepts series; missing while analysis is off.
    status: Callable
        Gives the document of `/covid/status`.
    problem: str
        Why analysis is off, or nothing.
    """

    def __init__(
        self,
        pacs: Pacs,
        intake: Intake | None,
        status: Callable[[], dict[str, Any]],
        problem: str,
    ) -> None:
        self._pacs = pacs
        self._intake_or_none = intake
        self._status = status
        self._problem = problem
        self._desk = ThreadPoolExecutor(DESK_THREADS, "covid-desk")
        self._waiting = threading.BoundedSemaphore(MAX_SYNCHRONOUS)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let go of all that wait, and take no more."""
        self._stopped.set()
        self._desk.shutdown(wait=True, cancel_futures=True)

    def analyze(self, output: RestOutput, request: dict[str, Any]) -> None:
        """POST /covid/analyze."""
        self._answer(output, request, "POST", lambda: self._analyze(request))

    def list_jobs(self, output: RestOutput, request: dict[str, Any]) -> None:
        """GET /covid/jobs: identifiers or, with ?expand, jobs; ?series=, ?state= and ?limit= choose."""

        def jobs() -> list[Any]:
            wanted = parse_jobs_request(request.get("get", {}))
            if wanted.expand:
                return [self._shown(job) for job in self._jobs.select(wanted)]
            return self._jobs.ids(wanted)

        self._answer(output, request, "GET", lambda: self._at_desk(jobs))

    def show_job(self, output: RestOutput, request: dict[str, Any]) -> None:
        """GET /covid/jobs/{id}."""
        self._answer(
            output, request, "GET", lambda: self._at_desk(lambda: self._shown(self._job(request["groups"][0])))
        )

    def act_on_job(self, output: RestOutput, request: dict[str, Any]) -> None:
        """POST /covid/jobs/{id}/cancel and /covid/jobs/{id}/retry."""
        job_id, action = request["groups"]

        def act() -> dict[str, Any]:
            require_json(request["headers"])
            job = self._job(job_id)
            if action == "cancel":
                return self._shown(self._jobs.cancel(job_id))
            if not job.ended:
                raise RequestError(HTTPStatus.CONFLICT, f"Job {job_id} has not ended; it is {job.state}.")
            if not self._intake.may_begin_anew(job):
                raise RequestError(
                    HTTPStatus.CONFLICT,
                    f"Since job {job_id}, its series has gained or lost images, or the models or the version of "
                    "covid-ct have changed; POST /covid/analyze has the series analysed as it is now.",
                )
            return self._shown(self._jobs.requeue(job_id))

        self._answer(output, request, "POST", lambda: self._at_desk(act))

    def show_series(self, output: RestOutput, request: dict[str, Any]) -> None:
        """GET /covid/series/{id}: the findings of a series."""
        series = request["groups"][0]

        def findings() -> dict[str, Any]:
            found = self._pacs.findings(self._pacs.find_series(series))
            if found is None:
                raise RequestError(
                    HTTPStatus.NOT_FOUND, f"Series {series} has no findings; ask by POST /covid/analyze."
                )
            return found

        self._answer(output, request, "GET", lambda: self._at_desk(findings))

    def show_status(self, output: RestOutput, request: dict[str, Any]) -> None:
        """GET /covid/status."""
        self._answer(output, request, "GET", lambda: self._at_desk(self._status))

    def serve_page(self, output: RestOutput, request: dict[str, Any]) -> None:
        """GET /covid/app/{file}: pages that come with the plugin."""
        name = str(request["groups"][0])
        file = FILES.get(name)
        if request["method"] != "GET":
            output.SendMethodNotAllowed("GET")
        elif file is None:
            self._send(output, HTTPStatus.NOT_FOUND, f"There is no page {name}.")
        else:
            _set_headers(output, PAGE_HEADERS)
            output.AnswerBuffer(file.text, file.mime)

    @property
    def _intake(self) -> Intake:
        if self._intake_or_none is None:
            raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, f"Analysis is off: {self._problem}")
        return self._intake_or_none

    @property
    def _jobs(self) -> JobStore:
        return self._intake.jobs

    def _shown(self, job: Job) -> dict[str, Any]:
        """A job as it is answered, with who gets its results."""
        document = job.to_dict()
        deliveries = self._intake.deliveries.of_job(job.id)
        document["Content"]["Deliveries"] = [delivery.to_dict() for delivery in deliveries]
        return document

    def _job(self, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        if job is None:
            raise RequestError(HTTPStatus.NOT_FOUND, f"There is no job {job_id}.")
        return job

    def _analyze(self, request: dict[str, Any]) -> Any:
        wanted = parse_analyze_request(request["headers"], request["body"])
        intake = self._intake
        if not wanted.synchronous:
            accepted = self._at_desk(lambda: intake.submit(wanted))
            return _shaped(wanted.level, [{"ID": job.id, "Path": f"/covid/jobs/{job.id}"} for job in accepted])
        if not self._waiting.acquire(blocking=False):
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{MAX_SYNCHRONOUS} requests already wait for their findings; ask without Synchronous, or later.",
            )
        try:
            accepted = self._at_desk(lambda: intake.submit(wanted))
            jobs = accepted
            while not all(job.ended for job in jobs) and not self._stopped.wait(WAIT_POLL_S):
                jobs = self._at_desk(lambda: [self._job(job.id) for job in accepted])
        finally:
            self._waiting.release()
        return _shaped(wanted.level, [_findings_of(job, wanted.level) for job in jobs])

    def _at_desk(self, work: Callable[[], Any]) -> Any:
        """Have work done on a thread of ours, with a stack of normal size."""
        return self._desk.submit(work).result(ANSWER_TIMEOUT_S)

    def _answer(self, output: RestOutput, request: dict[str, Any], method: str, work: Callable[[], Any]) -> None:
        if request["method"] != method:
            output.SendMethodNotAllowed(method)
            return
        _set_headers(output, JSON_HEADERS)
        try:
            document = work()
            text = self._at_desk(lambda: json.dumps(document, indent=1))
        except RequestError as error:
            self._send(output, error.status, str(error))
        except NotFoundError as error:
            self._send(output, HTTPStatus.NOT_FOUND, str(error))
        except TimeoutError:
            self._send(output, HTTPStatus.SERVICE_UNAVAILABLE, "The plugin is too busy to answer; ask again later.")
        except DatabaseError as error:
            self._send(output, HTTPStatus.INSUFFICIENT_STORAGE, f"Jobs cannot be kept: {error}.")
        except RecursionError:
            # As of an attachment of somebody else's.
            self._send(output, HTTPStatus.INTERNAL_SERVER_ERROR, "The answer is nested too deeply to be written.")
        except (RuntimeError, CancelledError):
            # The desk takes no more work once Orthanc stops.
            if not self._stopped.is_set():
                raise
            self._send(output, HTTPStatus.SERVICE_UNAVAILABLE, "Orthanc is stopping.")
        else:
            output.AnswerBuffer(text, "application/json")

    def _send(self, output: RestOutput, status: HTTPStatus, sentence: str) -> None:
        """Answer with an error as Orthanc's own REST API words it."""
        body = json.dumps({"HttpError": status.phrase, "HttpStatus": int(status), "Message": sentence})
        try:
            output.SendHttpStatus(int(status), body)
        except TypeError:
            # Python plugin up to 4.1 wants the length as well.
            output.SendHttpStatus(int(status), body, len(body))


def _set_headers(output: RestOutput, headers: dict[str, str]) -> None:
    for name, value in headers.items():
        output.SetHttpHeader(name, value)


def _shaped(level: str, answers: list[Any]) -> Any:
    """One answer for a series, a list for a study."""
    return answers[0] if level == "Series" else answers


def _findings_of(job: Job, level: str) -> dict[str, Any]:
    if not job.ended:
        raise RequestError(
            HTTPStatus.SERVICE_UNAVAILABLE, f"Orthanc is stopping; job {job.id} goes on after its restart."
        )
    if job.error:
        if level == "Study":
            return {"Job": job.id, "Series": job.series_uid, "Reason": job.reason, "Message": job.error}
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, job.error)
    return {"Job": job.id, "Series": job.series_uid, "Results": job.results, **job.findings}
