"""Where accepted work is kept: a file beside Orthanc's storage, or the PostgreSQL that several Orthancs share."""

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from covid_ct.errors import CovidCtError

TIME_FORMAT = "%Y%m%dT%H%M%S.%f"
"""Orthanc's notation of times, which sort as texts; ours are UTC."""

TABLES = {
    "jobs": {
        "id": "TEXT PRIMARY KEY", "series": "TEXT", "series_uid": "TEXT", "trigger": "TEXT", "state": "TEXT",
        "stage": "TEXT", "progress": "DOUBLE PRECISION", "created": "TEXT", "started": "TEXT", "completed": "TEXT",
        "attempts": "INTEGER", "crashes": "INTEGER", "reason": "TEXT", "error": "TEXT", "not_before": "TEXT",
        "findings": "TEXT", "results": "TEXT", "server": "TEXT DEFAULT ''", "cancelled": "INTEGER DEFAULT 0",
        "series_updated": "TEXT DEFAULT ''", "fingerprint": "TEXT DEFAULT ''",
    },
    "deliveries": {
        "job": "TEXT", "destination": "TEXT", "state": "TEXT", "attempts": "INTEGER", "error": "TEXT",
        "not_before": "TEXT", "server": "TEXT DEFAULT ''",
    },
    "marks": {"name": "TEXT PRIMARY KEY", "value": "BIGINT"},
    "servers": {"id": "TEXT PRIMARY KEY", "beats": "BIGINT"},
}  # fmt: skip
"""Columns of each table, in words that both databases know."""

SCHEMA = "".join(
    f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())});\n"
    for table, columns in TABLES.items()
) + (
    "CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);\n"
    "CREATE INDEX IF NOT EXISTS jobs_by_age ON jobs (created DESC, id);\n"
    "CREATE UNIQUE INDEX IF NOT EXISTS deliveries_of_job ON deliveries (job, destination);\n"
)


class DatabaseError(CovidCtError):
    """Raised if the database can keep or find nothing, such as on a full disk."""


class Database(ABC):
    """A database, safe to use from any thread.

    Attributes
    ----------
    shared: bool
        Whether other Orthancs use it too.
    changed: threading.Condition
        Held while the database is used, and notified after each change made here.
    """

    shared: bool

    def __init__(self) -> None:
        self.changed = threading.Condition()

    @abstractmethod
    def _execute(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Rows of a statement of its own transaction, in SQL that both databases know, `?` for each value."""

    @abstractmethod
    def _close(self) -> None:
        """Let go of the database."""

    def select(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query.

        Raises
        ------
        DatabaseError
            If the database does not answer.
        """
        with self.changed:
            return self._execute(statement, values)

    def change(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Change something, on disk when this returns; the rows that `RETURNING` asks for.

        Raises
        ------
        DatabaseError
            If it cannot be kept.
        """
        with self.changed:
            rows = self._execute(statement, values)
            self.changed.notify_all()
            return rows

    def insert(self, table: str, row: Mapping[str, object]) -> None:
        """Keep a row, by column; where its key is known, what is there stays."""
        marks = ", ".join("?" for _ in row)
        statement = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 - constant names
        self.change(statement, tuple(row.values()))

    def update(self, table: str, where: Mapping[str, object], values: Mapping[str, object]) -> bool:
        """Change the rows whose columns have just these values; whether there were any."""
        assignments = ", ".join(f"{name} = ?" for name in values)
        condition = " AND ".join(f"{name} = ?" for name in where)
        statement = f"UPDATE {table} SET {assignments} WHERE {condition} RETURNING 1"  # noqa: S608 - constant names
        return bool(self.change(statement, (*values.values(), *where.values())))

    def mark(self, name: str) -> int | None:
        """A number kept by name, such as a place in Orthanc's list of changes."""
        rows = self.select("SELECT value FROM marks WHERE name = ?", (name,))
        return int(rows[0][0]) if rows else None

    def set_mark(self, name: str, value: int) -> None:
        """Keep a number by name."""
        self.change(
            "INSERT INTO marks (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def copy_jobs(self, source: "Database") -> None:
        """Keep the jobs and deliveries of another database too, but for those that are known."""
        for table in ("jobs", "deliveries"):
            columns = tuple(TABLES[table])
            for row in source.select(f"SELECT {', '.join(columns)} FROM {table}"):  # noqa: S608 - constant names
                self.insert(table, dict(zip(columns, row, strict=True)))

    def wake(self) -> None:
        """Wake all that wait for a change."""
        with self.changed:
            self.changed.notify_all()

    def close(self) -> None:
        """Let go of the database; nothing may be asked afterwards."""
        with self.changed:
            self._close()


class SqliteDatabase(Database):
    """One SQLite file of one Orthanc.

    Parameters
    ----------
    path: Path
        The file; made where missing.
    """

    shared = False

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # What a caller was told survives a power cut too.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(SCHEMA)
        # A file of an earlier version lacks the columns that came later.
        for table, columns in TABLES.items():
            known = {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}
            for name, kind in columns.items():
                if name not in known:
                    self._connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")

    def _execute(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise DatabaseError(str(error)) from error

    def _close(self) -> None:
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
