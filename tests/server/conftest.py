"""The server's parts put together over a fake Orthanc, without threads."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from covid_ct.server.configuration import Configuration
from covid_ct.server.database import Database
from covid_ct.server.deliveries import DeliveryStore
from covid_ct.server.intake import Intake
from covid_ct.server.jobs import JobStore
from covid_ct.server.pacs import Pacs
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
        return Intake(
            self.pacs, self.database, self.jobs, self.deliveries, Configuration(**values), "models", self.log.append
        )


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Hospital]:
    orthanc = FakeOrthanc()
    images = make_series()
    for content in encode(images):
        orthanc.store(content)
    log: list[str] = []
    pacs, database = Pacs(orthanc), Database(tmp_path / "jobs.sqlite")
    jobs, deliveries = JobStore(database), DeliveryStore(database)
    configuration = Configuration(models_folder=tmp_path, state_folder=tmp_path)
    intake = Intake(pacs, database, jobs, deliveries, configuration, "models", log.append)
    first = images[0]
    yield Hospital(
        orthanc,
        pacs,
        database,
        jobs,
        deliveries,
        intake,
        log,
        series=orthanc_id(first.StudyInstanceUID, first.SeriesInstanceUID),
        study=orthanc_id(first.StudyInstanceUID),
    )
    database.close()
