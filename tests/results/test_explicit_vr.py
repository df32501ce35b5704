import struct
from io import BytesIO

import pytest
from pydicom import Dataset

from covid_ct.results.explicit_vr import encoded, part_10

from .conftest import Case


def test_files_are_what_pydicom_writes(case: Case) -> None:
    for dataset in case.results.values():
        ours, theirs = b"".join(part_10(dataset)), BytesIO()
        dataset.save_as(theirs, enforce_file_format=True)
        assert ours == theirs.getvalue()


def test_what_is_empty_has_no_length() -> None:
    dataset = Dataset()
    dataset.PatientName = ""
    dataset.SeriesNumber = None
    dataset.Rows = None
    dataset.PatientID = ["A", "BC"]
    dataset.ReferencedSeriesSequence = []
    assert encoded(dataset) == (
        b"\x08\x00\x15\x11SQ\0\0\0\0\0\0"
        b"\x10\x00\x10\x00PN\0\0"
        b"\x10\x00\x20\x00LO\4\0A\\BC"
        b"\x20\x00\x11\x00IS\0\0"
        b"\x28\x00\x10\x00US\0\0"
    )


def test_what_is_too_long_for_its_vr_is_refused() -> None:
    dataset = Dataset()
    dataset.GraphicData = [0.0] * 2**14
    with pytest.raises(struct.error):
        encoded(dataset)
