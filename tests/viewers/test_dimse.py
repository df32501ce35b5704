"""C-FIND, C-MOVE and C-GET by DCMTK, the client inside 3D Slicer."""

import subprocess
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.pixels import pixel_array

from tests.viewers.cases import Case
from tests.viewers.conftest import CLIENT_AET
from tools.orthanc_server import OrthancServer


def on_disk(case: Case) -> dict[str, Dataset]:
    datasets = (dcmread(path) for path in (*case.source, *case.results.values()))
    return {str(dataset.SOPInstanceUID): dataset for dataset in datasets}


def scu(tool: str, server: OrthancServer, *arguments: object) -> str:
    """Run one of DCMTK's clients against Orthanc."""
    outcome = subprocess.run(
        [tool, "-v", "-aet", CLIENT_AET, "-aec", "ORTHANC", *map(str, arguments), "127.0.0.1", str(server.dicom_port)],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout + outcome.stderr


def check(case: Case, folder: Path) -> None:
    """All instances of the study have arrived, unchanged, or decoded where DCMTK asked for no compression."""
    expected = on_disk(case)
    arrived = {str(dataset.SOPInstanceUID): dataset for dataset in map(dcmread, folder.iterdir())}
    assert set(arrived) == set(expected)
    for uid, dataset in arrived.items():
        syntax = expected[uid].file_meta.TransferSyntaxUID
        if dataset.file_meta.TransferSyntaxUID == syntax:
            assert dataset == expected[uid]
        else:
            assert syntax.is_compressed
            assert dataset.SOPClassUID == expected[uid].SOPClassUID
            # Two decoders of JPEG round differently, and smooth the colours of neighbours or not.
            difference = np.abs(pixel_array(dataset).astype(int) - pixel_array(expected[uid]))
            assert difference.mean() < 2


def test_c_find(stored: Case, server: OrthancServer, tmp_path: Path) -> None:
    expected = on_disk(stored)
    scu("findscu", server, "-S", "-X", "-od", tmp_path, "-k", "QueryRetrieveLevel=SERIES",
        "-k", f"StudyInstanceUID={stored.study_uid}", "-k", "SeriesInstanceUID", "-k", "Modality",
        "-k", "SeriesDescription", "-k", "NumberOfSeriesRelatedInstances")  # fmt: skip
    answers = [dcmread(path, force=True) for path in tmp_path.iterdir()]
    found = {
        (str(answer.SeriesInstanceUID), answer.Modality, str(answer.SeriesDescription),
         int(answer.NumberOfSeriesRelatedInstances)) for answer in answers
    }  # fmt: skip
    series = [str(dataset.SeriesInstanceUID) for dataset in expected.values()]
    assert found == {
        (str(dataset.SeriesInstanceUID), dataset.Modality, str(dataset.SeriesDescription),
         series.count(str(dataset.SeriesInstanceUID))) for dataset in expected.values()
    }  # fmt: skip
    assert len(found) == len(answers)


def test_c_get(stored: Case, server: OrthancServer, tmp_path: Path) -> None:
    scu("getscu", server, "-S", "-od", tmp_path, "-k", "QueryRetrieveLevel=STUDY",
        "-k", f"StudyInstanceUID={stored.study_uid}")  # fmt: skip
    check(stored, tmp_path)


def test_c_move(stored: Case, server: OrthancServer, tmp_path: Path, client_port: int) -> None:
    scu("movescu", server, "-S", "-od", tmp_path, "--port", client_port, "-aem", CLIENT_AET,
        "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={stored.study_uid}")  # fmt: skip
    check(stored, tmp_path)
