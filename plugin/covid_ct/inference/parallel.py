"""Several threads for work that NumPy, SciPy and ONNX Runtime do without Python's lock."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Results of a function for some items, in their order, computed by several threads.

    If the work fails or the caller stops asking, what has not begun is not begun, and what has begun is waited for.

    Parameters
    ----------
    work: Callable[[Item], Result]
        Called on the threads.
    items: Iterable[Item]
    threads: int
        1 or more.

    Yields
    ------
    Result
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="covid-slices") as pool:
        waiting = [pool.submit(work, item) for item in items]
        try:
            for future in waiting:
                yield future.result()
        finally:
            for future in waiting:
                future.cancel()
