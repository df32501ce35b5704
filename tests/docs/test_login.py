"""The documented routes and the pages, where Orthanc wants credentials."""

import re
from http.client import HTTPConnection
from pathlib import Path

import pytest
from playwright.sync_api import expect

from covid_ct.server import routes
from tests.docs.test_openapi import operations, resolved
from tests.orthanc.browsing import CHROMIUM, browser_page
from tools.orthanc_server import OrthancServer

FILES = sorted(path.name for path in (Path(routes.__file__).parent / "app").iterdir())


def status(server: OrthancServer, method: str, path: str, headers: dict[str, str]) -> int:
    connection = HTTPConnection("127.0.0.1", server.http_port, timeout=30)
    connection.request(method, path, "{}" if method == "POST" else None, headers)
    found = connection.getresponse().status
    connection.close()
    return found


@pytest.mark.parametrize("token", ["", "Basic cmFkaW9sb2d5Ond0", "Bearer none"])
def test_no_route_and_no_page_answers_without_credentials(server: OrthancServer, token: str) -> None:
    headers = {"Content-Type": "application/json"} | ({"Authorization": token} if token else {})
    paths = [("GET", f"/covid/app/{name}") for name in FILES]
    for method, path, operation in operations():
        examples = {item["name"]: str(item["example"]) for item in map(resolved, operation.get("parameters", []))}
        paths.append((method, path.format(**examples)))
    assert len(paths) > len(FILES) + 6
    assert {path: status(server, method, path, headers) for method, path in paths} == {path: 401 for _, path in paths}


@pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="Chromium is not installed.")
def test_a_page_works_with_the_browser_s_own_login(server: OrthancServer, series: str) -> None:
    with browser_page(("radiology", "a long password")) as page:
        page.goto(f"{server.url}/covid/app/results.html?series={series}")
        expect(page.locator("#picture")).to_have_attribute("data-slice", re.compile(r"\d+"))
        page.goto(f"{server.url}/covid/app/jobs.html")
        expect(page.locator("#problem")).to_be_hidden()
