import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from covid_ct.server.database import DatabaseError
from covid_ct.server.jobs import State
from covid_ct.server.pacs import FINDINGS_ATTACHMENT
from covid_ct.server.routes import PATHS, Routes
from tests.series.images import encode, make_series
from tests.server.conftest import Hospital

JSON = {"Content-Type": "application/json"}


class Output:
    """What a REST callback answers through, as plugin 4.0 has it: the length belongs to a status."""

    def __init__(self) -> None:
        self.status, self.body, self.headers = 0, "", {}

    def AnswerBuffer(self, body: str, mime: str) -> None:
        self.status, self.body = 200, body

    def SendHttpStatus(self, code: int, body: str, length: int) -> None:
        assert length == len(body)
        self.status, self.body = code, body

    def SendMethodNotAllowed(self, allowed: str) -> None:
        self.status, self.body = 405, allowed

    def SetHttpHeader(self, key: str, value: str) -> None:
        self.headers[key] = value


class NewerOutput(Output):
    """As plugin 4.2 has it."""

    def SendHttpStatus(self, code: int, body: str) -> None:  # type: ignore[override]
        self.status, self.body = code, body


@pytest.fixture
def routes(hospital: Hospital) -> Iterator[Routes]:
    made = Routes(hospital.pacs, hospital.intake, lambda: {"Analysis": "on"}, "")
    yield made
    made.stop()


def ask(routes: Routes, name: str, output: Output | None = None, **request: Any) -> tuple[int, Any]:
    output = output or Output()
    getattr(routes, name)(output, {"method": "GET", "headers": {}, "groups": (), "get": {}, "body": b"", **request})
    return output.status, json.loads(output.body) if output.body.startswith(("{", "[")) else output.body


def post(series: str) -> dict[str, Any]:
    return {"method": "POST", "headers": JSON, "body": json.dumps({"Series": series}).encode()}


def test_each_route_has_a_method() -> None:
    assert all(callable(getattr(Routes, name)) for name in PATHS)


def test_asking_answers_with_the_job_at_once(routes: Routes, hospital: Hospital) -> None:
    status, answer = ask(routes, "analyze", **post(hospital.series))
    assert (status, answer["Path"]) == (200, f"/covid/jobs/{answer['ID']}")
    assert ask(routes, "list_jobs") == (200, [answer["ID"]])
    assert ask(routes, "show_job", groups=(answer["ID"],))[1]["State"] == "Pending"


def test_answers_on_patients_are_kept_by_no_browser(routes: Routes, hospital: Hospital) -> None:
    _, answer = ask(routes, "analyze", **post(hospital.series))
    for name, groups in (("list_jobs", ()), ("show_job", (answer["ID"],)), ("show_series", (hospital.series,))):
        output = Output()
        ask(routes, name, output, groups=groups)
        assert output.headers == {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@pytest.mark.parametrize("output", [Output, NewerOutput])
def test_errors_are_worded_as_orthancs(routes: Routes, output: type[Output]) -> None:
    status, answer = ask(routes, "show_job", output(), groups=("none",))
    assert (status, answer["HttpStatus"], answer["HttpError"]) == (404, 404, "Not Found")
    assert answer["Message"] == "There is no job none."


def test_an_act_wants_json_and_an_ended_job(routes: Routes, hospital: Hospital) -> None:
    _, answer = ask(routes, "analyze", **post(hospital.series))
    act = {"method": "POST", "groups": (answer["ID"], "retry")}
    assert ask(routes, "act_on_job", **act)[0] == 415
    assert ask(routes, "act_on_job", **act, headers=JSON)[0] == 409
    assert ask(routes, "act_on_job", method="POST", groups=(answer["ID"], "cancel"), headers=JSON)[0] == 200
    assert ask(routes, "act_on_job", **act, headers=JSON)[1]["State"] == "Pending"


def test_a_job_of_what_is_no_longer_so_does_not_begin_anew(routes: Routes, hospital: Hospital) -> None:
    """Its findings would be lost for a failure."""
    job = ask(routes, "analyze", **post(hospital.series))[1]["ID"]
    hospital.jobs.take(0)
    hospital.jobs.succeed(job, {}, [])
    hospital.orthanc.store(encode(make_series(21))[-1])
    retry = {"method": "POST", "groups": (job, "retry"), "headers": JSON}
    status, answer = ask(routes, "act_on_job", **retry)
    assert (status, "POST /covid/analyze" in answer["Message"]) == (409, True)
    assert hospital.jobs[job].state == State.SUCCESS
    for instance in list(hospital.orthanc.instances):
        hospital.orthanc.delete(instance)
    status, answer = ask(routes, "act_on_job", **retry)
    assert (status, "holds nothing" in answer["Message"]) == (404, True)


@pytest.mark.parametrize("content", [b"hello", b"\xff", b"[1]", b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_an_attachment_that_is_not_ours_counts_as_none(routes: Routes, hospital: Hospital, content: bytes) -> None:
    job = ask(routes, "analyze", **post(hospital.series))[1]["ID"]
    hospital.jobs.take(0)
    hospital.jobs.succeed(job, {}, [])
    hospital.orthanc.RestApiPut(f"/series/{hospital.series}/attachments/{FINDINGS_ATTACHMENT}", content)
    status, answer = ask(routes, "show_series", groups=(hospital.series,))
    assert (status, "has no findings" in answer["Message"]) == (404, True)
    assert ask(routes, "analyze", **post(hospital.series))[0] == 200
    assert hospital.jobs[job].state == State.PENDING, "the findings come back"


def test_answers_are_written_on_a_stack_of_normal_size(routes: Routes, hospital: Hospital, monkeypatch) -> None:
    threads: list[str] = []
    dumps = json.dumps

    def watched(*arguments: Any, **options: Any) -> str:
        if "indent" in options:
            threads.append(threading.current_thread().name)
        return dumps(*arguments, **options)

    monkeypatch.setattr("covid_ct.server.routes.json.dumps", watched)
    deep = b'{"a":' + b"[" * 800 + b"]" * 800 + b"}"
    hospital.orthanc.RestApiPut(f"/series/{hospital.series}/attachments/{FINDINGS_ATTACHMENT}", deep)
    assert ask(routes, "show_series", groups=(hospital.series,))[0] in (200, 500)
    assert ask(routes, "list_jobs") == (200, [])
    assert [name.startswith("covid-desk") for name in threads] == [True, True]


def test_a_full_disk_is_told(routes: Routes, hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DatabaseError("database or disk is full")

    monkeypatch.setattr(hospital.database, "change", fail)
    status, answer = ask(routes, "analyze", **post(hospital.series))
    assert (status, "disk is full" in answer["Message"]) == (507, True)


def test_while_analysis_is_off_the_reason_is_given(hospital: Hospital) -> None:
    routes = Routes(hospital.pacs, None, lambda: {"Analysis": "off"}, "The model is missing.")
    status, answer = ask(routes, "analyze", **post(hospital.series))
    assert (status, answer["Message"]) == (503, "Analysis is off: The model is missing.")
    assert ask(routes, "show_status") == (200, {"Analysis": "off"})
    routes.stop()
    assert ask(routes, "show_status")[0] == 503, "Orthanc is stopping"


def test_pages_come_with_a_policy_and_from_one_folder(routes: Routes) -> None:
    output = Output()
    ask(routes, "serve_page", output, groups=("results.html",))
    assert output.status == 200
    for directive in ("default-src 'self'", "frame-ancestors 'self'"):
        assert directive in output.headers["Content-Security-Policy"]
    assert output.headers["X-Content-Type-Options"] == "nosniff"
    for name in ("none.html", "..", "covid.py", "results.html/..", ""):
        assert ask(routes, "serve_page", groups=(name,))[0] == 404
