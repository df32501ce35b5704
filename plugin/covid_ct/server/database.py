"""The SQLite file beside Orthanc's storage in which accepted work is kept."""

import sqlite3
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

TIME_FORMAT = "%Y%m%dT%H%M%S.%f"
"""Orthanc's notation of times, which sort as texts; ours are UTC."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, series TEXT, series_uid TEXT, trigger TEXT, state TEXT, stage TEXT, progress REAL,
    created TEXT, started TEXT, completed TEXT, attempts INTEGER, crashes INTEGER, reason TEXT, error TEXT,
    not_before TEXT, findings TEXT, results TEXT
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE TABLE IF NOT EXISTS deliveries (
    job TEXT, destination TEXT, state TEXT, attempts INTEGER, error TEXT, not_before TEXT,
    PRIMARY KEY (job, destination)
);
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value INTEGER);
"""


class Database:
    """One SQLite file, safe to use from any thread.

    Parameters
    ----------
    path: Path
        The file; made where missing.

    Attributes
    ----------
    changed: threading.Condition
        Held while the file is used, and notified after each change.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.changed = threading.Condition()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # What a caller was told survives a power cut too.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(SCHEMA)

    def select(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with self.changed:
            return self._connection.execute(statement, tuple(values)).fetchall()

    def change(self, statement: str, values: Sequence[object] = ()) -> None:
        """Change something, on disk when this returns."""
        with self.changed:
            self._connection.execute(statement, tuple(values))
            self.changed.notify_all()

    def mark(self, name: str) -> int | None:
        """A number kept by name, such as a place in Orthanc's list of changes."""
        rows = self.select("SELECT value FROM marks WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else None

    def set_mark(self, name: str, value: int) -> None:
        """Keep a number by name."""
        self.change("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))

    def wake(self) -> None:
        """Wake all that wait for a change."""
        with self.changed:
            self.changed.notify_all()

    def close(self) -> None:
        """Close the file; nothing may be asked afterwards."""
        with self.changed:
            self._connection.close()


def timestamp(moment: datetime | None = None) -> str:
    """A moment, by default now, in Orthanc's notation."""
    return (moment or datetime.now(UTC)).strftime(TIME_FORMAT)


def seconds_between(begin: str, end: str) -> float:
    """Seconds from one timestamp to another."""
    moments = [datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC) for text in (begin, end)]
    return (moments[1] - moments[0]).total_seconds()


def due_after(attempts: int) -> str:
    """When to try again after a number of failed attempts: in 10 s, then six times later each time, an hour at most."""
    return timestamp(datetime.now(UTC) + timedelta(seconds=min(10 * 6 ** min(attempts - 1, 5), 3600)))
