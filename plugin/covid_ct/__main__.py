"""Analyse a folder of DICOM files without Orthanc: the same way through, the same result objects."""

import argparse
import sys
from pathlib import Path

from covid_ct import RESEARCH_USE_ONLY
from covid_ct.errors import CovidCtError
from covid_ct.library import FINDINGS_FILE, Analyzer, analyze_folder

MODELS = Path(__file__).resolve().parents[2] / "models"
"""The models beside `plugin`."""


def main() -> int:
    """Command line; exit status 1 with a sentence where the series or a model is refused."""
    parser = argparse.ArgumentParser(prog="covid_ct", description=f"{__doc__} {RESEARCH_USE_ONLY}")
    parser.add_argument("folder", type=Path, help="folder of DICOM files with one chest CT series")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--series", help="SeriesInstanceUID, where the folder holds several CT series")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder with lungs/, lesions/ and covid/")
    given = parser.parse_args()
    try:
        analyze_folder(Analyzer(given.models), given.folder, given.output, series_uid=given.series, progress=_show)
        print((given.output / FINDINGS_FILE).read_text(encoding="utf-8"), end="")
    except (CovidCtError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _show(stage: str, fraction: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{stage:12} {fraction:4.0%}", end="" if fraction < 1 else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
