"""What a GPU makes of it, where there is one."""

import time

import numpy as np

from covid_ct.analysis.analyzer import ROLES, Analyzer
from covid_ct.inference.providers import CPU, CUDA, TENSORRT
from covid_ct.inference.session import Model
from covid_ct.results.objects import build_results
from covid_ct.series.folder import read_folder
from tests.benchmarks import machine
from tests.benchmarks.job import REFERENCE
from tests.benchmarks.report import BUILD, REPOSITORY, Section, current_load, new_section, table
from tests.benchmarks.series import phantom_series
from tests.benchmarks.servers import covered

MODELS = REPOSITORY / "models"


def section(slices: int = REFERENCE, matrix: int = 512) -> Section:
    """Providers, times and the masks' agreement; one sentence where there is no GPU."""
    load = current_load()
    if not machine.has_gpu():
        return new_section(
            "GPU",
            "There is no GPU here, and ONNX Runtime "
            f"{'has' if CUDA in _available() else 'was installed without'} its CUDA provider: nothing of this was "
            "measured. "
            "Where there is one, `make benchmark ARGS='--only gpu'` with `requirements-gpu.txt` measures "
            f"{REFERENCE} slices on "
            "TensorRT, CUDA and CPU: which provider really ran each network, the networks' time, the whole "
            "without Orthanc, and "
            "the Dice of the masks against the CPU's. The order of providers, their absence and their failures "
            "are tested "
            "with simulated providers (`tests/inference`).",
            load_before=load,
        )
    volume = read_folder(phantom_series(slices, matrix)[0].parent)
    rows: list[list[object]] = []
    masks = None
    for provider in (CPU, CUDA, TENSORRT):
        if provider not in _available():
            continue
        analyzer = Analyzer(MODELS, (provider,) if provider == CPU else (provider, CPU), engine_cache=BUILD / "engines")
        analyzer.analyze(volume)
        runs = _watch()
        begin = time.perf_counter()
        findings = analyzer.analyze(volume)
        analysed = time.perf_counter()
        build_results(volume, findings)
        ended = time.perf_counter()
        masks = masks or (findings.lungs > 0, findings.lesions > 0)
        used = ", ".join(identity.provider for identity in findings.models)
        same = [
            _dice(ours, theirs) for ours, theirs in zip(masks, (findings.lungs > 0, findings.lesions > 0), strict=True)
        ]
        rows.append([provider, used, covered(runs), analysed - begin, ended - analysed, *same, *analyzer.warnings])
    return new_section(
        "GPU",
        f"{slices} slices without Orthanc, on a second run; goals: networks 0.3 s or less, Dice against the CPU 0.999.",
        table(
            [
                "asked for",
                f"used for {', '.join(ROLES)}",
                "networks s",
                "analysing s",
                "writing s",
                "Dice lungs",
                "Dice lesions",
            ],
            [row[:7] for row in rows],
        ),
        *[str(warning) for row in rows for warning in row[7:]],
        load_before=load,
    )


def _available() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _watch() -> list[tuple[float, float]]:
    """Begin and end of every run of a network from now on."""
    runs: list[tuple[float, float]] = []
    answer = Model._answer

    def watched(self, feed):  # type: ignore[no-untyped-def]
        begin = time.perf_counter()
        result = answer(self, feed)
        runs.append((begin, time.perf_counter()))
        return result

    Model._answer = watched  # type: ignore[method-assign]
    return runs


def _dice(one: np.ndarray, other: np.ndarray) -> float:  # type: ignore[type-arg]
    return float(2 * np.count_nonzero(one & other) / max(1, np.count_nonzero(one) + np.count_nonzero(other)))
