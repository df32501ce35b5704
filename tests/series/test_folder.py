from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage

from covid_ct.errors import Reason, SeriesRefused
from covid_ct.series.folder import FolderError, read_folder
from covid_ct.series.headers import SeriesRules
from covid_ct.series.reading import read_series
from tests.series.images import SERIES_UID, encode, make_series, never_decode

OTHER_UID = SERIES_UID + ".7"


def write(folder: Path, series: list[Dataset], uid: str = SERIES_UID, **more: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in series:
        image.SeriesInstanceUID = uid
        image.SOPInstanceUID = f"{uid}.{image.InstanceNumber}"
        image.update(more)
    for number, content in enumerate(encode(series)):
        (folder / f"{uid}-{number}").write_bytes(content)


def test_one_series_among_other_files(tmp_path: Path, series: list[Dataset]) -> None:
    write(tmp_path / "a" / "b", series[:12])
    write(tmp_path / "c", series[12:])
    (tmp_path / "README.txt").write_text("not DICOM")
    (tmp_path / "junk.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    volume = read_folder(tmp_path)
    assert np.array_equal(volume.hu, read_series(encode(series), never_decode).hu)


def test_the_one_ct_beside_its_scout_and_others_is_taken(tmp_path: Path, series: list[Dataset]) -> None:
    write(tmp_path, series)
    write(tmp_path, make_series(2), SERIES_UID + ".3", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write(tmp_path, make_series(), SERIES_UID + ".4", Modality="PT")
    assert read_folder(tmp_path).series_uid == SERIES_UID


def test_several_ct_series_are_listed_until_one_is_named(tmp_path: Path, series: list[Dataset]) -> None:
    write(tmp_path, series, SeriesDescription="soft")
    write(tmp_path, make_series(18), OTHER_UID, SeriesDescription="sharp")
    with pytest.raises(FolderError, match="2 CT series") as error:
        read_folder(tmp_path)
    assert f'{SERIES_UID} "soft" (20 images)' in str(error.value)
    assert f'{OTHER_UID} "sharp" (18 images)' in str(error.value)
    assert len(read_folder(tmp_path, series_uid=OTHER_UID).hu) == 18
    with pytest.raises(FolderError, match=r"no series 1\.2\.3"):
        read_folder(tmp_path, series_uid="1.2.3")


def test_a_single_series_is_refused_with_its_own_reason(tmp_path: Path) -> None:
    write(tmp_path, make_series(5))
    with pytest.raises(SeriesRefused, match="5 slices") as refusal:
        read_folder(tmp_path)
    assert refusal.value.reason is Reason.TOO_FEW_SLICES
    assert len(read_folder(tmp_path, rules=SeriesRules(min_slices=5, min_length_mm=10)).hu) == 5


def test_none_that_fits(tmp_path: Path) -> None:
    write(tmp_path, make_series(2))
    write(tmp_path, make_series(1), OTHER_UID, SOPClassUID=EnhancedCTImageStorage)
    with pytest.raises(FolderError, match="no series that can be analysed") as error:
        read_folder(tmp_path)
    assert f"{SERIES_UID} has 2 slices, at least 16 are needed; send the whole series." in str(error.value)
    assert f"{OTHER_UID} is a multi-frame CT, which is not read; send it as single images." in str(error.value)


def test_folders_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FolderError, match=r"no DICOM images \(1 other files\)"):
        read_folder(tmp_path)
    with pytest.raises(FolderError, match="is not a folder"):
        read_folder(tmp_path / "missing")
