"""The real module `orthanc` and the fake one have what `covid_ct.server.sdk` says."""

import json
from pathlib import Path
from typing import Any

import pytest

from covid_ct.server import sdk
from tests.orthanc.driving import ORTHANC_ROOT
from tests.server.fake_orthanc import FakeOrthanc
from tools.orthanc_server import OrthancServer

SCRIPT = """
import json
import orthanc

with open({path!r}, "w") as file:
    members = {{name: getattr(orthanc, name) for name in dir(orthanc)}}
    json.dump({{
        "callable": [name for name, member in members.items() if callable(member)],
        "ChangeType": {{name: int(getattr(orthanc.ChangeType, name)) for name in {changes!r}}},
        "MetricsType": [name for name in dir(orthanc.MetricsType)],
        "raises": issubclass(orthanc.OrthancException, Exception),
    }}, file)
"""


def members(protocol: type) -> set[str]:
    """What a protocol asks for."""
    return {name for name in (*vars(protocol), *vars(protocol).get("__annotations__", {})) if not name.startswith("_")}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a script inside a real Orthanc finds in the module."""
    folder = tmp_path_factory.mktemp("sdk")
    script, found = folder / "look.py", folder / "found.json"
    changes = sorted(members(sdk.ChangeType))
    script.write_text(SCRIPT.format(path=str(found), changes=changes))
    with OrthancServer(folder, changes={"PythonScript": str(script)}, root=ORTHANC_ROOT):
        document: dict[str, Any] = json.loads(found.read_text())
    return document


def test_the_real_module_has_all_of_the_protocol(real: dict[str, Any], tmp_path: Path) -> None:
    assert members(sdk.Orthanc) <= set(real["callable"])
    assert set(real["ChangeType"]) == members(sdk.ChangeType)
    assert members(sdk.MetricsType) <= set(real["MetricsType"])
    assert real["raises"]


def test_the_fake_has_all_of_the_protocol(real: dict[str, Any]) -> None:
    fake = FakeOrthanc()
    assert all(hasattr(fake, name) for name in members(sdk.Orthanc))
    assert {name: getattr(fake.ChangeType, name) for name in real["ChangeType"]} == real["ChangeType"]
    assert issubclass(fake.OrthancException, Exception)
