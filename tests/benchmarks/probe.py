"""The script that Orthanc loads in the benchmark: the plugin's own, watched from inside.

Writes one JSON object a line to the file that COVID_CT_BENCHMARK names: when a series became stable, when a network
ran, and when Orthanc decoded an image. Where COVID_CT_TICK is set, also every time that a Python thread which wants to
run each millisecond could not, and where the plugin's threads were then; that thread costs time itself.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import orthanc

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugin"))

TICK_S = 0.001
NOTED_S = 0.008
"""Shorter waits are those of any thread: Python hands its lock on every 5 ms."""

FLUSH_S = 0.5

events: list[dict[str, Any]] = []


def note(event: str, **values: object) -> None:
    events.append({"event": event, "time": time.time(), **values})


def waited_for_a_core() -> float:
    """Seconds that this thread was ready to run while other threads had the cores."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def places() -> list[str]:
    """Where each of the plugin's threads is in its code."""
    frames = sys._current_frames()
    found = []
    for thread in threading.enumerate():
        ours = thread.name.startswith("covid-") and not thread.name.startswith("covid-waking")
        frame = frames.get(thread.ident or 0) if ours else None
        while frame is not None and "covid_ct" not in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is not None:
            found.append(
                f"{thread.name}: {Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}:{frame.f_lineno}"
            )
    return found


def tick() -> None:
    """Note how long Python's lock was not to be had; time without a core is not held against it."""
    before, delay = time.perf_counter(), waited_for_a_core()
    while True:
        time.sleep(TICK_S)
        now, delay_now = time.perf_counter(), waited_for_a_core()
        gap = now - before - TICK_S - (delay_now - delay)
        if gap > NOTED_S:
            note("gap", seconds=gap, threads=places())
        before, delay = now, delay_now


def flush() -> None:
    with Path(os.environ["COVID_CT_BENCHMARK"]).open("a") as file:
        while True:
            time.sleep(FLUSH_S)
            while events:
                file.write(json.dumps(events.pop(0)) + "\n")
            file.flush()


register = orthanc.RegisterOnChangeCallback
watched: list[Any] = []


def on_change(change: int, level: int, resource: str) -> None:
    if change == orthanc.ChangeType.STABLE_SERIES:
        note("stable", series=resource)
    elif change == orthanc.ChangeType.ORTHANC_STARTED:
        for work in (tick, flush) if "COVID_CT_TICK" in os.environ else (flush,):
            threading.Thread(target=work, daemon=True).start()
    watched[0](change, level, resource)


def watch(callback: Any) -> None:
    watched.append(callback)
    register(on_change)


orthanc.RegisterOnChangeCallback = watch

import covid  # noqa: E402, F401 - the plugin's own script
from covid_ct.inference.session import Model  # noqa: E402
from covid_ct.server.pacs import Pacs  # noqa: E402

answer, decode = Model._answer, Pacs.decode_jpeg


def watched_answer(self: Any, feed: Any) -> Any:
    begin = time.time()
    result = answer(self, feed)
    note("run", role=self.manifest.role, begin=begin, slices=len(next(iter(feed.values()))))
    return result


def watched_decode(self: Any, dicom: bytes) -> Any:
    begin = time.time()
    result = decode(self, dicom)
    note("decode", begin=begin)
    return result


Model._answer = watched_answer  # type: ignore[method-assign]
Pacs.decode_jpeg = watched_decode  # type: ignore[method-assign]
