"""How quick Orthanc answers others while an analysis runs, and how long the plugin keeps Python's lock."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from covid_ct.parallel import cores
from tests.benchmarks.job import REFERENCE
from tests.benchmarks.report import BUILD, REPOSITORY, Section, current_load, new_section, table
from tests.benchmarks.series import phantom_series, renamed
from tests.benchmarks.servers import WatchedServer, percentile, watched_server

PYTHON = BUILD / "peers/bin/python"
CLIENT = Path(__file__).with_name("quiet_client.py")

IDLE_S = 60.0
"""How long an idle Orthanc is asked, and one beside whom loops of idle priority have the cores."""

LOOP = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
"""The mildest that can compute: it has nothing to do with Orthanc, and gives way to whoever wants its core."""

SERIES = 10
"""Series that are analysed meanwhile, one after the other."""

FEWEST_CALLS = 100
"""With fewer, the 99th percentile is the worst single call."""

DISTURBED = 0.7
"""Where the busy server's 99th percentile is less than this share of the idle one's, the idle one was not idle."""

RATIO = 3.0
"""Goal: at most so many times the 99th percentile of an idle server."""

STRETCH_S = 0.05
"""Goal: no longer stretch without Python's lock."""

STORING = ("worker._store:", "pacs.store:")
"""Where a worker is while Orthanc takes a result, which keeps Python's lock without `Python.AllowThreads`."""

SLOWEST = """\
What made the slowest wait, by the kernel's own trace of 9,000 calls of `GET /system` on 2026-11-26 (Linux 6.18, 250 Hz,
2 cores): in 4 of 100 calls the client or one of Orthanc's threads could run and did not, since a computing thread of
ours, though SCHED_IDLE, was given the core and kept it until the clock's next tick, 4 ms at most: to Linux (EEVDF)
whoever has used up what it saved by sleeping waits its turn. A thread on each core (of four at most) that wakes up
every millisecond, whereupon Linux chooses anew, shortens that wait (`parallel.waking_cores`, while an analysis reads
and computes). In turns in the same Orthanc, with it and without: the p99 of 10,000 calls each 3.0 and 4.6 ms (idle
1.1); of 5,000 calls while the networks ran 1.9 and 4.6 ms, of 1,400 in the stage `reading` 4.3 and 5.8 ms; ten jobs
each took 4.21 and 4.17 s (medians), all but the networks 1.54 and 1.57 s. The other calls were not compared so."""
"""What was found once by looking closely."""

Times = dict[str, list[float]]
"""Seconds of each call, by the name of what was called."""

Gap = dict[str, Any]
"""A stretch without Python's lock: its `seconds`, and where the plugin's `threads` were at its end."""


def measure(
    idle_s: float = IDLE_S,
    series: int = SERIES,
    slices: int = REFERENCE,
    matrix: int = 512,
    root: Path | None = None,
) -> tuple[Times, Times, Times, list[Gap]]:
    """Times on an idle server, beside a loop on each core, and during analyses; stretches without Python's lock."""
    files = phantom_series(slices, matrix)
    with watched_server("quiet", {"Automatic": False}, root=root) as server:
        server.wait([server.ask(server.upload(renamed(files, "quiet first")))])
        waiting = [server.upload(renamed(files, f"quiet {number}")) for number in range(series)]
        time.sleep(3.0)
        client = _start(server, files[0], "idle")
        time.sleep(idle_s)
        idle = _end(client)
        loops = [subprocess.Popen([str(PYTHON), "-c", LOOP]) for _ in range(cores())]
        try:
            client = _start(server, files[0], "beside loops")
            time.sleep(idle_s)
            beside = _end(client)
        finally:
            for loop in loops:
                loop.kill()
                loop.wait()
        client = _start(server, files[0], "busy")
        server.wait([server.ask(one) for one in waiting])
        busy = _end(client)
    # Apart from the clients, since a thread that asks for Python's lock all the time changes what they see.
    with watched_server("lock", {"Automatic": False}, ticking=True, root=root) as server:
        server.wait([server.ask(server.upload(renamed(files, "lock first")))])
        series_id = server.upload(renamed(files, "lock"))
        time.sleep(3.0)
        begin = time.time()
        server.wait([server.ask(series_id)])
        gaps = [event for event in server.events(begin, time.time()) if event["event"] == "gap"]
    return idle, beside, busy, sorted(gaps, key=lambda gap: -float(gap["seconds"]))


def newer_orthanc() -> Path | None:
    """The folder of another Debian with the Orthanc that `make benchmark` names, set up where this user may do so."""
    folder, version = Path(os.environ["ORTHANC_ROOT"]), os.environ["ORTHANC_VERSION"]
    if os.geteuid() != 0 and not (folder / ".ready").exists():
        return None
    for command in (["orthanc-version.sh", version, str(folder)], ["orthanc-packages.sh", str(folder), sys.executable]):
        subprocess.run([REPOSITORY / "tools" / command[0], *command[1:]], cwd=REPOSITORY, check=True)
    return folder


def section() -> Section:
    """The table of latencies, on this machine's Orthanc."""
    load = current_load()
    idle, beside, busy, gaps = measure()
    long = [gap for gap in gaps if gap["seconds"] >= STRETCH_S and not _is_storing(gap)]
    return new_section(
        "Orthanc stays quick meanwhile",
        "Milliseconds of single calls by a client on the same machine, one after the other, on an idle server and "
        "while "
        f"{SERIES} series of {REFERENCE} slices are analysed. The client itself has to share the cores with the "
        "analysis. `loops` is the idle server while on each core an empty loop of the same priority (SCHED_IDLE) as "
        "our computing threads runs, outside Orthanc: what computing costs where nothing is done about it.",
        *_latencies(idle, beside, busy),
        SLOWEST,
        f"{_longest(gaps)} Goal: none of {1000 * STRETCH_S:.0f} ms but the storing of a large object "
        f"({'not reached' if long else 'reached'}; {len(long)} such stretches).",
        *_places(long),
        load_before=load,
    )


def newer_section(root: Path) -> Section:
    """The same on a newer Orthanc, which knows `Python.AllowThreads`."""
    load = current_load()
    idle, beside, busy, gaps = measure(root=root)
    long = [gap for gap in gaps if gap["seconds"] >= STRETCH_S]
    return new_section(
        "The same on a newer Orthanc",
        f"As in the section before, on Orthanc {os.environ['ORTHANC_VERSION']} (Debian's, from a folder), whose Python "
        "plugin knows `Python.AllowThreads`: there Python's lock is free while Orthanc stores a result.",
        *_latencies(idle, beside, busy),
        f"{_longest(gaps)} Goal: none of {1000 * STRETCH_S:.0f} ms ({'not reached' if long else 'reached'}; "
        f"{len(long)} such stretches).",
        *_places(long),
        load_before=load,
    )


def _latencies(idle: Times, beside: Times, busy: Times) -> tuple[str, str]:
    """The table, and whether the goal was reached."""
    rows: list[list[object]] = []
    ratios = []
    for name in idle:
        ratios.append(percentile(busy[name], 99) / percentile(idle[name], 99))
        milliseconds = [
            1000 * percentile(times[name], percent) for times in (idle, beside, busy) for percent in (50, 99)
        ]
        counts = [len(times[name]) for times in (idle, beside, busy)]
        rows.append(
            [name, *counts, *milliseconds, percentile(beside[name], 99) / percentile(idle[name], 99), ratios[-1]]
        )
    columns = ["idle calls", "loops calls", "calls", "idle p50", "idle p99", "loops p50", "loops p99", "p50", "p99"]
    return (
        table(["call", *columns, "loops ratio", "p99 ratio"], rows),
        f"Goal: at most {RATIO:.0f} times the idle p99: {_verdict(idle, ratios)}.",
    )


def _longest(gaps: Sequence[Gap]) -> str:
    """The longest stretches without Python's lock."""
    longest = ", ".join(_named(gap) for gap in gaps[:5]) or "none over 8"
    return (
        "Longest stretches for which a Python thread inside Orthanc could not get Python's lock during another "
        f"analysis, in ms: {longest}. Time for which that thread merely had no core is taken off."
    )


def _places(long: Sequence[Gap]) -> list[str]:
    """Where the plugin's threads were after the longest of the stretches that are too long."""
    return [f"Where the plugin's threads were after the longest: {'; '.join(long[0]['threads'])}."] if long else []


def _is_storing(gap: Gap) -> bool:
    """Whether a worker was handing a result to Orthanc."""
    return any(place in thread for thread in gap["threads"] for place in STORING)


def _named(gap: Gap) -> str:
    return f"{1000 * gap['seconds']:.0f}{' (storing)' if _is_storing(gap) else ''}"


def _verdict(idle: Times, ratios: Sequence[float]) -> str:
    """Whether the goal was reached, or why this run cannot tell."""
    fewest = min(map(len, idle.values()))
    if fewest < FEWEST_CALLS or min(ratios) < DISTURBED:
        return (
            f"**not shown by this run**: the idle server was asked {fewest} times, and its slowest answers took "
            f"{1 / min(ratios):.1f} times as long as the busy one's, so something else disturbed it"
        )
    return f"{'reached' if max(ratios) <= RATIO else 'not reached'}, {max(ratios):.1f} at most"


def _start(server: WatchedServer, image: Path, name: str) -> "subprocess.Popen[str]":
    one = server.server
    ports: Sequence[Any] = (one.http_port, one.dicom_port)
    return subprocess.Popen(
        [str(PYTHON), str(CLIENT), *map(str, ports), str(image), name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip


def _end(client: "subprocess.Popen[str]") -> Times:
    answer, _ = client.communicate("enough\n", timeout=60)
    assert client.returncode == 0
    found: Times = json.loads(answer)
    return found
