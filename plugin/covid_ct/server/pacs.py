"""Orthanc as this package sees it: series read and results stored in-process, through its own API."""

import io
import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from covid_ct.errors import CovidCtError
from covid_ct.identity import is_own_result
from covid_ct.server.records import Change, Modality, SeriesRecord, SliceRecord
from covid_ct.server.sdk import Orthanc

FINDINGS_ATTACHMENT = 4217
"""User attachment of the series that holds its findings as JSON; a number, so that no configuration is needed."""

ORTHANC_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
"""Orthanc's identifiers of patients, studies, series and instances."""

DICOM_UID = re.compile(r"[0-9.]{1,64}")
"""What may be a DICOM UID."""

AT_ONCE = 100
"""Instances that are asked for together; a call for thousands would keep other threads waiting."""


class NotFoundError(CovidCtError):
    """Raised if Orthanc does not hold what was asked for."""


class SeriesChangingError(NotFoundError):
    """Raised if a series gains or loses instances while it is looked at."""


class StoreError(CovidCtError):
    """Raised if Orthanc does not store a result."""


class FilteredOutError(StoreError):
    """Raised if a script or plugin of this Orthanc refuses a result."""


class Pacs:
    """Orthanc's own API in-process. To be called from threads of our own, never from Orthanc's HTTP threads.

    Parameters
    ----------
    orthanc: Orthanc
        The module `orthanc`.
    """

    def __init__(self, orthanc: Orthanc) -> None:
        self._orthanc = orthanc

    def _get(self, uri: str) -> Any:
        try:
            return json.loads(self._orthanc.RestApiGet(uri))
        except self._orthanc.OrthancException as error:
            raise NotFoundError(f"Orthanc does not answer {uri}: {error}.") from error

    def find_series(self, identifier: str) -> str:
        """Orthanc id of a series from its Orthanc id or SeriesInstanceUID.

        Raises
        ------
        NotFoundError
            If Orthanc holds no such series, or several.
        """
        return self._find(identifier, "series", "Series")

    def find_study(self, identifier: str) -> str:
        """Orthanc id of a study from its Orthanc id or StudyInstanceUID.

        Raises
        ------
        NotFoundError
            If Orthanc holds no such study, or several.
        """
        return self._find(identifier, "studies", "Study")

    def _find(self, identifier: str, level: str, kind: str) -> str:
        if ORTHANC_ID.fullmatch(identifier) and self._exists(level, identifier):
            return identifier
        found = self._lookup(identifier, kind) if DICOM_UID.fullmatch(identifier) else []
        if len(found) > 1:
            # Of two patients, or of two studies.
            raise NotFoundError(
                f"Orthanc holds {len(found)} under /{level} with the identifier {identifier}; "
                f"give the Orthanc identifier of one: {', '.join(found)}."
            )
        if not found:
            raise NotFoundError(f"Orthanc holds nothing under /{level} with the identifier {identifier}.")
        return found[0]

    def _lookup(self, uid: str, kind: str) -> list[str]:
        """Orthanc ids of all that has a DICOM UID, of one kind, in order."""
        return sorted(str(item["ID"]) for item in self._ask("/tools/lookup", uid) if item["Type"] == kind)

    def _exists(self, level: str, orthanc_id: str) -> bool:
        try:
            self._orthanc.RestApiGet(f"/{level}/{orthanc_id}")
        except self._orthanc.OrthancException:
            return False
        return True

    def series_of_study(self, study: str) -> list[str]:
        """Orthanc ids of the series of a study."""
        return [str(series) for series in self._get(f"/studies/{study}")["Series"]]

    def series_under(self, resource: str) -> list[str]:
        """Orthanc ids of the series of a patient, study, series or instance, whichever has this Orthanc id."""
        if self._exists("series", resource):
            return [resource]
        if self._exists("instances", resource):
            return list(self.series_of_instances([resource]))
        level = "studies" if self._exists("studies", resource) else "patients"
        return [str(series["ID"]) for series in self._get(f"/{level}/{resource}/series")]

    def series_of_instances(self, instances: Sequence[str]) -> set[str]:
        """Orthanc ids of the series that instances belong to, as far as they are still there.

        Raises
        ------
        NotFoundError
            If Orthanc does not tell them.
        """
        return {str(series["ID"]) for series in self._still_there(instances, {"Level": "Series", "Metadata": False})}

    def series(self, series: str) -> SeriesRecord:
        """What the database knows of a series.

        Raises
        ------
        NotFoundError
            If it is gone.
        """
        return SeriesRecord.of(series, self._get(f"/series/{series}"))

    def image_tags(self, record: SeriesRecord) -> Mapping[str, Any]:
        """The tags of one image of a series, which stands for all.

        Raises
        ------
        NotFoundError
            If the series is gone.
        """
        tags: dict[str, Any] = self._get(f"/instances/{record.instances[0]}/simplified-tags")
        return tags

    def slices(self, record: SeriesRecord, image: Mapping[str, Any]) -> list[SliceRecord]:
        """All slices of a series; their size and spacing are those of one image.

        Parameters
        ----------
        record: SeriesRecord
        image: Mapping
            From `image_tags`.

        Raises
        ------
        NotFoundError
            If the series is gone.
        SeriesChangingError
            If it no longer holds just the instances of the record: Orthanc lists them one by one, while others may
            store and delete.
        """
        listed = self._get(f"/series/{record.id}/instances")
        if sorted(instance["ID"] for instance in listed) != list(record.instances):
            raise SeriesChangingError(f"Series {record.id} changed while it was looked at; ask again.")
        return [SliceRecord.of(instance, image) for instance in listed]

    def metadata(self, instances: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Each instance that is still there, with its metadata by name.

        Raises
        ------
        NotFoundError
            If Orthanc does not tell them.
        """
        for item in self._still_there(instances, {"Level": "Instance", "Metadata": True}):
            yield item["ID"], item["Metadata"]

    def _still_there(self, instances: Sequence[str], how: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What Orthanc tells of those instances that it still holds, or of what they belong to; many in one call."""
        for start in range(0, len(instances), AT_ONCE):
            wanted = {"Resources": instances[start : start + AT_ONCE], **how}
            yield from self._ask("/tools/bulk-content", json.dumps(wanted))

    def _ask(self, uri: str, body: str) -> Any:
        """What a tool of Orthanc's tells of what it holds."""
        try:
            return json.loads(self._orthanc.RestApiPost(uri, body))
        except self._orthanc.OrthancException as error:
            raise NotFoundError(f"Orthanc does not tell what it holds: {error}.") from error

    def dicom(self, instances: Sequence[str]) -> Iterator[bytes]:
        """The stored DICOM files of instances, one after the other.

        Raises
        ------
        NotFoundError
            If one is gone.
        """
        for instance in instances:
            try:
                yield self._orthanc.GetDicomForInstance(instance)
            except self._orthanc.OrthancException as error:
                raise NotFoundError(f"Instance {instance} is no longer stored in Orthanc.") from error

    def decode_jpeg(self, dicom: bytes) -> NDArray[np.integer[Any]]:
        """Stored values of a file with one frame of JPEG or JPEG-LS, by Orthanc's decoder, shape (rows, columns).

        Raises
        ------
        ValueError
            If Orthanc cannot decode it.
        """
        try:
            image = self._orthanc.CreateDicomInstance(dicom).GetInstanceDecodedFrame(0)
        except self._orthanc.OrthancException as error:
            raise ValueError(str(error)) from error
        kind = PIXEL_TYPES.get(int(image.GetImagePixelFormat()))
        if kind is None:
            raise ValueError("the image is not of one channel of 8 or 16 bits")
        rows, columns, pitch = image.GetImageHeight(), image.GetImageWidth(), image.GetImagePitch()
        lines = np.frombuffer(image.GetImageBuffer(), np.uint8).reshape(rows, pitch)
        values: NDArray[np.integer[Any]] = lines[:, : columns * kind.itemsize].copy().view(kind)
        return values

    def store(self, dicom: bytes) -> dict[str, str]:
        """Store a result; one that is already there is left as it is, unless it is ours and of other content.

        Returns
        -------
        dict
            Orthanc's answer: `ID`, `Path`, `ParentSeries`, `Status` and others.

        Raises
        ------
        StoreError
            If Orthanc refuses it, such as on a full disk.
        FilteredOutError
            If its filter of received instances does.
        """
        answer = self._store(dicom)
        if answer["Status"] == "AlreadyStored" and not self._holds(answer["ID"], dicom):
            # Of images that had the same UIDs; Orthanc replaces nothing by itself.
            self.delete_results([answer["ID"]])
            answer = self._store(dicom)
        return answer

    def _store(self, dicom: bytes) -> dict[str, str]:
        try:
            answer = json.loads(self._orthanc.RestApiPost("/instances", dicom))
        except self._orthanc.OrthancException as error:
            raise StoreError(f"Orthanc could not store a result: {error}.") from error
        if answer.get("Status") == "FilteredOut":
            modality = dcmread(io.BytesIO(dicom), specific_tags=["Modality"], stop_before_pixels=True).Modality
            raise FilteredOutError(
                f"A script or plugin of this Orthanc (ReceivedInstanceFilter) refuses objects of modality {modality}; "
                "have it let the results of covid-ct through, which are of the modalities SEG, SR, DOC and OT."
            )
        if answer.get("Status") not in ("Success", "AlreadyStored"):
            raise StoreError(f"Orthanc did not store a result: {answer.get('Status')}.")
        return {key: str(value) for key, value in answer.items()}

    def stored(self, instances: Sequence[str]) -> list[str]:
        """Those of some instances that are stored.

        Raises
        ------
        NotFoundError
            If Orthanc does not tell.
        """
        there = {item["ID"] for item in self._still_there(instances, {"Level": "Instance", "Metadata": False})}
        return [instance for instance in instances if instance in there]

    def _holds(self, instance: str, dicom: bytes) -> bool:
        """Whether Orthanc's file of an instance is just this, not even transcoded (`IngestTranscoding`)."""
        try:
            return self._orthanc.GetDicomForInstance(instance) == dicom
        except self._orthanc.OrthancException:
            return False

    def delete_results(self, instances: Sequence[str]) -> None:
        """Delete results of ours, as far as they are still there; anybody else's objects are left alone."""
        for instance in instances:
            if self._is_own_result(instance):
                with suppress(self._orthanc.OrthancException):
                    self._orthanc.RestApiDelete(f"/instances/{instance}")

    def _is_own_result(self, instance: str) -> bool:
        """Whether an instance is there and says that it is a result of ours."""
        try:
            manufacturer, model_name = (
                self._orthanc.RestApiGet(f"/instances/{instance}/content/{tag}").decode(errors="replace")
                for tag in ("0008-0070", "0008-1090")
            )
        except self._orthanc.OrthancException:
            return False
        return is_own_result(manufacturer, model_name)

    def has_instances(self, instances: Sequence[str]) -> bool:
        """Whether all of these instances are stored."""
        return self.stored(instances) == list(instances)

    def attach_findings(self, series: str, findings: dict[str, Any]) -> None:
        """Keep findings as a user attachment of their series, instead of earlier ones.

        Raises
        ------
        NotFoundError
            If the series is gone.
        StoreError
            If Orthanc refuses.
        """
        body = json.dumps(findings).encode()
        try:
            self._orthanc.RestApiPut(f"/series/{series}/attachments/{FINDINGS_ATTACHMENT}", body)
        except self._orthanc.OrthancException as error:
            if not self._exists("series", series):
                raise NotFoundError(f"Series {series} is no longer stored in Orthanc.") from error
            raise StoreError(f"Orthanc could not attach the findings to series {series}: {error}.") from error

    def findings(self, series: str) -> dict[str, Any] | None:
        """The findings attached to a series; none where the attachment is not of ours."""
        try:
            body = self._orthanc.RestApiGet(f"/series/{series}/attachments/{FINDINGS_ATTACHMENT}/data")
        except self._orthanc.OrthancException:
            return None
        try:
            findings = json.loads(body)
        except (ValueError, RecursionError):
            return None
        return findings if isinstance(findings, dict) else None

    def modalities(self) -> dict[str, Modality]:
        """The DICOM nodes that Orthanc knows, by name."""
        return {
            str(name): Modality(str(node["AET"]), str(node["Host"]))
            for name, node in self._get("/modalities?expand").items()
        }

    def sender(self, instance: str) -> str | None:
        """Name of the known node that an instance came from: its AE title and its address are those of a modality."""
        metadata = dict(self.metadata([instance])).get(instance, {})
        title, address = metadata.get("RemoteAET"), metadata.get("RemoteIP")
        for name, modality in self.modalities().items():
            if title and same_title(modality.title, title) and address in _addresses(modality.host):
                return name
        return None

    def send(self, destination: str, instances: Sequence[str]) -> str:
        """Have Orthanc send instances to a modality; the identifier of Orthanc's own job that does it.

        Raises
        ------
        NotFoundError
            If Orthanc knows no such modality, or no longer holds an instance.
        """
        if destination not in self.modalities():
            raise NotFoundError(f'Orthanc has no modality named "{destination}" in DicomModalities')
        order = {"Resources": list(instances), "Asynchronous": True}
        try:
            answer = self._orthanc.RestApiPost(f"/modalities/{destination}/store", json.dumps(order))
        except self._orthanc.OrthancException as error:
            raise NotFoundError(f"Orthanc refuses to send them ({error})") from error
        return str(json.loads(answer)["ID"])

    def job_state(self, job: str) -> tuple[str, str]:
        """State of one of Orthanc's own jobs, and what failed in it.

        Raises
        ------
        NotFoundError
            If Orthanc has forgotten it.
        """
        answer = self._get(f"/jobs/{job}")
        return str(answer["State"]), str(answer.get("ErrorDescription", ""))

    def changes(self, since: int, limit: int) -> tuple[list[Change], bool]:
        """A page of Orthanc's list of changes after a sequence number, and whether it is the last."""
        answer = self._get(f"/changes?since={since}&limit={limit}")
        page = [Change(int(line["Seq"]), line["ChangeType"], line["ID"]) for line in answer["Changes"]]
        return page, bool(answer["Done"])

    def last_change(self) -> int:
        """Sequence number of the newest change."""
        return int(self._get("/changes?last")["Last"])

    def sent_to(self, job: str) -> tuple[str, list[str]]:
        """Called AE title and resources that one of Orthanc's own jobs sent; an empty title where it sent nothing."""
        content = self._get(f"/jobs/{job}").get("Content", {})
        return str(content.get("RemoteAet", "")), [str(item) for item in content.get("ParentResources", [])]


def same_title(one: str, other: str) -> bool:
    """Whether two AE titles are the same to Orthanc, which by default compares them so."""
    return one.upper() == other.upper()


def _addresses(host: str) -> set[str]:
    """The addresses of a host by name or address."""
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, ValueError):
        # Of some that are no names, such as "10.0.0..5", Python says so by a UnicodeError.
        return {host}


PIXEL_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8),  # GRAYSCALE8
    2: np.dtype("<u2"),  # GRAYSCALE16
    3: np.dtype("<i2"),  # SIGNED_GRAYSCALE16
}
"""Numpy types of the SDK's `PixelFormat` with one channel."""
