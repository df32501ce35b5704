"""The whole job: from the moment when a series is stable to its last result."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.report import Section, current_load, new_section, table
from tests.benchmarks.series import jpeg_lossless, phantom_series, renamed
from tests.benchmarks.servers import Job, WatchedServer, median, watched_server

SLICES = (50, 150, 300, 600, 1200)
REFERENCE = 300
"""Slices at which everything is compared."""

REPEATS = 3
"""Runs of a series of up to `REFERENCE` slices, of which the median by total time counts; longer ones run once."""


@dataclass(frozen=True)
class Measured:
    """The jobs by number of slices, and that of the compressed series."""

    jobs: dict[int, Job]
    compressed: Job


def measure(slices: Sequence[int] = SLICES, matrix: int = 512, repeats: int = REPEATS) -> Measured:
    """Run the jobs, one after the other, in one Orthanc."""
    jobs = {}
    with watched_server("job") as server:
        # The first job loads what later ones have.
        _run(server, phantom_series(min(slices), matrix), 1, "first")
        for count in slices:
            jobs[count] = _run(server, phantom_series(count, matrix), repeats if count <= REFERENCE else 1, count)
        reference = phantom_series(min(slices, key=lambda count: abs(count - REFERENCE)), matrix)
        return Measured(jobs, _run(server, jpeg_lossless(reference), repeats, "compressed"))


def _run(server: WatchedServer, files: list[Path], repeats: int, name: object) -> Job:
    """The job in the middle of several; each gets the series under another name, for a series is analysed once."""
    return median([server.measure(renamed(files, f"{name} {number}")) for number in range(repeats)])


def section() -> tuple[Section, Measured]:
    """The table of the whole job."""
    load = current_load()
    measured = measure()
    rows = [_row(str(count), job) for count, job in measured.jobs.items()]
    rows.append(_row(f"{REFERENCE}, JPEG Lossless", measured.compressed))
    reference = measured.jobs[REFERENCE]
    per_slice = [job.total / count for count, job in measured.jobs.items() if count >= 150]
    return (
        new_section(
            "The whole job",
            "From the moment when Orthanc says that the series is stable until the last result and the findings are "
            "stored, in seconds. Orthanc 1.10.1 with its repository configuration on loopback; `networks` is the time "
            "during which at least one network ran, `rest` all other time; the stages are the plugin's own log, "
            "`start` what passes before the first. The first network begins while the series is read; segmentations "
            "and overlay series are made, and measurements taken, while the last one runs. "
            f"Median of {REPEATS} runs up to {REFERENCE} slices, one run beyond. Memory is the peak of the process "
            "beyond idle Orthanc with the models loaded.",
            table(
                [
                    "slices",
                    "total",
                    "networks",
                    "rest",
                    "start",
                    "reading",
                    "analysing",
                    "writing",
                    "storing",
                    "peak MB",
                ],
                rows,
            ),
            f"Goals at {REFERENCE} slices: total 6 s or less ({_verdict(reference.total, 6.0)}), rest 1.5 s or less "
            f"({_verdict(reference.rest, 1.5)}), peak 700 MB or less ({_verdict(reference.peak_mb, 700.0, 'MB')}). "
            f"Total time for a slice between 150 and {max(measured.jobs)} slices: {1000 * min(per_slice):.1f} to "
            f"{1000 * max(per_slice):.1f} ms.",
            f"JPEG Lossless: {measured.compressed.total - reference.total:+.2f} s, of which Orthanc's decoder had "
            f"{measured.compressed.decoding:.2f} s.",
            load_before=load,
        ),
        measured,
    )


def _row(name: str, job: Job) -> list[object]:
    stages = [job.stages[stage] for stage in ("reading", "analysing", "writing", "storing")]
    return [name, job.total, job.networks, job.rest, max(0.0, job.total - sum(stages)), *stages, job.peak_mb]


def _verdict(value: float, goal: float, unit: str = "s") -> str:
    return (
        f"{'reached' if value <= goal else 'not reached'}: {value:.0f} MB"
        if unit == "MB"
        else (f"{'reached' if value <= goal else 'not reached'}: {value:.2f} s")
    )
