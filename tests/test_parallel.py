import os
import re
import threading
import time
from pathlib import Path

import pytest

from covid_ct.parallel import cores, in_parallel, waking_cores


def test_results_come_in_order_from_several_threads():
    meeting = threading.Barrier(2, timeout=10)

    def work(item):
        meeting.wait()  # passes only if two items are under way together
        return item * 2

    assert list(in_parallel(work, range(8), 2)) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_work_on_arrays_gets_a_thread_on_each_core_but_few_on_a_large_machine(monkeypatch: pytest.MonkeyPatch):
    def threads_on(count: int) -> int:
        monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(count)))
        begun = threading.Barrier(min(count, 4), timeout=10)

        def work(_: int) -> int:
            begun.wait()  # passes only if so many items are under way together
            return threading.get_ident()

        return len(set(in_parallel(work, range(2 * min(count, 4)))))

    assert [threads_on(count) for count in (1, 2, 16)] == [1, 2, 4]


def test_the_threads_compute_when_nobody_else_does_and_the_caller_goes_on_as_before():
    before = os.sched_getscheduler(0)
    assert set(in_parallel(lambda _: os.sched_getscheduler(0), range(4), 2)) == {os.SCHED_IDLE}
    assert os.sched_getscheduler(0) == before != os.SCHED_IDLE


def waking() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("covid-waking")]


def test_a_thread_wakes_up_on_every_core_as_long_as_others_compute():
    def times_slept(thread: threading.Thread) -> int:
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
        return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[1])

    with waking_cores():
        threads = waking()
        end = time.monotonic() + 10.0
        while min(map(times_slept, threads)) < 20 and time.monotonic() < end:
            time.sleep(0.01)
        assert min(map(times_slept, threads)) >= 20
        bound = [os.sched_getaffinity(thread.native_id) for thread in threads]
        assert sorted(bound, key=min) == [{core} for core in sorted(os.sched_getaffinity(0))]
        assert {os.sched_getscheduler(thread.native_id) for thread in threads} == {os.SCHED_OTHER}
    assert not waking()


def test_many_cores_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(5)))
    with waking_cores():
        assert not waking()


def test_where_no_thread_can_be_had_the_work_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch):
    start, started = threading.Thread.start, []

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(threading.Thread, "start", start_one)
    with waking_cores():
        assert waking() == started
    assert not waking()


def test_they_wake_up_no_longer_after_a_failure():
    with pytest.raises(ValueError, match="three"), waking_cores():
        raise ValueError("three")
    assert not waking()


def test_a_failure_stops_what_has_not_begun():
    begun = []

    def work(item):
        begun.append(item)
        if item == 3:
            raise ValueError("three")
        time.sleep(0.01)  # leaves the caller the time to hear of it

    with pytest.raises(ValueError, match="three"):
        list(in_parallel(work, range(1000), 1))
    assert len(begun) < 1000


def test_a_caller_that_stops_asking_stops_the_work():
    begun = []

    def work(item):
        begun.append(item)
        time.sleep(0.01)

    results = in_parallel(work, range(1000), 1)
    next(results)
    results.close()
    count = len(begun)
    assert count < 1000
    assert len(begun) == count


def test_there_is_a_core():
    assert cores() >= 1
