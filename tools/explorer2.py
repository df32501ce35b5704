"""Print the configuration that gives Orthanc Explorer 2 the buttons of this plugin.

Explorer 2 (1.8 and later) takes buttons from its configuration only, and shows them on every series and study. It sends
a button's Payload as JSON. {UUID} is the Orthanc identifier; its pages lie two folders below Orthanc's root.
"""

import json
from typing import Any

ROOT = "../../"
"""Orthanc's root, seen from Explorer 2, whatever the prefix of a proxy is."""


def explorer2_configuration() -> dict[str, Any]:
    """The section of Orthanc's configuration."""
    results = {
        "HttpMethod": "GET",
        "Id": "covid-ct-results",
        "Tooltip": "COVID-19 analysis: results, or start it",
        "Icon": "bi bi-lungs",
        "Target": "_blank",
        "Url": f"{ROOT}covid/app/results.html?series={{UUID}}",
    }
    return {
        "OrthancExplorer2": {
            "UiOptions": {
                "CustomButtons": {
                    "series": [analyze_button("Series"), results],
                    "study": [analyze_button("Study")],
                }
            }
        }
    }


def analyze_button(level: str) -> dict[str, Any]:
    """A button that starts an analysis and shows nothing of it; Explorer 2 has no more for this."""
    return {
        "HttpMethod": "POST",
        "Id": f"covid-ct-analyze-{level.lower()}",
        "Tooltip": "Analyze for COVID-19",
        "Icon": "bi bi-clipboard2-pulse",
        "Url": f"{ROOT}covid/analyze",
        "Payload": {level: "{UUID}"},
        "Refresh": True,
    }


if __name__ == "__main__":
    print(json.dumps(explorer2_configuration(), indent=2))
