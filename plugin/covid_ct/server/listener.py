"""The thread that hears what changes in Orthanc, and looks for what it may not have heard of."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from covid_ct.server.database import Database, DatabaseError
from covid_ct.server.intake import Intake
from covid_ct.server.metrics import Metrics
from covid_ct.server.pacs import AT_ONCE, NotFoundError, Pacs, SeriesChangingError

CHANGES_MARK = "changes"
"""Name under which the place in Orthanc's list of changes is kept, up to which all series were considered."""

CHANGES_PAGE = AT_ONCE
"""Changes read at a time."""

MOST_FAILURES = 3
"""Sweeps in which a series may fail to be considered before it is given up."""

SWEEP_S = 60.0
"""How often, in seconds, Orthanc's list of changes is read for series whose event was lost."""


class Listener(threading.Thread):
    """Has the intake consider what Orthanc tells of, and from time to time what came since the last time.

    Parameters
    ----------
    pacs, intake, metrics
        What it works with.
    database: Database
        Where the place in Orthanc's list of changes is kept.
    stable_age: float
        How long, in seconds, nothing has to come to a series before it is whole.
    log: Callable
        Takes a line without names of patients.
    """

    def __init__(
        self,
        *,
        pacs: Pacs,
        intake: Intake,
        metrics: Metrics,
        database: Database,
        stable_age: float,
        log: Callable[[str], None],
    ) -> None:
        super().__init__(name="covid-listener", daemon=True)
        self._pacs = pacs
        self._intake = intake
        self._metrics = metrics
        self._database = database
        self._stable_age = stable_age
        self._log = log
        self._told: queue.SimpleQueue[tuple[Callable[[str], object], str]] = queue.SimpleQueue()
        self._stop_asked = threading.Event()
        self._read_to: int | None = None
        # Series that are still to be considered, with a change from which on all that came to each is told.
        self._arriving: dict[str, int] = {}
        # In how many sweeps each of them failed.
        self._failures: Counter[str] = Counter()

    def stable(self, series: str) -> None:
        """Take note that a series is stable; returns at once."""
        self._told.put((self._intake.consider, series))

    def sent(self, orthanc_job: str) -> None:
        """Take note that one of Orthanc's jobs has ended, which may have sent a series; returns at once."""
        self._told.put((self._intake.consider_sent, orthanc_job))

    def stop(self) -> None:
        """Ask the thread to end soon; what it was told of is found again after the next start."""
        self._stop_asked.set()
        self._told.put((lambda _: None, ""))

    def run(self) -> None:
        """Listen until stopped."""
        next_sweep = 0.0
        while not self._stop_asked.is_set():
            if time.monotonic() >= next_sweep:
                arriving = self._carefully(lambda _: self.sweep(), "Orthanc's list of changes")
                next_sweep = time.monotonic() + (min(SWEEP_S, self._stable_age + 1.0) if arriving else SWEEP_S)
            try:
                told = self._told.get(timeout=max(0.0, next_sweep - time.monotonic()))
            except queue.Empty:
                continue
            if not self._stop_asked.is_set():
                self._carefully(*told)
                self._carefully(lambda _: self._metrics.count(), "Orthanc's metrics")

    def sweep(self) -> bool:
        """Consider all series that came since the last sweep; whether some are still arriving.

        A series' event is lost where Orthanc ends before it is stable; Orthanc's list of changes is not. On the very
        first start only what comes from now on is considered: nobody wants the whole archive analysed.
        """
        if self._read_to is None:
            mark, last = self._database.mark(CHANGES_MARK), self._pacs.last_change()
            # Of an index that was made anew, or put back to an earlier state, the mark is beyond the end.
            self._read_to = last if mark is None else min(mark, last)
        self._read_changes(self._read_to)
        for series in list(self._arriving):
            if not self._stop_asked.is_set() and self._settled(series):
                del self._arriving[series]
                self._failures.pop(series, None)
        self._database.set_mark(CHANGES_MARK, min(self._arriving.values(), default=self._read_to + 1) - 1)
        return bool(self._arriving)

    def _read_changes(self, since: int) -> None:
        """Note the series of all instances that came after a change; each change is read once."""
        done = False
        while not done and not self._stop_asked.is_set():
            page, done = self._pacs.changes(since, CHANGES_PAGE)
            new = [change for change in page if change.kind == "NewInstance"]
            for series in self._pacs.series_of_instances([change.id for change in new]):
                self._arriving.setdefault(series, new[0].sequence)
            if page:
                since = self._read_to = page[-1].sequence

    def _settled(self, series: str) -> bool:
        """Whether nothing remains to be done for a series: it was considered, is gone, or failed for good."""
        try:
            record = self._pacs.series(series)
        except NotFoundError:
            self._log(f"Series {series} was deleted before it was considered")
            return True
        # After a restart, or where another Orthanc receives it, a series counts as stable while it arrives.
        quiet_s = (datetime.now(UTC) - record.updated).total_seconds()
        if not record.stable or quiet_s < self._stable_age:
            return False
        try:
            self._intake.consider(series)
        except SeriesChangingError:
            # The next sweep sees what it has become.
            return False
        except DatabaseError:
            raise
        except Exception as error:  # noqa: BLE001 - one bad series must not keep all later ones from being considered
            self._failures[series] += 1
            self._log(f"Series {series} could not be considered: {type(error).__name__}: {error}")
            return self._failures[series] >= MOST_FAILURES
        return True

    def _carefully(self, action: Callable[[str], object], resource: str) -> object:
        """Do something of which no failure may end the listening; what comes of it, or nothing."""
        try:
            return action(resource)
        except NotFoundError:
            self._log(f"{resource} was changed or deleted before it was considered")
        except Exception as error:  # noqa: BLE001 - one bad resource must not silence all later ones
            self._log(f"{resource} could not be considered: {type(error).__name__}: {error}")
        return None
