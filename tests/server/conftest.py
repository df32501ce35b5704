"""The server's parts put together over a fake Orthanc, without threads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from covid_ct.server.configuration import Configuration
from covid_ct.server.database import Database, SqliteDatabase
from covid_ct.server.deliveries import DeliveryStore
from covid_ct.server.intake import Intake
from covid_ct.server.job_store import JobStore
from covid_ct.server.listener import Listener
from covid_ct.server.metrics import Metrics
from covid_ct.server.pacs import Pacs
from covid_ct.server.postgresql import PostgresqlDatabase
from tests.postgresql import PROGRAMS, PostgresqlServer
from tests.series.images import encode, make_series
from tests.server.fake_orthanc import FakeOrthanc, orthanc_id


@dataclass
class Hospital:
    """An Orthanc that holds one chest CT, and what takes work from it."""

    orthanc: FakeOrthanc
    pacs: Pacs
    database: Database
    jobs: JobStore
    deliveries: DeliveryStore
    intake: Intake
    log: list[str]
    series: str
    study: str

    def configured(self, **changes: object) -> Intake:
        """The intake under another configuration."""
        values = {**vars(self.intake.configuration), **changes}
        return Intake(self.pacs, self.jobs, self.deliveries, Configuration(**values), "models", self.log.append)

    def listener(self) -> Listener:
        """What a start of Orthanc listens with."""
        metrics = Metrics(self.orthanc, self.jobs, self.deliveries)
        return Listener(
            pacs=self.pacs, intake=self.intake, metrics=metrics, database=self.database, stable_age=60.0,
            log=self.log.append,
        )  # fmt: skip


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One server for all tests; Debian's package `postgresql`, which `make test` installs."""
    if not PROGRAMS:
        pytest.skip("PostgreSQL is not installed")
    server = PostgresqlServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgresql_database(postgresql: PostgresqlServer) -> dict[str, str]:
    return postgresql.make_database("orthanc")


@pytest.fixture
def empty_postgresql(postgresql_database: dict[str, str]) -> dict[str, str]:
    """How to connect to a database that holds nothing of ours, in libpq's keywords."""
    with psycopg.connect(**postgresql_database, autocommit=True) as connection:  # type: ignore[arg-type]
        connection.execute("DROP SCHEMA IF EXISTS covid_ct CASCADE")
    return postgresql_database


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Connects to one database, as an Orthanc does at its start; once in each kind of database."""
    settings = {}
    if request.param == "PostgreSQL":
        settings = request.getfixturevalue("empty_postgresql")
    opened: list[Database] = []

    def one() -> Database:
        path = tmp_path / "state" / "jobs.sqlite"
        opened.append(PostgresqlDatabase(settings) if settings else SqliteDatabase(path))
        return opened[-1]

    yield one
    for database in opened:
        database.close()


@pytest.fixture
def database(connect: Callable[[], Database]) -> Database:
    return connect()


@pytest.fixture
def hospital(tmp_path: Path, database: Database) -> Hospital:
    orthanc = FakeOrthanc()
    images = make_series()
    for content in encode(images):
        orthanc.store(content)
    log: list[str] = []
    pacs = Pacs(orthanc)
    jobs, deliveries = JobStore(database, "here"), DeliveryStore(database, "here")
    configuration = Configuration(models_folder=tmp_path, state_folder=tmp_path)
    intake = Intake(pacs, jobs, deliveries, configuration, "models", log.append)
    first = images[0]
    return Hospital(
        orthanc,
        pacs,
        database,
        jobs,
        deliveries,
        intake,
        log,
        series=orthanc_id(first.PatientID, first.StudyInstanceUID, first.SeriesInstanceUID),
        study=orthanc_id(first.PatientID, first.StudyInstanceUID),
    )
