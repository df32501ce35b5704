"""An analysis asked for by AE title, and results that go to other nodes."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.orthanc.driving import (
    ORTHANC_ROOT,
    ended_in_order,
    storage_scp,
    store_scu,
    upload,
    wait_for_job,
    wait_for_jobs,
)
from tests.orthanc.faults import Tried
from tools.orthanc_server import OrthancServer
from tools.ports import free_port

Start = Callable[..., OrthancServer]


def introduce(server: OrthancServer, name: str, title: str, port: int) -> None:
    """Make a node known to a server."""
    node = {"AET": title, "Host": "127.0.0.1", "Port": port}
    server.request("PUT", f"/modalities/{name}", json.dumps(node).encode())


def wait_for_delivery(server: OrthancServer, job_id: str, state: str, timeout_s: float = 60) -> dict[str, Any]:
    """The only delivery of a job, once it is in a state."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        deliveries = server.get(f"/covid/jobs/{job_id}")["Content"]["Deliveries"]
        if [delivery["State"] for delivery in deliveries] == [state]:
            found: dict[str, Any] = deliveries[0]
            return found
        time.sleep(0.2)
    raise AssertionError(deliveries)


@pytest.fixture
def node(start: Start, tiny_models: Path) -> OrthancServer:
    """The Orthanc that analyses, asked only."""
    return start("node", CovidCt={"ModelsFolder": str(tiny_models)})


@pytest.fixture
def pacs(start: Start, node: OrthancServer, tiny_models: Path) -> OrthancServer:
    """Another Orthanc, with the same plugin, that knows the node and is known to it."""
    server = start("pacs", DicomAet="PACS", CovidCt={"ModelsFolder": str(tiny_models), "AETitles": []})
    introduce(node, "pacs", "PACS", server.dicom_port)
    introduce(server, "ai", "COVIDAET", node.dicom_port)
    introduce(server, "ai-as-sender", "ORTHANC", node.dicom_port)
    return server


def test_calling_covidaet_starts_an_analysis(node: OrthancServer, small_files: list[Path]) -> None:
    store_scu(node, small_files, called="COVIDAET")
    (job,) = wait_for_jobs(node, 1)
    assert (job["State"], job["Content"]["Trigger"]) == ("Success", "CalledAET")
    assert (
        job["Content"]["Deliveries"]
        == [{"Destination": "this-machine", "State": "Pending", "Attempts": 0, "Error": ""}]
        or job["Content"]["Deliveries"][0]["State"] == "Retry"
    ), "the sender is known, but listens to nothing"


def test_a_series_that_was_deleted_and_is_sent_again_is_analysed_again(
    node: OrthancServer, small_files: list[Path]
) -> None:
    ended: list[str] = []
    for _ in range(2):
        store_scu(node, small_files, called="COVIDAET")
        end = time.monotonic() + 30
        while (job := wait_for_jobs(node, 1)[0])["CompletionTime"] in ended and time.monotonic() < end:
            time.sleep(0.2)
        assert job["State"] == "Success"
        assert len(node.get("/series")) > 1, "the results are beside the series"
        assert node.get(f"/covid/series/{job['Content']['Series']}")["Job"] == job["ID"]
        ended.append(job["CompletionTime"])
        (study,) = node.get("/studies")
        node.request("DELETE", f"/studies/{study}")


def test_calling_another_title_starts_none(node: OrthancServer, small_files: list[Path]) -> None:
    store_scu(node, small_files, called="ANYTHING")
    time.sleep(4)
    assert node.get("/covid/jobs") == []


def test_results_go_back_to_the_sender_and_start_nothing_there(
    node: OrthancServer, pacs: OrthancServer, small_files: list[Path]
) -> None:
    series = upload(pacs, small_files)
    pacs.post("/modalities/ai/store", {"Resources": [series], "Synchronous": True})
    (job,) = wait_for_jobs(node, 1)
    assert job["State"] == "Success", job["ErrorDescription"]
    wait_for_delivery(node, job["ID"], "Success")
    for result in job["Content"]["Results"]:
        here, there = (
            pydicom.dcmread(io.BytesIO(server.request("GET", f"/instances/{result['ID']}/file")))
            for server in (node, pacs)
        )
        if there.file_meta.TransferSyntaxUID != here.file_meta.TransferSyntaxUID:
            # Orthanc from 1.12.7 on decompresses the overlay's JPEG in transit.
            assert ORTHANC_ROOT is not None
            for dataset in (there, here):
                del dataset.PixelData, dataset.PhotometricInterpretation
        assert there == here
    time.sleep(3)
    assert pacs.get("/covid/jobs") == []


def test_a_destination_that_is_down_gets_its_results_later(
    start: Start, tiny_models: Path, small_files: list[Path]
) -> None:
    pacs = start("pacs", DicomAet="PACS", CovidCt={"ModelsFolder": str(tiny_models)})
    node = start(
        "node",
        CovidCt={"ModelsFolder": str(tiny_models), "Destinations": ["pacs"]},
        DicomModalities={"pacs": ["PACS", "127.0.0.1", pacs.dicom_port]},
    )
    pacs.stop()
    series = upload(node, small_files)
    job = wait_for_job(node, node.post("/covid/analyze", {"Series": series})["ID"])
    failed = wait_for_delivery(node, job["ID"], "Retry")
    assert "pacs" in failed["Error"]
    assert failed["Attempts"] == 1
    assert node.get("/covid/status")["FailingDeliveries"][0]["Destination"] == "pacs"
    node.stop()
    assert ended_in_order(node)
    pacs.start()
    introduce(pacs, "ai", "ORTHANC", node.dicom_port)
    node.start()
    wait_for_delivery(node, job["ID"], "Success")
    assert len(pacs.get("/instances")) == len(job["Content"]["Results"])


@pytest.mark.slow
@pytest.mark.parametrize("manner", ["--refuse", "--abort-during"])
def test_a_destination_that_refuses_or_vanishes_in_a_transfer_gets_all_later(
    start: Start, tiny_models: Path, small_files: list[Path], tmp_path: Path, manner: str, tried: Tried
) -> None:
    port, arrived = free_port(), tmp_path / "arrived"
    arrived.mkdir()
    node = start(
        CovidCt={"ModelsFolder": str(tiny_models), "Destinations": ["pacs"]},
        DicomModalities={"pacs": ["PACS", "127.0.0.1", port]},
    )
    with storage_scp(port, arrived, manner):
        job = wait_for_job(node, node.post("/covid/analyze", {"Series": upload(node, small_files)})["ID"])
        assert "pacs" in wait_for_delivery(node, job["ID"], "Retry")["Error"]
    results = {result["ID"] for result in job["Content"]["Results"]}
    assert results <= set(node.get("/instances")), "they stay where they are"
    with storage_scp(port, arrived):
        assert wait_for_delivery(node, job["ID"], "Success")["Attempts"] == 1, "the one that failed"
    uids = {pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID for path in arrived.iterdir()}
    assert len(uids) == len(results)
    tried(
        f"A destination that {'refuses' if manner == '--refuse' else 'vanishes in a transfer'}",
        "the job says so, the results stay, and all of them arrive at the next attempt",
    )


def test_an_unknown_destination_is_named_and_stops_nothing(
    start: Start, tiny_models: Path, small_files: list[Path]
) -> None:
    node = start(CovidCt={"ModelsFolder": str(tiny_models), "Destinations": ["nowhere"]})
    job = wait_for_job(node, node.post("/covid/analyze", {"Series": upload(node, small_files)})["ID"])
    assert job["State"] == "Success"
    failed = wait_for_delivery(node, job["ID"], "Retry")
    assert '"nowhere"' in failed["Error"]
    assert '"nowhere"' in node.get("/covid/status")["FailingDeliveries"][0]["Error"]
    assert '"nowhere"' in node.log.read_text(errors="replace")


def test_sending_a_stored_series_to_the_title_starts_an_analysis(node: OrthancServer, small_files: list[Path]) -> None:
    """The original's "Send to modality": Orthanc sends what it holds to COVIDAET, here to itself."""
    introduce(node, "itself", "COVIDAET", node.dicom_port)
    introduce(node, "myself", "ORTHANC", node.dicom_port)
    series = upload(node, small_files)
    node.post("/modalities/itself/store", {"Resources": [series], "Synchronous": True})
    (job,) = wait_for_jobs(node, 1)
    assert (job["State"], job["Content"]["Trigger"]) == ("Success", "SentToAET")
