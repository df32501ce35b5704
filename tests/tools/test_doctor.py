"""Broken installations, and the sentence that each gets."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.inference.tiny_models import write_all
from tools.doctor import examine
from tools.installation import Installation
from tools.loopback import TO_THIS_MACHINE
from tools.orthanc_configuration import ConfigurationFiles
from tools.orthanc_server import REPOSITORY, OrthancServer
from tools.ports import free_port

Values = dict[str, Any]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("models"))


@pytest.fixture
def values(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Values:
    """A configuration that nothing is wrong with, of an Orthanc that does not run."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "storage").mkdir()
    return {
        "Plugins": ["/usr/share/orthanc/plugins/"],
        "PythonScript": str(REPOSITORY / "plugin/covid.py"),
        "Python": {"AllowThreads": True},
        "StorageDirectory": str(tmp_path / "storage"),
        "HttpPort": free_port(),
        "DicomPort": free_port(),
        "DicomAlwaysAllowStore": False,
        "CovidCt": {"ModelsFolder": str(models)},
    }


@pytest.fixture
def diagnose(tmp_path: Path) -> Callable[[Values], dict[str, list[str]]]:
    """The doctor's sentences by state, for a configuration."""

    def ask(values: Values) -> dict[str, list[str]]:
        file = tmp_path / "orthanc.json"
        file.write_text(json.dumps(values))
        found: dict[str, list[str]] = {"fine": [], "note": [], "wrong": []}
        for finding in examine(file):
            found[finding.state].append(finding.sentence)
        return found

    return ask


Diagnose = Callable[[Values], dict[str, list[str]]]


def fake_plugin(folder: Path, version: str, python: str = "3.11") -> str:
    """A folder with a file that looks like Orthanc's Python plugin."""
    library = folder / f"libOrthancPython.so.{version}"
    library.write_bytes(f"\0libpython{python}.so.1.0\0".encode())
    (folder / "libOrthancPython.so").symlink_to(library.name)
    return str(folder)


def test_nothing_is_wrong_with_a_right_installation(values: Values, diagnose: Diagnose) -> None:
    found = diagnose(values)
    assert found["wrong"] == []
    assert found["note"] == ["Orthanc does not run, or not with HTTP on this machine; start it and ask again."]
    assert sum("has its sha256" in sentence for sentence in found["fine"]) == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"Plugins": []}, "Python plugin is missing: apt-get install orthanc-python"),
        ({"PythonScript": None}, 'No "PythonScript" is configured'),
        ({"PythonScript": "/etc/orthanc/sample.py"}, "load /etc/orthanc/sample.py, which is not this plugin's"),
        ({"RemoteAccessAllowed": True, "AuthenticationEnabled": False}, "whoever reaches the HTTP port sees"),
        ({"RemoteAccessAllowed": True}, "RegisteredUsers names nobody"),
        ({"DicomCheckCalledAet": True}, "DicomCheckCalledAet is true"),
        ({"CovidCt": {"Automatik": True}}, 'has no key "Automatik"'),
        ({"CovidCt": {"Workers": "two"}}, '"CovidCt.Workers" in the configuration must be a whole number'),
        ({"CovidCt": {"Destinations": ["pacs"]}}, 'Destinations names "pacs", which DicomModalities does not have'),
        ({"CovidCt": {"Providers": ["CUDA", "CPU"]}}, "asks for CUDA, which the installed ONNX Runtime was built"),
        ({"CovidCt": {"ModelsFolder": "/nowhere"}}, "/nowhere"),
    ],
)  # fmt: skip
def test_a_wrong_setting(changes: Values, sentence: str, values: Values, diagnose: Diagnose) -> None:
    assert any(sentence in found for found in diagnose(values | changes)["wrong"])


def test_a_store_open_to_anybody_is_to_be_known(values: Values, diagnose: Diagnose) -> None:
    del values["DicomAlwaysAllowStore"]
    found = diagnose(values)
    assert any("takes images from any DICOM node" in sentence for sentence in found["note"])
    assert found["wrong"] == []


def test_threads_are_asked_for_where_the_plugin_has_them(values: Values, diagnose: Diagnose, tmp_path: Path) -> None:
    values |= {"Plugins": [fake_plugin(tmp_path, "5.0")], "Python": {}}
    assert any('is 5.0: set "Python": {"AllowThreads": true}' in found for found in diagnose(values)["wrong"])


def test_another_python(values: Values, diagnose: Diagnose, tmp_path: Path) -> None:
    values["Plugins"] = [fake_plugin(tmp_path, "4.0", "3.99")]
    assert any("embeds Python 3.99" in found for found in diagnose(values)["wrong"])


def test_an_orthanc_that_is_missing_or_too_old(
    values: Values, diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, sentence in (("", "The program Orthanc is not installed"), ("1.9.7", "Orthanc is 1.9.7")):
        monkeypatch.setattr(Installation, "orthanc_version", version)
        assert any(sentence in found for found in diagnose(values)["wrong"])


def test_orthanc_is_found_where_debian_puts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An ordinary user's PATH has no /usr/sbin."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert Installation(ConfigurationFiles(tmp_path)).orthanc_version
    with OrthancServer(tmp_path) as server:
        assert server.get("/system")["Version"]


def test_a_port_of_another_program(values: Values, diagnose: Diagnose) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = diagnose(values | {"DicomPort": port})
    assert found["wrong"] == [f"DicomPort {port} is used by another program: stop that, or choose another port."]


def test_a_port_that_is_none(values: Values, diagnose: Diagnose) -> None:
    found = diagnose(values | {"HttpPort": 99999})
    assert found["wrong"] == ["HttpPort 99999 is no port; ports go from 1 to 65535."]


def test_a_state_folder_that_orthanc_may_not_write(values: Values, diagnose: Diagnose, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o500)
    (tmp_path / "storage").chmod(0o777)
    try:
        for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            folder.chmod(0o755)
        os.chown(tmp_path / "storage", 65534, 65534)
    except PermissionError:
        pytest.skip("Only root can give a folder to another user.")
    values["CovidCt"]["StateFolder"] = str(state)
    assert any(f"{state} cannot be written by user nobody" in found for found in diagnose(values)["wrong"])


def test_a_model_that_is_not_the_manifests(values: Values, diagnose: Diagnose, tmp_path: Path) -> None:
    models = write_all(tmp_path / "models")
    with (models / "lungs/model.onnx").open("ab") as file:
        file.write(b"\0")
    values["CovidCt"]["ModelsFolder"] = str(models)
    assert any("sha256" in found and "lungs" in found for found in diagnose(values)["wrong"])


def test_missing_packages_and_the_exit_status(values: Values, tmp_path: Path) -> None:
    plugin = tmp_path / "program/plugin"
    plugin.parent.mkdir()
    plugin.symlink_to(REPOSITORY / "plugin")
    # Its .venv would stand beside; there is none.
    values["PythonScript"] = str(plugin / "covid.py")
    file = tmp_path / "orthanc.json"
    file.write_text(json.dumps(values))
    done = subprocess.run(
        ["make", "doctor", f"ORTHANC_CONFIG={file}"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "A Python package is missing or broken: No module named" in done.stdout


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "There is no configuration of Orthanc in"), ("{", "cannot be read"), ("[]", "holds no JSON object")],
)
def test_a_configuration_that_orthanc_cannot_read(content: str | None, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "orthanc.json"
    if content is not None:
        file.write_text(content)
    findings = list(examine(file))
    assert [finding.state for finding in findings] == ["wrong"]
    assert sentence in findings[0].sentence


def test_a_key_in_two_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"HttpPort": 1 /* as usual */}')
    (tmp_path / "b.json").write_text('{"HttpPort": 2} // again')
    assert 'The key "HttpPort" stands both in' in next(examine(tmp_path)).sentence


@pytest.fixture
def running() -> Iterator[tuple[int, dict[str, Any]]]:
    """Port and answers of a server that passes for Orthanc."""
    answers: dict[str, Any] = {"/system": {"Version": "1.13.0", "DicomAet": "ORTHANC"}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in answers
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answers.get(self.path)).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, answers
        server.shutdown()
        thread.join()


def test_what_a_running_orthanc_says(values: Values, diagnose: Diagnose, running: tuple[int, dict[str, Any]]) -> None:
    values["HttpPort"], answers = running
    assert any("has not loaded this plugin: restart it" in found for found in diagnose(values)["wrong"])
    answers["/covid/status"] = {"Analysis": "off", "Problem": "The models are gone."}
    assert any("Analysis is off in the running Orthanc: The models are gone." in f for f in diagnose(values)["wrong"])
    delivery = {"Destination": "pacs", "Error": "refused"}
    answers["/covid/status"] = {
        "Analysis": "on", "Version": "1", "ProviderWarnings": ["No GPU."], "FailingDeliveries": [delivery],
    }  # fmt: skip
    found = diagnose(values)
    assert found["wrong"] == []
    assert found["note"] == ["No GPU.", "Results have not arrived at pacs yet: refused"]


def test_an_orthanc_that_a_request_would_bring_down_is_not_asked(
    values: Values, diagnose: Diagnose, running: tuple[int, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its DICOM side may well be in use."""
    values["HttpPort"], _ = running
    asked: list[object] = []
    monkeypatch.setattr(TO_THIS_MACHINE, "open", lambda request, **_: asked.append(request))
    (sentence,) = diagnose(values | {"SslEnabled": True})["wrong"]
    assert "ends by SIGSEGV at the first request" in sentence
    assert asked == []


def test_destinations_in_orthancs_database(
    values: Values, diagnose: Diagnose, running: tuple[int, dict[str, Any]]
) -> None:
    values |= {"DicomModalitiesInDatabase": True, "DicomModalities": {"gone": ["A", "192.0.2.1", 104]}}
    values["CovidCt"]["Destinations"] = ["pacs", "gone"]
    found = diagnose(values)
    assert found["wrong"] == []
    assert any('whether its database has "pacs"' in sentence for sentence in found["note"])
    values["HttpPort"], answers = running
    answers["/modalities"] = ["pacs"]
    answers["/covid/status"] = {"Analysis": "on", "Version": "1", "ProviderWarnings": [], "FailingDeliveries": []}
    assert diagnose(values)["wrong"] == [
        'CovidCt.Destinations names "gone", which the running Orthanc\'s database does not have.'
    ]


def test_relative_paths_start_at_the_configuration(tmp_path: Path) -> None:
    files = ConfigurationFiles(tmp_path / "orthanc.json", {"PythonScript": "plugin/covid.py"})
    assert Installation(files).script == tmp_path / "plugin/covid.py"
