"""docs/openapi.yaml is a valid document, and what it promises is what a real Orthanc answers."""

import json
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from jsonschema.validators import Draft202012Validator
from openapi_spec_validator import validate

from covid_ct import __version__
from covid_ct.errors import Reason
from covid_ct.server.deliveries import DeliveryState
from covid_ct.server.jobs import ORTHANC_ERRORS, Failure, State, Trigger
from covid_ct.server.routes import PATHS
from tests.orthanc.driving import wait_for_job
from tools.orthanc_server import OrthancServer

DOCUMENT: dict[str, Any] = yaml.safe_load((Path(__file__).resolve().parents[2] / "docs/openapi.yaml").read_text())

HOW_IT_WORKS = (Path(__file__).resolve().parents[2] / "docs/how-it-works.md").read_text()

NOWHERE = "-".join(["00000000"] * 5)
"""An Orthanc id that no resource has."""

ELSEWHERE = {"413", "503", "507"}
"""Answers that tests/orthanc/test_requests.py and test_faults.py bring about."""


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """A part of the document, or what it refers to."""
    if "$ref" not in part:
        return part
    found: Any = DOCUMENT
    for key in part["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return dict(found)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def schema_errors(schema: dict[str, Any], value: object) -> list[str]:
    """How a value breaks a schema of the document."""
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    return [error.message[:300] for error in validator.iter_errors(value)]


def documented(path: str, method: str, status: str, kind: str = "application/json") -> dict[str, Any]:
    """The schema of an answer's body."""
    answer = resolved(DOCUMENT["paths"][path][method.lower()]["responses"][status])
    return dict(answer["content"][kind]["schema"])


class Client:
    """Sends requests as the document describes them, and holds the answers to it."""

    def __init__(self, server: OrthancServer) -> None:
        self.server = server
        self.seen: set[tuple[str, str, str]] = set()

    def call(self, method: str, path: str, status: str = "200", **values: Any) -> Any:
        """Send a request; the body that comes back, which is what the document says of this status."""
        body = values.pop("body", None)
        kind = values.pop("kind", "application/json" if method == "POST" else None)
        query = values.pop("query", {})
        url = path.format(**values) + ("?" + urlencode(query) if query else "")
        headers = self.server._headers | ({"Content-Type": kind} if kind else {})
        connection = HTTPConnection("127.0.0.1", self.server.http_port, timeout=60)
        connection.request(method, url, json.dumps(body) if method == "POST" else None, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert str(answer.status) == status, text
        found = text if path.startswith("/covid/app") and status == "200" else json.loads(text)
        # Orthanc sends whatever goes with another status as plain text.
        answered = answer.headers.get_content_type() if status == "200" else "application/json"
        assert schema_errors(documented(path, method, status, answered), found) == []
        self.seen.add((method, path, status))
        return found


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["info"]["version"] == __version__


def test_every_route_is_documented_and_no_other() -> None:
    served = {re.sub(r"\([^)]*\)", "{}", path.replace("(cancel|retry)", action)) for path in PATHS.values()
              for action in ("cancel", "retry")}  # fmt: skip
    assert {re.sub(r"\{[^}]*\}", "{}", path) for path in DOCUMENT["paths"]} == served


def test_every_code_is_documented_and_no_other() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    job, content = schemas["Job"]["properties"], schemas["JobContent"]["properties"]
    errors = set(ORTHANC_ERRORS) - {"Success"}
    for documented_codes, codes in (
        (schemas["State"], set(State)),
        (schemas["DeliveryState"], set(DeliveryState)),
        (schemas["Reason"], {"", *Reason, *Failure}),
        (content["Trigger"], set(Trigger)),
        (job["ErrorCode"], set(ORTHANC_ERRORS.values())),
        (job["ErrorDetails"], {"", *errors}),
    ):
        assert set(documented_codes["enum"]) == codes
    explained = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", HOW_IT_WORKS, re.MULTILINE)))
    assert sorted(explained) == sorted([*Reason, *Failure])


def test_every_example_fits_its_schema() -> None:
    count = 0
    for method, path, operation in operations():
        contents = [resolved(answer).get("content", {}) for answer in operation["responses"].values()]
        contents.append(resolved(operation.get("requestBody", {})).get("content", {}))
        for content in (kind for kinds in contents for kind in kinds.values()):
            for name, example in content.get("examples", {}).items():
                assert schema_errors(content["schema"], example["value"]) == [], (method, path, name)
                count += 1
        for parameter in map(resolved, operation.get("parameters", [])):
            assert schema_errors(parameter["schema"], parameter["example"]) == [], (method, path)
            count += 1
    assert count > 10


def test_a_schema_refuses_what_is_not_documented() -> None:
    error = {"HttpError": "Not Found", "HttpStatus": 404, "Message": "x"}
    schema = documented("/covid/series/{series}", "GET", "404")
    assert schema_errors(schema, error) == []
    assert schema_errors(schema, {**error, "More": 1})
    assert schema_errors(documented("/covid/series/{series}", "GET", "200"), error)


@pytest.fixture(scope="module")
def client(server: OrthancServer) -> Client:
    return Client(server)


def with_real_ids(example: dict[str, Any], series: str, study: str) -> dict[str, Any]:
    """A request's example, for the phantom."""
    return example | {key: value for key, value in (("Series", series), ("Study", study)) if key in example}


def test_every_operation_answers_as_documented(client: Client, server: OrthancServer, series: str) -> None:
    study = server.get(f"/series/{series}")["ParentStudy"]
    analyze = DOCUMENT["paths"]["/covid/analyze"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert set(analyze) == {"series", "study", "synchronous"}
    assert client.call("GET", "/covid/jobs") == []
    answers = {name: client.call("POST", "/covid/analyze", body=with_real_ids(example["value"], series, study))
               for name, example in analyze.items()}  # fmt: skip
    job = answers["series"]["ID"]
    assert answers["study"] == [answers["series"]]
    assert answers["synchronous"]["Job"] == job
    assert client.call("POST", "/covid/analyze", body={"Study": study, "Synchronous": True}) == [answers["synchronous"]]
    wait_for_job(server, job)

    assert client.call("GET", "/covid/jobs") == [job]
    query = {"expand": "", "series": series, "state": "Pending,Success", "limit": 1}
    (expanded,) = client.call("GET", "/covid/jobs", query=query)
    assert expanded["ID"] == job
    assert client.call("GET", "/covid/jobs/{job}", job=job)["State"] == "Success"
    findings = client.call("GET", "/covid/series/{series}", series=series)
    assert findings == answers["synchronous"]
    assert client.call("GET", "/covid/status")["Jobs"]["Success"] == 1
    for page, words in (("results.html", "<title>"), ("results.js", "const "), ("pages.css", "color")):
        assert words in client.call("GET", "/covid/app/{page}", page=page)

    lungs = next(result["ParentSeries"] for result in findings["Results"] if result["Kind"] == "lungs.seg")
    error = client.call("POST", "/covid/analyze", "422", body={"Series": lungs, "Synchronous": True})
    assert error["Message"]
    assert client.call("GET", "/covid/status")["LastErrors"]
    for body in ({}, [], {"Series": series, "More": 1}, {"Series": 1}):
        client.call("POST", "/covid/analyze", "400", body=body)
    for query in ({"state": "Done"}, {"limit": "few"}, {"limit": -1}):
        client.call("GET", "/covid/jobs", "400", query=query)
    client.call("POST", "/covid/analyze", "404", body={"Series": NOWHERE})
    client.call("POST", "/covid/analyze", "415", body={"Series": series}, kind="text/plain")
    client.call("GET", "/covid/jobs/{job}", "404", job="none")
    client.call("GET", "/covid/series/{series}", "404", series=NOWHERE)
    client.call("GET", "/covid/app/{page}", "404", page="none.html")
    for action in ("cancel", "retry"):
        path = f"/covid/jobs/{{job}}/{action}"
        client.call("POST", path, "404", job="none", body={})
        client.call("POST", path, "415", job=job, body={}, kind="text/plain")
    assert client.call("POST", "/covid/jobs/{job}/retry", job=job, body={})["State"] == "Pending"
    client.call("POST", "/covid/jobs/{job}/retry", "409", job=job, body={})
    client.call("POST", "/covid/jobs/{job}/cancel", job=job, body={})

    promised = {(method, path, status) for method, path, operation in operations() for status in operation["responses"]}
    assert {
        (method, path, status) for method, path, status in promised - client.seen if status not in ELSEWHERE
    } == set()
