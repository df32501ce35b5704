"""A real Orthanc with this plugin, on loopback, in a folder of its own."""

import base64
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.installation import orthanc_program
from tools.loopback import TO_THIS_MACHINE
from tools.orthanc_configuration import read_json_with_comments
from tools.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGURATION = REPOSITORY / "orthanc.json"

START_TIMEOUT_S = 60.0
"""Longest time that Orthanc may take to answer after its start, in seconds."""

STOP_TIMEOUT_S = 90.0
"""Longest time that Orthanc may take to end, in seconds."""


class OrthancError(Exception):
    """Raised if Orthanc does not start, or answers with an error; says what to do."""


class OrthancServer:
    """An Orthanc process with the repository's configuration and this plugin.

    Parameters
    ----------
    folder: Path
        Holds the configuration and the log, and the storage unless another is given.
    storage: Path | None
        Orthanc's StorageDirectory.
    http_port, dicom_port: int
        Wanted ports; other free ones are taken where these are in use.
    changes: Mapping
        Keys that differ from orthanc.json; objects are merged key by key. Where they hold RegisteredUsers, requests are
        made as the first of them.
    root: Path | None
        Folder that holds another Debian with its Orthanc, as tools/orthanc-version.sh sets one up. Its programs and
        libraries are used in place of this machine's, and the Python packages that `make test-orthanc` installed for
        its Python; files are where they are otherwise, so that no mounts and no root are needed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        storage: Path | None = None,
        http_port: int = 0,
        dicom_port: int = 0,
        changes: Mapping[str, Any] | None = None,
        root: Path | None = None,
    ) -> None:
        self.folder = folder
        self.storage = (storage or folder / "storage").resolve()
        self.http_port = free_port(http_port)
        self.dicom_port = free_port(dicom_port)
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.log = folder / "orthanc.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._root = root
        self._changes = changes or {}
        self._headers = {}
        for user, password in list(self._changes.get("RegisteredUsers", {}).items())[:1]:
            self._headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def write_configuration(self) -> Path:
        """The configuration file that Orthanc is started with."""
        configuration = read_json_with_comments(CONFIGURATION)
        configuration |= {
            "StorageDirectory": str(self.storage),
            "IndexDirectory": str(self.storage),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "PythonScript": str(REPOSITORY / configuration["PythonScript"]),
            "Plugins": [f"{self._root or ''}{plugin}" for plugin in configuration["Plugins"]],
        }
        for key, value in self._changes.items():
            merged = isinstance(value, Mapping) and isinstance(configuration.get(key), dict)
            configuration[key] = {**configuration[key], **value} if merged else value
        self.folder.mkdir(parents=True, exist_ok=True)
        self.storage.mkdir(parents=True, exist_ok=True)
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(configuration, indent=2))
        return path

    def _command(self) -> list[str]:
        if self._root is None:
            if (program := orthanc_program()) is None:
                raise OrthancError("The program Orthanc is not installed: apt-get install orthanc.")
            return [program]
        # The folder's own loader finds the folder's libraries, as it would after a chroot.
        loader = self._root / "lib64/ld-linux-x86-64.so.2"
        libraries = f"{self._root}/usr/lib/x86_64-linux-gnu:{self._root}/usr/lib"
        return [str(loader), "--library-path", libraries, str(self._root / "usr/sbin/Orthanc")]

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        if self._root is None:
            return environment
        dictionary = next(self._root.glob("usr/share/*dcmtk*/dicom.dic"))
        return environment | {"PYTHONHOME": str(self._root / "usr"), "DCMDICTPATH": str(dictionary)}

    def start(self) -> None:
        """Start Orthanc and wait until it answers.

        Raises
        ------
        OrthancError
            If there is none, or it ends or does not answer in time; the message holds the end of its log.
        """
        configuration = self.write_configuration()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command(), str(configuration)],
                cwd=self.folder,
                env=self._environment(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.get("/system")
            except (OrthancError, OSError):
                time.sleep(0.1)
            else:
                return
        tail = self.log.read_text(errors="replace")[-2000:]
        raise OrthancError(f"Orthanc did not start. The end of its log, {self.log}:\n{tail}")

    def stop(self) -> int:
        """Have Orthanc end in order; its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """End Orthanc at once, as a crash would."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, how)
        return self.process.wait(STOP_TIMEOUT_S)

    def get(self, path: str) -> Any:
        """GET a JSON document."""
        return json.loads(self.request("GET", path))

    def post(self, path: str, document: Any) -> Any:
        """POST a JSON document and read the answer."""
        return json.loads(self.request("POST", path, json.dumps(document).encode(), "application/json"))

    def request(self, method: str, path: str, body: bytes | None = None, kind: str = "application/dicom") -> bytes:
        """Send any request.

        Raises
        ------
        OrthancError
            If the answer is not 2xx; the message holds status and answer.
        """
        request = urllib.request.Request(  # noqa: S310 - always http to loopback
            self.url + path,
            data=body,
            method=method,
            headers=self._headers | ({"Content-Type": kind} if body is not None else {}),
        )
        try:
            with TO_THIS_MACHINE.open(request, timeout=600) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            raise OrthancError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error
        return content

    def upload(self, dicom: bytes) -> dict[str, str]:
        """Store a DICOM file by REST."""
        answer: dict[str, str] = json.loads(self.request("POST", "/instances", dicom))
        return answer

    def __enter__(self) -> "OrthancServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
