"""The faults that the tests tried and what came of them, for docs/reliability.md.

`python -m tests.orthanc.faults` rewrites the table there from what the last runs left in build/faults/.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.orthanc.driving import ORTHANC_ROOT

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "faults"
PAGE = REPOSITORY / "docs" / "reliability.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"

Tried = Callable[[str, str], None]

PROPERTY = "fault"
"""Name under which a test's report carries a fault and its outcome."""


def write_faults(tried: dict[str, str]) -> None:
    """Keep a run's outcomes by fault beside those of earlier runs of the same Orthanc."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{os.environ.get('ORTHANC_VERSION', 'system') if ORTHANC_ROOT else 'system'}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | tried, indent=1, ensure_ascii=False))


def main() -> None:
    """Rewrite the table."""
    rows = json.loads((FOLDER / "system.json").read_text())
    table = "\n".join(f"| {fault} | {outcome} |" for fault, outcome in sorted(rows.items()))
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text(f"{head}{BEGIN}\n| Fault | Outcome |\n|---|---|\n{table}\n{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
