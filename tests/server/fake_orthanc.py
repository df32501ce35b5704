"""Stands in for the module `orthanc`: the same names, a PACS of a few dictionaries behind them.

`tests/orthanc/test_sdk.py` holds the real module to the same protocol.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pydicom


class FakeOrthancError(Exception):
    """Raised as the SDK raises: an error code and a text."""


def orthanc_id(*uids: str) -> str:
    """Identifiers as Orthanc makes them: a SHA-1 in five groups."""
    digest = hashlib.sha1("|".join(uids).encode()).hexdigest()
    return "-".join(digest[i : i + 8] for i in range(0, 40, 8))


class FakeOrthanc:
    ChangeType = SimpleNamespace(STABLE_SERIES=8, JOB_SUCCESS=17, ORTHANC_STARTED=10, ORTHANC_STOPPED=11)
    MetricsType = SimpleNamespace(DEFAULT=0)
    OrthancException = FakeOrthancError

    def __init__(self, configuration: dict[str, Any] | None = None) -> None:
        self.configuration = configuration or {}
        self.instances: dict[str, bytes] = {}
        self.headers: dict[str, pydicom.Dataset] = {}
        self.metadata: dict[tuple[str, str], str] = {}
        self.attachments: dict[str, bytes] = {}
        self.jobs: dict[str, Any] = {}
        self.modalities: dict[str, dict[str, Any]] = {}
        self.unstable: set[str] = set()
        self.last_update = "20260101T000000"
        self.changes: list[dict[str, Any]] = []
        self.log: list[str] = []
        self.routes: dict[str, Callable[..., None]] = {}
        self.metrics: dict[str, float] = {}
        self.refuse_store = ""
        """An error to raise instead of storing."""
        self.filtered_out = ""
        """A modality that a script refuses."""
        self.sent: list[tuple[str, list[str]]] = []
        self.unreachable: set[str] = set()

    def GetConfiguration(self) -> str:
        return json.dumps(self.configuration)

    def GetConfigurationPath(self) -> str:
        return "/etc"

    def RegisterOnChangeCallback(self, callback: Callable[[int, int, str], None]) -> None:
        self.on_change = callback

    def RegisterRestCallback(self, pattern: str, callback: Callable[..., None]) -> None:
        self.routes[pattern] = callback

    def ExtendOrthancExplorer(self, script: str) -> None:
        self.explorer = script

    def LogError(self, message: str) -> None:
        self.log.append(message)

    LogWarning = LogInfo = LogError

    def SetMetricsValue(self, name: str, value: float, kind: int) -> None:
        self.metrics[name] = value

    def GetDicomForInstance(self, instance: str) -> bytes:
        if instance not in self.instances:
            raise FakeOrthancError(17, "Unknown resource")
        return self.instances[instance]

    def CreateDicomInstance(self, dicom: bytes) -> Any:
        raise FakeOrthancError(15, "Bad file format")

    def RestApiGet(self, uri: str) -> bytes:
        path, _, query = uri.partition("?")
        parts = path.strip("/").split("/")
        answer = self._answer(parts, query)
        if answer is None:
            raise FakeOrthancError(17, "Unknown resource")
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def RestApiPost(self, uri: str, body: bytes | str) -> bytes:
        if uri == "/instances":
            if self.refuse_store:
                raise FakeOrthancError(21, self.refuse_store)
            assert isinstance(body, bytes)
            if pydicom.dcmread(io.BytesIO(body), stop_before_pixels=True).Modality == self.filtered_out:
                return json.dumps({"Status": "FilteredOut"}).encode()
            return json.dumps(self.store(body)).encode()
        if uri == "/tools/lookup":
            found = {
                (kind, identify(header))
                for kind, identify in (("Series", self._series), ("Study", self._study))
                for header in self.headers.values()
                if header[f"{kind}InstanceUID"].value == body
            }
            return json.dumps([{"Type": kind, "ID": one} for kind, one in found]).encode()
        if uri == "/tools/bulk-content":
            document = json.loads(body)
            there = [one for one in document["Resources"] if one in self.headers]
            if document["Level"] == "Series":
                series = {self._series(self.headers[one]) for one in there}
                return json.dumps([self._describe_series(one) for one in sorted(series)]).encode()
            return json.dumps([self._with_metadata(one) for one in there]).encode()
        if match := re.fullmatch("/modalities/([^/]+)/store", uri):
            if match[1] in self.unreachable:
                raise FakeOrthancError(9, "Error in the network protocol")
            document = json.loads(body)
            self.sent.append((match[1], document["Resources"]))
            job = f"sending-{len(self.sent)}"
            self.jobs[job] = {"State": "Success", "ErrorDescription": "Success"}
            return json.dumps({"ID": job}).encode()
        raise FakeOrthancError(17, "Unknown resource")

    def _with_metadata(self, instance: str) -> dict[str, Any]:
        metadata = {name: value for (owner, name), value in self.metadata.items() if owner == instance}
        return {"ID": instance, "Metadata": metadata}

    def RestApiPut(self, uri: str, body: bytes | str) -> bytes:
        assert re.fullmatch("/series/[^/]+/attachments/[0-9]+", uri)
        self.attachments[uri] = body if isinstance(body, bytes) else body.encode()
        return b"{}"

    def RestApiDelete(self, uri: str) -> None:
        match = re.fullmatch("/instances/([^/]+)", uri)
        assert match
        if match[1] not in self.instances:
            raise FakeOrthancError(17, "Unknown resource")
        self.delete(match[1])

    def store(self, dicom: bytes, called: str = "ORTHANC") -> dict[str, str]:
        """Keep an instance that is not there yet, as C-STORE or REST would."""
        header = pydicom.dcmread(io.BytesIO(dicom), stop_before_pixels=True)
        instance = orthanc_id(
            header.PatientID, header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID
        )
        known = instance in self.instances
        if not known:
            self.instances[instance] = dicom
            self.headers[instance] = header
            self.metadata[instance, "CalledAET"] = called
            self.changes.append({"Seq": len(self.changes) + 1, "ChangeType": "NewInstance", "ID": instance})
        return {
            "ID": instance,
            "Path": f"/instances/{instance}",
            "ParentSeries": self._series(header),
            "Status": "AlreadyStored" if known else "Success",
        }

    def delete(self, instance: str) -> None:
        del self.instances[instance], self.headers[instance]

    def _series(self, header: pydicom.Dataset) -> str:
        return orthanc_id(header.PatientID, header.StudyInstanceUID, header.SeriesInstanceUID)

    def _study(self, header: pydicom.Dataset) -> str:
        return orthanc_id(header.PatientID, header.StudyInstanceUID)

    def _of_series(self, series: str) -> list[str]:
        return [instance for instance, header in self.headers.items() if self._series(header) == series]

    def _answer(self, parts: list[str], query: str) -> Any:
        match parts:
            case ["changes"] if query == "last":
                return {"Last": len(self.changes), "Changes": self.changes[-1:], "Done": True}
            case ["changes"]:
                bounds = dict(item.split("=") for item in query.split("&"))
                since, limit = int(bounds["since"]), int(bounds["limit"])
                page = self.changes[since : since + limit]
                return {"Changes": page, "Done": since + len(page) == len(self.changes), "Last": since + len(page)}
            case ["modalities"]:
                return self.modalities
            case ["jobs", job]:
                return self.jobs.get(job)
            case ["series", series, "attachments", _, "data"]:
                return self.attachments.get(f"/series/{series}/attachments/{parts[3]}")
            case ["series", series, "instances"]:
                return [
                    {"ID": instance, "MainDicomTags": main_tags(self.headers[instance])}
                    for instance in self._of_series(series)
                ] or None
            case ["series", series]:
                return self._describe_series(series)
            case ["studies", study]:
                found = {self._series(h) for h in self.headers.values() if self._study(h) == study}
                return {"ID": study, "Series": sorted(found)} if found else None
            case ["instances", instance, "simplified-tags"]:
                header = self.headers.get(instance)
                return None if header is None else main_tags(header)
            case ["instances", instance, "content", tag]:
                header = self.headers.get(instance)
                element = None if header is None else header.get(int(tag.replace("-", ""), 16))
                return None if element is None else str(element.value).encode()
            case ["instances", instance]:
                header = self.headers.get(instance)
                return None if header is None else {"ID": instance, "ParentSeries": self._series(header)}
        return None

    def _describe_series(self, series: str) -> Any:
        instances = self._of_series(series)
        if not instances:
            return None
        return {
            "ID": series,
            "Instances": instances,
            "IsStable": series not in self.unstable,
            "LastUpdate": self.last_update,
            "MainDicomTags": main_tags(self.headers[instances[0]]),
        }


def main_tags(header: pydicom.Dataset) -> dict[str, str]:
    """Tags by keyword, as Orthanc gives them: texts, multiple values joined by a backslash, which is a yen in JIS."""
    separator = "¥" if "IR 13" in str(header.get("SpecificCharacterSet", "")).replace("_", " ") else "\\"
    return {
        element.keyword: separator.join(map(str, element.value)) if element.VM > 1 else str(element.value)
        for element in header
        if element.VR != "SQ" and element.keyword
    }
