from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage

from covid_ct.analysis.findings import Side
from covid_ct.results.objects import write_result
from covid_ct.results.overlay import MAX_BYTES, MAX_SLICES, overlay_series
from covid_ct.results.terms import STRUCTURES_OF_LESIONS
from covid_ct.results.uids import ResultUids
from covid_ct.results.wording import slice_caption

from .conftest import GEOMETRIES, Case, Geometry, make_case


def pictures_of(case: Case) -> list[Dataset]:
    return [dataset for name, dataset in case.results.items() if name.startswith("overlay.sc")]


def pixels_of(picture: Dataset) -> NDArray[np.uint8]:
    jpeg = Image.open(BytesIO(get_frame(picture.PixelData, 0, number_of_frames=1)))
    assert jpeg.size == (picture.Columns, picture.Rows)
    return np.asarray(jpeg.convert("RGB"))


def test_they_are_baseline_jpeg_with_half_the_colour_columns(case: Case) -> None:
    for picture in pictures_of(case):
        assert picture.SOPClassUID == SecondaryCaptureImageStorage
        assert picture.Modality == "OT"
        assert picture.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
        assert (picture.PhotometricInterpretation, picture.SamplesPerPixel) == ("YBR_FULL_422", 3)
        assert picture.LossyImageCompression == "01"
        assert picture.LossyImageCompressionMethod == "ISO_10918_1"
        assert float(picture.LossyImageCompressionRatio) > 1
        assert picture.Columns % 2 == 0
        frame = get_frame(picture.PixelData, 0, number_of_frames=1)
        start_of_frame = frame.index(b"\xff\xc0")
        sampling = [frame[start_of_frame + 11 + 3 * component] for component in range(3)]
        assert sampling == [0x21, 0x11, 0x11]


def test_they_scroll_from_head_to_feet_in_the_place_of_the_ct(case: Case) -> None:
    pictures = pictures_of(case)
    sources = {header.SOPInstanceUID: header for header in case.volume.headers}
    assert [picture.InstanceNumber for picture in pictures] == list(range(1, len(pictures) + 1))
    assert len({picture.SeriesInstanceUID for picture in pictures}) == 1
    heights = [float(picture.ImagePositionPatient[2]) for picture in pictures]
    assert heights == sorted(heights, reverse=True)
    for above, below in pairwise(heights):
        assert above - below == pytest.approx(float(pictures[0].SpacingBetweenSlices))
    for picture in pictures:
        source = sources[picture.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert picture.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert float(picture.ImagePositionPatient[2]) == pytest.approx(float(source.ImagePositionPatient[2]))
        assert [float(value) for value in picture.ImageOrientationPatient] == pytest.approx([1, 0, 0, 0, 1, 0])
        assert picture.ImagePositionPatient[0] < 0


@pytest.mark.parametrize("geometry", ["upright", "prone", "feet first", "column cosine to -y"])
def test_they_lie_where_the_ct_does_even_if_its_slices_are_not_evenly_spaced(geometry: str) -> None:
    case = make_case(GEOMETRIES[geometry])
    even = pictures_of(case)
    sources = {}
    for index, header in enumerate(case.volume.headers):
        x, y, z = header.ImagePositionPatient
        header.ImagePositionPatient = [x, y, float(z) + 0.2 * index]
        sources[header.SOPInstanceUID] = header
    shown = overlay_series(case.volume, case.findings, ResultUids("key"))
    for picture, before in zip(shown, even, strict=True):
        source = sources[picture.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert picture.ImagePositionPatient[2] == pytest.approx(source.ImagePositionPatient[2])
        assert picture.ImagePositionPatient[:2] == pytest.approx(before.ImagePositionPatient[:2])
    heights = [f"z = {picture.ImagePositionPatient[2]:.1f} mm" for picture in shown]
    indices = range(case.volume.hu.shape[0])
    assert set(heights) <= {slice_caption(case.volume, index).split(", ")[1] for index in indices}


def test_lungs_are_outlined_and_lesions_tinted_where_they_are(case: Case) -> None:
    lesions, lungs = (case.volume.to_lps(array) for array in (case.findings.lesions, case.findings.lungs))
    heights = case.volume.lps_affine[2, 3] + case.volume.lps_affine[2, 0] * np.arange(lesions.shape[0])
    for picture in pictures_of(case):
        index = int(np.abs(heights - float(picture.ImagePositionPatient[2])).argmin())
        pixels = pixels_of(picture)[: lungs.shape[1], : lungs.shape[2]].astype(int)
        warm = pixels[..., 0] - pixels[..., 2] > 40
        blue = pixels[..., 2] - pixels[..., 0] > 40
        # JPEG bleeds colour by a pixel or two.
        inside = lesions[index] > 0
        assert inside.sum() * 0.6 <= warm[inside].sum()
        assert not warm[lungs[index] == 0][: warm.shape[0] // 3].any()
        for side in Side:
            assert blue[lungs[index] == side].any() == (lungs[index] == side).any()


def test_legend_and_notice_are_below_the_ct() -> None:
    case = make_case(Geometry(shape=(4, 400, 512)))
    picture = overlay_series(case.volume, case.findings, ResultUids("key"))[0]
    assert picture.Rows > 400
    colors, notice = np.array_split(pixels_of(picture)[400:], 2)
    for structure in STRUCTURES_OF_LESIONS.values():
        assert (np.abs(colors.astype(int) - structure.color).max(axis=2) < 40).sum() > 20
    white = (notice.min(axis=2) > 180).any(axis=0)
    assert 0.6 < white.nonzero()[0].max() / notice.shape[1] < 1


def test_many_slices_stay_few_pictures(tmp_path: Path) -> None:
    case = make_case(Geometry(spacing=(0.5, 0.8, 0.7), shape=(301, 40, 50)))
    pictures = overlay_series(case.volume, case.findings, ResultUids("key"))
    assert MAX_SLICES / 2 < len(pictures) <= MAX_SLICES
    heights = [float(picture.ImagePositionPatient[2]) for picture in pictures]
    steps = {round(above - below, 6) for above, below in pairwise(heights)}
    assert steps == {round(float(pictures[0].SpacingBetweenSlices), 6)}
    write_result(pictures[0], tmp_path / "one.dcm")
    assert dcmread(tmp_path / "one.dcm").pixel_array.shape == (pictures[0].Rows, pictures[0].Columns, 3)


def test_noise_stays_within_the_size() -> None:
    case = make_case(Geometry(spacing=(1.0, 0.4, 0.4), shape=(60, 700, 700)))
    case.volume.hu[:] = np.random.default_rng(1).integers(-1300, 100, case.volume.hu.shape, np.int16)
    pictures = overlay_series(case.volume, case.findings, ResultUids("key"))
    assert sum(len(picture.PixelData) for picture in pictures) <= MAX_BYTES * 1.01
    assert float(pictures[0].PixelSpacing[0]) == pytest.approx(0.8)
