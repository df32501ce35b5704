from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from covid_ct.server.listener import CHANGES_MARK, MOST_FAILURES
from covid_ct.server.pacs import NotFoundError, Pacs
from covid_ct.server.records import SeriesRecord
from covid_ct.server.requests import JobsRequest
from tests.series.images import encode, make_series
from tests.server.conftest import Hospital


def test_the_first_sweep_takes_nothing_and_the_next_what_came(hospital: Hospital) -> None:
    listener = hospital.listener()
    listener.sweep()
    assert hospital.jobs.select(JobsRequest()) == []
    more = make_series()
    for image in more:
        image.SeriesInstanceUID += ".5"
        image.SOPInstanceUID += ".5"
    stored = [hospital.orthanc.store(content) for content in encode(more)]
    series = stored[0]["ParentSeries"]
    hospital.orthanc.unstable.add(series)
    listener.sweep()
    assert hospital.jobs.select(JobsRequest()) == [], "it is still arriving"
    assert hospital.database.mark(CHANGES_MARK) == 20
    hospital.orthanc.unstable.clear()
    listener.sweep()
    assert [job.series for job in hospital.jobs.select(JobsRequest())] == [series]
    assert hospital.database.mark(CHANGES_MARK) == 40


def test_what_comes_to_an_index_that_was_made_anew_is_found(hospital: Hospital) -> None:
    """While our database, kept elsewhere, still has the mark of the earlier index."""
    hospital.database.set_mark(CHANGES_MARK, 1000)
    hospital.listener().sweep()
    assert hospital.jobs.select(JobsRequest()) == []
    assert hospital.database.mark(CHANGES_MARK) == len(hospital.orthanc.changes)
    hospital.orthanc.store(encode(make_series(21))[-1])
    hospital.listener().sweep()
    assert [job.series for job in hospital.jobs.select(JobsRequest())] == [hospital.series]


def test_the_sweep_waits_for_a_series_that_another_orthanc_receives(hospital: Hospital) -> None:
    """To this one it counts as stable."""
    listener = hospital.listener()
    hospital.database.set_mark(CHANGES_MARK, 0)
    hospital.orthanc.last_update = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    assert listener.sweep()
    assert hospital.jobs.select(JobsRequest()) == []
    hospital.orthanc.last_update = "20260101T000000"
    assert not listener.sweep()
    assert [job.series for job in hospital.jobs.select(JobsRequest())] == [hospital.series]


def test_a_restart_finds_what_was_still_arriving(hospital: Hospital) -> None:
    hospital.database.set_mark(CHANGES_MARK, 0)
    hospital.orthanc.unstable.add(hospital.series)
    assert hospital.listener().sweep()
    hospital.orthanc.unstable.clear()
    assert not hospital.listener().sweep()
    assert [job.series for job in hospital.jobs.select(JobsRequest())] == [hospital.series]


def test_the_sweep_looks_again_at_a_series_that_lost_an_image_meanwhile(hospital: Hospital, monkeypatch) -> None:
    hospital.orthanc.store(encode(make_series(21))[-1])
    hospital.database.set_mark(CHANGES_MARK, 0)
    image_tags = Pacs.image_tags

    def tags_then_delete(pacs: Pacs, record: SeriesRecord) -> Mapping[str, Any]:
        tags = image_tags(pacs, record)
        last = list(hospital.orthanc.instances)[20:]
        for instance in last:
            hospital.orthanc.delete(instance)
        return tags

    monkeypatch.setattr(Pacs, "image_tags", tags_then_delete)
    listener = hospital.listener()
    assert listener.sweep()
    assert hospital.jobs.select(JobsRequest()) == []
    assert not listener.sweep()
    assert [job.series for job in hospital.jobs.select(JobsRequest())] == [hospital.series]


def test_the_sweep_lets_go_of_a_series_that_orthanc_cannot_read(hospital: Hospital, monkeypatch) -> None:
    """As where a file is lost from the storage, though the database still knows it."""

    def lost(pacs: Pacs, record: SeriesRecord) -> Mapping[str, Any]:
        raise NotFoundError("the file is lost")

    monkeypatch.setattr(Pacs, "image_tags", lost)
    hospital.database.set_mark(CHANGES_MARK, 0)
    listener = hospital.listener()
    assert [listener.sweep() for _ in range(MOST_FAILURES)] == [True] * (MOST_FAILURES - 1) + [False]
    assert hospital.database.mark(CHANGES_MARK) == len(hospital.orthanc.changes)


def test_a_series_that_orthanc_cannot_read_for_a_while_is_considered_later(hospital: Hospital, monkeypatch) -> None:
    tags, failures = Pacs.image_tags, [NotFoundError("the storage does not answer")]

    def at_last(pacs: Pacs, record: SeriesRecord) -> Mapping[str, Any]:
        if failures:
            raise failures.pop()
        return tags(pacs, record)

    monkeypatch.setattr(Pacs, "image_tags", at_last)
    hospital.database.set_mark(CHANGES_MARK, 0)
    listener = hospital.listener()
    assert listener.sweep()
    assert not listener.sweep()
    assert [job.series for job in hospital.jobs.select(JobsRequest())] == [hospital.series]


def test_one_bad_series_keeps_no_other_from_being_considered(hospital: Hospital, monkeypatch) -> None:
    other = make_series(20)
    for image in other:
        image.SeriesInstanceUID += ".1"
        image.SOPInstanceUID += ".1"
        hospital.orthanc.store(encode([image])[0])
    bad = min(hospital.pacs.series_of_instances(list(hospital.orthanc.instances)))
    tags = Pacs.image_tags

    def fail_for_one(pacs: Pacs, record: SeriesRecord) -> Mapping[str, Any]:
        if record.id == bad:
            raise ValueError("what nobody thought of")
        return tags(pacs, record)

    monkeypatch.setattr(Pacs, "image_tags", fail_for_one)
    hospital.database.set_mark(CHANGES_MARK, 0)
    listener = hospital.listener()
    assert listener.sweep(), "it is tried again"
    assert bad not in [job.series for job in hospital.jobs.select(JobsRequest())]
    assert len(hospital.jobs.select(JobsRequest())) == 1
    assert hospital.database.mark(CHANGES_MARK) < len(hospital.orthanc.changes), "also after a restart"


def test_each_change_is_read_once_however_long_a_series_arrives(hospital: Hospital, monkeypatch) -> None:
    asked: list[str] = []
    series_of_instances = Pacs.series_of_instances

    def counted(pacs: Pacs, instances: Sequence[str]) -> set[str]:
        asked.extend(instances)
        return series_of_instances(pacs, instances)

    monkeypatch.setattr(Pacs, "series_of_instances", counted)
    hospital.database.set_mark(CHANGES_MARK, 0)
    hospital.orthanc.unstable.add(hospital.series)
    listener = hospital.listener()
    for _ in range(5):
        assert listener.sweep()
    assert len(asked) == len(set(asked)) == len(hospital.orthanc.instances)


def test_it_stops_in_the_middle_of_many_changes(hospital: Hospital, monkeypatch) -> None:
    listener = hospital.listener()
    hospital.database.set_mark(CHANGES_MARK, 0)
    series_of_instances = Pacs.series_of_instances

    def stop_then_answer(pacs: Pacs, instances: Sequence[str]) -> set[str]:
        listener.stop()
        return series_of_instances(pacs, instances)

    monkeypatch.setattr("covid_ct.server.listener.CHANGES_PAGE", 7)
    monkeypatch.setattr(Pacs, "series_of_instances", stop_then_answer)
    listener.sweep()
    assert hospital.jobs.select(JobsRequest()) == []
    assert hospital.database.mark(CHANGES_MARK) == 0, "the next start reads them again"
