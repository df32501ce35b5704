"""Analyse a folder of DICOM files without Orthanc: the same way through, the same result objects."""

import argparse
import json
import sys
from pathlib import Path

from covid_ct import RESEARCH_USE_ONLY
from covid_ct.analysis.analyzer import Analyzer
from covid_ct.errors import CovidCtError
from covid_ct.results.objects import build_results, write_result
from covid_ct.series.folder import read_folder

MODELS = Path(__file__).resolve().parents[2] / "models"
"""The models beside `plugin`."""


def main() -> int:
    """Command line; exit status 1 with a sentence where the series or a model is refused."""
    parser = argparse.ArgumentParser(prog="covid_ct", description=f"{__doc__} {RESEARCH_USE_ONLY}")
    parser.add_argument("folder", type=Path, help="folder of DICOM files with one chest CT series")
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--series", help="SeriesInstanceUID, where the folder holds several CT series")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder with lungs/, lesions/ and covid/")
    arguments = parser.parse_args()
    try:
        analyzer = Analyzer(arguments.models)
        volume = read_folder(arguments.folder, series_uid=arguments.series)
        findings = analyzer.analyze(volume, _show)
        arguments.output.mkdir(parents=True, exist_ok=True)
        for result in build_results(volume, findings, {"models": analyzer.fingerprint}):
            write_result(result.dataset, arguments.output / result.name)
    except (CovidCtError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    document = json.dumps({"Series": volume.series_uid, **findings.to_dict()}, indent=1)
    (arguments.output / "findings.json").write_text(document + "\n", encoding="utf-8")
    print(document)
    return 0


def _show(stage: str, fraction: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{stage:12} {fraction:4.0%}", end="" if fraction < 1 else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
