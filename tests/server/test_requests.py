import contextlib
import json
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covid_ct.server.requests import (
    MAX_BODY_BYTES,
    AnalyzeRequest,
    JobsRequest,
    RequestError,
    parse_analyze_request,
    parse_jobs_request,
)

JSON = {"Content-Type": "application/json; charset=utf-8"}


def test_series_and_study() -> None:
    assert parse_analyze_request(JSON, b'{"Series": "1.2.3"}') == AnalyzeRequest("Series", "1.2.3", False)
    assert parse_analyze_request(JSON, b'{"Study": "1.2", "Synchronous": true}') == AnalyzeRequest("Study", "1.2", True)


def test_which_jobs_are_asked_for() -> None:
    assert parse_jobs_request({}) == JobsRequest()
    arguments = {"expand": "", "series": "s", "state": "Pending%2CRetry", "limit": "50"}
    assert parse_jobs_request(arguments) == JobsRequest(True, "s", ("Pending", "Retry"), 50)


@pytest.mark.parametrize("arguments", [{"state": "Done"}, {"state": "Pending;"}, {"limit": "-1"}, {"limit": "1 OR 1"}])
def test_jobs_that_cannot_be_asked_for(arguments: dict[str, str]) -> None:
    with pytest.raises(RequestError) as refused:
        parse_jobs_request(arguments)
    assert refused.value.status == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_on_a_foreign_site_starts_nothing(kind: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_analyze_request({"content-type": kind}, b'{"Series": "1.2.3"}')
    assert refused.value.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "object"),
        (b"{}", "either"),
        (b'{"Series": "1", "Study": "2"}', "either"),
        (b'{"Series": 7}', "identifier"),
        (b'{"Series": ""}', "identifier"),
        (b'{"Series": "' + b"1" * 65 + b'"}', "identifier"),
        (b'{"Series": "1.2", "Synchronous": "yes"}', "Synchronous"),
        (b'{"Series": "1.2", "Force": true}', "Force"),
        (b"[" * 900 + b"]" * 900, "nested"),
    ],
)
def test_bad_bodies_get_a_sentence(body: bytes, word: str) -> None:
    with pytest.raises(RequestError, match=word) as refused:
        parse_analyze_request(JSON, body)
    assert refused.value.status == HTTPStatus.BAD_REQUEST


def test_a_long_body_is_not_parsed() -> None:
    with pytest.raises(RequestError) as refused:
        parse_analyze_request(JSON, b" " * (MAX_BODY_BYTES + 1))
    assert refused.value.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@given(st.binary(max_size=300) | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode()))
def test_any_body_is_parsed_or_refused(body: bytes) -> None:
    with contextlib.suppress(RequestError):
        assert parse_analyze_request(JSON, body).level in ("Series", "Study")
