import errno
import io
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from pydicom import dcmread

from covid_ct.errors import AnalysisCancelled, ModelError, Reason, SeriesRefused
from covid_ct.identity import MANUFACTURER, MODEL_NAME
from covid_ct.series.headers import SeriesRules
from covid_ct.series.volume import Volume
from covid_ct.server.jobs import Job, State, Trigger
from covid_ct.server.metrics import Metrics
from covid_ct.server.outbox import Outbox
from covid_ct.server.pacs import NotFoundError, Pacs, StoreError
from covid_ct.server.requests import JobsRequest
from covid_ct.server.worker import FINDINGS_FILE, NICENESS, Worker
from tests.series.images import encode, make_series
from tests.server.conftest import Hospital
from tests.server.fake_orthanc import FakeOrthancError


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox")


@pytest.fixture
def worker(hospital: Hospital, outbox: Outbox) -> Worker:
    """One whose analysis each test makes up."""
    return Worker(
        "worker",
        jobs=hospital.jobs,
        intake=hospital.intake,
        pacs=hospital.pacs,
        analyzer=None,  # type: ignore[arg-type]
        outbox=outbox,
        metrics=Metrics(hospital.orthanc, hospital.jobs, hospital.deliveries),  # type: ignore[arg-type]
        log=hospital.log.append,
    )


def work(worker: Worker) -> None:
    """Let a worker do jobs until it is stopped, on its own thread."""
    worker.start()
    worker.join(30.0)
    assert not worker.is_alive()


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """Finished results as the outbox keeps them."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def one_turn(worker: Worker, analyse: Callable[[Job], None]) -> None:
    """Let a worker do one job with an analysis of our own."""

    def once(job: Job) -> None:
        worker.stop()
        analyse(job)

    worker._analyse = once  # type: ignore[method-assign]
    work(worker)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (SeriesRefused(Reason.NO_LUNGS, "No lungs."), State.FAILURE, "NoLungs"),
        (ModelError("NaN."), State.FAILURE, "ModelError"),
        (AnalysisCancelled(), State.FAILURE, "Cancelled"),
        (StoreError("Refused."), State.RETRY, "InternalError"),
        (MemoryError(), State.RETRY, "InternalError"),
        (OSError(errno.ENOSPC, "No space left on device"), State.RETRY, "InternalError"),
    ],
)
def test_each_failure_ends_the_attempt_with_its_reason(
    worker: Worker, hospital: Hospital, error: Exception, state: State, reason: str
) -> None:
    job = hospital.intake.ask(hospital.series, Trigger.REST)

    def fail(_: Job) -> None:
        raise error

    one_turn(worker, fail)
    ended = hospital.jobs[job.id]
    assert (ended.state, ended.reason) == (state, reason)
    assert ended.error
    assert hospital.orthanc.metrics[f"covid_ct_jobs_{state.lower()}"] == 1


def test_finished_results_are_stored_without_another_analysis(
    worker: Worker, hospital: Hospital, outbox: Outbox
) -> None:
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    stored = next(iter(hospital.orthanc.instances.values()))
    outbox.put(job.id, archive_of({"report.pdf.dcm": stored, FINDINGS_FILE: b'{"covid_probability": 0.5}'}))

    one_attempt(worker)
    ended = hospital.jobs[job.id]
    assert (ended.state, [result["Kind"] for result in ended.results]) == (State.SUCCESS, ["report.pdf"])
    assert hospital.pacs.findings(hospital.series)["Job"] == job.id  # type: ignore[index]
    assert not outbox.of(job.id).exists()


def test_results_that_a_script_refuses_are_told_at_once(worker: Worker, hospital: Hospital, outbox: Outbox) -> None:
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    segmentation, report = (dcmread(io.BytesIO(content)) for content in results_of(2))
    segmentation.Modality, report.Modality = "SEG", "DOC"
    files = encode([segmentation, report])
    outbox.put(job.id, archive_of({"1.dcm": files[0], "2.dcm": files[1], FINDINGS_FILE: b"{}"}))
    hospital.orthanc.filtered_out = "DOC"
    one_attempt(worker)
    ended = hospital.jobs[job.id]
    assert (ended.state, ended.reason, ended.refused) == (State.FAILURE, "FilteredOut", False)
    assert "modality DOC" in ended.error
    assert "let the results of covid-ct through" in ended.error
    assert files[0] not in hospital.orthanc.instances.values(), "no part of the results is left alone"


def results_of(number: int = 1, *, position: float = 0.0) -> list[bytes]:
    """DICOM files that say that they are results of ours, with the same UIDs wherever they lie."""
    made = make_series(number)
    for result in made:
        result.ImagePositionPatient = [position] * 3
        result.Manufacturer, result.ManufacturerModelName = MANUFACTURER, MODEL_NAME
        result.SeriesInstanceUID += ".7"
        result.SOPInstanceUID += ".7"
    return encode(made)


def one_attempt(worker: Worker) -> None:
    """Let a worker do one job, such as one whose results are finished already."""

    def attempt(job: Job) -> None:
        worker.stop()
        Worker._attempt(worker, job)

    worker._attempt = attempt  # type: ignore[method-assign]
    work(worker)


@pytest.mark.parametrize("when", ["before", "at the second result", "at the findings", "at the findings of 1.10.1"])
def test_what_is_deleted_does_not_come_back_by_its_results(
    worker: Worker, hospital: Hospital, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    files = {f"{number}.dcm": content for number, content in enumerate(results_of(3))}
    outbox.put(job.id, archive_of(files | {FINDINGS_FILE: b"{}"}))
    store, stored = hospital.pacs.store, []

    def delete() -> None:
        for instance in list(hospital.orthanc.instances):
            hospital.orthanc.delete(instance)

    def attach(*_: object) -> bytes:
        delete()
        if when == "at the findings":
            raise FakeOrthancError(7, "Accessing an inexistent item")
        return b"{}"

    def store_one(_: Pacs, dicom: bytes) -> dict[str, str]:
        stored.append(dicom)
        if len(stored) == 2 and when == "at the second result":
            delete()
        return store(dicom)

    monkeypatch.setattr(Pacs, "store", store_one)
    monkeypatch.setattr(hospital.orthanc, "RestApiPut", attach)
    if when == "before":
        delete()
    one_attempt(worker)
    assert (hospital.jobs[job.id].state, hospital.jobs[job.id].reason) == (State.FAILURE, "SeriesChanged")
    assert hospital.orthanc.instances == {}
    assert not outbox.of(job.id).exists()


def test_what_is_undone_is_what_the_attempt_stored(
    worker: Worker, hospital: Hospital, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    earlier, new = results_of(2)
    hospital.orthanc.store(earlier)
    outbox.put(job.id, archive_of({"1.dcm": earlier, "2.dcm": new, FINDINGS_FILE: b"{}"}))

    def attach(*_: object) -> bytes:
        hospital.orthanc.delete(hospital.pacs.series(hospital.series).instances[0])
        return b"{}"

    monkeypatch.setattr(hospital.orthanc, "RestApiPut", attach)
    one_attempt(worker)
    assert hospital.jobs[job.id].reason == "SeriesChanged"
    assert earlier in hospital.orthanc.instances.values()
    assert new not in hospital.orthanc.instances.values()


def test_an_analysis_of_part_of_a_series_does_not_replace_newer_findings(
    worker: Worker, hospital: Hospital, outbox: Outbox
) -> None:
    """As where it waited for room on the disk, and the series was sent whole and analysed meanwhile."""
    part = hospital.intake.ask(hospital.series, Trigger.REST)
    outbox.put(part.id, archive_of({"report.pdf.dcm": results_of()[0], FINDINGS_FILE: b"{}"}))
    hospital.orthanc.store(encode(make_series(21))[-1])
    hospital.pacs.attach_findings(hospital.series, {"slices": 21})
    one_attempt(worker)
    assert hospital.jobs[part.id].reason == "SeriesChanged"
    assert hospital.pacs.findings(hospital.series) == {"slices": 21}


@pytest.mark.parametrize("when", ["while it waited", "meanwhile"])
def test_results_are_of_the_images_that_are_there(
    worker: Worker, hospital: Hospital, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A series that is deleted, corrected and sent again under the same UIDs has the same job, but other results."""
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    outbox.put(job.id, archive_of({"report.pdf.dcm": results_of()[0], FINDINGS_FILE: b'{"of": "what came first"}'}))

    def send_again(*_: object) -> bytes:
        hospital.orthanc.last_update = "20260101T000100"
        return b"{}"

    def analyse(job: Job) -> None:
        outbox.put(job.id, archive_of({"report.pdf.dcm": results_of()[0], FINDINGS_FILE: b'{"of": "what is there"}'}))

    if when == "while it waited":
        send_again()
        worker._analyse = analyse  # type: ignore[method-assign]
        one_attempt(worker)
        assert hospital.jobs[job.id].findings == {"of": "what is there"}
        assert hospital.intake.ask(hospital.series, Trigger.STABLE_SERIES).state == State.SUCCESS
    else:
        monkeypatch.setattr(hospital.orthanc, "RestApiPut", send_again)
        one_attempt(worker)
        assert hospital.jobs[job.id].state == State.PENDING, "what there is now is to be analysed"
        assert results_of()[0] not in hospital.orthanc.instances.values()
        assert not outbox.of(job.id).exists()


def test_results_of_earlier_images_with_the_same_uids_are_replaced(
    worker: Worker, hospital: Hospital, outbox: Outbox
) -> None:
    """As where a series was corrected and sent again, while its results stayed."""
    earlier = [hospital.orthanc.store(content) for content in results_of(3)]
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    hospital.jobs.take(0)
    hospital.jobs.succeed(job.id, {}, [{"ID": result["ID"]} for result in earlier])
    hospital.jobs.requeue(job.id)
    other, same = results_of(2, position=1.0)[0], results_of(2)[1]
    outbox.put(job.id, archive_of({"1.dcm": other, "2.dcm": same, FINDINGS_FILE: b"{}"}))
    one_attempt(worker)
    left = [hospital.orthanc.instances.get(result["ID"]) for result in earlier]
    assert left == [other, same, None]
    assert [result["ID"] for result in hospital.jobs[job.id].results] == [result["ID"] for result in earlier[:2]]


def test_what_others_made_of_a_result_is_left_alone(worker: Worker, hospital: Hospital, outbox: Outbox) -> None:
    (ours,) = results_of()
    edited = dcmread(io.BytesIO(ours))
    edited.Manufacturer = "An editor"
    stored = hospital.orthanc.store(encode([edited])[0])["ID"]
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    outbox.put(job.id, archive_of({"1.dcm": ours, FINDINGS_FILE: b"{}"}))
    one_attempt(worker)
    assert hospital.jobs[job.id].state == State.SUCCESS
    assert hospital.orthanc.instances[stored] == encode([edited])[0]


def test_nobody_elses_object_is_deleted(hospital: Hospital) -> None:
    (ours,) = results_of()
    result = hospital.orthanc.store(ours)["ID"]
    images = hospital.pacs.series(hospital.series).instances
    hospital.pacs.delete_results([*images, result, "gone"])
    assert tuple(sorted(hospital.orthanc.instances)) == images


def test_other_models_are_another_job(worker: Worker, hospital: Hospital) -> None:
    """As where the plugin was upgraded while jobs waited."""
    before = replace(hospital.intake, fingerprint="earlier models").ask(hospital.series, Trigger.REST)

    def not_mine(_: Job) -> None:
        raise NotFoundError("no longer what the job was made for")

    one_turn(worker, not_mine)
    ended = hospital.jobs[before.id]
    assert (ended.state, ended.reason) == (State.FAILURE, "ModelsChanged")
    assert "was changed or deleted" not in ended.error
    (after,) = (one for one in hospital.jobs.select(JobsRequest()) if one.id != before.id)
    assert (after.state, after.series) == (State.PENDING, hospital.series)


def test_what_is_wrong_with_a_series_that_came_anew_is_said(worker: Worker, hospital: Hospital) -> None:
    """Though it was refused before it became a worker's."""
    for instance in list(hospital.orthanc.instances):
        hospital.orthanc.delete(instance)
    images = make_series()
    for image in images:
        image.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        hospital.orthanc.store(encode([image])[0])
    refused = hospital.intake.ask(hospital.series, Trigger.REST)
    hospital.orthanc.last_update = "20260101T000100"
    assert hospital.intake.ask(hospital.series, Trigger.REST).state == State.PENDING
    one_attempt(worker)
    ended = hospital.jobs[refused.id]
    assert (ended.reason, ended.error) == ("Localizer", refused.error)
    assert hospital.intake.ask(hospital.series, Trigger.REST) == ended, "once for each time that it came"


def test_what_the_storage_does_not_give_for_a_while_is_tried_again(worker: Worker, hospital: Hospital) -> None:
    job = hospital.intake.ask(hospital.series, Trigger.REST)

    def unreadable(_: Job) -> None:
        raise NotFoundError("Instance x is no longer stored in Orthanc.")

    one_turn(worker, unreadable)
    ended = hospital.jobs[job.id]
    assert (ended.state, ended.reason) == (State.RETRY, "InternalError")
    assert "Instance x" in ended.error


def test_results_that_the_disk_damaged_are_made_anew(worker: Worker, hospital: Hospital, outbox: Outbox) -> None:
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    content = bytearray(archive_of({"report.pdf.dcm": b"content" * 9, FINDINGS_FILE: b"{}"}))
    content[content.index(b"content")] ^= 1
    outbox.put(job.id, bytes(content))
    one_attempt(worker)
    assert hospital.jobs[job.id].state == State.RETRY
    assert not outbox.of(job.id).exists()


def test_who_sent_a_series_gets_the_results_of_what_is_left_of_it(worker: Worker, hospital: Hospital) -> None:
    hospital.orthanc.modalities["ct"] = {"AET": "CT1", "Host": "192.0.2.1"}
    for instance in hospital.orthanc.instances:
        for name, value in (("CalledAET", "COVIDAET"), ("RemoteAET", "CT1"), ("RemoteIP", "192.0.2.1")):
            hospital.orthanc.metadata[instance, name] = value
    job = hospital.intake.consider(hospital.series)
    assert job is not None

    def delete_one(_: Job) -> None:
        hospital.orthanc.delete(next(iter(hospital.orthanc.instances)))
        raise NotFoundError("gone")

    one_turn(worker, delete_one)
    assert hospital.jobs[job.id].reason == "SeriesChanged"
    (other,) = (one for one in hospital.jobs.select(JobsRequest()) if one.id != job.id)
    assert [delivery.destination for delivery in hospital.deliveries.of_job(other.id)] == ["ct"]


def test_a_series_that_still_arrives_is_not_analysed_in_part(worker: Worker, hospital: Hospital) -> None:
    job = hospital.intake.consider(hospital.series)
    assert job is not None

    def more(_: Job) -> None:
        hospital.orthanc.delete(next(iter(hospital.orthanc.instances)))
        hospital.orthanc.unstable.add(hospital.series)
        raise NotFoundError("changed")

    one_turn(worker, more)
    assert hospital.jobs[job.id].reason == "SeriesChanged"
    assert [one.id for one in hospital.jobs.select(JobsRequest())] == [job.id]


def test_a_job_that_vanished_stops_no_other(
    worker: Worker, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the database is put back to an earlier state."""
    monkeypatch.setattr("covid_ct.server.worker.TROUBLE_S", 0.0)
    first = hospital.intake.ask(hospital.series, Trigger.REST)
    done: list[str] = []

    def vanish(job: Job) -> None:
        done.append(job.id)
        if len(done) == 1:
            hospital.database.change("DELETE FROM jobs WHERE id = ?", (job.id,))
            hospital.jobs.add(replace(first, id="another"))
        else:
            worker.stop()

    worker._analyse = vanish  # type: ignore[method-assign]
    worker._store = lambda _: None  # type: ignore[assignment,method-assign]
    work(worker)
    assert done == [first.id, "another"]


def test_the_analysis_begins_while_the_series_is_read(worker: Worker, hospital: Hospital) -> None:
    """What Orthanc's database says of the slices tells which of them the first network will want."""
    expected: list[str] = []
    offered: list[str] = []
    awake: list[bool] = []

    class Watched:
        identities = ()
        fingerprint = ""

        def head_start(self, uids: list[str], affine: Any) -> Any:
            expected.extend(uids)
            return self

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def offer(self, image: Volume) -> None:
            offered.append(image.headers[0].SOPInstanceUID)

        def analyze(self, volume: Volume, _progress: object, _cancelled: object, head_start: object, _: object) -> None:
            assert head_start is self
            assert expected == [header.SOPInstanceUID for header in volume.headers]
            assert sorted(offered) == sorted(expected)
            awake.append(waking())
            worker.stop()
            raise ModelError("enough")

    def waking() -> bool:
        return any(thread.name.startswith("covid-waking") for thread in threading.enumerate())

    worker._analyzer = Watched()  # type: ignore[assignment]
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    work(worker)
    assert hospital.jobs[job.id].error.endswith("enough")
    assert awake == [True], "for Orthanc to wait for a core as little as can be"
    assert not waking()


class Asking:
    """An analyzer that does nothing but to ask whether to go on, once somebody has had his say."""

    identities = ()
    fingerprint = ""

    def __init__(self, say: Callable[[], object]) -> None:
        self._say = say

    def head_start(self, _uids: list[str], _affine: Any) -> Any:
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def offer(self, _image: Volume) -> None:
        pass

    def analyze(self, _volume: Volume, _progress: object, cancelled: Callable[[], bool], *_: object) -> None:
        self._say()
        if cancelled():
            raise AnalysisCancelled
        raise ModelError("it was not asked to end")


@pytest.mark.parametrize("who", ["a user", "Orthanc"])
def test_an_analysis_ends_when_it_is_cancelled_or_orthanc_stops(
    worker: Worker, hospital: Hospital, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = hospital.intake.ask(hospital.series, Trigger.REST)

    def say() -> None:
        if who == "a user":
            hospital.jobs.cancel(job.id)
        else:
            worker.stop()

    worker._analyzer = Asking(say)  # type: ignore[assignment]
    finish = worker._jobs.fail
    monkeypatch.setattr(worker._jobs, "fail", lambda *values: finish(*values) or worker.stop())
    work(worker)
    ended = hospital.jobs[job.id]
    if who == "a user":
        assert (ended.state, ended.reason) == (State.FAILURE, "Cancelled")
    else:
        assert (ended.state, ended.attempts) == (State.PENDING, 0), "it goes on after the next start"


def test_the_configured_rules_are_those_that_a_series_is_read_by(
    worker: Worker, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    for instance in list(hospital.orthanc.instances)[8:]:
        hospital.orthanc.delete(instance)
    worker._intake = hospital.configured(series_rules=SeriesRules(min_slices=8, min_length_mm=30.0))
    job = worker._intake.ask(hospital.series, Trigger.REST)
    read: list[int] = []
    worker._analyzer = Asking(lambda: read.append(1))  # type: ignore[assignment]
    finish = worker._jobs.fail
    monkeypatch.setattr(worker._jobs, "fail", lambda *values: finish(*values) or worker.stop())
    work(worker)
    assert (read, hospital.jobs[job.id].reason) == ([1], "ModelError")


def test_results_that_orthanc_does_not_store_are_missed(
    worker: Worker, hospital: Hospital, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers all the same, with an identifier of what it does not hold."""
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    outbox.put(job.id, archive_of({"report.pdf.dcm": results_of()[0], FINDINGS_FILE: b"{}"}))
    answer = {"ID": "i", "Path": "/instances/i", "ParentSeries": "s", "Status": "Failure"}
    monkeypatch.setattr(hospital.orthanc, "RestApiPost", lambda _uri, _body: json.dumps(answer).encode())

    def store(job: Job) -> None:
        worker.stop()
        Worker._store(worker, job)

    worker._store = store  # type: ignore[method-assign]
    work(worker)
    assert hospital.jobs[job.id].state == State.RETRY
    assert "did not store a result: Failure" in hospital.jobs[job.id].error


def test_results_are_others_where_the_models_are(
    worker: Worker, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest changes them too; Orthanc would leave those of before under the same UIDs."""
    made: list[object] = []
    monkeypatch.setattr("covid_ct.server.worker.ResultBuilder", lambda *values: made.extend(values[1:]))
    analyzer = Asking(worker.stop)
    analyzer.fingerprint = "these manifests"
    worker._analyzer = analyzer  # type: ignore[assignment]
    hospital.intake.ask(hospital.series, Trigger.REST)
    work(worker)
    assert made == [(), {"models": "these manifests"}]


def test_work_stands_back_behind_orthanc(worker: Worker, hospital: Hospital) -> None:
    hospital.intake.ask(hospital.series, Trigger.REST)
    seen: list[int] = []
    one_turn(worker, lambda _: seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    assert seen == [min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19)]


def test_a_worker_outlives_a_database_that_fails(
    worker: Worker, hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covid_ct.server.worker.TROUBLE_S", 0.0)
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    change, calls = hospital.database.change, []

    def fail(*arguments: Any) -> list[Any]:
        calls.append(arguments)
        if len(calls) in (2, 3):
            raise OSError(errno.ENOSPC, "the disk is full")
        rows = change(*arguments)
        if hospital.jobs[job.id].state == State.RETRY:
            worker.stop()
        return rows

    monkeypatch.setattr(hospital.database, "change", fail)
    worker._analyse = lambda _: (_ for _ in ()).throw(MemoryError())  # type: ignore[assignment,method-assign]
    work(worker)
    assert hospital.jobs[job.id].state == State.RETRY, "what could not be noted at first was noted later"
    assert any("disk" in line for line in hospital.log)
