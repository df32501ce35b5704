"""Jobs: what is asked for, and how far it is."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from covid_ct.errors import Reason
from covid_ct.server.database import seconds_between, timestamp

ORTHANC_ERRORS = {"Success": 0, "InternalError": -1, "CanceledJob": 37, "BadFileFormat": 15, "UnknownResource": 17}
"""Orthanc's own error codes, for the fields `ErrorCode` and `ErrorDetails`."""


class State(StrEnum):
    """States of a job, as in Orthanc's `/jobs`."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCESS = "Success"
    FAILURE = "Failure"
    RETRY = "Retry"


class Trigger(StrEnum):
    """What asked for an analysis."""

    STABLE_SERIES = "StableSeries"
    CALLED_AET = "CalledAET"
    SENT_TO_AET = "SentToAET"
    REST = "Rest"


class Failure(StrEnum):
    """Why a job failed whose series may be analysed; the codes of series that may not are `Reason`."""

    CANCELLED = "Cancelled"
    SERIES_CHANGED = "SeriesChanged"
    MODELS_CHANGED = "ModelsChanged"
    FILTERED_OUT = "FilteredOut"
    MODEL_ERROR = "ModelError"
    INTERNAL_ERROR = "InternalError"
    CRASHED_REPEATEDLY = "CrashedRepeatedly"


@dataclass(frozen=True)
class Job:
    """One analysis of one series in one state of completeness.

    Attributes
    ----------
    id: str
        Derived from the series' instances and all that makes its results, so that the same work has one job.
    series: str
        Orthanc id of the series.
    series_uid: str
        SeriesInstanceUID.
    trigger: Trigger
        What asked for it.
    state: State
        As in Orthanc's `/jobs`.
    stage: str
        What is being done, or was when the job ended.
    progress: float
        0-1.
    created, started, completed: str
        Orthanc's notation of UTC times; empty where not yet.
    attempts: int
        How often it was begun.
    crashes: int
        How often the process died while it was read or analysed.
    reason: str
        Code of a failure, of `Reason` or `Failure`; empty without one.
    error: str
        The failure in a sentence.
    not_before: str
        Time before which a job in `Retry` is left alone.
    findings: dict
        As `Findings.to_dict`; empty before success.
    results: list
        `Kind`, `ID`, `Path` and `ParentSeries` of each stored object.
    server: str
        The Orthanc that does it or did it; empty while it waits.
    series_updated: str
        When the last image of the series had come, by Orthanc's database, as the job was made or last begun.
    fingerprint: str
        All else that makes the results: models, version, settings. Empty in a job of a version that did not keep it.
    """

    id: str
    series: str
    series_uid: str
    trigger: Trigger
    state: State = State.PENDING
    stage: str = "waiting"
    progress: float = 0.0
    created: str = ""
    started: str = ""
    completed: str = ""
    attempts: int = 0
    crashes: int = 0
    reason: str = ""
    error: str = ""
    not_before: str = ""
    findings: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, str]] = field(default_factory=list)
    server: str = ""
    series_updated: str = ""
    fingerprint: str = ""

    @property
    def refused(self) -> bool:
        """Whether it failed for what its series is, so that trying again is of no use."""
        return self.state == State.FAILURE and self.reason in set(Reason)

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in (State.SUCCESS, State.FAILURE)

    def to_dict(self) -> dict[str, Any]:
        """The job with the fields of Orthanc's `/jobs/{id}`."""
        error = self._error_name
        answer: dict[str, Any] = {
            "ID": self.id,
            "Type": "CovidCtAnalysis",
            "State": str(self.state),
            "Progress": round(100 * self.progress),
            "Priority": 0,
            "CreationTime": self.created,
            "Timestamp": timestamp(),
            "EffectiveRuntime": seconds_between(self.started, self.completed or timestamp()) if self.started else 0.0,
            "ErrorCode": ORTHANC_ERRORS[error],
            "ErrorDescription": self.error or "Success",
            "ErrorDetails": error if self.error else "",
            "Content": {
                "Series": self.series,
                "SeriesInstanceUID": self.series_uid,
                "Trigger": str(self.trigger),
                "Stage": self.stage,
                "Attempts": self.attempts,
                "Server": self.server,
                "Reason": self.reason,
                "Findings": self.findings,
                "Results": self.results,
            },
        }
        if self.ended:
            answer["CompletionTime"] = self.completed
        return answer

    @property
    def _error_name(self) -> str:
        if not self.error:
            return "Success"
        if self.refused:
            return "BadFileFormat"
        named = {str(Failure.CANCELLED): "CanceledJob", str(Failure.SERIES_CHANGED): "UnknownResource"}
        return named.get(self.reason, "InternalError")
