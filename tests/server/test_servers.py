"""Several Orthancs over one PostgreSQL."""

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from covid_ct.server.database import Database, DatabaseError, SqliteDatabase
from covid_ct.server.deliveries import DeliveryStore
from covid_ct.server.job_store import JobStore
from covid_ct.server.jobs import Job, State, Trigger
from covid_ct.server.outbox import Outbox
from covid_ct.server.postgresql import PostgresqlDatabase
from covid_ct.server.servers import BEAT_S, DEAD_AFTER_S, Caretaker, Servers
from tests.postgresql import PostgresqlServer

JOB = Job("j1", "series-1", "1.2.3", Trigger.REST)

Connect = Callable[[], PostgresqlDatabase]


class Site:
    """What one Orthanc has of the shared work."""

    def __init__(self, database: Database, name: str, outbox: Path = Path("none")) -> None:
        self.servers = Servers(database, name)
        self.jobs = JobStore(database, name)
        self.deliveries = DeliveryStore(database, name)
        self.log: list[str] = []
        self.outbox = Outbox(outbox)
        self.look = Caretaker(self.servers, self.jobs, self.deliveries, self.outbox, self.log.append).look


@pytest.fixture
def shared(empty_postgresql: dict[str, str]) -> Iterator[Connect]:
    opened = []

    def connect() -> PostgresqlDatabase:
        opened.append(PostgresqlDatabase(empty_postgresql))
        return opened[-1]

    yield connect
    for database in opened:
        database.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time in seconds, to be moved."""
    now = [0.0]
    with monkeypatch.context() as patch:
        patch.setattr("covid_ct.server.servers.time.monotonic", lambda: now[0])
        yield now


def wait(clock: list[float], seconds: float, *actions: Callable[[], None]) -> None:
    """Let time pass, in which some things are done again and again."""
    end = clock[0] + seconds
    while clock[0] < end:
        clock[0] += BEAT_S
        for action in actions:
            action()


def test_many_takers_take_each_job_once(shared: Connect) -> None:
    sites = [Site(shared(), f"site {number}") for number in range(3)]
    for number in range(60):
        sites[0].jobs.add(replace(JOB, id=f"j{number}"))
    taken: Counter[str] = Counter()

    def work(site: Site) -> None:
        while job := site.jobs.take(0):
            taken[job.id] += 1
            site.jobs.succeed(job.id, {}, [])

    threads = [threading.Thread(target=work, args=(site,)) for site in sites for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(taken.values()) == {1}
    assert len(taken) == 60


def test_a_silent_orthancs_job_is_taken_over_and_no_other(shared: Connect, clock: list[float]) -> None:
    alive, dead, looking = (Site(shared(), name) for name in ("alive", "dead", "looking"))
    for name, site in (("j1", alive), ("j2", dead)):
        site.look()
        looking.jobs.add(replace(JOB, id=name))
        site.jobs.take(0)
    looking.look()
    wait(clock, DEAD_AFTER_S + 1, alive.servers.beat, looking.look)
    assert [looking.jobs[name].state for name in ("j1", "j2")] == [State.RUNNING, State.PENDING]
    assert looking.servers.alive() == {"alive", "looking"}
    assert ["j2" in line and "dead" in line for line in looking.log] == [True]
    taken = looking.jobs.take(0)
    assert taken is not None
    dead.look()
    assert dead.jobs.is_cancelled("j2"), "it was only slow, and need not go on"
    dead.jobs.fail("j2", "Cancelled", "The analysis was cancelled.")
    assert (looking.jobs["j2"].state, looking.jobs["j2"].server) == (State.RUNNING, "looking")
    assert not looking.jobs.is_cancelled("j2")
    assert looking.jobs["j1"].server == "alive"


def test_nobody_dies_of_a_database_that_was_away(shared: Connect, clock: list[float]) -> None:
    """As long as it is, nobody can say that he lives."""
    working, looking = Site(shared(), "working"), Site(shared(), "looking")
    looking.jobs.add(JOB)
    working.jobs.take(0)
    for site in (working, looking):
        site.look()
    clock[0] += 10 * DEAD_AFTER_S
    looking.look()
    wait(clock, 2 * DEAD_AFTER_S, working.look, looking.look)
    assert (looking.jobs["j1"].state, looking.jobs["j1"].crashes) == (State.RUNNING, 0)
    wait(clock, DEAD_AFTER_S + 1, looking.look)
    assert looking.jobs["j1"].state == State.PENDING


def test_one_that_ends_in_order_is_not_waited_for(shared: Connect) -> None:
    ending, other = Site(shared(), "ending"), Site(shared(), "other")
    ending.look()
    ending.jobs.add(JOB)
    ending.jobs.take(0)
    other.look()
    assert other.jobs["j1"].state == State.RUNNING
    ending.servers.leave()
    other.look()
    assert other.jobs["j1"].state == State.PENDING


def test_progress_and_cancelling_reach_the_other_orthanc(shared: Connect) -> None:
    working, asking = Site(shared(), "working"), Site(shared(), "asking")
    working.jobs.add(JOB)
    working.jobs.take(0)
    working.jobs.advance("j1", "lesions", 0.5)
    working.look()
    assert asking.jobs["j1"].progress == 0.5
    assert asking.jobs.cancel("j1").state == State.RUNNING
    assert not working.jobs.is_cancelled("j1")
    working.look()
    assert working.jobs.is_cancelled("j1")


def test_postgresql_may_go_and_come_back(shared: Connect, postgresql: PostgresqlServer) -> None:
    site = Site(shared(), "site")
    site.jobs.add(JOB)
    postgresql.stop()
    try:
        for _ in range(2):
            with pytest.raises(DatabaseError, match="PostgreSQL"):
                site.jobs.take(0)
    finally:
        postgresql.start()
    assert site.jobs.take(0) is not None


def test_results_of_an_ended_job_are_not_kept(database: Database, tmp_path: Path) -> None:
    """They name the patient, who may have been deleted since."""
    site = Site(database, "site", tmp_path)
    for name in ("cancelled", "given up", "waiting"):
        site.jobs.add(replace(JOB, id=name))
        site.jobs.take(0)
        site.jobs.retry_later(site.jobs[name], "InternalError", "The disk is full.")
        site.outbox.put(name, b"an archive")
    site.jobs.cancel("cancelled")
    site.jobs._change(site.jobs["given up"], state=State.FAILURE)
    site.look()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".zip"] == ["waiting.zip"]


def test_tables_of_an_earlier_version_get_what_they_lack(shared: Connect) -> None:
    before = shared()
    Site(before, "before").jobs.add(JOB)
    before.change("ALTER TABLE jobs DROP COLUMN series_updated, DROP COLUMN server")
    site = Site(shared(), "after")
    assert site.jobs["j1"].series_updated == ""
    assert site.jobs.take(0) is not None


def test_a_file_from_before_loses_no_job(shared: Connect, tmp_path: Path) -> None:
    """Of the first version, which knew nothing of other Orthancs."""
    path = tmp_path / "jobs.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.execute(
            "CREATE TABLE jobs (id TEXT PRIMARY KEY, series TEXT, series_uid TEXT, trigger TEXT, state TEXT,"
            " stage TEXT, progress REAL, created TEXT, started TEXT, completed TEXT, attempts INTEGER, crashes INTEGER,"
            " reason TEXT, error TEXT, not_before TEXT, findings TEXT, results TEXT)"
        )
        old.execute(
            "CREATE TABLE deliveries (job TEXT, destination TEXT, state TEXT, attempts INTEGER, error TEXT,"
            " not_before TEXT, PRIMARY KEY (job, destination))"
        )
        old.execute(
            "INSERT INTO jobs VALUES ('j1', 's', '1.2', 'Rest', 'Running', 'lungs', 0.5, '20260101T000000.000000',"
            " '20260101T000000.000000', '', 1, 0, '', '', '', '{}', '[]')"
        )
        old.execute("INSERT INTO deliveries VALUES ('j1', 'pacs', 'Pending', 0, '', '')")
        old.commit()
    source, target = SqliteDatabase(path), shared()
    for _ in range(2):
        target.copy_jobs(source)
    for database in (source, target):
        site = Site(database, "new")
        assert site.jobs["j1"].state == State.RUNNING
        assert [delivery.destination for delivery in site.deliveries.of_job("j1")] == ["pacs"]
        site.look()
        assert (site.jobs["j1"].state, site.jobs["j1"].crashes) == (State.PENDING, 1)
    source.close()
