"""From an event or a request to a job: which series are accepted, and under which id."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from covid_ct.errors import SeriesRefused
from covid_ct.series.headers import SeriesRules, check_series
from covid_ct.server.jobs import Job, JobStore, State, Trigger
from covid_ct.server.pacs import NotFoundError, Pacs, SeriesRecord
from covid_ct.server.requests import AnalyzeRequest

CHANGES_MARK = "changes"
"""Name under which the place in Orthanc's list of changes is kept, up to which all series were considered."""

CHANGES_PAGE = 1000
"""Changes read at a time."""


def job_id(instances: tuple[str, ...], fingerprint: str) -> str:
    """Identifier of the one job that analyses these instances with these models and this version.

    Parameters
    ----------
    instances: tuple[str, ...]
        Sorted Orthanc ids, which are themselves derived from the SOPInstanceUIDs.
    fingerprint: str
        All else that makes the results: models, version, settings.

    Returns
    -------
    str
        A UUID, as Orthanc's own jobs have.
    """
    digest = hashlib.sha256("\n".join((*instances, fingerprint)).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


@dataclass(frozen=True)
class Intake:
    """Accepts series. To be called from threads of our own.

    Attributes
    ----------
    pacs: Pacs
        Orthanc.
    jobs: JobStore
        Where accepted work is kept.
    rules: SeriesRules
        Which series may be analysed.
    fingerprint: str
        All that makes the results, but for the series itself.
    automatic: bool
        Whether stable series are analysed unasked.
    aet_titles: tuple[str, ...]
        Called AE titles that ask for an analysis.
    log: Callable
        Takes a line without names of patients.
    """

    pacs: Pacs
    jobs: JobStore
    rules: SeriesRules
    fingerprint: str
    automatic: bool
    aet_titles: tuple[str, ...]
    log: Callable[[str], None]

    def submit(self, request: AnalyzeRequest) -> list[Job]:
        """The jobs of a REST request: one for a series, one for each analysable series of a study.

        Raises
        ------
        NotFoundError
            If Orthanc does not hold the series or study.
        """
        if request.level == "Series":
            return [self.ask(self.pacs.find_series(request.identifier), Trigger.REST)]
        records = [self.pacs.series(series) for series in self.pacs.series_of_study(self.pacs.find_study(request.identifier))]
        return [self._accept(record, Trigger.REST) for record in records if self._refusal(record) is None]

    def ask(self, series: str, trigger: Trigger) -> Job:
        """The job of a series that somebody asked for; one that cannot be analysed gets a job in Failure.

        Raises
        ------
        NotFoundError
            If Orthanc does not hold the series.
        """
        record = self.pacs.series(series)
        refusal = self._refusal(record)
        if refusal is None:
            return self._accept(record, trigger)
        job = self.jobs.add(self._job(record, trigger))
        if not job.ended:
            self.jobs.fail(job.id, refusal.reason, str(refusal))
        return self.jobs[job.id]

    def consider(self, series: str) -> Job | None:
        """The job of a series that became stable, if it is to be analysed unasked or was sent to one of our AE titles."""
        record = self.pacs.series(series)
        if self._refusal(record) is not None and not self._called(record):
            return None
        if self._called(record):
            return self.ask(series, Trigger.CALLED_AET)
        return self._accept(record, Trigger.STABLE_SERIES) if self.automatic else None

    def consider_sent(self, orthanc_job: str) -> list[Job]:
        """The jobs of the series that Orthanc itself sent to one of our AE titles."""
        title, resources = self.pacs.sent_to(orthanc_job)
        if title not in self.aet_titles:
            return []
        series = [series for resource in resources for series in self.pacs.series_under(resource)]
        return [self.ask(one, Trigger.SENT_TO_AET) for one in dict.fromkeys(series)]

    def sweep(self) -> None:
        """Consider all series that came since the last sweep.

        A series' event is lost where Orthanc ends before it is stable; Orthanc's list of changes is not. On the very
        first start only what comes from now on is considered: nobody wants the whole archive analysed.
        """
        mark = self.jobs.mark(CHANGES_MARK)
        if mark is None:
            self.jobs.set_mark(CHANGES_MARK, self.pacs.last_change())
            return
        touched: dict[str, int] = {}
        done = False
        last = mark
        while not done:
            page, done = self.pacs.changes(last, CHANGES_PAGE)
            for change in page:
                last = change.sequence
                if change.kind == "NewInstance":
                    try:
                        touched.setdefault(self.pacs.series_of_instance(change.id), change.sequence)
                    except NotFoundError:
                        continue  # deleted meanwhile
        waiting = [sequence for series, sequence in touched.items() if not self._settled(series)]
        self.jobs.set_mark(CHANGES_MARK, min(waiting) - 1 if waiting else last)

    def _settled(self, series: str) -> bool:
        """Whether nothing remains to be done for a series: it was considered or is gone, not still arriving."""
        try:
            if not self.pacs.series(series).stable:
                return False
            self.consider(series)
        except NotFoundError:
            self.log(f"Series {series} was deleted before it was considered")
        return True

    def is_current(self, job: Job) -> bool:
        """Whether a job's series still holds just the instances that the job was made for."""
        return job_id(self.pacs.series(job.series).instances, self.fingerprint) == job.id

    def _called(self, record: SeriesRecord) -> bool:
        return any(self.pacs.metadata(instance, "CalledAET") in self.aet_titles for instance in record.instances)

    def _refusal(self, record: SeriesRecord) -> SeriesRefused | None:
        """Why the headers in Orthanc's database forbid the analysis of a series, or nothing."""
        raise NotImplementedError

    def _job(self, record: SeriesRecord, trigger: Trigger) -> Job:
        return Job(job_id(record.instances, self.fingerprint), record.id, record.uid, trigger)

    def _accept(self, record: SeriesRecord, trigger: Trigger) -> Job:
        """The job of a series that passed the header checks: the one that it has, or a new one."""
        new = self._job(record, trigger)
        known = self.jobs.get(new.id)
        if known is None:
            self.log(f"Job {new.id}: series {record.id} accepted ({trigger})")
            return self.jobs.add(new)
        results_missing = known.state == State.SUCCESS and not self.pacs.has_instances([r["ID"] for r in known.results])
        failed_and_asked = known.state == State.FAILURE and not known.refused and trigger == Trigger.REST
        return self.jobs.requeue(known.id) if results_missing or failed_and_asked else known
