import pytest
from pydicom import Dataset

from covid_ct.server.deliveries import Courier, DeliveryState, DeliveryStore
from covid_ct.server.jobs import Job, Trigger
from tests.server.conftest import Hospital


@pytest.fixture
def courier(hospital: Hospital) -> Courier:
    hospital.jobs.add(Job("j1", hospital.series, "1.2", Trigger.REST))
    hospital.deliveries.add("j1", ["pacs"])
    return Courier(hospital.deliveries, hospital.pacs, hospital.log.append)


def succeed(hospital: Hospital, *results: str) -> None:
    hospital.orthanc.headers |= dict.fromkeys(results, Dataset())
    hospital.jobs.take(0)
    hospital.jobs.succeed("j1", {}, [{"ID": result} for result in results])


def test_nothing_is_sent_before_the_job_has_succeeded(hospital: Hospital, courier: Courier) -> None:
    courier.send_due()
    assert hospital.orthanc.sent == []


def test_nothing_is_sent_any_more_after_the_stop(hospital: Hospital, courier: Courier) -> None:
    hospital.orthanc.modalities = {"pacs": {"AET": "PACS", "Host": "192.0.2.1"}}
    succeed(hospital, "a")
    courier.stop()
    courier.send_due()
    assert hospital.orthanc.sent == []
    hospital.deliveries.recover(set())
    Courier(hospital.deliveries, hospital.pacs, hospital.log.append).send_due()
    assert hospital.orthanc.sent == [("pacs", ["a"])], "it is sent after the next start"


def test_results_are_sent_once(hospital: Hospital, courier: Courier) -> None:
    hospital.orthanc.modalities = {"pacs": {"AET": "PACS", "Host": "192.0.2.1"}}
    succeed(hospital, "a", "b")
    courier.send_due()
    courier.send_due()
    assert hospital.orthanc.sent == [("pacs", ["a", "b"])]
    assert hospital.deliveries.of_job("j1")[0].state == DeliveryState.SUCCESS


@pytest.mark.parametrize(
    ("modalities", "words"), [({}, "no modality"), ({"pacs": {"AET": "PACS", "Host": "192.0.2.1"}}, "network")]
)
def test_a_failed_delivery_is_told_and_tried_again(
    hospital: Hospital, courier: Courier, monkeypatch: pytest.MonkeyPatch, modalities: dict[str, object], words: str
) -> None:
    hospital.orthanc.modalities = modalities  # type: ignore[assignment]
    hospital.orthanc.unreachable.add("pacs")
    succeed(hospital, "a")
    courier.send_due()
    (delivery,) = hospital.deliveries.failing()
    assert (delivery.attempts, words in delivery.error) == (1, True)
    assert hospital.deliveries.take() == [], "it waits for its time"
    assert hospital.jobs["j1"].results == [{"ID": "a"}], "the results stay"


def test_results_that_were_deleted_are_not_waited_for(hospital: Hospital, courier: Courier) -> None:
    hospital.orthanc.modalities = {"pacs": {"AET": "PACS", "Host": "192.0.2.1"}}
    hospital.orthanc.unreachable.add("pacs")
    succeed(hospital, "a")
    del hospital.orthanc.headers["a"]
    courier.send_due()
    (delivery,) = hospital.deliveries.of_job("j1")
    assert (delivery.state, "deleted" in delivery.error) == (DeliveryState.FAILURE, True)
    assert hospital.deliveries.take() == hospital.deliveries.failing() == []
    hospital.orthanc.unreachable.clear()
    succeed(hospital, "a")
    hospital.deliveries.add("j1", ["pacs"])
    courier.send_due()
    assert hospital.orthanc.sent == [("pacs", ["a"])], "another analysis made them again"


def test_results_that_are_still_there_are_sent_and_the_others_told(hospital: Hospital, courier: Courier) -> None:
    hospital.orthanc.modalities = {"pacs": {"AET": "PACS", "Host": "192.0.2.1"}}
    succeed(hospital, "a", "b", "c")
    del hospital.orthanc.headers["b"]
    courier.send_due()
    courier.send_due()
    assert hospital.orthanc.sent == [("pacs", ["a", "c"])]
    (delivery,) = hospital.deliveries.of_job("j1")
    assert delivery.state == DeliveryState.SUCCESS
    assert delivery.error == "1 of 3 results were deleted before they could be sent."
    hospital.orthanc.headers["b"] = Dataset()
    for _ in range(2):
        hospital.deliveries.add("j1", ["pacs"])
        courier.send_due()
        courier.send_due()
    assert hospital.orthanc.sent[1:] == [("pacs", ["a", "b", "c"])], "another analysis made it again"
    assert hospital.deliveries.of_job("j1")[0].error == ""


def test_a_transfer_that_orthanc_forgot_is_repeated(
    hospital: Hospital, courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.orthanc.modalities = {"pacs": {"AET": "PACS", "Host": "192.0.2.1"}}
    succeed(hospital, "a")
    monkeypatch.setattr(hospital.orthanc, "jobs", ForgetfulJobs())
    courier.send_due()
    courier.send_due()
    assert "forgot" in hospital.deliveries.of_job("j1")[0].error


def test_a_transfer_that_fails_on_its_way_is_told_and_sent_again_in_time(hospital: Hospital, courier: Courier) -> None:
    hospital.orthanc.modalities = {"pacs": {"AET": "PACS", "Host": "192.0.2.1"}}
    succeed(hospital, "a")
    for attempt in (1, 2):
        courier.send_due()
        hospital.orthanc.jobs[f"sending-{attempt}"] = {"State": "Failure", "ErrorDescription": "Out of resources"}
        for _ in range(3):
            courier.send_due()
            (delivery,) = hospital.deliveries.of_job("j1")
            assert (delivery.state, delivery.attempts) == (DeliveryState.RETRY, attempt)
        assert "Out of resources" in delivery.error
        hospital.database.change("UPDATE deliveries SET not_before = ''")
    courier.send_due()
    courier.send_due()
    assert hospital.deliveries.of_job("j1")[0].state == DeliveryState.SUCCESS


def test_a_transfer_that_does_not_end_keeps_no_other(hospital: Hospital, courier: Courier) -> None:
    for name in ("pacs", "other"):
        hospital.orthanc.modalities[name] = {"AET": name.upper(), "Host": "192.0.2.1"}
    succeed(hospital, "a")
    courier.send_due()
    hospital.orthanc.jobs["sending-1"] = {"State": "Paused", "ErrorDescription": ""}
    hospital.deliveries.add("j1", ["other"])
    for _ in range(3):
        courier.send_due()
    assert hospital.orthanc.sent == [("pacs", ["a"]), ("other", ["a"])], "and none is sent twice"
    states = {one.destination: one.state for one in hospital.deliveries.of_job("j1")}
    assert states == {"pacs": DeliveryState.PENDING, "other": DeliveryState.SUCCESS}
    hospital.orthanc.jobs["sending-1"] = {"State": "Success", "ErrorDescription": ""}
    courier.send_due()
    assert {one.state for one in hospital.deliveries.of_job("j1")} == {DeliveryState.SUCCESS}


def test_one_orthanc_sends_and_another_takes_over_when_it_is_dead(hospital: Hospital, courier: Courier) -> None:
    succeed(hospital, "a")
    there = DeliveryStore(hospital.database, "there")
    assert [ids for _, ids in hospital.deliveries.take()] == [["a"]]
    there.recover({"here", "there"})
    assert there.take() == [], "it is on its way"
    there.recover({"there"})
    ((delivery, _),) = there.take()
    hospital.deliveries.retry_later(delivery, "The dead one was only slow.")
    there.succeed(delivery)
    assert hospital.deliveries.of_job("j1")[0].state == DeliveryState.SUCCESS


class ForgetfulJobs(dict[str, object]):
    """Orthanc's jobs, each forgotten at once."""

    def __setitem__(self, key: str, value: object) -> None:
        pass
