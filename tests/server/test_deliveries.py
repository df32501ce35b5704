import pytest

from covid_ct.server.deliveries import Courier, DeliveryState
from covid_ct.server.jobs import Job, Trigger
from tests.server.conftest import Hospital


@pytest.fixture
def courier(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> Courier:
    monkeypatch.setattr("covid_ct.server.deliveries.POLL_S", 0.0)
    hospital.jobs.add(Job("j1", hospital.series, "1.2", Trigger.REST))
    hospital.deliveries.add("j1", ["pacs"])
    return Courier(hospital.deliveries, hospital.pacs, hospital.log.append)


def test_nothing_is_sent_before_the_job_has_succeeded(hospital: Hospital, courier: Courier) -> None:
    courier.send_due()
    assert hospital.orthanc.sent == []


def test_results_are_sent_once(hospital: Hospital, courier: Courier) -> None:
    hospital.orthanc.modalities = {"pacs": {"AET": "PACS", "Host": "192.0.2.1"}}
    hospital.jobs.succeed("j1", {}, [{"ID": "a"}, {"ID": "b"}])
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
    hospital.jobs.succeed("j1", {}, [{"ID": "a"}])
    courier.send_due()
    (delivery,) = hospital.deliveries.failing()
    assert (delivery.attempts, words in delivery.error) == (1, True)
    assert hospital.deliveries.due() == [], "it waits for its time"
    assert hospital.jobs["j1"].results == [{"ID": "a"}], "the results stay"


def test_a_transfer_that_orthanc_forgot_is_repeated(
    hospital: Hospital, courier: Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.orthanc.modalities = {"pacs": {"AET": "PACS", "Host": "192.0.2.1"}}
    hospital.jobs.succeed("j1", {}, [{"ID": "a"}])
    monkeypatch.setattr(hospital.orthanc, "jobs", ForgetfulJobs())
    courier.send_due()
    assert "forgot" in hospital.deliveries.of_job("j1")[0].error


class ForgetfulJobs(dict[str, object]):
    """Orthanc's jobs, each forgotten at once."""

    def __setitem__(self, key: str, value: object) -> None:
        pass
