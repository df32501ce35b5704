"""REST requests, checked before anything is done with them. Pure functions: no Orthanc, no threads."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from covid_ct.errors import CovidCtError
from covid_ct.server.jobs import State

MAX_BODY_BYTES = 16_384
"""Longest body that is parsed: the longest sensible one is a few hundred bytes."""

MAX_BRACKETS = 64
"""Most brackets in a body: `json.loads` of 900 nested `[` overruns the 100 KiB stack of Orthanc's HTTP threads."""


class RequestError(CovidCtError):
    """Raised if a request cannot be served.

    Parameters
    ----------
    status: HTTPStatus
        What the caller gets.
    sentence: str
        Why, for people.
    """

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class AnalyzeRequest:
    """What `POST /covid/analyze` asks for.

    Attributes
    ----------
    level: str
        "Series" or "Study".
    identifier: str
        Orthanc id or DICOM UID.
    synchronous: bool
        Whether the caller waits for the findings.
    """

    level: str
    identifier: str
    synchronous: bool = False


@dataclass(frozen=True)
class JobsRequest:
    """Which jobs `GET /covid/jobs` asks for.

    Attributes
    ----------
    expand: bool
        Whether the jobs themselves are wanted, not only their identifiers.
    series: str
        Orthanc id of the only series whose jobs are wanted; empty for all.
    states: tuple[str, ...]
        The only states wanted; empty for all.
    limit: int
        Most jobs; 0 for all.
    """

    expand: bool = False
    series: str = ""
    states: tuple[str, ...] = ()
    limit: int = 0


def parse_jobs_request(arguments: Mapping[str, str]) -> JobsRequest:
    """Check the arguments of `GET /covid/jobs`.

    Raises
    ------
    RequestError
        400 if a state or the limit is none.
    """
    # Orthanc hands arguments on as they came.
    asked = unquote(arguments.get("state", ""))
    states = tuple(asked.split(",")) if asked else ()
    if unknown := sorted(set(states) - set(State)):
        raise _bad(f'There is no state "{unknown[0][:64]}"; there are {", ".join(State)}.')
    limit = arguments.get("limit", "0")
    if not re.fullmatch("[0-9]{1,9}", limit):
        raise _bad('"limit" must be a whole number.')
    return JobsRequest("expand" in arguments, arguments.get("series", ""), states, int(limit))


def parse_analyze_request(headers: Mapping[str, str], body: bytes) -> AnalyzeRequest:
    """Check the headers and the body of `POST /covid/analyze`.

    Raises
    ------
    RequestError
        415 if the content type is not application/json (which a form on a foreign site cannot send), 413 if the body is
        too long, 400 if it is not what is wanted.
    """
    require_json(headers)
    fields = parse_object(body)
    known = {"Series", "Study", "Synchronous"}
    if unknown := sorted(set(fields) - known):
        raise _bad(f'There is no field "{unknown[0][:64]}"; there are {", ".join(sorted(known))}.')
    levels = [level for level in ("Series", "Study") if level in fields]
    if len(levels) != 1:
        raise _bad('Give either "Series" or "Study", with an Orthanc identifier or a DICOM UID.')
    identifier = fields[levels[0]]
    if not isinstance(identifier, str) or not 0 < len(identifier) <= 64 or not identifier.isascii():
        raise _bad(f'"{levels[0]}" must be an Orthanc identifier or a DICOM UID.')
    synchronous = fields.get("Synchronous", False)
    if not isinstance(synchronous, bool):
        raise _bad('"Synchronous" must be true or false.')
    return AnalyzeRequest(levels[0], identifier, synchronous)


def require_json(headers: Mapping[str, str]) -> None:
    """Refuse a request that is not sent as JSON.

    Raises
    ------
    RequestError
        415.
    """
    given = {name.lower(): value for name, value in headers.items()}.get("content-type", "")
    if given.split(";")[0].strip().lower() != "application/json":
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the header Content-Type: application/json.")


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object from a body whose length and nesting are bounded before it is parsed.

    Raises
    ------
    RequestError
        413 or 400.
    """
    if len(body) > MAX_BODY_BYTES:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is longer than {MAX_BODY_BYTES} bytes.")
    if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
        raise _bad("The body is nested too deeply.")
    try:
        fields = json.loads(body)
    except ValueError as error:
        raise _bad('The body is not JSON; send for example {"Series": "<Orthanc id>"}.') from error
    if not isinstance(fields, dict):
        raise _bad('The body must be a JSON object; send for example {"Series": "<Orthanc id>"}.')
    return fields


def _bad(sentence: str) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, sentence)
