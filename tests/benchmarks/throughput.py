"""Series in an hour, with one worker and with two."""

from collections.abc import Sequence

from covid_ct.parallel import cores
from tests.benchmarks.job import REFERENCE
from tests.benchmarks.limit import RESULT_BYTES
from tests.benchmarks.report import Section, current_load, new_section, table
from tests.benchmarks.series import phantom_series, renamed
from tests.benchmarks.servers import moment, watched_server

SERIES = 4
"""Series that wait at the same time."""

DAY = 10_000
"""Chest CTs of a hospital network's day."""

SLICES_OF_A_DAY = 300


def measure(workers: int, series: int = SERIES, slices: int = REFERENCE, matrix: int = 512) -> float:
    """Series in an hour."""
    files = phantom_series(slices, matrix)
    threads = max(1, cores() // workers)
    settings = {"Automatic": False, "Workers": workers, "Threads": threads}
    with watched_server(f"throughput-{workers}", settings) as server:
        first = server.upload(renamed(files, "first"))
        waiting = [server.upload(renamed(files, f"throughput {number}")) for number in range(series)]
        server.wait([server.ask(first)])
        jobs = server.wait([server.ask(one) for one in waiting])
        begin = min(moment(job["CreationTime"]) for job in jobs)
        end = max(moment(job["CompletionTime"]) for job in jobs)
    return series * 3600 / (end - begin)


def section(workers: Sequence[int] = (1, 2)) -> Section:
    """The table of throughput, and the arithmetic for a hospital network."""
    load = current_load()
    rates = {count: measure(count) for count in workers}
    best = max(rates.values())
    machines = DAY / (24 * best)
    peak = 3 * machines
    return new_section(
        "Many series",
        f"{SERIES} series of {REFERENCE} slices wait at once; from the first that is asked for to the last that is "
        "stored. "
        "`Threads` is the number of cores divided by the workers.",
        table(
            ["workers", "series an hour", "seconds a series"],
            [[count, rate, 3600 / rate] for count, rate in rates.items()],
        ),
        f"**A hospital network's day.** {DAY:,} chest CTs of {SLICES_OF_A_DAY} slices are {DAY / 24:.0f} an hour "
        "if they come "
        f"evenly. At {best:.0f} series an hour on {cores()} cores, {machines:.2f} such machines would be busy all "
        "day; CT is "
        f"done by day, so with a third of the hours carrying all of it {-(-peak // 1):.0f} machines of {cores()} cores "
        f"({cores() * -(-peak // 1):.0f} cores) keep up. Several Orthancs that share one PostgreSQL share the "
        "queue of jobs "
        "([reliability](reliability.md)), so machines are added without any other change. Arriving pixels are "
        f"{DAY * SLICES_OF_A_DAY * 512 * 512 * 2 / 1e12:.1f} TB a day, "
        f"{DAY * SLICES_OF_A_DAY * 512 * 512 * 2 / 86400e6:.0f} "
        "MB/s on average, which storage and network have to carry whoever analyses them; the results add about "
        f"{RESULT_BYTES * DAY / 1e12:.2f} TB. This is arithmetic from the table above; no such network was run.",
        load_before=load,
    )
