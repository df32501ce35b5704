from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from covid_ct.identity import MANUFACTURER, MODEL_NAME
from covid_ct.series.headers import SeriesRules
from covid_ct.server.jobs import State, Trigger
from covid_ct.server.pacs import NotFoundError, Pacs
from covid_ct.server.records import SeriesRecord
from covid_ct.server.requests import AnalyzeRequest, JobsRequest
from tests.series.images import encode, make_series
from tests.server.conftest import Hospital


def test_a_series_has_one_job_whoever_asks(hospital: Hospital) -> None:
    first = hospital.intake.consider(hospital.series)
    assert first is not None
    assert first.trigger == Trigger.STABLE_SERIES
    assert hospital.intake.ask(hospital.series, Trigger.REST) == first
    assert hospital.intake.submit(AnalyzeRequest("Study", hospital.study)) == [first]
    assert hospital.jobs.select(JobsRequest()) == [first]


def test_a_grown_series_is_other_work(hospital: Hospital) -> None:
    first = hospital.intake.ask(hospital.series, Trigger.REST)
    hospital.orthanc.store(encode(make_series(21))[-1])
    assert not hospital.intake.is_current(first)
    assert hospital.intake.ask(hospital.series, Trigger.REST).id != first.id


def test_other_models_are_other_work(hospital: Hospital) -> None:
    """The models, or this version, were exchanged since."""
    first = hospital.intake.ask(hospital.series, Trigger.REST)
    exchanged = replace(hospital.intake, fingerprint="other models")
    assert not exchanged.is_current(first)
    assert exchanged.ask(hospital.series, Trigger.REST).id != first.id


def test_an_asked_for_series_is_refused_with_a_job_and_an_unasked_one_without(hospital: Hospital) -> None:
    hospital.orthanc.delete(sorted(hospital.orthanc.instances)[0])
    assert hospital.intake.consider(hospital.series) is None
    assert hospital.jobs.select(JobsRequest()) == []
    refused = hospital.intake.ask(hospital.series, Trigger.REST)
    assert (refused.state, refused.refused) == (State.FAILURE, True)
    assert "SECRET" not in refused.error
    assert "Secret" not in refused.error


def test_series_from_japan(hospital: Hospital) -> None:
    def arrived(name: str, image_type: list[str]) -> str:
        images = make_series()
        for image in images:
            image.SpecificCharacterSet = "ISO_IR 13"
            image.SeriesInstanceUID = f"1.2.3.{name}"
            image.ImageType = image_type
        (series,) = {hospital.orthanc.store(content)["ParentSeries"] for content in encode(images)}
        return series

    assert hospital.intake.consider(arrived("1", ["ORIGINAL", "PRIMARY", "AXIAL"])) is not None
    assert hospital.intake.consider(arrived("2", ["ORIGINAL", "PRIMARY", "LOCALIZER"])) is None


def test_nothing_is_analysed_unasked_where_that_is_off(hospital: Hospital) -> None:
    assert hospital.configured(automatic=False).consider(hospital.series) is None


def test_a_called_aet_asks_and_its_known_sender_gets_the_results(hospital: Hospital) -> None:
    instance = next(iter(hospital.orthanc.instances))
    hospital.orthanc.metadata |= {
        (instance, "CalledAET"): "COVIDAET", (instance, "RemoteAET"): "CT1", (instance, "RemoteIP"): "127.0.0.1",
    }  # fmt: skip
    hospital.orthanc.modalities = {"scanner": {"AET": "CT1", "Host": "127.0.0.1"}}
    job = hospital.configured(automatic=False).consider(hospital.series)
    assert job is not None
    assert job.trigger == Trigger.CALLED_AET
    assert [delivery.destination for delivery in hospital.deliveries.of_job(job.id)] == ["scanner"]


def test_titles_are_compared_as_orthanc_does(hospital: Hospital) -> None:
    hospital.orthanc.modalities = {"scanner": {"AET": "Ct1", "Host": "192.0.2.1"}}
    for instance in hospital.orthanc.instances:
        for name, value in (("CalledAET", "CovidAet"), ("RemoteAET", "cT1"), ("RemoteIP", "192.0.2.1")):
            hospital.orthanc.metadata[instance, name] = value
    job = hospital.configured(automatic=False).consider(hospital.series)
    assert job is not None
    assert [one.destination for one in hospital.deliveries.of_job(job.id)] == ["scanner"]


def test_a_sender_is_known_by_title_and_address(hospital: Hospital) -> None:
    instance = next(iter(hospital.orthanc.instances))
    hospital.orthanc.metadata |= {(instance, "RemoteAET"): "CT1", (instance, "RemoteIP"): "192.0.2.1"}
    hospital.orthanc.modalities = {"scanner": {"AET": "CT1", "Host": "127.0.0.1"}}
    assert hospital.pacs.sender(instance) is None
    hospital.orthanc.modalities |= {"mistyped": {"AET": "CT1", "Host": "192.0..2.1"}}
    assert hospital.pacs.sender(instance) is None
    hospital.orthanc.modalities = {"beside it": {"AET": "CT2", "Host": "192.0.2.1"}}
    assert hospital.pacs.sender(instance) is None, "another program on the same machine"


def test_our_own_results_ask_for_nothing_even_by_aet(hospital: Hospital) -> None:
    images = make_series()
    for image in images:
        image.Manufacturer, image.ManufacturerModelName = MANUFACTURER, MODEL_NAME
        image.SeriesInstanceUID += ".7"
        image.SOPInstanceUID += ".7"
    stored = [hospital.orthanc.store(content, called="COVIDAET") for content in encode(images)]
    assert hospital.intake.consider(stored[0]["ParentSeries"]) is None


@pytest.mark.parametrize("left", [0, 1, 19])
def test_a_series_of_which_images_vanish_meanwhile_is_not_judged(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Orthanc lists fewer images, or none, rather than say that the series is gone."""
    image_tags, listing = Pacs.image_tags, hospital.orthanc.RestApiGet

    def tags_then_delete(pacs: Pacs, record: SeriesRecord) -> Mapping[str, Any]:
        tags = image_tags(pacs, record)
        for instance in record.instances[left:]:
            hospital.orthanc.delete(instance)
        return tags

    monkeypatch.setattr(Pacs, "image_tags", tags_then_delete)
    monkeypatch.setattr(
        hospital.orthanc,
        "RestApiGet",
        lambda uri: b"[]" if not left and uri.endswith("/instances") else listing(uri),
    )
    with pytest.raises(NotFoundError):
        hospital.intake.ask(hospital.series, Trigger.REST)
    assert hospital.jobs.select(JobsRequest()) == []


def test_a_job_that_lost_its_results_begins_anew(hospital: Hospital) -> None:
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    result = make_series(1)[0]
    result.SeriesInstanceUID += ".7"
    result.SOPInstanceUID += ".7"
    there = hospital.orthanc.store(encode([result])[0])["ID"]
    hospital.jobs.take(0)
    hospital.jobs.succeed(job.id, {}, [{"ID": there}])
    hospital.pacs.attach_findings(hospital.series, {"lung_volume_ml": 1})
    assert hospital.intake.ask(hospital.series, Trigger.REST).state == State.SUCCESS
    hospital.orthanc.delete(there)
    assert hospital.intake.consider(hospital.series) is not None, "unasked, a person's deletion is respected"
    assert hospital.jobs[job.id].state == State.SUCCESS
    assert hospital.intake.ask(hospital.series, Trigger.REST).state == State.PENDING


def test_a_job_that_lost_its_findings_begins_anew(hospital: Hospital) -> None:
    """As where a series was deleted and sent again, while its results stayed."""
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    hospital.jobs.take(0)
    hospital.jobs.succeed(job.id, {}, [])
    assert hospital.intake.ask(hospital.series, Trigger.REST).state == State.PENDING


@pytest.mark.parametrize("trigger", list(Trigger))
@pytest.mark.parametrize("ended", ["Success", "SeriesChanged", "NoLungs"])
def test_a_series_that_came_anew_is_analysed_anew_whoever_asks(
    hospital: Hospital, trigger: Trigger, ended: str
) -> None:
    """As where it was deleted, corrected and sent again under the same UIDs."""
    job = hospital.intake.ask(hospital.series, Trigger.STABLE_SERIES)
    hospital.jobs.take(0)
    if ended == "Success":
        hospital.pacs.attach_findings(hospital.series, {"Job": job.id})
        hospital.jobs.succeed(job.id, {}, [])
    else:
        hospital.jobs.fail(job.id, ended, "It failed.")
    if (trigger, ended) != (Trigger.REST, "SeriesChanged"):
        assert hospital.intake.ask(hospital.series, trigger).state in (State.SUCCESS, State.FAILURE)
    hospital.orthanc.last_update = "20260101T000100"
    assert hospital.intake.ask(hospital.series, trigger).state == State.PENDING
    taken = hospital.jobs.take(0)
    assert taken is not None
    hospital.jobs.begin(taken, "20260101T000100.000000")
    hospital.jobs.fail(job.id, "NoLungs", "No lungs.")
    assert hospital.intake.ask(hospital.series, trigger).state == State.FAILURE, "once for each time that it came"


def test_who_got_the_results_gets_those_of_what_came_anew(hospital: Hospital) -> None:
    intake = hospital.configured(destinations=("archive",))
    job = intake.ask(hospital.series, Trigger.REST)
    for results in ([{"ID": "earlier"}], [{"ID": "new"}]):
        hospital.jobs.take(0)
        assert hospital.deliveries.take() == [], "the job has not ended"
        hospital.jobs.succeed(job.id, {}, results)
        ((delivery, instances),) = hospital.deliveries.take()
        assert (delivery.destination, instances) == ("archive", [results[0]["ID"]])
        hospital.deliveries.succeed(delivery)
        hospital.orthanc.last_update = "20260101T000100"
        intake.ask(hospital.series, Trigger.STABLE_SERIES)


def test_a_refusal_lasts_as_long_as_the_rule_behind_it(hospital: Hospital) -> None:
    rules = SeriesRules(min_slices=21)
    refused = hospital.configured(series_rules=rules).ask(hospital.series, Trigger.REST)
    assert refused.refused
    assert hospital.configured(series_rules=rules).ask(hospital.series, Trigger.REST) == refused
    assert hospital.intake.ask(hospital.series, Trigger.REST).state == State.PENDING


def test_attributes_nested_beyond_reading_are_refused(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(pacs: Pacs, record: SeriesRecord) -> Mapping[str, Any]:
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(Pacs, "image_tags", too_deep)
    job = hospital.intake.ask(hospital.series, Trigger.REST)
    assert (job.state, job.reason) == (State.FAILURE, "BadHeader")
    assert "nested too deeply" in job.error


@pytest.mark.parametrize("identifier", ["1.2.3", "00000000-00000000-00000000-00000000-00000000", "../system", "a\0b"])
def test_what_is_not_there(hospital: Hospital, identifier: str) -> None:
    for level in ("Series", "Study"):
        with pytest.raises(NotFoundError, match="identifier"):
            hospital.intake.submit(AnalyzeRequest(level, identifier))


def test_a_uid_that_two_patients_share_is_not_enough(hospital: Hospital) -> None:
    images = make_series()
    for image in images:
        image.PatientID = "ANOTHER"
    for content in encode(images):
        hospital.orthanc.store(content)
    for level, uid in (("Series", images[0].SeriesInstanceUID), ("Study", images[0].StudyInstanceUID)):
        with pytest.raises(NotFoundError, match=r"holds 2 under .* give the Orthanc identifier of one") as raised:
            hospital.intake.submit(AnalyzeRequest(level, uid))
        assert (hospital.series if level == "Series" else hospital.study) in str(raised.value)
    assert len(hospital.intake.submit(AnalyzeRequest("Study", hospital.study))) == 1


def test_a_uid_will_do(hospital: Hospital) -> None:
    image = make_series(1)[0]
    assert hospital.pacs.find_series(image.SeriesInstanceUID) == hospital.series
    assert hospital.pacs.find_study(image.StudyInstanceUID) == hospital.study
