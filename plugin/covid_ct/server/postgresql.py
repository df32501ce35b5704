"""The PostgreSQL of Orthanc's own index, in which several Orthancs share their work.

Orthanc lets plugins keep values and queues in its database only where the database plugin can; Debian's cannot (its
`/system` says `HasQueues: false`). So the tables are ours, in a schema of their own beside Orthanc's.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import psycopg

from covid_ct.server.database import SCHEMA, TABLES, Database, DatabaseError

NAMESPACE = "covid_ct"
"""Schema that holds our tables."""

INSTALLING = 20_200_311
"""Number of the lock under which an Orthanc makes the tables, so that two that start together do not collide."""

CONNECTION = {
    "connect_timeout": "5",
    # A host that vanished is noticed within seconds, not hours.
    "tcp_user_timeout": "10000",
    "keepalives_idle": "10",
    "application_name": "covid-ct",
    "options": f"-c search_path={NAMESPACE} -c statement_timeout=30000",
}
"""Settings of our connection besides Orthanc's own."""


class PostgresqlDatabase(Database):
    """Orthanc's PostgreSQL. It is connected to at first use, and again after it was away.

    Parameters
    ----------
    settings: Mapping[str, str]
        How Orthanc connects to it, in libpq's keywords, or its URI as `dsn`.
    """

    shared = True

    def __init__(self, settings: Mapping[str, str]) -> None:
        super().__init__()
        self._settings = settings
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def _execute(self, statement: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        plain = [value.value if isinstance(value, Enum) else value for value in values]
        try:
            # The statements are constants of this package.
            cursor = self._connected().execute(statement.replace("?", "%s").encode(), plain)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise DatabaseError(f"PostgreSQL: {str(error).strip()}") from error

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            settings = dict(self._settings)
            connection = psycopg.connect(settings.pop("dsn", ""), **settings, **CONNECTION, autocommit=True)  # type: ignore[arg-type]
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (INSTALLING,))
                # A schema that an administrator made needs no right to make one.
                if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (NAMESPACE,)).fetchall():
                    connection.execute(f"CREATE SCHEMA {NAMESPACE}".encode())
                connection.execute(SCHEMA.encode())
                # Tables of an earlier version lack the columns that came later.
                known = set(
                    connection.execute(
                        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = %s",
                        (NAMESPACE,),
                    )
                )
                for table, columns in TABLES.items():
                    for name, kind in columns.items():
                        if (table, name) not in known:
                            connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}".encode())
            self._connection = connection
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
