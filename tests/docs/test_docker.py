"""What can be known of the Docker files without Docker: their form, and that every setting is one that exists."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from covid_ct.server.configuration import read_configuration

REPOSITORY = Path(__file__).resolve().parents[2]

ORTHANC_DEFAULTS = Path("/etc/orthanc")
"""Where Debian lists Orthanc's settings with their defaults."""

SWITCHES = {
    "DICOM_WEB_PLUGIN_ENABLED", "STONE_WEB_VIEWER_PLUGIN_ENABLED", "OHIF_PLUGIN_ENABLED", "ORTHANC_EXPLORER_2_ENABLED",
    "POSTGRESQL_PLUGIN_ENABLED",
}  # fmt: skip
"""Variables with which the image orthancteam/orthanc switches its plugins on, of those used here."""

IRREGULAR = {"POSTGRESQL": "PostgreSQL"}
"""Section that the image does not spell by its rule."""

SECTIONS = {
    "PostgreSQL": {"Host", "Port", "Database", "Username", "Password", "Lock", "EnableIndex", "EnableStorage"},
    "StoneWebViewer": {"SkipSeriesFromModalities"},
    "Python": {"AllowThreads"},
}
"""Keys of Orthanc's plugins that are used here."""


def configured(environment: dict[str, str]) -> dict[str, Any]:
    """The configuration that the image makes of its environment: ORTHANC__SECTION__SOME_KEY is Section.SomeKey."""
    made: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith("ORTHANC__"):
            assert name in SWITCHES or not name.endswith("_ENABLED"), name
            continue
        words = [IRREGULAR.get(part, part.title().replace("_", "")) for part in name.split("__")[1:]]
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        place = made
        for section in words[:-1]:
            place = place.setdefault(section, {})
        place[words[-1]] = value
    return made


def check(configuration: dict[str, Any]) -> None:
    """Every key is one that Orthanc, its plugins or this one know."""
    texts = [file.read_text() for file in ORTHANC_DEFAULTS.glob("*.json")]
    known = set(re.findall(r'"(\w+)"\s*:', "".join(texts)))
    for key, value in configuration.items():
        if key in SECTIONS:
            assert set(value) <= SECTIONS[key]
        elif key != "CovidCt":
            assert key in known, key
    read_configuration(configuration, REPOSITORY)


def dockerfile_environment() -> dict[str, str]:
    text = (REPOSITORY / "Dockerfile").read_text()
    block = text[text.index("\nENV ") + 5 :].replace("\\\n", " ")
    found = re.findall(r"(\w+)=('[^']*'|\S+)", block)
    return {name: value.strip("'") for name, value in found}


def test_settings_of_the_image() -> None:
    environment = dockerfile_environment()
    configuration = configured(environment)
    check(configuration)
    assert environment["DICOM_WEB_PLUGIN_ENABLED"] == "true"
    assert configuration["DicomAlwaysAllowStore"] is False
    assert configuration["Python"]["AllowThreads"] is True
    assert configuration["PythonScript"] == "/opt/covid-ct/plugin/covid.py"


def test_the_image_has_what_it_copies() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    ignored = (REPOSITORY / ".dockerignore").read_text()
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignored or re.search(r"!requirements-\*", ignored), source


def test_the_gpu_s_packages_are_those_of_the_installation() -> None:
    named = re.findall(r"onnxruntime-gpu\[cuda,cudnn\]==[\d.]+", (REPOSITORY / "docs/install.md").read_text())
    assert named
    assert set(named) <= set((REPOSITORY / "requirements-gpu.txt").read_text().splitlines())


def test_compose_file() -> None:
    document = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
    services = document["services"]
    assert set(services) == {"index", "orthanc-1", "orthanc-2"}
    ports: list[str] = []
    for name in ("orthanc-1", "orthanc-2"):
        service = services[name]
        configuration = configured(dockerfile_environment() | service["environment"])
        check(configuration)
        assert configuration["PostgreSQL"]["Host"] in services
        assert configuration["PostgreSQL"]["Lock"] is False
        # In quotation marks, so that one of digits alone is no number.
        assert service["environment"]["ORTHANC__POSTGRESQL__PASSWORD"].startswith('"${')
        state = configuration["CovidCt"]["StateFolder"]
        mounts = dict(reversed(mount.split(":")) for mount in service["volumes"])
        # Images are shared; what waits to be stored is each one's own.
        assert mounts["/var/lib/orthanc/db"] == "images"
        assert mounts[state] == f"state-{name[-1]}"
        assert set(mounts.values()) <= set(document["volumes"])
        assert list(service["depends_on"]) == ["index"]
        ports += [port.rpartition(":")[0] for port in service["ports"]]
    assert len(set(ports)) == len(ports)
    # HTTP is for this machine only; the registered user's password is asked for, never shipped.
    assert all(port.startswith("127.0.0.1:") for port in ports if "804" in port)
    passwords = re.findall(r"(?:PASSWORD: (?:'\")?|\"radiology\": \")(.{2})", (REPOSITORY / "compose.yaml").read_text())
    assert set(passwords) == {"${"}
