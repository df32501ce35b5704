"""Requests as nobody should send them: each is answered with what is wrong, and Orthanc goes on."""

import base64
import http.client
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.orthanc.driving import ORTHANC_ROOT, ended_in_order, wait_for_job
from tests.orthanc.faults import Tried
from tests.orthanc.series import coarse, renamed, upload_images
from tools.orthanc_server import OrthancServer

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "text/plain"}
UNKNOWN = "00000000-00000000-00000000-00000000-00000000"

Answer = tuple[int, str]


def ask(
    server: OrthancServer, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> Answer:
    """Status and body of an answer, whatever they are."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=120)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[OrthancServer]:
    section = {"Automatic": False, "ModelsFolder": str(tiny_models)}
    with OrthancServer(tmp_path_factory.mktemp("node"), changes={"CovidCt": section}, root=ORTHANC_ROOT) as started:
        yield started
    assert ended_in_order(started), started.log.read_text(errors="replace")[-3000:]


@pytest.fixture(scope="module")
def series(node: OrthancServer, small_files: list[Path]) -> str:
    """Orthanc id of a series that nobody analysed."""
    return upload_images(node, renamed(coarse(small_files), "idle"))


@pytest.mark.parametrize(
    ("what", "body", "headers", "status", "word"),
    [
        ("no body", b"", JSON, 400, "not JSON"),
        ("no body and no content type", None, {}, 415, "application/json"),
        ("a form, as a foreign site can send one", b"Series=1", FORM, 415, "application/json"),
        ("a body of 50 MB", b" " * 50_000_000, JSON, 413, "longer"),
        ("900 nested brackets", b"[" * 900 + b"]" * 900, JSON, 400, "nested"),
        ("bytes that are no text", b"\xff\xfe\x00", JSON, 400, "not JSON"),
        ("a list", b"[1, 2]", JSON, 400, "object"),
        ("a number for an identifier", b'{"Series": 5}', JSON, 400, "identifier"),
        ("an unknown field", b'{"Series": "1.2", "Force": true}', JSON, 400, "Force"),
        ("a text for a flag", b'{"Series": "1.2", "Synchronous": "yes"}', JSON, 400, "Synchronous"),
        ("an unknown Orthanc id", json.dumps({"Series": UNKNOWN}).encode(), JSON, 404, UNKNOWN),
        ("an unknown UID", b'{"Series": "1.2.3.4"}', JSON, 404, "1.2.3.4"),
        ("a path for an identifier", b'{"Series": "../../system"}', JSON, 404, "system"),
        ("an unknown study", b'{"Study": "1.2.3.4"}', JSON, 404, "1.2.3.4"),
    ],
)  # fmt: skip
def test_bad_requests(
    node: OrthancServer, tried: Tried, what: str, body: bytes | None, headers: dict[str, str], status: int, word: str
) -> None:
    answer, text = ask(node, "POST", "/covid/analyze", body, headers)
    assert (answer, json.loads(text)["HttpStatus"]) == (status, status), text
    assert word in json.loads(text)["Message"]
    assert node.get("/covid/jobs") == []
    tried(f"`POST /covid/analyze` with {what}", f"{status}: {json.loads(text)['Message']}")


@pytest.mark.parametrize("level", ["patients", "studies", "instances"])
def test_an_id_of_another_level_is_no_series(node: OrthancServer, series: str, tried: Tried, level: str) -> None:
    other = node.get(f"/{level}")[0]
    status, text = ask(node, "POST", "/covid/analyze", json.dumps({"Series": other}).encode(), JSON)
    assert status == 404, text
    tried(f"`POST /covid/analyze` with an identifier of /{level} for a series", "404")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/covid/analyze"),
        ("DELETE", "/covid/analyze"),
        ("PUT", "/covid/analyze"),
        ("POST", "/covid/jobs"),
        ("DELETE", f"/covid/jobs/{UNKNOWN}"),
        ("GET", f"/covid/jobs/{UNKNOWN}/retry"),
        ("POST", "/covid/status"),
        ("PUT", "/covid/series/1.2"),
        ("POST", "/covid/app/results.html"),
    ],
)
def test_wrong_methods(node: OrthancServer, tried: Tried, method: str, path: str) -> None:
    assert ask(node, method, path, b"{}" if method in ("POST", "PUT") else None, JSON)[0] == 405
    tried("A wrong method on any route", "405")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/covid/jobs/{UNKNOWN}"),
        ("POST", f"/covid/jobs/{UNKNOWN}/retry"),
        ("POST", f"/covid/jobs/{UNKNOWN}/cancel"),
        ("GET", "/covid/jobs/%27%20OR%201=1"),
        ("GET", "/covid/jobs/%ff%fe"),
        ("POST", "/covid/jobs/%ff%fe/retry"),
        ("GET", "/covid/series/%ff%fe"),
        ("GET", f"/covid/series/{UNKNOWN}"),
        ("GET", "/covid/app/none.html"),
        ("GET", "/covid/app/..%2f..%2fcovid.py"),
    ],
)
def test_what_is_not_there(node: OrthancServer, tried: Tried, method: str, path: str) -> None:
    assert ask(node, method, path, b"{}" if method == "POST" else None, JSON)[0] == 404
    tried("A job, series or page that is not there", "404")


def test_a_series_without_findings_says_how_to_have_them(node: OrthancServer, series: str) -> None:
    status, text = ask(node, "GET", f"/covid/series/{series}")
    assert status == 404
    assert "POST /covid/analyze" in json.loads(text)["Message"]


def test_a_hundred_wait_at_once(node: OrthancServer, small_files: list[Path], tried: Tried) -> None:
    """Four hold an HTTP thread until their series' turn comes; the others are told so at once."""
    images = coarse(small_files)
    queued = [upload_images(node, renamed(images, f"queued {number}")) for number in range(4)]
    for one in queued:
        node.post("/covid/analyze", {"Series": one})
    body = json.dumps({"Series": queued[-1], "Synchronous": True}).encode()
    with ThreadPoolExecutor(100) as crowd:
        waiting = [crowd.submit(ask, node, "POST", "/covid/analyze", body, JSON) for _ in range(100)]
        assert node.get("/system")["ApiVersion"]
        answers = [one.result() for one in waiting]
    statuses = Counter(status for status, _ in answers)
    assert statuses == {200: 4, 503: 96}
    assert all("lung_volume_ml" in json.loads(text) for status, text in answers if status == 200)
    tried("100 requests that wait for findings at once", "4 get them, 96 are answered 503 at once")


@pytest.mark.slow
def test_a_hundred_ask_at_once(node: OrthancServer, small_files: list[Path], tried: Tried) -> None:
    one = upload_images(node, renamed(coarse(small_files), "wanted by all"))
    before = len(node.get("/covid/jobs"))
    body = json.dumps({"Series": one}).encode()
    with ThreadPoolExecutor(100) as crowd:
        answers = [crowd.submit(ask, node, "POST", "/covid/analyze", body, JSON).result for _ in range(100)]
        documents = [json.loads(answer()[1]) for answer in answers]
    assert len({document["ID"] for document in documents}) == 1
    assert len(node.get("/covid/jobs")) == before + 1
    assert wait_for_job(node, documents[0]["ID"])["State"] == "Success"
    tried("100 requests for one series at once", "one job")


def test_cancel_and_retry(node: OrthancServer, small_files: list[Path], tried: Tried) -> None:
    images = coarse(small_files)
    first, second = (upload_images(node, renamed(images, f"cancelled {number}")) for number in range(2))
    running = node.post("/covid/analyze", {"Series": first})["ID"]
    waiting = node.post("/covid/analyze", {"Series": second})["ID"]
    cancelled = node.post(f"/covid/jobs/{waiting}/cancel", {})
    assert (cancelled["State"], cancelled["Content"]["Reason"]) == ("Failure", "Cancelled")
    status, _ = ask(node, "POST", f"/covid/jobs/{waiting}/retry", b"{}", {"Content-Type": "text/plain"})
    assert status == 415, "a foreign site retries nothing"
    node.post(f"/covid/jobs/{waiting}/retry", {})
    node.post(f"/covid/jobs/{running}/cancel", {})
    assert wait_for_job(node, waiting)["State"] == "Success"
    assert wait_for_job(node, running)["State"] in ("Success", "Failure")
    tried("Cancelling and retrying by REST", "a waiting job ends at once, a running one soon; a retry begins it anew")


def test_routes_want_credentials_where_orthanc_does(tmp_path: Path, tiny_models: Path, tried: Tried) -> None:
    server = OrthancServer(
        tmp_path / "locked",
        changes={
            "AuthenticationEnabled": True,
            "RegisteredUsers": {"reader": "secret"},
            "CovidCt": {"Automatic": False, "ModelsFolder": str(tiny_models)},
        },
        root=ORTHANC_ROOT,
    )
    with server:
        login = {"Authorization": "Basic " + base64.b64encode(b"reader:secret").decode()}
        for method, path in (
            ("GET", "/covid/status"),
            ("GET", "/covid/jobs"),
            ("GET", "/covid/series/1.2"),
            ("GET", "/covid/app/results.html"),
            ("POST", "/covid/analyze"),
        ):
            body = b"{}" if method == "POST" else None
            assert ask(server, method, path, body, JSON)[0] == ask(server, "GET", "/system")[0] == 401
            assert ask(server, method, path, body, JSON | login)[0] != 401
    tried("Any route without credentials where Orthanc wants them", "401, as Orthanc's own")


def test_a_hundred_broken_requests_leave_no_name_in_the_log(node: OrthancServer, small_files: list[Path]) -> None:
    """Last in this file: the log of all of the above."""
    log = node.log.read_text(errors="replace")
    assert "Phantom^Thorax" not in log
    assert "COVID-CT-PHANTOM" not in log
