"""The buttons of Orthanc Explorer 2, whose configuration is all that it takes from others."""

import json
import re
import subprocess

from covid_ct.server.requests import parse_analyze_request
from covid_ct.server.routes import PATHS
from tools.orthanc_server import REPOSITORY

IDENTIFIER = "-".join(["00000000"] * 5)


def test_every_button_leads_to_a_route_that_takes_it() -> None:
    printed = subprocess.run(
        ["make", "--silent", "explorer2-config"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    buttons = json.loads(printed.stdout)["OrthancExplorer2"]["UiOptions"]["CustomButtons"]
    assert set(buttons) == {"series", "study"}
    assert len({button["Id"] for level in buttons.values() for button in level}) == 3
    for level in buttons.values():
        for button in level:
            # Explorer 2's pages lie in /ui/app/.
            assert button["Url"].startswith("../../")
            path = "/" + button["Url"].removeprefix("../../").partition("?")[0]
            if button["HttpMethod"] == "POST":
                assert path == PATHS["analyze"]
                body = json.dumps(button["Payload"]).replace("{UUID}", IDENTIFIER).encode()
                assert parse_analyze_request({"content-type": "application/json"}, body).identifier == IDENTIFIER
            else:
                assert re.fullmatch(PATHS["serve_page"], path)
                assert button["Url"].endswith("?series={UUID}")
