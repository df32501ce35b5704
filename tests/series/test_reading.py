import contextlib
import gc
import re
import struct
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)

from covid_ct.errors import AnalysisCancelled, Reason, SeriesRefused
from covid_ct.results.wording import image_name
from covid_ct.series.attributes import _decoded, attribute
from covid_ct.series.headers import SeriesRules
from covid_ct.series.pixels import hounsfield_units, stored_values
from covid_ct.series.reading import read_series
from covid_ct.series.volume import AIR_HU, Volume
from tests.series.images import COLUMNS, ROWS, SERIES_UID, encode, make_series, never_decode, pixels


def read(series: list[Dataset], **more: object) -> Volume:
    return read_series(encode(series), never_decode, **more)


def refused(series: list[Dataset], reason: Reason, said: str = "", **more: object) -> str:
    with pytest.raises(SeriesRefused) as refusal:
        read(series, **more)
    assert refusal.value.reason is reason, str(refusal.value)
    sentence = str(refusal.value)
    assert said in sentence
    assert SERIES_UID in sentence
    assert "SECRET" not in sentence
    assert "Secret" not in sentence
    return sentence


def test_images_in_any_order_become_one_volume(series: list[Dataset]) -> None:
    shuffled = [series[index] for index in np.random.default_rng(3).permutation(len(series))]
    volume = read(shuffled)
    assert volume.hu.dtype == np.int16
    assert volume.hu.shape == (20, ROWS, COLUMNS)
    expected = -24 + 40 * np.arange(20)[:, None, None] + np.arange(ROWS)[None, :, None]
    assert np.array_equal(volume.hu, np.broadcast_to(expected, volume.hu.shape))
    assert volume.spacing == pytest.approx((5.0, 0.5, 0.75))
    assert volume.series_uid == SERIES_UID
    assert [header.InstanceNumber for header in volume.headers] == list(range(1, 21))
    assert not any("PixelData" in header for header in volume.headers)
    assert volume.headers[0].PatientName == "Secret^Name"


@pytest.mark.parametrize("arrival", [range(20), range(19, -1, -1), [7, 3, 19, 0, *range(8, 19), 1, 2, 6, 5, 4]])
def test_of_all_headers_but_the_first_only_what_results_use_is_kept(
    series: list[Dataset], arrival: Sequence[int]
) -> None:
    series[1].add(RawDataElement(Tag("InstanceNumber"), "IS", 4, b"no 2", 0, False, True))
    first, second, *others = read([series[index] for index in arrival]).headers
    assert first.PatientID == series[0].PatientID
    assert first.SOPInstanceUID == series[0].SOPInstanceUID
    assert not any("PatientID" in header for header in (second, *others))
    assert second.SOPInstanceUID == series[1].SOPInstanceUID
    assert second.ImagePositionPatient == series[1].ImagePositionPatient
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert image_name(second, 1) == "image no 2"


def test_each_image_is_shown_as_it_will_be_in_the_volume(series: list[Dataset]) -> None:
    shown: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def show(image: Volume) -> None:
        shown[image.headers[0].SOPInstanceUID] = image.hu[0].copy(), image.affine

    volume = read(series[::-1], seen=show)
    assert len(shown) == len(volume.hu)
    for index, header in enumerate(volume.headers):
        hu, affine = shown[header.SOPInstanceUID]
        assert np.array_equal(hu, volume.hu[index])
        assert np.allclose(affine[:, 1:3], volume.affine[:, 1:3])
        assert np.allclose(affine[:, 3], volume.affine @ (index, 0, 0, 1))


def test_slices_ascend_along_the_normal_of_turned_images(series: list[Dataset]) -> None:
    for image in series:
        image.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
    volume = read(series)
    assert volume.headers[0].InstanceNumber == 20
    assert volume.hu[0, 0, 0] == -24 + 40 * 19
    assert volume.to_lps(volume.hu)[0, 0, 0] == -24


def set_rescale(image: Dataset, slope: float, intercept: float) -> None:
    image.RescaleSlope, image.RescaleIntercept = slope, intercept


def test_rescale_of_each_image_is_applied(series: list[Dataset]) -> None:
    set_rescale(series[0], 2, -2000)
    set_rescale(series[1], 0.5, -500.25)
    volume = read(series)
    assert volume.hu[0, 3, 0] == 2 * 1003 - 2000
    assert volume.hu[1, 3, 0] == round(0.5 * 1043 - 500.25)
    assert volume.hu[2, 3, 0] == 1083 - 1024


def test_signed_pixels_without_intercept(series: list[Dataset]) -> None:
    for image in series:
        set_rescale(image, 1, 0)
        image.PixelRepresentation, image.BitsStored, image.HighBit = 1, 16, 15
        image.PixelData = pixels(np.full((ROWS, COLUMNS), -800), "<i2")
    assert (read(series).hu == -800).all()


def test_overlays_in_the_bits_above_the_stored_ones_are_ignored(series: list[Dataset]) -> None:
    for image in series:
        image.add_new((0x6002, 0x0102), "US", 12)
        image.PixelData = pixels(np.full((ROWS, COLUMNS), 0xF000 | 1500))
    series[1].PixelRepresentation = 1
    series[1].PixelData = pixels(np.full((ROWS, COLUMNS), 0x7000 | -100 & 0x0FFF))
    set_rescale(series[1], 1, 0)
    volume = read(series)
    assert (volume.hu[0] == 1500 - 1024).all()
    assert (volume.hu[1] == -100).all()


@pytest.mark.parametrize("bits", [12, 15])
def test_negative_values_without_their_sign_in_the_upper_bits(bits: int, series: list[Dataset]) -> None:
    for image in series:
        set_rescale(image, 1, 0)
        image.PixelRepresentation, image.BitsStored, image.HighBit = 1, bits, bits - 1
        image.PixelData = pixels(np.full((ROWS, COLUMNS), -100 & (1 << bits) - 1))
    assert (read(series).hu == -100).all()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("padding", "signed", "intercept"), [(-2000, False, -1024), (-2000, True, -1024), (-3024, True, 0)]
)
def test_padding_that_does_not_fit_into_the_stored_bits(
    padding: int, signed: bool, intercept: int, named: bool, compressed: bool, series: list[Dataset]
) -> None:
    values = np.full((ROWS, COLUMNS), -800 - intercept)
    values[:9] = padding
    # Metal beyond twelve bits is no padding.
    values[9] = 5000
    for image in series:
        set_rescale(image, 1, intercept)
        image.PixelRepresentation = int(signed)
        image.PixelData = pixels(values, "<i2")
        if named:
            image.add_new("PixelPaddingValue", "US", padding & 0xFFFF)
        if compressed:
            image.compress(RLELossless, generate_instance_uid=False)
    hu = read(series).hu
    assert (hu[:, :9] == AIR_HU).all()
    assert (hu[:, 9] == 5000 + intercept).all()
    assert (hu[:, 10:] == -800).all()


def test_intercept_of_all_values_above_zero(series: list[Dataset]) -> None:
    for image in series:
        set_rescale(image, 1, -32768)
        image.BitsStored, image.HighBit = 16, 15
        image.PixelData = pixels(np.full((ROWS, COLUMNS), 32768 - 800))
    assert (read(series).hu == -800).all()


def test_padding_and_everything_below_air_become_air(series: list[Dataset]) -> None:
    values = np.full((ROWS, COLUMNS), 1000)
    values[0], values[1], values[2] = -2000, -3024, -1500
    for image in series:
        set_rescale(image, 1, 0)
        image.PixelRepresentation, image.BitsStored, image.HighBit = 1, 16, 15
        image.PixelData = pixels(values, "<i2")
    assert (read(series).hu[:, :3] == AIR_HU).all()
    values[0] = 2000
    for image in series:
        image.PixelPaddingValue = 2000
        image.PixelData = pixels(values, "<i2")
    hu = read(series).hu
    assert (hu[:, 0] == AIR_HU).all()
    assert (hu[:, 3:] == 1000).all()
    for image in series:
        image.PixelPaddingRangeLimit = 900
    assert (read(series).hu == AIR_HU).all()


def test_padding_value_with_the_wrong_sign(series: list[Dataset]) -> None:
    for image in series:
        set_rescale(image, 0.5, 0)
        image.PixelRepresentation, image.BitsStored, image.HighBit = 1, 16, 15
        image.PixelData = pixels(np.full((ROWS, COLUMNS), -2000), "<i2")
        image.add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert (read(series).hu == AIR_HU).all()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_uncompressed_syntaxes_give_the_same(syntax: str, series: list[Dataset]) -> None:
    expected = read(deepcopy(series)).hu
    for image in series:
        image.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
            image["PixelData"].VR = "OW"
    assert np.array_equal(read(series).hu, expected)


def jpeg(rows: int = ROWS, columns: int = COLUMNS) -> bytes:
    """A JPEG image as far as its size is told: an APP0 with a smaller picture in it, fill bytes, SOF3, EOI."""
    picture = b"\xff\xe0\x00\x10" + b"\xff\xc3\x00\x08\x0c\x00\x08\x00\x08\x01\xff\xd9" + b"  "
    size = b"\xff\xff\xc3\x00\x0b\x0c" + struct.pack(">HH", rows, columns) + b"\x01\x00\x11\x00"
    return b"\xff\xd8" + picture + size + b" not looked at \xff\xd9"


def compressed(series: list[Dataset], frame: bytes = jpeg()) -> list[bytes]:
    for image in series:
        image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        image.PixelData = pydicom.encaps.encapsulate([frame])
        image["PixelData"].VR = "OB"
        image["PixelData"].is_undefined_length = True
    return encode(series)


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_jpeg_images_are_decoded_by_the_caller(kind: type, series: list[Dataset]) -> None:
    expected = read(deepcopy(series)).hu

    def decode(content: bytes) -> np.ndarray:
        number = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)).InstanceNumber
        return (np.full((ROWS, COLUMNS), 1000 + 40 * (number - 1)) + np.arange(ROWS)[:, None]).astype(kind)

    assert np.array_equal(read_series(compressed(series), decode).hu, expected)


def fail(content: bytes) -> np.ndarray:
    raise ValueError("corrupt JPEG")


@pytest.mark.parametrize(
    ("decode", "said"),
    [
        (fail, "corrupt JPEG"),
        (lambda _: np.zeros((ROWS, COLUMNS - 1), np.uint16), "(64, 79)"),
        (lambda _: np.zeros((ROWS, COLUMNS), np.float32), "float32"),
    ],
)
def test_images_that_cannot_be_decoded(decode: Callable, said: str, series: list[Dataset]) -> None:
    with pytest.raises(SeriesRefused) as refusal:
        read_series(compressed(series), decode)
    assert refusal.value.reason is Reason.BAD_PIXELS
    assert said in str(refusal.value)
    assert series[0].SOPInstanceUID in str(refusal.value)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (jpeg(rows=ROWS - 2), "62 x 80, not of 64 x 80"),
        (jpeg(columns=COLUMNS // 2), "64 x 40, not of 64 x 80"),
        (jpeg()[:-2], "cut short"),
        (jpeg()[:26], "no JPEG"),
        (bytes(99), "no JPEG"),
    ],
)
def test_jpeg_that_decoders_would_fill_up(frame: bytes, said: str, series: list[Dataset]) -> None:
    with pytest.raises(SeriesRefused) as refusal:
        read_series(compressed(series, frame), never_decode)
    assert refusal.value.reason is Reason.BAD_PIXELS
    assert said in str(refusal.value)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [False, True])
def test_what_orthanc_may_not_decode_or_fills_up_is_decoded_here(
    syntax: str, signed: bool, series: list[Dataset]
) -> None:
    for image in series:
        if signed:
            image.PixelRepresentation, image.RescaleIntercept = 1, 0
            image.PixelData = pixels(np.frombuffer(image.PixelData, "<u2").astype(int) - 1024, "<i2")
    expected = read(deepcopy(series)).hu
    for image in series:
        image.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(read(series).hu, expected)
    (frame,) = pydicom.encaps.generate_frames(series[5].PixelData, number_of_frames=1)
    series[5].PixelData = pydicom.encaps.encapsulate([frame[: len(frame) * 2 // 3]])
    sentence = refused(series, Reason.BAD_PIXELS, "cannot be decoded")
    assert series[5].SOPInstanceUID in sentence
    assert re.search(r"plugins: \w+: \w+", sentence)


def test_a_jpeg_2000_image_of_as_many_pixels_in_other_rows(series: list[Dataset]) -> None:
    image = series[6]
    image.Rows, image.Columns = COLUMNS, ROWS
    image.compress(JPEG2000Lossless, generate_instance_uid=False)
    image.Rows, image.Columns = ROWS, COLUMNS
    assert image.SOPInstanceUID in refused(series, Reason.BAD_PIXELS, "80 x 64, not of 64 x 80")


def test_unknown_transfer_syntax_is_refused(series: list[Dataset]) -> None:
    files = encode(series)
    for syntax, said in (
        (b"1.2.3.4.5.6.7.8.9.1\0", "1.2.3.4.5.6.7.8.9.1"),
        (b"1.2.840.10008.1\\2.1\0", "1.2.840.10008.1"),
    ):
        broken = [content.replace(b"1.2.840.10008.1.2.1\0", syntax) for content in files]
        assert broken != files
        with pytest.raises(SeriesRefused, match="is not read; send the series uncompressed") as refusal:
            read_series(broken, fail)
        assert refusal.value.reason is Reason.BAD_PIXELS
        assert f"transfer syntax, {said}," in str(refusal.value)


BROKEN: list[tuple[str, object, Reason, str]] = [
    ("ImagePositionPatient", None, Reason.BAD_HEADER, "ImagePositionPatient is missing"),
    ("ImageOrientationPatient", None, Reason.BAD_HEADER, "ImageOrientationPatient is missing"),
    ("PixelSpacing", None, Reason.BAD_HEADER, "PixelSpacing is missing"),
    ("RescaleSlope", None, Reason.BAD_HEADER, "RescaleSlope is missing"),
    ("RescaleIntercept", None, Reason.BAD_HEADER, "RescaleIntercept is missing"),
    ("Rows", None, Reason.BAD_HEADER, "Rows is missing"),
    ("BitsStored", None, Reason.BAD_HEADER, "BitsStored is missing"),
    ("SOPInstanceUID", None, Reason.BAD_HEADER, "SOPInstanceUID is missing"),
    ("StudyInstanceUID", "", Reason.BAD_HEADER, "StudyInstanceUID is missing"),
    ("FrameOfReferenceUID", None, Reason.BAD_HEADER, "FrameOfReferenceUID is missing"),
    ("SOPInstanceUID", "1.2..3", Reason.BAD_HEADER, "not a valid identifier"),
    ("SOPInstanceUID", "not a UID", Reason.BAD_HEADER, "not a valid identifier"),
    ("FrameOfReferenceUID", "1." + "2" * 64, Reason.BAD_HEADER, "not a valid identifier"),
    ("PatientID", "SECRET-OTHER", Reason.MIXED_IDENTITY, "PatientID"),
    ("StudyInstanceUID", "1.2.3", Reason.MIXED_IDENTITY, "StudyInstanceUID"),
    ("FrameOfReferenceUID", "1.2.3", Reason.MIXED_IDENTITY, "FrameOfReferenceUID"),
    ("SOPInstanceUID", f"{SERIES_UID}.2.1", Reason.MIXED_IDENTITY, "more than once"),
    ("RescaleSlope", 0, Reason.BAD_HEADER, "no Hounsfield units"),
    ("RescaleSlope", -1, Reason.BAD_HEADER, "no Hounsfield units"),
    ("RescaleSlope", [1, 2], Reason.BAD_HEADER, "2 numbers"),
    ("RescaleIntercept", 1e9, Reason.BAD_HEADER, "no Hounsfield units"),
    ("PhotometricInterpretation", "MONOCHROME1", Reason.BAD_PIXELS, "MONOCHROME1"),
    ("PhotometricInterpretation", "RGB", Reason.BAD_PIXELS, "RGB"),
    ("SamplesPerPixel", 3, Reason.BAD_PIXELS, "3 samples"),
    ("BitsAllocated", 8, Reason.BAD_PIXELS, "of 8"),
    ("BitsAllocated", 32, Reason.BAD_PIXELS, "of 32"),
    ("BitsStored", 20, Reason.BAD_PIXELS, "20 bits"),
    ("HighBit", 15, Reason.BAD_PIXELS, "bit 15"),
    ("NumberOfFrames", 2, Reason.MULTI_FRAME, "several frames"),
    ("PixelData", None, Reason.BAD_PIXELS, "no pixels"),
    ("PixelData", b"", Reason.BAD_PIXELS, "0 bytes of pixels where 10240"),
    ("PixelData", b"\0\0" * 5000, Reason.BAD_PIXELS, "10000 bytes of pixels where 10240"),
    ("Rows", 4096, Reason.BAD_GEOMETRY, "4096 x 80 is not that of a chest CT; correct them and send the series again."),
    ("PixelSpacing", [0, 0], Reason.BAD_GEOMETRY, "0 x 0 mm"),
    ("ImagePositionPatient", [0, 0], Reason.BAD_GEOMETRY, "the position of an image is missing or not 3 plausible"),
    ("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], Reason.MIXED_ORIENTATION, "different orientation"),
    ("ImagePositionPatient", [-20, -30, -50], Reason.DUPLICATE_POSITIONS, "z -50.0 mm"),
    ("Modality", "MR", Reason.NOT_CT, "MR"),
    ("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"], Reason.LOCALIZER, "scout"),
]


@pytest.mark.parametrize(
    ("keyword", "value", "reason", "said"), BROKEN, ids=[f"{item[0]}={str(item[1])[:20]}" for item in BROKEN]
)
def test_one_broken_image_has_its_reason(
    keyword: str, value: object, reason: Reason, said: str, series: list[Dataset]
) -> None:
    image = series[7]
    if value is None:
        del image[keyword]
    else:
        setattr(image, keyword, value)
    refused(series, reason, said)


@pytest.mark.parametrize("number", [b"nan ", b"abc ", b"1e999 ", b"-inf"])
@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept", "ImagePositionPatient", "PixelSpacing"])
def test_text_that_is_no_number(keyword: str, number: bytes, series: list[Dataset]) -> None:
    tag = Tag(keyword)
    series[5][tag] = RawDataElement(tag, "DS", len(number), number, 0, False, True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(SeriesRefused) as refusal:
            read(series)
    assert refusal.value.reason in (Reason.BAD_HEADER, Reason.BAD_GEOMETRY)


def test_a_number_of_kilobytes_is_not_decoded() -> None:
    tag, value = Tag("RescaleSlope"), b"1" + b" " * 1999
    header = Dataset()
    header[tag] = RawDataElement(tag, None, len(value), value, 0, True, True)
    with pytest.raises(SeriesRefused, match="RescaleSlope is missing or not readable"):
        attribute(header, "RescaleSlope")


def test_patients_are_not_remembered(series: list[Dataset]) -> None:
    read(series)
    assert b"SECRET" not in repr(gc.get_referents(_decoded)).encode()
    assert SERIES_UID in repr(gc.get_referents(_decoded))


def test_pixels_of_an_unknown_representation(series: list[Dataset]) -> None:
    files = encode(series)
    files[4] = files[4].replace(b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x10\0Oq")
    with pytest.raises(SeriesRefused, match="0 bytes of pixels") as refusal:
        read_series(files, never_decode)
    assert refusal.value.reason is Reason.BAD_PIXELS


def test_values_that_no_ct_has(series: list[Dataset]) -> None:
    image = series[4]
    image.BitsStored, image.HighBit = 16, 15
    image.PixelData = np.random.default_rng(0).bytes(2 * ROWS * COLUMNS)
    assert image.SOPInstanceUID in refused(series, Reason.BAD_PIXELS, "HU, which no CT has")


def test_patient_attributes_may_be_missing_or_broken(series: list[Dataset]) -> None:
    number = Tag("SeriesNumber")
    for image in series:
        del image.PatientID, image.PatientName
        image[number] = RawDataElement(number, "IS", 4, b"twoo", 0, False, True)
        image.CTDIvol = 1.0
        image.add_new((0x0009, 0x0010), "LO", "PRIVATE")
        image.add_new((0x0009, 0x1001), "UN", b"\xff\xfe\x00")
        image.SpecificCharacterSet = "ISO_IR 192"
        image.PatientName = "Ärztin^Ωμέγα"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, broken = b"FD\x08\0" + struct.pack("<d", 1.0), b"FD\x04\0four"
        volume = read_series([content.replace(whole, broken) for content in encode(series)], never_decode)
        # Byte by byte as they came, for results have to.
        assert all(
            isinstance(volume.headers[0].get_item(keyword), RawDataElement) for keyword in ("PatientName", number)
        )
        assert volume.headers[0].get_item(number).value == b"twoo"
        assert str(volume.headers[0].PatientName) == "Ärztin^Ωμέγα"


def test_too_few_too_many_and_none(series: list[Dataset]) -> None:
    refused(series[:10], Reason.TOO_FEW_SLICES, "10 slices, at least 16")
    refused(series, Reason.TOO_MANY_SLICES, "at most 18", rules=SeriesRules(max_slices=18))
    refused(series, Reason.TOO_MANY_SLICES, "million pixels", rules=SeriesRules(max_voxels=50_000))
    with pytest.raises(SeriesRefused, match="no images") as refusal:
        read([])
    assert refusal.value.reason is Reason.TOO_FEW_SLICES


def test_what_is_too_large_is_refused_before_it_fills_the_memory(series: list[Dataset]) -> None:
    files = encode(series)
    taken = []

    def endless() -> object:
        for content in files:
            taken.append(content)
            yield content

    with pytest.raises(SeriesRefused):
        read_series(endless(), never_decode, SeriesRules(max_voxels=5 * ROWS * COLUMNS))
    assert len(taken) == 6


def test_missing_image_is_a_gap(series: list[Dataset]) -> None:
    del series[9]
    refused(series, Reason.GAPS, "1 gap, the first between the slices at z -60.0 mm and -50.0 mm where 5.00 mm")


def test_cancelling_ends_at_the_next_image(series: list[Dataset]) -> None:
    asked = iter([False] * 5 + [True])
    with pytest.raises(AnalysisCancelled):
        read(series, cancelled=lambda: next(asked))


@pytest.mark.parametrize(
    ("keyword", "value", "said"),
    [
        ("SliceThickness", 8, "8 mm thick"),
        ("SliceThickness", 1.5, "1.5 mm lie 5.0 mm apart"),
        ("ContrastBolusAgent", "IOMERON", "Contrast"),
        ("ConvolutionKernel", "B70f", "sharp kernel B70f"),
        ("ConvolutionKernel", ["Br59d", "3"], "sharp kernel Br59d"),
        ("ConvolutionKernel", "LUNG", "sharp kernel LUNG"),
        ("ConvolutionKernel", ["I70f", "2"], "sharp kernel I70f"),
        ("ConvolutionKernel", "Qr59", "sharp kernel Qr59"),
        ("ConvolutionKernel", "FC30", "sharp kernel FC30"),
        ("ConvolutionKernel", "YD", "sharp kernel YD"),
        ("ConvolutionKernel", "B_VSHARP_C", "sharp kernel B_VSHARP_C"),
        ("ImageType", ["DERIVED", "SECONDARY", "MPR"], "derived"),
        ("LossyImageCompression", "01", "loss"),
        ("RescaleType", "US", "US, not HU"),
    ],
)
def test_warnings(keyword: str, value: object, said: str, series: list[Dataset]) -> None:
    assert read(deepcopy(series)).warnings == ()
    for image in series:
        setattr(image, keyword, value)
    found = read(series).warnings
    assert len(found) == 1
    assert said in found[0]


def test_one_image_that_was_compressed_with_loss_is_told_and_remembered(series: list[Dataset]) -> None:
    series[7].LossyImageCompression, series[7].LossyImageCompressionRatio = "01", "10"
    volume = read(series)
    (warning,) = volume.warnings
    assert "loss" in warning
    (lossy,) = (header for header in volume.headers if header.get("LossyImageCompression") == "01")
    assert lossy.LossyImageCompressionRatio == 10


def test_a_mixture_of_kernels_is_told_and_a_sharp_one_in_it(series: list[Dataset]) -> None:
    for index, image in enumerate(series):
        image.ConvolutionKernel = ["B30f", "B70f"][index % 2]
    sharp, mixed = read(series).warnings
    assert "sharp kernel B70f" in sharp
    assert "2 kernels are mixed, such as B30f and B70f" in mixed


@pytest.mark.parametrize(
    ("acquisitions", "warned"),
    [([1] * 20, 0), ([1] * 8 + [2] * 12, 0), ([2] * 8 + [1] * 12, 0), ([1, 2] * 10, 1), (range(20), 0)],
)
def test_acquisitions_that_alternate_are_told(acquisitions: Sequence[int], warned: int, series: list[Dataset]) -> None:
    for image, number in zip(series, acquisitions, strict=True):
        image.AcquisitionNumber = number
    found = read([series[index] for index in np.random.default_rng(3).permutation(20)]).warnings
    assert ["alternate" in warning for warning in found] == [True] * warned


@pytest.mark.parametrize(
    ("keyword", "value"), [("SliceThickness", 0), ("SliceThickness", [5, 5]), ("SliceThickness", [5, 0])]
)
def test_a_thickness_that_is_none_is_not_spoken_of(keyword: str, value: object, series: list[Dataset]) -> None:
    for image in series:
        setattr(image, keyword, value)
    assert read(series).warnings == ()


def test_an_image_type_of_another_kind_stops_nothing(series: list[Dataset]) -> None:
    for image in series:
        image[0x00080008] = DataElement(0x00080008, "FD", 3.5)
    assert read(series).warnings == ()


@pytest.mark.parametrize("kernel", ["B40f", "D40s", "I30f", "Br40d", "Qr40", "STANDARD", "FC13", "B", "C", "YA"])
def test_usual_kernels_are_not_sharp(kernel: str, series: list[Dataset]) -> None:
    for image in series:
        image.ConvolutionKernel = kernel
    assert read(series).warnings == ()


FILES = encode(make_series(16))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(FILES[3])
    for _ in range(data.draw(st.integers(1, 6))):
        # Most of the damage goes to the header, which is the interesting part.
        place = data.draw(st.integers(0, 1200) | st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    files = [*FILES[:3], bytes(content), *FILES[4:]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Anything but a refusal would be a bug of ours.
        with contextlib.suppress(SeriesRefused):
            assert read_series(files, fail).hu.shape == (16, ROWS, COLUMNS)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=400))
def test_bytes_that_are_no_dicom_are_refused(content: bytes) -> None:
    for junk in (content, b"\0" * 128 + b"DICM" + content):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(SeriesRefused) as refusal:
                read_series([junk], fail)
        assert refusal.value.reason in (Reason.BAD_HEADER, Reason.NOT_CT, Reason.BAD_GEOMETRY)


@settings(max_examples=40, deadline=None)
@given(
    slope=st.floats(0.01, 4).map(lambda value: round(value, 4)),
    intercept=st.integers(-3000, 1000),
    signed=st.booleans(),
    bits=st.integers(8, 16),
    seed=st.integers(0, 99),
)
def test_rescale_is_that_of_the_standard(slope: float, intercept: int, signed: bool, bits: int, seed: int) -> None:
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
    high = min(high, int((32767 - intercept) / slope))
    values = np.random.default_rng(seed).integers(low, high, (ROWS, COLUMNS))
    image = make_series(1)[0]
    set_rescale(image, slope, intercept)
    image.PixelRepresentation, image.BitsStored, image.HighBit = int(signed), bits, bits - 1
    image.PixelData = pixels(values, "<i2" if signed else "<u2")
    expected = np.maximum(np.rint(values * slope + intercept), AIR_HU)
    assert np.array_equal(hounsfield_units(image, stored_values(image, b"", never_decode)), expected)
