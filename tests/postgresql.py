"""A PostgreSQL server of the tests' own, on loopback, from Debian's programs."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tools.ports import free_port

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""Where Debian puts the programs of each version."""

USER = "postgres" if os.geteuid() == 0 else None
"""The user that Debian made for it, for it does not run as root."""


class PostgresqlServer:
    """A server in a folder that goes with it."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="covid-ct-postgresql-"))
        if USER is not None:
            shutil.chown(self._folder, USER)
        self.port = free_port()
        data = self._folder / "data"
        # Nothing of it has to survive the machine.
        self._run("initdb", "--pgdata", str(data), "--username=orthanc", "--auth=trust", "--encoding=UTF8", "--no-sync")
        settings = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off"
        )
        self._control = ["pg_ctl", "--pgdata", str(data), "--log", str(self._folder / "log"), "--wait"]
        self._settings = ["--options", settings]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._run(*self._control, *self._settings, "start")

    def stop(self) -> None:
        """End it at once, with all connections."""
        self._run(*self._control, "--mode=fast", "stop")

    def make_database(self, name: str) -> dict[str, str]:
        """A new empty database; how to connect to it, in libpq's keywords."""
        self._run("createdb", f"--host={self._folder}", f"--port={self.port}", "--username=orthanc", name)
        return {"host": "127.0.0.1", "port": str(self.port), "dbname": name, "user": "orthanc"}

    def remove(self) -> None:
        """End it and remove all that it held."""
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        quiet = subprocess.DEVNULL
        subprocess.run(
            [PROGRAMS[-1] / program, *arguments],
            check=True, user=USER, cwd=self._folder, stdin=quiet, stdout=quiet, stderr=quiet,
        )  # fmt: skip
