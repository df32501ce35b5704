import re
import subprocess
import sys
from pathlib import Path

import pytest

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TOUCH = """
import {first}, numpy
kept = numpy.zeros(64 << 20, numpy.uint8)
kept[:: 1 << 20] = 1
print(open("/proc/self/smaps_rollup").read())
"""


@pytest.mark.skipif(
    not THP.exists() or "[madvise]" not in THP.read_text(), reason="this Linux gives large pages to all or to none"
)
@pytest.mark.parametrize(("first", "large"), [("covid_ct", False), ("sys", True)])
def test_of_a_map_only_what_is_written_to_takes_memory(first: str, large: bool) -> None:
    """NumPy alone asks for pages of 2 MB; after this package it does not."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[1] / "plugin")}
    done = subprocess.run(
        [sys.executable, "-c", TOUCH.format(first=first)], env=environment, capture_output=True, text=True, check=True
    )
    found = re.search(r"AnonHugePages:\s*(\d+) kB", done.stdout)
    assert found
    assert (int(found[1]) > 32 << 10) == large
