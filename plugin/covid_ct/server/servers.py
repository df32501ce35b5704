"""The Orthancs that share their work: which of them live, and what is done about those that died."""

import threading
import time
from collections.abc import Callable

from covid_ct.server.database import Database
from covid_ct.server.deliveries import DeliveryStore
from covid_ct.server.job_store import JobStore
from covid_ct.server.outbox import Outbox

BEAT_S = 5.0
"""How often, in seconds, an Orthanc says that it lives, and looks after the others."""

DEAD_AFTER_S = 30.0
"""How long, in seconds, an Orthanc says nothing before the others take over its work."""


class Servers:
    """The Orthancs that use one database, as one of them sees them.

    Each counts upwards in the database. Whose number stands still, by the clock of whoever looks, is dead; so the
    clocks of the Orthancs need not agree.

    Parameters
    ----------
    database: Database
        What they share. One that is not shared has this Orthanc only.
    me: str
        Name of this Orthanc since its start; no other has it, nor had it before.
    """

    def __init__(self, database: Database, me: str) -> None:
        self._database = database
        self.me = me
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked = time.monotonic()

    def beat(self) -> None:
        """Say that this Orthanc lives."""
        if self._database.shared:
            self._database.change(
                "INSERT INTO servers (id, beats) VALUES (?, 1) "
                "ON CONFLICT (id) DO UPDATE SET beats = servers.beats + 1",
                (self.me,),
            )

    def leave(self) -> None:
        """Say that this Orthanc ends, so that the others need not wait to find out."""
        if self._database.shared:
            self._database.change("DELETE FROM servers WHERE id = ?", (self.me,))

    def alive(self) -> set[str]:
        """Names of the Orthancs that live, and forget the others."""
        now = time.monotonic()
        beats: dict[str, int] = dict(self._database.select("SELECT id, beats FROM servers"))
        if now - self._looked > 2 * BEAT_S:
            # Nobody could say anything either, such as where the database was away.
            self._seen = {}
        self._looked = now
        self._seen = {
            name: self._seen[name] if name in self._seen and self._seen[name][0] == count else (count, now)
            for name, count in beats.items()
        }
        dead = {name for name, (_, since) in self._seen.items() if now - since > DEAD_AFTER_S} - {self.me}
        for name in dead:
            self._database.change("DELETE FROM servers WHERE id = ? AND beats = ?", (name, beats[name]))
        return {self.me, *beats} - dead


class Caretaker(threading.Thread):
    """The thread that says that this Orthanc lives, takes over what dead ones left, and keeps no results in vain.

    Parameters
    ----------
    servers: Servers
        Who lives.
    jobs: JobStore
        Whose jobs are put back.
    deliveries: DeliveryStore
        Whose deliveries are put back.
    outbox: Outbox
        Where the results of jobs that have ended are removed.
    log: Callable
        Takes a line without names of patients.
    """

    def __init__(
        self,
        servers: Servers,
        jobs: JobStore,
        deliveries: DeliveryStore,
        outbox: Outbox,
        log: Callable[[str], None],
    ) -> None:
        super().__init__(name="covid-caretaker", daemon=True)
        self._servers = servers
        self._jobs = jobs
        self._deliveries = deliveries
        self._outbox = outbox
        self._log = log
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """Ask the thread to end soon."""
        self._stop_asked.set()

    def run(self) -> None:
        """Look after the work until stopped."""
        while not self._stop_asked.wait(BEAT_S):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - the thread outlives a database that is away
                self._log(f"Jobs of other Orthancs cannot be looked after: {type(error).__name__}: {error}")

    def look(self) -> None:
        """Say that this Orthanc lives, put back what is left of dead ones, and tidy the outbox."""
        self._servers.beat()
        self._jobs.exchange()
        alive = self._servers.alive()
        for job in self._jobs.recover(alive):
            self._log(f"Job {job.id}: {job.server} died with it; it is {job.state} now {job.reason}".rstrip())
        self._deliveries.recover(alive)
        self._outbox.tidy(lambda job_id: job.state if (job := self._jobs.get(job_id)) else None)
