"""Pictures of the phantom in the viewers that run here, for the documentation.

Usage: python -m tests.viewers.pictures FOLDER
"""

import sys
import tempfile
from pathlib import Path

from pydicom import dcmread

from covid_ct.series.volume import AIR_HU
from tests.viewers.cases import make_case
from tests.viewers.conftest import OHIF
from tests.viewers.ohif import chromium, opened_study
from tests.viewers.ohif_server import serve_ohif
from tools.orthanc_server import OrthancServer


def main(output: Path) -> None:
    """Write viewer-ohif.png: the slice with most lesion, both segmentations shown."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        case = make_case("upright", folder)
        series = {dcmread(path, stop_before_pixels=True).SeriesInstanceUID for path in case.results.values()}
        largest = str(case.volume.headers[int((case.findings.lesions > 0).sum(axis=(1, 2)).argmax())].SOPInstanceUID)
        with (
            OrthancServer(folder / "orthanc", changes={"CovidCt": {"Automatic": False}}) as server,
            serve_ohif(OHIF, server.url) as url,
            chromium() as browser,
        ):
            for path in (*case.source, *case.results.values()):
                server.upload(path.read_bytes())
            with opened_study(browser, url, case.study_uid, len(series) + 1) as ohif:
                for segmentation in case.segmentations:
                    ohif.hydrate(str(dcmread(segmentation.path).SeriesDescription))
                next(shown for shown in ohif.slices(AIR_HU) if shown.uid == largest)
                (output / "viewer-ohif.png").write_bytes(ohif.screenshot())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
