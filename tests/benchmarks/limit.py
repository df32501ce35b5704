"""The least that each stage must do, at the machine's own measured rates, and how far from it we are."""

from pathlib import Path

from tests.benchmarks import machine
from tests.benchmarks.job import REFERENCE
from tests.benchmarks.report import REPOSITORY, Section, current_load, new_section, table
from tests.benchmarks.servers import Job

MATRIX = 512
GRID_CELLS = 256 * 256
"""Cells of a slice on the networks' grids."""

RESULT_BYTES = 30_000_000
"""About what the results of a series of `REFERENCE` slices hold: a bit for each voxel of the SEGs' frames, and the
pictures."""


def section(job: Job) -> Section:
    """The table of limits.

    Parameters
    ----------
    job: Job
        Of `REFERENCE` slices.
    """
    load = current_load()
    voxels = REFERENCE * MATRIX**2
    copy, write = machine.copy_rate(), machine.write_rate()
    rates = {quantized: machine.multiplication_rate(quantized=quantized) for quantized in (True, False)}
    networks = [_network(REPOSITORY / "models" / role / "model.onnx", runs, rates) for role, runs in job.runs.items()]
    multiplications, network_s = (sum(parts) for parts in zip(*networks, strict=True))
    # The first network begins while the series is read, and most results are written while the last one runs.
    others = max(0.0, sum(job.stages[stage] for stage in ("reading", "analysing", "writing")) - job.networks)
    moved = (4 + 2 * 2 + 3 * 2 + 2 + 2) * voxels + 2 * 4 * REFERENCE * GRID_CELLS
    rows: list[list[object]] = [
        [
            "networks",
            f"{multiplications / 1e9:.0f} G multiplications",
            f"{multiplications / network_s / 1e9:.0f} G/s",
            network_s,
            job.networks,
            job.networks / network_s,
        ]
    ]
    rows.append(
        [
            "all but networks and storing",
            f"{moved / 1e6:.0f} MB",
            f"{copy / 1e9:.1f} GB/s",
            moved / copy,
            others,
            others * copy / moved,
        ]
    )
    seconds = job.stages["storing"]
    rows.append(
        [
            "storing",
            f"{RESULT_BYTES / 1e6:.0f} MB",
            f"{write / 1e6:.0f} MB/s",
            RESULT_BYTES / write,
            seconds,
            seconds * write / RESULT_BYTES,
        ]
    )
    # The largest gap in seconds is where work pays most.
    rows.sort(key=lambda row: float(str(row[3])) - float(str(row[4])))
    return new_section(
        "The limit",
        f"What each stage must do at the least for {REFERENCE} slices, by the machine's own rate, and how many "
        "times longer "
        "we take; the largest gap first. The rates were measured in the same run: convolutions of 64 channels in ONNX "
        "Runtime, one network on each core, for the networks; a copy in memory by all cores for what moves arrays; a "
        "synchronised write for what reaches the disk.",
        table(["stage", "must do", "at", "limit s", "measured s", "times the limit"], rows),
        "All but networks and storing: copy the pixels out of Orthanc and into the volume, read it for each of two "
        "networks, write, trim and count two label maps, read both, and the volume for pictures.",
        load_before=load,
    )


def _network(model: Path, runs: int, rates: dict[bool, float]) -> tuple[float, float]:
    """Multiplications of a network's runs, and the seconds they take at the machine's rate."""
    count = runs * machine.multiplications(model)
    return count, count / rates[machine.is_quantized(model)]
