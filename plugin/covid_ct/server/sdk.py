"""The part of Orthanc's Python plugin SDK that this package uses.

The real module `orthanc` exists only inside Orthanc, so it is handed in; a fake stands in for it in tests, and one test
on a real server holds both to these protocols. Names are the SDK's own (https://orthanc.uclouvain.be/book/plugins/python.html).
"""

from collections.abc import Callable
from typing import Any, Protocol

OnChange = Callable[[int, int, str], None]
RestCallback = Callable[..., None]


class RestOutput(Protocol):
    """What a REST callback answers through."""

    def AnswerBuffer(self, body: str | bytes, mime: str) -> None:  # noqa: N802
        """Answer 200 with a body."""

    def SendHttpStatus(self, *args: Any) -> None:  # noqa: N802
        """Answer another status: (code, text, bytes) up to plugin 4.1, (code, body) from 4.2."""

    def SendMethodNotAllowed(self, allowed: str) -> None:  # noqa: N802
        """Answer 405."""

    def SetHttpHeader(self, key: str, value: str) -> None:  # noqa: N802
        """Add a header to the answer."""


class ChangeType(Protocol):
    """Which event OnChange tells of."""

    STABLE_SERIES: int
    JOB_SUCCESS: int
    ORTHANC_STARTED: int
    ORTHANC_STOPPED: int


class MetricsType(Protocol):
    """How a metric is gathered."""

    DEFAULT: int


class Orthanc(Protocol):
    """The module `orthanc`."""

    ChangeType: ChangeType
    MetricsType: MetricsType
    OrthancException: type[Exception]

    def GetConfiguration(self) -> str:  # noqa: N802
        """Orthanc's whole configuration as JSON."""

    def GetConfigurationPath(self) -> str:  # noqa: N802
        """Path of Orthanc's configuration file; of a folder of files, that of the folder above."""

    def RegisterOnChangeCallback(self, callback: OnChange) -> None:  # noqa: N802
        """Have a callback told of changes, one at a time, on a thread of Orthanc's."""

    def RegisterRestCallback(self, pattern: str, callback: RestCallback) -> None:  # noqa: N802
        """Serve the paths that match a regular expression."""

    def ExtendOrthancExplorer(self, script: str) -> None:  # noqa: N802
        """Add JavaScript to Orthanc Explorer."""

    def RestApiGet(self, uri: str) -> bytes:  # noqa: N802
        """GET from Orthanc's own REST API."""

    def RestApiPost(self, uri: str, body: bytes | str) -> bytes:  # noqa: N802
        """POST to Orthanc's own REST API."""

    def RestApiPut(self, uri: str, body: bytes | str) -> bytes:  # noqa: N802
        """PUT to Orthanc's own REST API."""

    def RestApiDelete(self, uri: str) -> None:  # noqa: N802
        """DELETE in Orthanc's own REST API."""

    def GetDicomForInstance(self, instance: str) -> bytes:  # noqa: N802
        """Bytes of a stored DICOM file."""

    def CreateDicomInstance(self, dicom: bytes) -> Any:  # noqa: N802
        """Parse a DICOM file, for Orthanc's decoder."""

    def SetMetricsValue(self, name: str, value: float, kind: int) -> None:  # noqa: N802
        """Set a metric of /tools/metrics-prometheus."""

    def LogError(self, message: str) -> None:  # noqa: N802
        """Log an error."""

    def LogWarning(self, message: str) -> None:  # noqa: N802
        """Log a line that shows by default."""

    def LogInfo(self, message: str) -> None:  # noqa: N802
        """Log a line that shows with --verbose."""
