"""Several threads for work that NumPy, SciPy and ONNX Runtime do without Python's lock."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


SLICES_AT_ONCE = 8
"""Slices for a thread to work on together: threads that take one at a time mostly wait for Python's lock."""

MOST_THREADS = 4
"""Threads for work on arrays, which needs Python's lock between two steps: more wait for it longer than they gain.

300 slices took 1.8 to 2.2 s on 16 cores with 2 to 4 threads, 2.2 to 2.4 s with 1, 6 and 16 (networks on a GPU, no
`waking_cores`).
"""

WAKE_S = 0.001
"""How often Linux is made to choose anew who gets a core while threads compute, in seconds; by itself it does so at the
ticks of its clock, every 4 ms at the usual 250 Hz."""

MOST_CORES_TO_WAKE = 4
"""With more, it takes Python's lock too often, and one of them is soon free: on 16 cores the same 300 slices took 2.1 s
with a thread on each core, and 1.9 s without. How long others wait for a core there was not measured."""


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None) -> Iterator[Result]:
    """Results of a function for some items, in their order, computed by several threads.

    Items are taken as threads get free, so that few of them are held at once. If the work or the next item fails, or
    the caller stops asking, what has not begun is not begun, and what has begun is waited for.

    Parameters
    ----------
    work: Callable[[Item], Result]
        Called on the threads.
    items: Iterable[Item]
        Taken on the caller's thread.
    threads: int | None
        1 or more; None takes as many as work on arrays gains from.

    Yields
    ------
    Result
    """
    threads = threads or min(cores(), MOST_THREADS)
    with computing_threads(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def computing_threads(threads: int) -> ThreadPoolExecutor:
    """Threads that compute when nobody else has work for a core (SCHED_IDLE, sched(7)).

    Whoever asks Orthanc something meanwhile is answered first. The caller's own thread stays as it is.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="covid-slices", initializer=_stand_back)


def _stand_back() -> None:
    # Some sandboxes forbid the call; the work is done all the same.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@contextmanager
def waking_cores() -> Iterator[None]:
    """Have whoever asks Orthanc something wait less for a core while threads compute in the block.

    Linux since 6.6 (its scheduler EEVDF) at times gives a core to one of `computing_threads` though others could run,
    and chooses anew at its clock's next tick, or when any other thread wakes up on that core, as one here does.
    """
    over = threading.Event()
    allowed = os.sched_getaffinity(0)
    threads = [
        threading.Thread(target=_keep_waking, args=(core, over), name=f"covid-waking-{core}", daemon=True)
        for core in (allowed if len(allowed) <= MOST_CORES_TO_WAKE else ())
    ]
    try:
        # Where no more threads can be had, the work is done all the same.
        with suppress(RuntimeError):
            for thread in threads:
                thread.start()
        yield
    finally:
        over.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _keep_waking(core: int, over: threading.Event) -> None:
    with suppress(OSError):
        os.sched_setaffinity(0, {core})
    while not over.is_set():
        time.sleep(WAKE_S)
