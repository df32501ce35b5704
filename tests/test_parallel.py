import os
import threading
import time

import pytest

from covid_ct.parallel import cores, in_parallel


def test_results_come_in_order_from_several_threads():
    meeting = threading.Barrier(2, timeout=10)

    def work(item):
        meeting.wait()  # passes only if two items are under way together
        return item * 2

    assert list(in_parallel(work, range(8), 2)) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_the_threads_compute_when_nobody_else_does_and_the_caller_goes_on_as_before():
    before = os.sched_getscheduler(0)
    assert set(in_parallel(lambda _: os.sched_getscheduler(0), range(4), 2)) == {os.SCHED_IDLE}
    assert os.sched_getscheduler(0) == before != os.SCHED_IDLE


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
