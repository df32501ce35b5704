from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from covid_ct.server.database import Database
from covid_ct.server.job_store import MAX_ATTEMPTS, MAX_CRASHES, JobStore
from covid_ct.server.jobs import Job, State, Trigger
from covid_ct.server.requests import JobsRequest

JOB = Job("j1", "series-1", "1.2.3", Trigger.REST)


@pytest.fixture
def jobs(database: Database) -> JobStore:
    return JobStore(database, "here")


def test_a_job_is_kept_once(jobs: JobStore) -> None:
    first = jobs.add(JOB)
    assert first.created
    assert jobs.add(replace(JOB, trigger=Trigger.STABLE_SERIES)) == first
    assert jobs.select(JobsRequest()) == [first]


def test_jobs_are_chosen_by_series_and_state_the_newest_first(jobs: JobStore) -> None:
    for number, state in enumerate((State.FAILURE, State.SUCCESS, State.FAILURE, State.PENDING)):
        created = f"20260101T00000{number}.000000"
        jobs.add(replace(JOB, id=f"j{number}", series=f"series-{number % 2}", state=state, created=created))

    def ids(**wanted: Any) -> list[str]:
        return [job.id for job in jobs.select(JobsRequest(**wanted))]

    assert ids() == ["j3", "j2", "j1", "j0"]
    assert ids(limit=2) == ["j3", "j2"]
    assert ids(states=("Failure", "Pending")) == ["j3", "j2", "j0"]
    assert ids(series="series-1", states=("Success",), limit=5) == ["j1"]


def test_the_oldest_is_taken_first_and_once(jobs: JobStore) -> None:
    jobs.add(replace(JOB, id="a", created="20260101T000002.000000"))
    jobs.add(replace(JOB, id="b", created="20260101T000001.000000"))
    taken = [jobs.take(0), jobs.take(0), jobs.take(0)]
    assert [job and job.id for job in taken] == ["b", "a", None]
    assert taken[0] is not None
    assert (taken[0].state, taken[0].attempts, taken[0].server) == (State.RUNNING, 1, "here")


def test_progress_within_a_stage_waits_for_no_disk(
    jobs: JobStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.add(JOB)
    jobs.take(0)
    written = []
    update = database.update
    monkeypatch.setattr(database, "update", lambda *row: written.append(row) or update(*row))
    for progress in (0.1, 0.2, 0.3):
        jobs.advance("j1", "lungs", progress)
    assert len(written) == 1
    assert (jobs["j1"].stage, jobs["j1"].progress) == ("lungs", 0.3)


def test_fields_are_those_of_orthanc(jobs: JobStore) -> None:
    jobs.add(JOB)
    jobs.take(0)
    jobs.advance("j1", "lesions", 0.426)
    running = jobs["j1"].to_dict()
    assert running["State"] == "Running"
    assert running["Progress"] == 43
    assert "CompletionTime" not in running
    jobs.fail("j1", "Gaps", "Series 1.2.3 has gaps.")
    failed = jobs["j1"].to_dict()
    assert (failed["State"], failed["ErrorCode"], failed["ErrorDetails"]) == ("Failure", 15, "BadFileFormat")
    assert failed["ErrorDescription"] == "Series 1.2.3 has gaps."
    assert failed["Content"]["Reason"] == "Gaps"
    assert failed["CompletionTime"] >= failed["CreationTime"]
    assert set(failed) == {
        "ID", "Type", "State", "Progress", "Priority", "CreationTime", "CompletionTime", "Timestamp",
        "EffectiveRuntime", "ErrorCode", "ErrorDescription", "ErrorDetails", "Content",
    }  # fmt: skip


def test_success_keeps_findings_and_results(jobs: JobStore) -> None:
    jobs.add(JOB)
    jobs.take(0)
    jobs.succeed("j1", {"covid_probability": 0.5}, [{"Kind": "report", "ID": "i"}])
    assert jobs["j1"].findings == {"covid_probability": 0.5}
    assert jobs["j1"].to_dict()["Content"]["Results"] == [{"Kind": "report", "ID": "i"}]
    assert jobs["j1"].to_dict()["Progress"] == 100


def test_a_job_that_ran_at_a_crash_waits_again_and_is_set_aside_at_the_second(connect: Callable[[], Database]) -> None:
    for crash in (1, 2):
        jobs = JobStore(connect(), f"start {crash}")
        jobs.add(JOB)
        jobs.recover({f"start {crash}"})
        assert (jobs["j1"].state, jobs["j1"].stage) == (State.PENDING, "waiting"), "not the stage of the last attempt"
        assert jobs["j1"].crashes == crash - 1
        jobs.take(0)
        jobs.advance("j1", "lesions", 0.5)
    jobs = JobStore(connect(), "start 3")
    (recovered,) = jobs.recover({"start 3"})
    assert (recovered.state, recovered.server) == (State.FAILURE, "start 2")
    assert (jobs["j1"].state, jobs["j1"].reason) == (State.FAILURE, "CrashedRepeatedly")
    assert '"lesions"' in jobs["j1"].error


def test_a_crash_while_results_are_stored_is_not_the_fault_of_the_series(connect: Callable[[], Database]) -> None:
    for start in map(str, range(5)):
        jobs = JobStore(connect(), start)
        jobs.add(JOB)
        jobs.recover({start})
        jobs.take(0)
        jobs.advance("j1", "storing", 0.9)
    jobs.recover({})
    assert (jobs["j1"].state, jobs["j1"].crashes) == (State.PENDING, 0)


def test_a_failing_job_is_tried_again_later_and_then_given_up(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.add(JOB)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        job = jobs.take(0)
        assert job is not None
        assert job.attempts == attempt
        with monkeypatch.context() as patch:
            if attempt > 1:
                patch.setattr("covid_ct.server.job_store.due_after", lambda attempts: "")
            jobs.retry_later(job, "InternalError", "The disk is full.")
        if attempt == 1:
            assert jobs["j1"].state == State.RETRY
            assert jobs.take(0) is None, "it waits for its time"
            jobs._change(jobs["j1"], not_before="")
    assert (jobs["j1"].state, jobs["j1"].error) == (State.FAILURE, "The disk is full.")


def test_a_job_that_was_given_up_begins_as_if_it_had_just_been_asked_for(jobs: JobStore) -> None:
    jobs.add(replace(JOB, state=State.FAILURE, attempts=MAX_ATTEMPTS, crashes=MAX_CRASHES, reason="InternalError"))
    again = jobs.requeue("j1")
    assert (again.state, again.attempts, again.crashes, again.reason) == (State.PENDING, 0, 0, "")


def test_a_job_that_has_succeeded_cannot_be_cancelled(jobs: JobStore) -> None:
    jobs.add(JOB)
    jobs.take(0)
    jobs.succeed("j1", {"covid_probability": 0.5}, [])
    assert jobs.cancel("j1").state == State.SUCCESS


def test_the_last_failures_are_told(jobs: JobStore) -> None:
    for number in (2, 1, 3):
        completed = f"20260101T00000{number}.000000"
        jobs.add(replace(JOB, id=f"j{number}", state=State.FAILURE, completed=completed))
    assert [job.id for job in jobs.failures(2)] == ["j3", "j2"]


def test_stopping_puts_a_job_back_as_if_it_had_not_begun(jobs: JobStore) -> None:
    jobs.add(JOB)
    job = jobs.take(0)
    assert job is not None
    jobs.put_back(job)
    assert (jobs["j1"].state, jobs["j1"].attempts, jobs["j1"].server) == (State.PENDING, 0, "")


def test_cancel(jobs: JobStore) -> None:
    jobs.add(JOB)
    assert jobs.cancel("j1").reason == "Cancelled"
    jobs.requeue("j1")
    jobs.take(0)
    assert not jobs.is_cancelled("j1")
    assert jobs.cancel("j1").state == State.RUNNING
    assert jobs.is_cancelled("j1")


@pytest.mark.parametrize("what", ["fails", "stops"])
def test_a_job_that_was_cancelled_and_is_wanted_again_is_as_any_other(jobs: JobStore, what: str) -> None:
    jobs.add(JOB)
    jobs.take(0)
    jobs.cancel("j1")
    jobs.fail("j1", "Cancelled", "The analysis was cancelled.")
    jobs.requeue("j1")
    job = jobs.take(0)
    assert job is not None
    assert not jobs.is_cancelled("j1")
    if what == "fails":
        jobs.retry_later(job, "InternalError", "The disk is full.")
        assert (jobs["j1"].state, jobs["j1"].error) == (State.RETRY, "The disk is full.")
    else:
        jobs.put_back(job)
        assert jobs["j1"].state == State.PENDING


@pytest.mark.parametrize("what", ["fails", "stops", "dies"])
def test_a_job_that_was_to_end_does_not_begin_anew_whatever_happens_to_it(
    connect: Callable[[], Database], what: str
) -> None:
    jobs, other = JobStore(connect(), "here"), JobStore(connect(), "there")
    jobs.add(JOB)
    job = jobs.take(0)
    assert job is not None
    other.cancel("j1")
    if what == "fails":
        jobs.retry_later(job, "InternalError", "The disk is full.")
    elif what == "stops":
        jobs.put_back(job)
    else:
        other.recover({"there"})
    assert (other["j1"].state, other["j1"].reason) == (State.FAILURE, "Cancelled")
    other.requeue("j1")
    assert other.take(0) is not None, "somebody wants it after all"
    other.recover({"there"})
    assert other["j1"].state == State.RUNNING


def test_identifiers_come_in_the_order_of_the_jobs(jobs: JobStore) -> None:
    for number in range(5):
        jobs.add(replace(JOB, id=f"j{number}", series=f"series-{number % 2}"))
    for wanted in (JobsRequest(), JobsRequest(limit=2), JobsRequest(series="series-1", states=("Pending",))):
        assert jobs.ids(wanted) == [job.id for job in jobs.select(wanted)]
    assert len(jobs.ids(JobsRequest(series="series-1"))) == 2


def test_a_running_job_does_not_begin_anew(jobs: JobStore) -> None:
    jobs.add(JOB)
    jobs.take(0)
    assert jobs.requeue("j1").state == State.RUNNING


def test_a_taking_that_the_database_did_not_confirm_is_undone(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection broke after the change and before the answer."""
    jobs.add(JOB)
    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "__getitem__", lambda self, job_id: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError):  # noqa: PT011
            jobs.take(0)
    assert jobs["j1"].state == State.RUNNING
    jobs.recover({"here"})
    assert (jobs["j1"].state, jobs["j1"].crashes) == (State.PENDING, 0)
    jobs.take(0)
    jobs.recover({"here"})
    assert jobs["j1"].state == State.RUNNING, "this one was heard of"


def test_marks(database: Database) -> None:
    assert database.mark("changes") is None
    database.set_mark("changes", 5)
    database.set_mark("changes", 7)
    assert database.mark("changes") == 7
