"""Counters and times in Orthanc's own /tools/metrics-prometheus."""

from dataclasses import dataclass

from covid_ct.server.deliveries import DeliveryStore
from covid_ct.server.job_store import JobStore
from covid_ct.server.sdk import Orthanc

PREFIX = "covid_ct"
"""Begins the name of each of our metrics."""


@dataclass(frozen=True)
class Metrics:
    """Tells Orthanc our figures. To be called from threads of our own.

    Attributes
    ----------
    orthanc: Orthanc
        The module `orthanc`.
    jobs: JobStore
        Whose jobs are counted by state.
    deliveries: DeliveryStore
        Whose failing deliveries are counted.
    """

    orthanc: Orthanc
    jobs: JobStore
    deliveries: DeliveryStore

    def count(self) -> None:
        """Set the numbers of jobs by state and of deliveries that fail."""
        for state, number in self.jobs.count().items():
            self._set(f"jobs_{state.lower()}", number)
        self._set("deliveries_failing", len(self.deliveries.failing()))

    def took(self, stage: str, seconds: float) -> None:
        """Set the time that the last job spent in a stage, or in all of them."""
        self._set(f"{stage}_seconds", seconds)

    def _set(self, name: str, value: float) -> None:
        self.orthanc.SetMetricsValue(f"{PREFIX}_{name}", value, self.orthanc.MetricsType.DEFAULT)
