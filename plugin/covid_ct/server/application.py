"""The plugin put together: what Orthanc tells it, and the threads that do the work."""

import json
import logging
import socket
import threading
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

from covid_ct import RESEARCH_USE_ONLY, __version__
from covid_ct.analysis.analyzer import Analyzer
from covid_ct.errors import CovidCtError
from covid_ct.server.configuration import PROVIDERS, Configuration, configuration_folder, read_configuration
from covid_ct.server.database import Database, SqliteDatabase
from covid_ct.server.deliveries import Courier, DeliveryStore
from covid_ct.server.intake import Intake
from covid_ct.server.job_store import JobStore
from covid_ct.server.listener import Listener
from covid_ct.server.metrics import Metrics
from covid_ct.server.outbox import Outbox
from covid_ct.server.pacs import Pacs
from covid_ct.server.pages import FILES
from covid_ct.server.routes import Routes
from covid_ct.server.sdk import Orthanc
from covid_ct.server.servers import Caretaker, Servers
from covid_ct.server.worker import Worker

SQLITE_FILE = "jobs.sqlite"
"""Database of an Orthanc that shares none, in the state folder."""

STOP_TIMEOUT_S = 60.0
"""How long a thread may take to end when Orthanc stops, in seconds; one batch of a network is far shorter."""


# pydicom quotes malformed values, which may be a patient's, in warnings and in its log, and both end in Orthanc's log.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module="pydicom")


class Application:
    """The plugin in one Orthanc.

    Where configuration or models are wrong, Orthanc goes on, analysis is off, and log, `/covid/status` and
    `POST /covid/analyze` say why.

    Parameters
    ----------
    orthanc: Orthanc
        The module `orthanc`.
    """

    def __init__(self, orthanc: Orthanc) -> None:
        self._orthanc = orthanc
        self._pacs = Pacs(orthanc)
        self._analysis: _Analysis | None = None
        self._problem = ""
        try:
            configuration = read_configuration(
                json.loads(orthanc.GetConfiguration()), configuration_folder(Path(orthanc.GetConfigurationPath()))
            )
            self._analysis = _Analysis(orthanc, self._pacs, configuration)
        except Exception as error:  # noqa: BLE001 - an exception here would stop Orthanc
            expected = isinstance(error, CovidCtError | OSError)
            self._problem = str(error) if expected else f"The plugin met {type(error).__name__}: {error}"
            orthanc.LogError(f"covid-ct: analysis is off: {self._problem}")
        else:
            orthanc.LogWarning(f"covid-ct {__version__} is ready. {RESEARCH_USE_ONLY}")
        self.routes = Routes(
            self._pacs,
            self._analysis.intake if self._analysis else None,
            self._status,
            self._problem,
        )

    @property
    def explorer_script(self) -> str:
        """JavaScript for Orthanc Explorer."""
        return FILES["explorer.js"].text

    def on_change(self, change: int, resource: str) -> None:
        """Take note of a change; returns at once, for Orthanc tells of one change at a time."""
        kinds = self._orthanc.ChangeType
        if change == kinds.ORTHANC_STOPPED:
            if self._analysis is not None:
                # Before anything that lets other threads have Python's lock: see `Courier.send_due`.
                self._analysis.ask_to_stop()
            self.routes.stop()
        if self._analysis is None:
            return
        if change == kinds.ORTHANC_STARTED:
            self._analysis.start()
        elif change == kinds.STABLE_SERIES:
            self._analysis.listener.stable(resource)
        elif change == kinds.JOB_SUCCESS:
            self._analysis.listener.sent(resource)
        elif change == kinds.ORTHANC_STOPPED:
            self._analysis.stop()

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "Version": __version__,
            "OnnxRuntime": onnxruntime.__version__,
            "Analysis": "off" if self._problem else "on",
            "Problem": self._problem,
            "Notice": RESEARCH_USE_ONLY,
        }
        return status | (self._analysis.status() if self._analysis else {})


class _Analysis:
    """All that exists only while configuration and models are right."""

    def __init__(self, orthanc: Orthanc, pacs: Pacs, configuration: Configuration) -> None:
        self._orthanc = orthanc
        self._configuration = configuration
        available = onnxruntime.get_available_providers()
        providers = configuration.providers or tuple(name for name in PROVIDERS.values() if name in available)
        self._analyzer = Analyzer(
            configuration.models_folder,
            providers,
            configuration.threads,
            gpu=configuration.gpu,
            engine_cache=configuration.state_folder / "engines",
            run_limit_s=configuration.model_timeout,
        )
        self._database = _open_database(configuration)
        me = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._servers = Servers(self._database, me)
        self.jobs = JobStore(self._database, me)
        self.deliveries = DeliveryStore(self._database, me)
        self._outbox = Outbox(configuration.state_folder / "outbox")
        self._caretaker = Caretaker(self._servers, self.jobs, self.deliveries, self._outbox, self._log)
        # The version is part of what makes results, and so of every UID derived from it.
        fingerprint = f"{__version__} {self._analyzer.fingerprint}"
        self.intake = Intake(pacs, self.jobs, self.deliveries, configuration, fingerprint, self._log)
        self._metrics = Metrics(orthanc, self.jobs, self.deliveries)
        self._workers = [
            Worker(
                f"covid-{number}",
                jobs=self.jobs,
                intake=self.intake,
                pacs=pacs,
                analyzer=self._analyzer,
                outbox=self._outbox,
                metrics=self._metrics,
                log=self._log,
            )
            for number in range(configuration.workers)
        ]
        self._courier = Courier(self.deliveries, pacs, self._log)
        self.listener = Listener(
            pacs=pacs,
            intake=self.intake,
            metrics=self._metrics,
            database=self._database,
            stable_age=configuration.stable_age,
            log=self._log,
        )

    def start(self) -> None:
        """Take up what an earlier run left, then work."""
        # Orthanc does not wait for engines that are being built, which may yet fail.
        threading.Thread(target=self._tell_warnings, name="covid-warnings", daemon=True).start()
        self._carefully(self._take_up, "What an earlier run left could not be taken up")
        for thread in self._threads:
            thread.start()

    def _tell_warnings(self) -> None:
        told = self._analyzer.warnings
        for warning in told:
            self._log(warning)
        self._analyzer.wait()
        for warning in self._analyzer.warnings:
            if warning not in told:
                self._log(warning)

    def _take_up(self) -> None:
        before = self._configuration.state_folder / SQLITE_FILE
        if self._database.shared and before.exists():
            # From before this Orthanc came to share a database.
            source = SqliteDatabase(before)
            self._database.copy_jobs(source)
            source.close()
            before.rename(before.with_suffix(".moved"))
        self._caretaker.look()

    @property
    def _threads(self) -> tuple[threading.Thread, ...]:
        return (self.listener, *self._workers, self._courier, self._caretaker)

    def ask_to_stop(self) -> None:
        """Tell all threads to end, without waiting for any."""
        self._courier.stop()
        self.listener.stop()
        for worker in self._workers:
            worker.stop()
        self._caretaker.stop()

    def stop(self) -> None:
        """End all threads, which were asked to; jobs that have not ended go on after the next start."""
        self._database.wake()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(STOP_TIMEOUT_S)
        if not any(thread.is_alive() for thread in self._threads):
            self._carefully(self._servers.leave, "The other servers could not be told of the end")
            self._database.close()

    def status(self) -> dict[str, Any]:
        return {
            "Models": [
                {
                    "Role": model.role,
                    "Name": model.name,
                    "Version": model.version,
                    "Sha256": model.sha256,
                    "Provider": model.provider,
                    "Accuracy": model.accuracy,
                }
                for model in self._analyzer.identities
            ],
            "ProviderWarnings": list(self._analyzer.warnings),
            "Automatic": self._configuration.automatic,
            "AETitles": list(self._configuration.aet_titles),
            "Destinations": list(self._configuration.destinations),
            "Servers": sorted(self._servers.alive()),
            "Jobs": self.jobs.count(),
            "FailingDeliveries": [{"Job": one.job, **one.to_dict()} for one in self.deliveries.failing()],
            "LastErrors": [
                {"Job": job.id, "Reason": job.reason, "Message": job.error} for job in self.jobs.failures(limit=5)
            ],
        }  # fmt: skip

    def _carefully(self, action: Callable[[], None], failed: str) -> None:
        """Do something that may fail without keeping Orthanc from its work."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever it meets, Orthanc goes on
            self._orthanc.LogError(f"covid-ct: {failed}: {type(error).__name__}: {error}")

    def _log(self, line: str) -> None:
        self._orthanc.LogWarning(f"covid-ct: {line}")


def _open_database(configuration: Configuration) -> Database:
    """The database that Orthanc's own index is in where that can be shared, or else a file."""
    if configuration.postgresql is None:
        return SqliteDatabase(configuration.state_folder / SQLITE_FILE)
    # Brings PostgreSQL's and OpenSSL's libraries into the process, so not where nobody needs it.
    from covid_ct.server.postgresql import PostgresqlDatabase

    return PostgresqlDatabase(configuration.postgresql)
