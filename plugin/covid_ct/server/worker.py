"""Threads that take jobs and do them: read, analyse, write, store."""

import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from zipfile import BadZipFile, ZipFile

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.errors import AnalysisCancelled, ModelError, SeriesRefused
from covid_ct.parallel import waking_cores
from covid_ct.results.objects import ResultBuilder, ResultObject, write_result
from covid_ct.series.geometry import arrange
from covid_ct.series.headers import check_series
from covid_ct.series.reading import read_series
from covid_ct.server.database import timestamp
from covid_ct.server.intake import Intake
from covid_ct.server.job_store import JobStore
from covid_ct.server.jobs import Failure, Job, State, Trigger
from covid_ct.server.metrics import Metrics
from covid_ct.server.outbox import Outbox
from covid_ct.server.pacs import FilteredOutError, NotFoundError, Pacs
from covid_ct.server.records import series_header

POLL_S = 1.0
"""How long a worker waits for a job before it looks whether it should stop, in seconds."""

NICENESS = 5
"""How far a worker stands back behind Orthanc's own threads where cores are short.

Linux keeps it for each thread, and the threads that one starts inherit it (sched(7), "The nice value").
"""

TROUBLE_S = 10.0
"""Pause of a worker after its database failed, in seconds."""

SHARES = {"reading": (0.0, 0.1), "analysing": (0.1, 0.85), "writing": (0.85, 0.95), "storing": (0.95, 1.0)}
"""Part of a job's progress that each stage takes."""

FINDINGS_FILE = "findings.json"
"""What the findings are called among the finished results."""


class StoppedError(Exception):
    """Raised in a job if Orthanc stops meanwhile."""


class Worker(threading.Thread):
    """A thread that does one job after the other, until it is stopped.

    Parameters
    ----------
    name: str
        Of the thread.
    jobs, intake, pacs, analyzer, outbox, metrics
        What it works with.
    log: Callable
        Takes a line without names of patients.
    """

    def __init__(
        self,
        name: str,
        *,
        jobs: JobStore,
        intake: Intake,
        pacs: Pacs,
        analyzer: Analyzer,
        outbox: Outbox,
        metrics: Metrics,
        log: Callable[[str], None],
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._jobs = jobs
        self._intake = intake
        self._pacs = pacs
        self._analyzer = analyzer
        self._outbox = outbox
        self._metrics = metrics
        self._log = log
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """Ask the thread to end soon; a job that it has begun is put back."""
        self._stop_asked.set()

    def run(self) -> None:
        """Do jobs until stopped."""
        os.nice(NICENESS)
        unsettled: Job | None = None
        while not self._stop_asked.is_set():
            job = None
            try:
                left = self._jobs.get(unsettled.id) if unsettled is not None else None
                if unsettled is not None and left is not None and left.state == State.RUNNING:
                    self._jobs.retry_later(
                        unsettled, Failure.INTERNAL_ERROR, "What became of the analysis could not be kept."
                    )
                unsettled = None
                job = self._jobs.take(POLL_S)
                if job is not None:
                    self._attempt(job)
            except Exception as error:  # noqa: BLE001 - the thread outlives a full disk
                unsettled = job or unsettled
                self._log(f"The jobs cannot be kept: {type(error).__name__}: {error}")
                self._stop_asked.wait(TROUBLE_S)

    def _attempt(self, job: Job) -> None:
        begin = time.monotonic()
        try:
            self._do(job)
        except StoppedError:
            self._jobs.put_back(job)
        except AnalysisCancelled:
            self._jobs.fail(job.id, Failure.CANCELLED, f"The analysis of series {job.series_uid} was cancelled.")
        except SeriesRefused as refusal:
            self._jobs.fail(job.id, refusal.reason, str(refusal))
        except NotFoundError as error:
            self._not_found(job, error)
        except FilteredOutError as error:
            self._jobs.fail(job.id, Failure.FILTERED_OUT, f"Series {job.series_uid} was analysed in vain: {error}")
        except ModelError as error:
            self._jobs.fail(job.id, Failure.MODEL_ERROR, f"Series {job.series_uid}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever a job meets, Orthanc and the other jobs go on
            self._jobs.retry_later(
                job,
                Failure.INTERNAL_ERROR,
                f"The analysis of series {job.series_uid} failed: {type(error).__name__}: {error}",
            )
        ended = self._jobs[job.id]
        self._metrics.took("job", time.monotonic() - begin)
        self._metrics.count()
        self._log(f"Job {job.id}: {ended.state} after {time.monotonic() - begin:.1f} s {ended.reason}".rstrip())

    def _not_found(self, job: Job, error: NotFoundError) -> None:
        """End a job whose series or models changed, and have the series as it is now analysed."""
        with suppress(NotFoundError):
            if self._intake.is_current(self._jobs[job.id]):
                # Orthanc's storage may fail for a while.
                self._jobs.retry_later(
                    job, Failure.INTERNAL_ERROR, f"Orthanc did not give all of series {job.series_uid}: {error}"
                )
                return
        self._outbox.empty(job.id)
        if job.fingerprint == self._intake.fingerprint:
            self._jobs.fail(
                job.id,
                Failure.SERIES_CHANGED,
                f"Series {job.series_uid} was changed or deleted before its analysis ended; "
                "what there is of it now is a new analysis.",
            )
        else:
            self._jobs.fail(
                job.id,
                Failure.MODELS_CHANGED,
                f"The models, their settings or the version of covid-ct changed before series {job.series_uid} was "
                "analysed; its analysis with what is there now is another job.",
            )
        try:
            if job.trigger in (Trigger.REST, Trigger.SENT_TO_AET):
                self._intake.ask(job.series, job.trigger)
            elif self._pacs.series(job.series).stable:
                # Who sent it gets the results. What still arrives is considered once it is whole.
                self._intake.consider(job.series)
        except NotFoundError:
            self._log(f"Job {job.id}: series {job.series} was deleted")

    def _do(self, job: Job) -> None:
        updated = timestamp(self._pacs.series(job.series).updated)
        if updated != job.series_updated:
            # Images came anew, under the UIDs of those that finished results may be of.
            self._outbox.empty(job.id)
            job = self._jobs.begin(job, updated)
        if not self._outbox.of(job.id).exists():
            self._analyse(job)
        try:
            self._store(job)
        except BadZipFile:
            # What a disk damaged is made anew by the next attempt.
            self._outbox.empty(job.id)
            raise

    def _analyse(self, job: Job) -> None:
        self._check_current(job)
        record = self._pacs.series(job.series)

        def checked() -> bool:
            if self._stop_asked.is_set():
                raise StoppedError
            return self._jobs.is_cancelled(job.id)

        # What Orthanc's database says of the slices tells which of them the first network will want.
        rules, image = self._intake.configuration.series_rules, self._pacs.image_tags(record)
        check_series(series_header(record, image), rules)
        slices = self._pacs.slices(record, image)
        arrangement = arrange(record.uid, [one.header for one in slices], rules)
        slices = [slices[index] for index in arrangement.order]
        head_start = self._analyzer.head_start([one.uid for one in slices], arrangement.affine)
        with waking_cores(), head_start:
            with self._stage(job, "reading"):
                volume = read_series(
                    # In their order, so that batches of neighbours are soon complete.
                    self._pacs.dicom([one.id for one in slices]),
                    self._pacs.decode_jpeg,
                    rules,
                    cancelled=checked,
                    seen=head_start.offer,
                )
            builder = ResultBuilder(volume, self._analyzer.identities, {"models": self._analyzer.fingerprint})
            with io.BytesIO() as buffer, ZipFile(buffer, "w") as archive:
                with self._stage(job, "analysing"):
                    findings = self._analyzer.analyze(
                        volume,
                        lambda stage, fraction: self._progress(job, "analysing", fraction, stage),
                        checked,
                        head_start,
                        lambda maps: _put(archive, builder.images(maps)),
                    )
                with self._stage(job, "writing"):
                    _put(archive, builder.documents(findings))
                    archive.writestr(FINDINGS_FILE, json.dumps(findings.to_dict()))
                    archive.close()
                    with buffer.getbuffer() as content:
                        self._outbox.put(job.id, content)

    def _store(self, job: Job) -> None:
        new: list[str] = []
        try:
            with self._stage(job, "storing"), ZipFile(self._outbox.of(job.id)) as archive:
                results = []
                for name in sorted(archive.namelist()):
                    if name != FINDINGS_FILE:
                        self._check_current(job)
                        stored = self._pacs.store(archive.read(name))
                        if stored["Status"] == "Success":
                            new.append(stored["ID"])
                        kind = name.removesuffix(".dcm")
                        results.append({"Kind": kind, **{key: stored[key] for key in ("ID", "Path", "ParentSeries")}})
                findings: dict[str, Any] = json.loads(archive.read(FINDINGS_FILE))
                document = {"Series": job.series_uid, "Job": job.id, "Results": results, **findings}
                self._check_current(job)
                self._pacs.attach_findings(job.series, document)
                # Whoever deletes the series from here on finds all results beside it.
                self._check_current(job)
                # An earlier analysis, of other images with the same UIDs, may have made more.
                made = {result["ID"] for result in results}
                self._pacs.delete_results([result["ID"] for result in job.results if result["ID"] not in made])
                self._jobs.succeed(job.id, findings, results)
        except (NotFoundError, FilteredOutError):
            # What was stored after the deletion of a study or patient brought it back; and part of the results is none.
            self._pacs.delete_results(new)
            raise
        self._outbox.empty(job.id)

    def _check_current(self, job: Job) -> None:
        """Give up a job whose series is no longer what the job was made for."""
        if not self._intake.is_current(job):
            raise NotFoundError(f"Series {job.series} is no longer what the job was made for.")

    @contextmanager
    def _stage(self, job: Job, name: str) -> Iterator[None]:
        self._progress(job, name, 0.0)
        begin = time.monotonic()
        yield
        seconds = time.monotonic() - begin
        self._metrics.took(f"stage_{name}", seconds)
        self._log(f"Job {job.id}: {name} took {seconds:.2f} s")

    def _progress(self, job: Job, stage: str, fraction: float, detail: str = "") -> None:
        begin, end = SHARES[stage]
        self._jobs.advance(job.id, detail or stage, begin + (end - begin) * fraction)


def _put(archive: ZipFile, results: Iterable[ResultObject]) -> None:
    """Write results as DICOM files into an archive."""
    for result in results:
        with io.BytesIO() as content:
            write_result(result.dataset, content)
            archive.writestr(result.name, content.getvalue())
