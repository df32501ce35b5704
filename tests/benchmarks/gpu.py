"""What a GPU makes of it, where there is one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from covid_ct.analysis.analyzer import ROLES, Analyzer
from covid_ct.analysis.findings import Findings
from covid_ct.inference.providers import CPU, gpu_identity
from covid_ct.inference.session import Model
from covid_ct.results.objects import build_results
from covid_ct.series.folder import read_folder
from covid_ct.series.volume import Volume
from covid_ct.server.configuration import PROVIDERS
from tests.benchmarks import machine
from tests.benchmarks.job import REFERENCE, REPEATS
from tests.benchmarks.report import BUILD, REPOSITORY, Section, current_load, new_section, table
from tests.benchmarks.series import phantom_series, renamed
from tests.benchmarks.servers import Job, covered, median, watched_server

MODELS = REPOSITORY / "models"


@dataclass(frozen=True)
class Alone:
    """One analysis without Orthanc.

    Attributes
    ----------
    asked: str
        Name of the provider in the configuration.
    ready: float
        Seconds until the models were loaded and tried.
    networks, analysing, writing: float
        Seconds in which at least one network ran, of the whole analysis, and for writing the results.
    findings: Findings
    warnings: tuple[str, ...]
    """

    asked: str
    ready: float
    networks: float
    analysing: float
    writing: float
    findings: Findings
    warnings: tuple[str, ...]


def section(slices: int = REFERENCE, matrix: int = 512) -> Section:
    """Providers, times and the masks' agreement; where there is no GPU, the CPU's alone."""
    load = current_load()
    available = [name for name, provider in PROVIDERS.items() if provider in onnxruntime.get_available_providers()]
    files = phantom_series(slices, matrix)
    volume = read_folder(files[0].parent)
    alone = [_alone(volume, name) for name in available]
    # Where a provider's libraries are missing, Orthanc would run what comes next once more.
    asked = [one.asked for one in alone if PROVIDERS[one.asked] in {model.provider for model in one.findings.models}]
    jobs = {name: _in_orthanc(name, files) for name in asked}
    cpu = next(one.findings for one in alone if one.asked == "CPU")
    return new_section(
        "GPU",
        f"Measured on {machine.describe()}; {' with CUDA '.join(gpu_identity(0))}; {machine.versions()}.",
        f"{slices} slices without Orthanc, on a second run, each provider asked for with the CPU behind it. Goals: "
        "networks 0.3 s or less, Dice against the CPU's masks 0.999.",
        table(
            [
                "asked for",
                f"used for {', '.join(ROLES)}",
                "loading",
                "networks",
                "analysing",
                "writing",
                "Dice of lungs",
                "of lesions",
                "probability",
            ],
            [
                [
                    one.asked,
                    ", ".join(identity.provider for identity in one.findings.models),
                    one.ready,
                    one.networks,
                    one.analysing,
                    one.writing,
                    f"{_dice(one.findings.lungs > 0, cpu.lungs > 0):.5f}",
                    f"{_dice(one.findings.lesions > 0, cpu.lesions > 0):.5f}",
                    f"{one.findings.covid_probability:.3f}",
                ]
                for one in alone
            ],
        ),
        *[warning for one in alone for warning in one.warnings],
        f"The whole job in Orthanc, in seconds, measured as in the first section; median of {REPEATS} after a first. "
        "Goal: total 1.5 s or less.",
        table(
            ["asked for", "total", "networks", "rest", "reading", "analysing", "writing", "storing", "peak MB"],
            [
                [
                    name,
                    job.total,
                    job.networks,
                    job.rest,
                    *(job.stages[stage] for stage in ("reading", "analysing", "writing", "storing")),
                    job.peak_mb,
                ]
                for name, job in jobs.items()
            ],
        ),
        load_before=load,
    )


def _alone(volume: Volume, name: str) -> Alone:
    provider = PROVIDERS[name]
    begin = time.perf_counter()
    analyzer = Analyzer(MODELS, (provider,) if provider == CPU else (provider, CPU), engine_cache=BUILD / "engines")
    analyzer.wait()
    ready = time.perf_counter() - begin
    analyzer.analyze(volume)
    with _watched() as runs:
        begin = time.perf_counter()
        findings = analyzer.analyze(volume)
        analysed = time.perf_counter()
        build_results(volume, findings)
        ended = time.perf_counter()
    return Alone(name, ready, covered(runs), analysed - begin, ended - analysed, findings, analyzer.warnings)


def _in_orthanc(name: str, files: list[Path]) -> Job:
    """The job in the middle of several, in an Orthanc that is to use one provider and the CPU behind it."""
    with watched_server("gpu", {"Providers": list(dict.fromkeys((name, "CPU")))}) as server:
        jobs = [server.measure(renamed(files, f"{name} {number}")) for number in range(REPEATS + 1)]
    return median(jobs[1:])


@contextmanager
def _watched() -> Iterator[list[tuple[float, float]]]:
    """Begin and end of every run of a network meanwhile."""
    runs: list[tuple[float, float]] = []
    answer = Model._answer

    def watched(self, feed):  # type: ignore[no-untyped-def]
        begin = time.perf_counter()
        result = answer(self, feed)
        runs.append((begin, time.perf_counter()))
        return result

    Model._answer = watched  # type: ignore[method-assign]
    try:
        yield runs
    finally:
        Model._answer = answer  # type: ignore[method-assign]


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float(2 * np.count_nonzero(one & other) / max(1, np.count_nonzero(one) + np.count_nonzero(other)))
