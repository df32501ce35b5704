"""`make benchmark`: measure everything, print it, write docs/performance.md."""

import argparse
import sys
from collections.abc import Callable
from functools import partial

import covid_ct  # noqa: F401 - before NumPy, as in Orthanc
from tests.benchmarks import gpu, job, limit, machine, page, peers, quiet, service, throughput
from tests.benchmarks.report import Section, keep, show, write_page

ORDER = ("job", "limit", "peers", "service", "quiet", "newer", "throughput", "page", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default=",".join(ORDER), help=f"parts, divided by commas, out of {', '.join(ORDER)}; default: all"
    )
    only = parser.parse_args().only.split(",")
    if unknown := sorted(set(only) - set(ORDER)):
        sys.exit(f"There is no part {unknown[0]}; there are {', '.join(ORDER)}.")
    measured: list[job.Measured] = []

    def whole_job() -> Section:
        section, found = job.section()
        measured.append(found)
        return section

    parts: dict[str, Callable[[], Section]] = {
        "job": whole_job,
        "limit": lambda: limit.section(_reference(measured)),
        "peers": lambda: peers.section(_reference(measured)),
        "service": service.section,
        "quiet": quiet.section,
        "throughput": throughput.section,
        "page": page.section,
        "gpu": gpu.section,
    }
    if "gpu" in only and not machine.has_gpu():
        print(
            "There is no GPU here, or ONNX Runtime was installed without its CUDA provider (requirements-gpu.txt): "
            "the page keeps what was measured on one."
        )
        only.remove("gpu")
    if "newer" in only:
        root = quiet.newer_orthanc()
        if root is None:
            print("Only root can set up a newer Orthanc beside this one: the page keeps what was measured on one.")
            only.remove("newer")
        else:
            parts["newer"] = partial(quiet.newer_section, root)
    for name in ORDER:
        if name in only:
            section = parts[name]()
            show(section)
            keep(name, section)
            write_page(ORDER)


def _reference(measured: list[job.Measured]) -> job.Job:
    """Our own job at the reference size: of this run where it was measured, else measured now."""
    if not measured:
        measured.append(job.measure((job.REFERENCE,), repeats=1))
    return measured[0].jobs[job.REFERENCE]


if __name__ == "__main__":
    main()
