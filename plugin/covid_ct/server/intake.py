"""From an event or a request to a job: which series are accepted, and under which id."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from covid_ct.errors import Reason, SeriesRefused
from covid_ct.series.geometry import arrange
from covid_ct.series.headers import check_series
from covid_ct.server.configuration import Configuration
from covid_ct.server.database import timestamp
from covid_ct.server.deliveries import DeliveryStore
from covid_ct.server.job_store import JobStore
from covid_ct.server.jobs import Job, State, Trigger
from covid_ct.server.pacs import AT_ONCE, Pacs, same_title
from covid_ct.server.records import SeriesRecord, series_header
from covid_ct.server.requests import AnalyzeRequest


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
    deliveries: DeliveryStore
        Where it is kept who gets the results.
    configuration: Configuration
        What is accepted, and who gets the results of everything.
    fingerprint: str
        All that makes the results, but for the series itself.
    log: Callable
        Takes a line without names of patients.
    """

    pacs: Pacs
    jobs: JobStore
    deliveries: DeliveryStore
    configuration: Configuration
    fingerprint: str
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
        study = self.pacs.find_study(request.identifier)
        records = [self.pacs.series(series) for series in self.pacs.series_of_study(study)]
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
        return self._refuse(record, trigger, refusal) if refusal else self._accept(record, trigger)

    def consider(self, series: str) -> Job | None:
        """The job of a series that became stable, if it is to be analysed unasked or was sent to one of our AE titles.

        Raises
        ------
        NotFoundError
            If Orthanc no longer holds the series.
        """
        record = self.pacs.series(series)
        refusal = self._refusal(record)
        if refusal is not None and refusal.reason == Reason.OWN_RESULT:
            # Results that another Orthanc with this plugin sent to our AE title ask for nothing.
            return None
        # A series that cannot be analysed may be of any size, and Orthanc takes longer for each image of a large one.
        called = self._called(record.instances if refusal is None else record.instances[:AT_ONCE])
        if called is not None:
            sender = self.pacs.sender(called)
            recipients = () if sender is None else (sender,)
            return (
                self._refuse(record, Trigger.CALLED_AET, refusal)
                if refusal
                else self._accept(record, Trigger.CALLED_AET, recipients)
            )
        if refusal is not None or not self.configuration.automatic:
            return None
        return self._accept(record, Trigger.STABLE_SERIES)

    def consider_sent(self, orthanc_job: str) -> list[Job]:
        """The jobs of the series that Orthanc itself sent to one of our AE titles."""
        title, resources = self.pacs.sent_to(orthanc_job)
        if not self._is_ours(title):
            return []
        series = dict.fromkeys(series for resource in resources for series in self.pacs.series_under(resource))
        records = [self.pacs.series(one) for one in series]
        asked = [(record, self._refusal(record)) for record in records]
        return [
            self._refuse(record, Trigger.SENT_TO_AET, refusal) if refusal else self._accept(record, Trigger.SENT_TO_AET)
            for record, refusal in asked
            if refusal is None or refusal.reason != Reason.OWN_RESULT
        ]

    def is_current(self, job: Job) -> bool:
        """Whether the job's analysis, as it was begun, is the one that its series would be given now.

        Raises
        ------
        NotFoundError
            If Orthanc no longer holds the series.
        """
        record = self.pacs.series(job.series)
        return self._job(record, job.trigger).id == job.id and not _came_anew(job, record)

    def may_begin_anew(self, job: Job) -> bool:
        """Whether a job is still the one that its series would be given now.

        Raises
        ------
        NotFoundError
            If Orthanc no longer holds the series.
        """
        record = self.pacs.series(self.pacs.find_series(job.series))
        return self._job(record, job.trigger).id == job.id

    def _called(self, instances: Sequence[str]) -> str | None:
        """The first of some instances that was sent to one of our AE titles."""
        if not self.configuration.aet_titles:
            return None
        metadata = self.pacs.metadata(instances)
        return next((instance for instance, values in metadata if self._is_ours(values.get("CalledAET", ""))), None)

    def _is_ours(self, title: str) -> bool:
        """Whether an AE title asks for an analysis."""
        return any(same_title(title, own) for own in self.configuration.aet_titles)

    def _refusal(self, record: SeriesRecord) -> SeriesRefused | None:
        """Why the headers in Orthanc's database forbid the analysis of a series, or nothing."""
        rules = self.configuration.series_rules
        try:
            image = self.pacs.image_tags(record)
            check_series(series_header(record, image), rules)
            # Only now all slices: there may have been far too many.
            arrange(record.uid, [one.header for one in self.pacs.slices(record, image)], rules)
        except SeriesRefused as refusal:
            return refusal
        except RecursionError:
            return SeriesRefused(
                Reason.BAD_HEADER,
                f"The attributes of series {record.uid} are nested too deeply to be read; send it from its source.",
            )
        return None

    def _job(self, record: SeriesRecord, trigger: Trigger) -> Job:
        return Job(
            job_id(record.instances, self.fingerprint), record.id, record.uid, trigger,
            series_updated=timestamp(record.updated), fingerprint=self.fingerprint,
        )  # fmt: skip

    def _refuse(self, record: SeriesRecord, trigger: Trigger, refusal: SeriesRefused) -> Job:
        """The job, in Failure, of a series that was asked for and cannot be analysed."""
        now = timestamp()
        job = replace(
            self._job(record, trigger),
            state=State.FAILURE, stage="reading", created=now, completed=now, reason=refusal.reason, error=str(refusal),
        )  # fmt: skip
        known = self.jobs.add(job)
        # Where it came anew, the worker says what is wrong with it now.
        return self._begin_anew(known) if known.ended and _came_anew(known, record) else known

    def _accept(self, record: SeriesRecord, trigger: Trigger, recipients: tuple[str, ...] = ()) -> Job:
        """The job of a series that passed the header checks: the one that it has, or a new one."""
        new = self._job(record, trigger)
        # First who gets the results: the job may succeed before the next statement.
        self.deliveries.add(new.id, (*self.configuration.destinations, *recipients))
        known = self.jobs.get(new.id)
        if known is None:
            self.log(f"Job {new.id}: series {record.id} accepted ({trigger})")
            return self.jobs.add(new)
        if known.ended and _came_anew(known, record):
            return self._begin_anew(known)
        if trigger != Trigger.REST:
            return known
        lost = known.state == State.SUCCESS and not (
            self.pacs.has_instances([item["ID"] for item in known.results]) and self.pacs.findings(record.id)
        )
        # What was refused by its headers passes them now: the rules have changed since.
        failed = known.state == State.FAILURE and (not known.refused or known.attempts == 0)
        return self.jobs.requeue(known.id) if lost or failed else known

    def _begin_anew(self, job: Job) -> Job:
        """Have the job of a series that came anew done once more, for all that got its results."""
        self.log(f"Job {job.id}: series {job.series} came anew")
        self.deliveries.renew(job.id)
        return self.jobs.requeue(job.id)


def _came_anew(job: Job, record: SeriesRecord) -> bool:
    """Whether images came to a job's series since the job began, such as where it was deleted and sent again.

    Images with the UIDs of those before, for which the job is the same, may have other content.
    """
    return job.series_updated != timestamp(record.updated)
