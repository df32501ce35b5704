"""Finished results on disk, until Orthanc has stored them all."""

import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from covid_ct.server.jobs import State


@dataclass(frozen=True)
class Outbox:
    """Finished results on disk that are not all stored yet, in one ZIP archive for each job.

    An archive appears by one rename, so it is whole or absent, whenever the process dies. One file is on disk sooner
    than as many as there are results.

    Attributes
    ----------
    folder: Path
        Holds the archives.
    """

    folder: Path

    def of(self, job_id: str) -> Path:
        """The archive of a job's finished results; exists once they are all there."""
        return self.folder / f"{job_id}.zip"

    def put(self, job_id: str, archive: bytes | memoryview) -> None:
        """Keep the archive of a job's finished results, all of it or nothing.

        Raises
        ------
        OSError
            Raised if there is no room.
        """
        # A name of its own: another Orthanc may have taken the job over, and write the same.
        unfinished = self.folder / f"{job_id}.{uuid.uuid4().hex}.unfinished"
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                file.write(archive)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(self.of(job_id))
        finally:
            # Nothing is left of it in order; after a failure it may be what fills the disk.
            unfinished.unlink(missing_ok=True)
        _sync(self.folder)

    def empty(self, job_id: str) -> None:
        """Remove a job's archive."""
        self.of(job_id).unlink(missing_ok=True)

    def tidy(self, state_of: Callable[[str], State | None]) -> None:
        """Remove archives of jobs that have ended, wherever that was, and unfinished ones of a process that died.

        Parameters
        ----------
        state_of: Callable
            State of the job of an id, or none where there is no such job. A running one may be another Orthanc's that
            uses the same folder.
        """
        for path in self.folder.glob("*"):
            state = state_of(path.name.partition(".")[0])
            if state in (None, State.SUCCESS, State.FAILURE) or (path.suffix != ".zip" and state != State.RUNNING):
                # Earlier versions kept a folder for each job.
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Have a folder's list of names on disk, not only in the operating system's cache."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
