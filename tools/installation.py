"""An Orthanc with this plugin as it is installed on this machine: where its parts are, and which versions they have."""

import base64
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from functools import cached_property
from pathlib import Path
from typing import Any

from tools.loopback import TO_THIS_MACHINE
from tools.orthanc_configuration import ConfigurationFiles

PYTHON_PLUGIN = "libOrthancPython.so"

CIVETWEB = Path("/usr/lib/x86_64-linux-gnu/libcivetweb.so.1.15.0")
"""Debian's HTTP server for Orthanc, up to forky: built for OpenSSL 1.1, it calls what OpenSSL 3 does not have."""

MAX_PORT = 65535
"""The highest TCP port."""

ANSWER_TIMEOUT_S = 10.0
"""Longest wait for an answer of a running Orthanc, in seconds."""


def orthanc_program() -> str | None:
    """Path of the program `Orthanc`; Debian's is in a folder that an ordinary user's PATH does not name."""
    return shutil.which("Orthanc") or shutil.which("/usr/sbin/Orthanc")


def is_port(number: object) -> bool:
    """Whether a program can listen on a TCP port of this number."""
    return isinstance(number, int) and 0 < number <= MAX_PORT


def version(text: str) -> tuple[int, ...]:
    """The numbers of a version, such as (1, 10, 1); none where it is no release."""
    match = re.search(r"\d+(\.\d+)+", text)
    return tuple(map(int, match[0].split("."))) if match else ()


class Installation:
    """Looks up one thing at a time; what is not there is None or empty.

    Parameters
    ----------
    files: ConfigurationFiles
        Orthanc's configuration.
    """

    def __init__(self, files: ConfigurationFiles) -> None:
        self.files = files

    @cached_property
    def orthanc_version(self) -> str:
        """Version of the program `Orthanc`, empty where there is no such program."""
        program = orthanc_program()
        if program is None:
            return ""
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        return ".".join(map(str, version(answer.partition("\n")[0])))

    @cached_property
    def python_plugin(self) -> Path | None:
        """File of Orthanc's Python plugin, as the configuration's Plugins name it or its folder."""
        for name in self.files.values.get("Plugins", []):
            path = self.files.resolve(str(name))
            candidate = path / PYTHON_PLUGIN if path.is_dir() else path
            if candidate.name == PYTHON_PLUGIN and candidate.exists():
                return candidate
        return None

    @cached_property
    def python_plugin_version(self) -> tuple[int, ...]:
        """Version of Orthanc's Python plugin: of a running one, or as Debian's file names tell it."""
        running = self.ask("/plugins/python")
        if isinstance(running, dict):
            return version(str(running.get("Version", "")))
        return version(self.python_plugin.resolve().name) if self.python_plugin else ()

    @cached_property
    def python_version(self) -> str:
        """Version of the Python that the plugin embeds, such as 3.11."""
        if self.python_plugin is None:
            return ""
        match = re.search(rb"libpython(3\.\d+)", self.python_plugin.read_bytes())
        return match[1].decode() if match else ""

    @cached_property
    def script(self) -> Path | None:
        """The Python script that Orthanc loads."""
        name = self.files.values.get("PythonScript")
        return self.files.resolve(str(name)) if name else None

    @cached_property
    def packages(self) -> Path | None:
        """Folder in which plugin/covid.py looks for Python packages."""
        folder = f".venv/lib/python{self.python_version}/site-packages"
        return self.script.parent.parent / folder if self.script else None

    @property
    def crashes_by_https(self) -> bool:
        """Whether a request, by anybody, brings the running Orthanc down."""
        return self.files.values.get("SslEnabled") is True and CIVETWEB.exists()

    @cached_property
    def system(self) -> dict[str, Any] | None:
        """`/system` of the running Orthanc, None where none answers."""
        answer = self.ask("/system")
        return answer if isinstance(answer, dict) and "DicomAet" in answer else None

    def ask(self, path: str) -> Any:
        """The answer of a running Orthanc: a document, or the HTTP status of an error, or None where none answers."""
        if self.crashes_by_https:
            return None
        values = self.files.values
        scheme = "https" if values.get("SslEnabled") else "http"
        url = f"{scheme}://127.0.0.1:{values.get('HttpPort', 8042)}{path}"
        request = urllib.request.Request(url)  # noqa: S310 - never a file
        for user, password in list(values.get("RegisteredUsers", {}).items())[:1]:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        try:
            with TO_THIS_MACHINE.open(request, timeout=ANSWER_TIMEOUT_S) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, ValueError):
            return None
