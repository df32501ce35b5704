import subprocess
import sys
from pathlib import Path

import pytest

ALLOCATE = """
import {first}, numpy
kept = numpy.empty(64 << 20, numpy.uint8)
print(open("/proc/self/smaps").read())
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this Linux has pages of one size only"
)
@pytest.mark.parametrize(("first", "large"), [("covid_ct", False), ("sys", True)])
def test_numpy_asks_for_no_large_pages(first: str, large: bool) -> None:
    """By itself it does; then a map takes memory where nothing is written to as well."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[1] / "plugin")}
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE.format(first=first)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    flags = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("VmFlags:")]
    assert any("hg" in mapping for mapping in flags) == large
