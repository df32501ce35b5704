"""Results on their way to other DICOM nodes: kept until they have arrived."""

import json
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from covid_ct.errors import CovidCtError
from covid_ct.server.database import Database, due_after, timestamp
from covid_ct.server.jobs import State
from covid_ct.server.pacs import Pacs

POLL_S = 0.5
"""How often, in seconds, Orthanc is asked how a transfer goes."""

IDLE_S = 2.0
"""How often, in seconds, it is looked whether a delivery is due."""


class DeliveryState(StrEnum):
    """States of a delivery.

    `Retry` carries the last attempt's error, `Failure` why there is none any more, `Success` what was left out.
    """

    PENDING = "Pending"
    SUCCESS = "Success"
    RETRY = "Retry"
    FAILURE = "Failure"


@dataclass(frozen=True)
class Delivery:
    """The results of one job for one destination.

    Attributes
    ----------
    job: str
        The job's identifier.
    destination: str
        Name in Orthanc's DicomModalities.
    state: DeliveryState
        How far it is.
    attempts: int
        Failed attempts so far.
    error: str
        Why the last attempt failed, or what could not be sent, in a sentence.
    """

    job: str
    destination: str
    state: DeliveryState
    attempts: int
    error: str

    def to_dict(self) -> dict[str, Any]:
        """As it is shown in the job."""
        return {
            "Destination": self.destination,
            "State": str(self.state),
            "Attempts": self.attempts,
            "Error": self.error,
        }


class DeliveryStore:
    """The deliveries in a database, as one Orthanc sees them; safe to use from any thread.

    Parameters
    ----------
    database: Database
        Where they are kept.
    me: str
        Name of this Orthanc since its start, as in `Servers`.
    """

    def __init__(self, database: Database, me: str) -> None:
        self._database = database
        self._me = me

    def add(self, job_id: str, destinations: Sequence[str]) -> None:
        """Have the job's results sent to these destinations once it has succeeded."""
        for destination in destinations:
            row = {"job": job_id, "destination": destination, "state": DeliveryState.PENDING}
            new = {"attempts": 0, "error": "", "not_before": ""}
            self._database.insert("deliveries", row | new)
            # One that had ended for want of results may get those of another analysis.
            self._database.change(
                "UPDATE deliveries SET state = ?, attempts = 0, error = '', not_before = '' "
                "WHERE job = ? AND destination = ? AND state IN (?, ?) AND error != ''",
                (DeliveryState.PENDING, job_id, destination, DeliveryState.SUCCESS, DeliveryState.FAILURE),
            )

    def renew(self, job_id: str) -> None:
        """Have the results of a job that begins anew sent to those too who have the earlier ones."""
        new = {"state": DeliveryState.PENDING, "attempts": 0, "error": "", "not_before": ""}
        self._database.update("deliveries", {"job": job_id, "state": DeliveryState.SUCCESS}, new)

    def of_job(self, job_id: str) -> list[Delivery]:
        """The deliveries of one job."""
        return self._select("WHERE job = ? ORDER BY destination", (job_id,))

    def take(self) -> list[tuple[Delivery, list[str]]]:
        """Deliveries to be tried now and by nobody else, each with the Orthanc ids of the results."""
        due = (DeliveryState.PENDING, DeliveryState.RETRY, timestamp(), State.SUCCESS)
        where = "state IN (?, ?) AND not_before <= ? AND job IN (SELECT id FROM jobs WHERE state = ?) AND server = ?"
        if self._select(f"WHERE {where}", (*due, "")):
            self._database.change(f"UPDATE deliveries SET server = ? WHERE {where}", (self._me, *due, ""))  # noqa: S608
        # Among them are those taken earlier whose sending was not begun, for the database failed.
        rows = self._database.select(
            "SELECT d.job, d.destination, d.state, d.attempts, d.error, j.results FROM deliveries d "
            "JOIN jobs j ON j.id = d.job WHERE d.server = ? ORDER BY j.completed",
            (self._me,),
        )
        return [(_delivery(row), [result["ID"] for result in json.loads(row[5])]) for row in rows]

    def succeed(self, delivery: Delivery, left_out: str = "") -> None:
        """Note that everything arrived, or what did not exist any more, in a sentence."""
        self._release(delivery, state=DeliveryState.SUCCESS, error=left_out)

    def retry_later(self, delivery: Delivery, sentence: str) -> None:
        """Note why an attempt failed; the next one follows after a growing delay, for as long as it takes."""
        attempts = delivery.attempts + 1
        self._release(
            delivery, state=DeliveryState.RETRY, attempts=attempts, error=sentence, not_before=due_after(attempts)
        )

    def give_up(self, delivery: Delivery, sentence: str) -> None:
        """Note why there is nothing to be sent any more."""
        self._release(delivery, state=DeliveryState.FAILURE, attempts=delivery.attempts + 1, error=sentence)

    def recover(self, alive: Collection[str]) -> None:
        """Put back what was on its way where Orthanc died.

        Parameters
        ----------
        alive: Collection[str]
            The Orthancs that live.
        """
        for (server,) in self._database.select("SELECT DISTINCT server FROM deliveries WHERE server != ''"):
            if server not in alive:
                self._database.update("deliveries", {"server": server}, {"server": ""})

    def _release(self, delivery: Delivery, **values: object) -> None:
        """Let go of a delivery that was tried here."""
        mine = {"job": delivery.job, "destination": delivery.destination, "server": self._me}
        self._database.update("deliveries", mine, {**values, "server": ""})

    def failing(self) -> list[Delivery]:
        """Deliveries whose last attempt failed."""
        return self._select("WHERE state = ? ORDER BY not_before", (DeliveryState.RETRY,))

    def _select(self, clause: str, values: Sequence[object]) -> list[Delivery]:
        rows = self._database.select(
            f"SELECT job, destination, state, attempts, error FROM deliveries {clause}",  # noqa: S608 - constant clauses
            values,
        )
        return [_delivery(row) for row in rows]


def _delivery(row: Sequence[Any]) -> Delivery:
    return Delivery(str(row[0]), str(row[1]), DeliveryState(row[2]), int(row[3]), str(row[4]))


class Courier(threading.Thread):
    """The thread that has Orthanc send results, and looks whether they arrived.

    Orthanc's own asynchronous jobs do the sending: a long call into Orthanc from here would hold up all Python in it.

    Parameters
    ----------
    deliveries: DeliveryStore
        What is to be sent.
    pacs: Pacs
        Orthanc.
    log: Callable
        Takes a line without names of patients.
    """

    def __init__(self, deliveries: DeliveryStore, pacs: Pacs, log: Callable[[str], None]) -> None:
        super().__init__(name="covid-courier", daemon=True)
        self._deliveries = deliveries
        self._pacs = pacs
        self._log = log
        self._stop_asked = threading.Event()
        # By job and destination: what is on its way, Orthanc's job that sends it, and what is left out.
        self._sending: dict[tuple[str, str], tuple[Delivery, str, str]] = {}

    def stop(self) -> None:
        """Ask the thread to end soon; what has not arrived is sent after the next start."""
        self._stop_asked.set()

    def run(self) -> None:
        """Send what is due until stopped."""
        while not self._stop_asked.wait(POLL_S if self._sending else IDLE_S):
            try:
                self.send_due()
            except Exception as error:  # noqa: BLE001 - the thread outlives a full disk; what is due stays due
                self._log(f"Deliveries cannot be kept: {type(error).__name__}: {error}")

    def send_due(self) -> None:
        """Have all that is due sent, and look which of what is on its way arrived or failed."""
        for key, sending in list(self._sending.items()):
            if self._ended(*sending):
                del self._sending[key]
        for delivery, instances in self._deliveries.take():
            if (delivery.job, delivery.destination) not in self._sending:
                self._begin(delivery, instances)

    def _begin(self, delivery: Delivery, instances: Sequence[str]) -> None:
        """Have Orthanc send those results that it still holds."""
        try:
            stored = self._pacs.stored(instances)
            if not stored:
                sentence = f"The results were deleted before they could be sent to {delivery.destination}."
                self._deliveries.give_up(delivery, sentence)
                self._log(f"Job {delivery.job}: {sentence}")
                return
            # Orthanc 1.10.1 that tells of its end takes no job before that is heard, which needs the lock held here.
            if self._stop_asked.is_set():
                return
            job = self._pacs.send(delivery.destination, stored)
        except CovidCtError as error:
            self._fail(delivery, str(error))
            return
        deleted = len(instances) - len(stored)
        left_out = f"{deleted} of {len(instances)} results were deleted before they could be sent." if deleted else ""
        self._sending[delivery.job, delivery.destination] = delivery, job, left_out

    def _ended(self, delivery: Delivery, orthanc_job: str, left_out: str) -> bool:
        try:
            state, error = self._pacs.job_state(orthanc_job)
        except CovidCtError:
            # Orthanc keeps ten ended jobs by default, so a busy one may have forgotten this one.
            state, error = "Forgotten", "Orthanc forgot how the transfer ended; it is repeated"
        if state == "Success":
            self._deliveries.succeed(delivery, left_out)
            self._log(f"Job {delivery.job}: results delivered to {delivery.destination}. {left_out}".rstrip(". "))
        elif state in ("Failure", "Forgotten"):
            self._fail(delivery, error)
        return state in ("Success", "Failure", "Forgotten")

    def _fail(self, delivery: Delivery, error: str) -> None:
        """Note a failed attempt."""
        sentence = f"The results could not be sent to {delivery.destination}: {error.rstrip('.')}."
        self._deliveries.retry_later(delivery, sentence)
        self._log(f"Job {delivery.job}: {sentence}")
