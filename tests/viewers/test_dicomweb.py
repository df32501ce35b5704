"""DICOMweb as OHIF, VolView and Slicer's DICOMweb browser use it: QIDO finds, WADO fetches, STOW stores."""

import email
import json
import urllib.request
import uuid
from collections.abc import Callable
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread

from tests.viewers.cases import Case
from tools.orthanc_server import OrthancServer

MULTIPART = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def ask(request: urllib.request.Request) -> tuple[str, bytes]:
    with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310 - always http to loopback
        return answer.headers["Content-Type"], answer.read()


def get(server: OrthancServer, path: str, accept: str) -> tuple[str, bytes]:
    return ask(urllib.request.Request(f"{server.url}/dicom-web{path}", headers={"Accept": accept}))  # noqa: S310


def query(server: OrthancServer, path: str) -> list[dict[str, Any]]:
    _, body = get(server, path, "application/dicom+json")
    answers: list[dict[str, Any]] = json.loads(body)
    return answers


def parts(kind: str, body: bytes) -> list[Dataset]:
    """DICOM files of a multipart answer."""
    message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    files = []
    for part in message.get_payload():
        assert part.get_content_type() == "application/dicom"
        content = part.get_payload(decode=True)
        files.append(dcmread(BytesIO(content)))
    return files


def on_disk(case: Case) -> dict[str, Dataset]:
    datasets = (dcmread(path) for path in (*case.source, *case.results.values()))
    return {str(dataset.SOPInstanceUID): dataset for dataset in datasets}


def test_qido_finds_study_series_and_instances(stored: Case, server: OrthancServer) -> None:
    expected = on_disk(stored)
    (study,) = query(server, f"/studies?StudyInstanceUID={stored.study_uid}&includefield=ModalitiesInStudy")
    modalities = {str(dataset.Modality) for dataset in expected.values()}
    assert set(study["00080061"]["Value"]) == modalities
    series = query(server, f"/studies/{stored.study_uid}/series")
    assert {one["0020000E"]["Value"][0] for one in series} == {
        str(dataset.SeriesInstanceUID) for dataset in expected.values()
    }
    (segmentation,) = (
        one for one in query(server, f"/series?StudyInstanceUID={stored.study_uid}&Modality=SEG")
        if one["0020000E"]["Value"] == [str(dcmread(stored.results["lungs.seg.dcm"]).SeriesInstanceUID)]
    )  # fmt: skip
    assert segmentation["00080060"]["Value"] == ["SEG"]
    instances = query(server, f"/studies/{stored.study_uid}/instances")
    assert {one["00080018"]["Value"][0] for one in instances} == set(expected)


def test_wado_fetches_the_study(stored: Case, server: OrthancServer) -> None:
    expected = on_disk(stored)
    fetched = parts(*get(server, f"/studies/{stored.study_uid}", MULTIPART))
    assert len(fetched) == len(expected)
    for dataset in fetched:
        assert dataset == expected[str(dataset.SOPInstanceUID)]
        assert dataset.file_meta.TransferSyntaxUID == expected[dataset.SOPInstanceUID].file_meta.TransferSyntaxUID


def test_wado_gives_the_reports_pdf(stored: Case, server: OrthancServer) -> None:
    report = dcmread(stored.results["report.pdf.dcm"])
    path = f"/studies/{stored.study_uid}/series/{report.SeriesInstanceUID}/instances/{report.SOPInstanceUID}"
    (metadata,) = query(server, f"{path}/metadata")
    assert metadata["00420012"]["Value"] == ["application/pdf"]
    address = metadata["00420011"]["BulkDataURI"].partition("/dicom-web")[2]
    kind, body = get(server, address, "multipart/related; type=application/octet-stream")
    message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    assert message.get_payload()[0].get_payload(decode=True).rstrip(b"\0") == report.EncapsulatedDocument.rstrip(b"\0")


def test_stow_stores_the_results_elsewhere(case: Case, start_orthanc: Callable[[], OrthancServer]) -> None:
    elsewhere = start_orthanc()
    boundary = uuid.uuid4().hex
    body = b"".join(
        f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + path.read_bytes() + b"\r\n"
        for path in case.results.values()
    )
    request = urllib.request.Request(  # noqa: S310 - always http to loopback
        f"{elsewhere.url}/dicom-web/studies/{case.study_uid}",
        data=body + f"--{boundary}--\r\n".encode(),
        headers={
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Accept": "application/dicom+json",
        },
        method="POST",
    )
    outcome = json.loads(ask(request)[1])
    assert len(outcome["00081199"]["Value"]) == len(case.results)
    assert not outcome.get("00081198", {}).get("Value")  # Failed SOP Sequence
    fetched = parts(*get(elsewhere, f"/studies/{case.study_uid}", MULTIPART))
    expected = {str(dcmread(path).SOPInstanceUID): path for path in case.results.values()}
    assert {str(dataset.SOPInstanceUID) for dataset in fetched} == set(expected)
    for dataset in fetched:
        assert dataset == dcmread(expected[str(dataset.SOPInstanceUID)])
