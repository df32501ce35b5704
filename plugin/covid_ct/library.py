"""The analysis for one's own programs: without Orthanc, the same way through, the same result objects.

For research and teaching, not for diagnosis.

Examples
--------
A folder `ct` with one chest CT, and the models of this repository:

>>> from pathlib import Path
>>> from covid_ct.library import Analyzer, analyze_folder
>>> analyzer = Analyzer(Path("models"))
>>> findings = analyze_folder(analyzer, Path("ct"), Path("results"))
>>> print(findings.to_dict()["lesion_to_lung_ratio"])  # doctest: +ELLIPSIS
{'total': 0..., 'right': 0..., 'left': 0...}
>>> [path.name for path in sorted(Path("results").glob("*.seg.dcm"))]
['lesions.seg.dcm', 'lungs.seg.dcm']

The steps one by one are `covid_ct.series.folder.read_folder`, `Analyzer.analyze` and
`covid_ct.results.objects.build_results`.
"""

import json
from collections.abc import Callable
from pathlib import Path

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.analysis.findings import Findings
from covid_ct.results.objects import FILES, ResultBuilder, ResultObject, write_result
from covid_ct.series.folder import read_folder

__all__ = ["FINDINGS_FILE", "Analyzer", "Findings", "analyze_folder"]

FINDINGS_FILE = "findings.json"
"""Name of the file with the findings, beside the DICOM objects."""


def analyze_folder(
    analyzer: Analyzer,
    folder: Path,
    output: Path,
    *,
    series_uid: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Findings:
    """Analyse the chest CT in a folder, and write its results into another.

    Parameters
    ----------
    analyzer: Analyzer
        Holds the loaded models; one serves any number of folders.
    folder: Path
        DICOM files of one CT series; others in it are passed over.
    output: Path
        Gets the DICOM objects and `FINDINGS_FILE`, in place of those of an earlier analysis; made where it does not
        exist.
    series_uid: str | None
        SeriesInstanceUID, where the folder holds several CT series.
    progress: Callable[[str, float], None] | None
        Called with the stage and the fraction, 0-1, that is done.

    Returns
    -------
    Findings

    Raises
    ------
    CovidCtError
        Raised if the series cannot be told or analysed, or a model fails; the sentence says why.
    OSError
        Raised if the results cannot be written.
    """
    volume = read_folder(folder, series_uid=series_uid)
    builder = ResultBuilder(volume, analyzer.identities, {"models": analyzer.fingerprint})
    images: list[ResultObject] = []
    findings = analyzer.analyze(volume, progress, segmented=lambda maps: images.extend(builder.images(maps)))
    output.mkdir(parents=True, exist_ok=True)
    # Those of another patient could be taken for this one's.
    for pattern in (FINDINGS_FILE, *FILES):
        for earlier in output.glob(pattern):
            earlier.unlink()
    for result in (*images, *builder.documents(findings)):
        write_result(result.dataset, output / result.name)
    document = json.dumps({"Series": volume.series_uid, **findings.to_dict()}, indent=1)
    (output / FINDINGS_FILE).write_text(document + "\n", encoding="utf-8")
    return findings
