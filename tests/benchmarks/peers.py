"""The open equivalent of the original's networks, run in a Python of its own beside us."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from covid_ct.parallel import cores
from tests.benchmarks.job import REFERENCE
from tests.benchmarks.report import BUILD, REPOSITORY, Section, current_load, new_section, table
from tests.benchmarks.series import phantom_series
from tests.benchmarks.servers import Job

PYTHON = BUILD / "peers/bin/python"
PIPELINE = Path(__file__).with_name("peer_pipeline.py")

LUNG_SLICES = 12
"""Slices that the lung network is measured on; it takes each by itself, so all take proportionally longer."""

WINDOWS = 2
"""Windows that the lesion network is measured on, out of those that MONAI lays."""

GOAL = 50
"""How many times as quick we are to be."""


def measure(files: list[Path], lung_slices: int = LUNG_SLICES, windows: int = WINDOWS, **more: int) -> dict[str, Any]:
    """What the peers' pipeline found, as peer_pipeline.py prints it."""
    options = {"lung-slices": lung_slices, "windows": windows, "threads": cores(), **more}
    # How NumPy gets its memory is not to be decided by our package.
    environment = {name: value for name, value in os.environ.items() if name != "NUMPY_MADVISE_HUGEPAGE"}
    answer = subprocess.run(
        [str(PYTHON), str(PIPELINE), str(files[0].parent), *(f"--{name}={value}" for name, value in options.items())],
        check=True, capture_output=True, text=True, cwd=REPOSITORY, env=environment,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def section(job: Job) -> Section:
    """The table of the peers.

    Parameters
    ----------
    job: Job
        Ours, of `REFERENCE` slices.
    """
    load = current_load()
    found = measure(phantom_series(REFERENCE))
    rows = [[step["name"], step["measured_on"], step["measured_s"], step["all_s"]] for step in found["steps"]]
    total = sum(step["all_s"] for step in found["steps"])
    times = total / job.total
    return new_section(
        "Peers",
        "The open equivalent of the original's networks on the same series and the same cores: lungmask's R231, "
        "MONAI's SegResNet "
        "and DenseNet121 at the settings of NVIDIA's models (0.8 x 0.8 x 5 mm, HU clipped to -1000 to 500, windows of "
        "224 x 224 x 32 that overlap by 0.6), all with random weights, which takes as long; the networks' masks are "
        f"replaced by a threshold's. {found['versions']}. Where fewer slices or windows were run, the time is "
        "extrapolated in proportion.",
        table(["step", "measured on", "measured s", f"s for {REFERENCE} slices"], rows),
        f"Together {total:.0f} s and {found['peak_mb']:.0f} MB; ours takes {job.total:.1f} s in Orthanc, storing "
        "included: "
        f"**{times:.0f} times** as quick (goal {GOAL}: {'reached' if times >= GOAL else 'not reached'}).",
        load_before=load,
    )
