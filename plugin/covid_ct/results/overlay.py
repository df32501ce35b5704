"""The findings burned into pictures, a series for viewers that show no segmentations.

highdicom's `SCImage` has no place for a picture's position in the patient.
"""

import math
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage
from pydicom.valuerep import format_number_as_ds

from covid_ct import RESEARCH_USE_ONLY
from covid_ct.analysis.findings import LabelMaps
from covid_ct.parallel import in_parallel
from covid_ct.results.explicit_vr import set_sequence
from covid_ct.results.pictures import LUNG_COLOR, LUNG_OUTLINE, as_jpeg, as_pixels, colored, eroded, in_lung_window
from covid_ct.results.source import (
    copy_frame_of_reference,
    instances_of,
    new_result,
    positive_number,
    reference,
    slice_corner,
    source_slice,
)
from covid_ct.results.terms import STRUCTURES_OF_LESIONS
from covid_ct.results.uids import ResultUids
from covid_ct.series.volume import Volume

NAME = "overlay.sc"
MAX_SLICES = 64
"""Most pictures of the series; thicker steps between them where the lungs have more slices."""
MAX_BYTES = 10_000_000
"""Most bytes of all pictures together."""
MAX_SIDE = 512
"""Most rows and columns taken from the CT; every second (third, ...) pixel where it has more."""

_QUALITIES = (85, 70, 50, 30)
_BAND = 128
"""Rows that are coloured at a time: what comes and goes with them stays in the processor's cache."""


@dataclass(frozen=True)
class _Grid:
    """The pixels and slices of the standard axial view that are shown.

    Attributes
    ----------
    slices: range
        From head to feet.
    step: int
        Every how many pixels one is shown.
    """

    slices: range
    step: int


def overlay_series(volume: Volume, maps: LabelMaps, uids: ResultUids) -> list[Dataset]:
    """Colour secondary captures of the CT in lung window, lungs outlined and lesions tinted.

    Parameters
    ----------
    volume: Volume
    maps: LabelMaps
    uids: ResultUids

    Returns
    -------
    list[Dataset]
        From head to feet through the lungs, evenly spaced, as baseline JPEG, with positions in the frame of reference
        of the CT and the CT image that each shows. Below each picture lie a legend and what it is not for.
    """
    grid = _grid(volume, maps)
    jpegs: list[bytes] = []
    for quality in _QUALITIES:
        # Drawn anew for each quality, which is hardly ever asked, rather than all kept.
        draw = partial(_drawn, volume=volume, maps=maps, grid=grid, quality=quality)
        # All before the first attribute is set: that holds Python's lock, for which pictures would wait many times.
        jpegs = list(in_parallel(draw, grid.slices))
        if sum(map(len, jpegs)) <= MAX_BYTES:
            break
    instances = instances_of(_common(volume, uids, grid), uids, NAME, len(jpegs))
    pixels = math.prod(_shape(volume, grid))
    return [
        _capture(instance, volume, index, jpeg, pixels)
        for instance, index, jpeg in zip(instances, grid.slices, jpegs, strict=True)
    ]


def _grid(volume: Volume, maps: LabelMaps) -> _Grid:
    """Slices through the lungs at an even distance, at most `MAX_SLICES`."""
    lungs = volume.to_lps(maps.lungs)
    holding = np.flatnonzero(lungs.max(axis=(1, 2)))
    lowest, highest = (int(holding[0]), int(holding[-1])) if holding.size else (0, lungs.shape[0] - 1)
    between = -(-(highest - lowest + 1) // MAX_SLICES)
    return _Grid(range(highest, lowest - 1, -between), -(-max(lungs.shape[1:]) // MAX_SIDE))


def _drawn(index: int, volume: Volume, maps: LabelMaps, grid: _Grid, quality: int) -> bytes:
    """Picture of a slice as JPEG."""
    return as_jpeg(_picture(volume, maps, grid, index), quality, "4:2:2")


def _picture(volume: Volume, maps: LabelMaps, grid: _Grid, index: int) -> NDArray[np.uint32]:
    """Picture of a slice with the legend below, of an even number of columns as 4:2:2 wants them."""
    hu, lungs, lesions = (
        volume.to_lps(array)[index, :: grid.step, :: grid.step] for array in (volume.hu, maps.lungs, maps.lesions)
    )
    rows, columns = hu.shape
    picture = np.zeros(_shape(volume, grid), np.uint32)
    lung = lungs > 0
    # Two columns wide, for colours have only half the columns in 4:2:2.
    edge = lung & ~(eroded(lung, 0, 1) & eroded(lung, 1, 2))
    classes = lesions.copy()
    classes[edge & (lesions == 0)] = LUNG_OUTLINE
    for start in range(0, rows, _BAND):
        band = slice(start, min(start + _BAND, rows))
        picture[band, :columns] = colored(in_lung_window(hu[band]), classes[band])
    picture[rows:] = _legend(picture.shape[1])
    return picture


def _shape(volume: Volume, grid: _Grid) -> tuple[int, int]:
    """Rows and columns of the pictures."""
    rows, columns = (-(-size // grid.step) for size in volume.to_lps(volume.hu).shape[1:])
    even = columns + columns % 2
    return rows + len(_legend(even)), even


@cache
def _legend(columns: int) -> NDArray[np.uint32]:
    """Strip with the colours' names and the research notice, as wide as the picture."""
    size = columns / 30
    while size > 6 and ImageFont.load_default(size).getlength(RESEARCH_USE_ONLY) > columns * 0.96:
        size *= 0.95
    font = ImageFont.load_default(size)
    line = round(size * 1.5)
    strip = Image.new("RGB", (columns, 2 * line))
    draw = ImageDraw.Draw(strip)
    x = columns * 0.02
    entries = [("Lung", LUNG_COLOR)] + [
        (structure.label, structure.color) for structure in STRUCTURES_OF_LESIONS.values()
    ]
    for label, color in entries:
        draw.rectangle((x, line * 0.3, x + size * 0.7, line * 0.3 + size * 0.7), fill=color)
        draw.text((x + size, line / 2), label, (255, 255, 255), font, anchor="lm")
        x += size * 2 + font.getlength(label)
    draw.text((columns * 0.02, line * 1.5), RESEARCH_USE_ONLY, (255, 255, 255), font, anchor="lm")
    return as_pixels(np.asarray(strip))


def _common(volume: Volume, uids: ResultUids, grid: _Grid) -> Dataset:
    """What all instances of the series have in common: made once, for attributes take their time in pydicom."""
    header = volume.headers[0]
    result = new_result(
        header,
        uids,
        NAME,
        sop_class_uid=SecondaryCaptureImageStorage,
        modality="OT",
        series_number=9005,
        series_description="COVID-19 CT: overlay (research use only)",
        transfer_syntax_uid=JPEGBaseline8Bit,
    )
    result.BodyPartExamined = "CHEST"
    result.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    result.ConversionType = "WSD"
    # DICOM asks whether the patient can be told from the picture; the legend names none.
    result.BurnedInAnnotation = "NO"
    result.DerivationDescription = RESEARCH_USE_ONLY
    result.SamplesPerPixel = 3
    result.PhotometricInterpretation = "YBR_FULL_422"
    result.PlanarConfiguration = 0
    result.Rows, result.Columns = _shape(volume, grid)
    result.BitsAllocated = result.BitsStored = 8
    result.HighBit = 7
    result.PixelRepresentation = 0
    result.LossyImageCompression = "01"
    result.LossyImageCompressionMethod = "ISO_10918_1"
    copy_frame_of_reference(header, result, uids)
    spacing = volume.lps_spacing
    rows, columns = volume.lps_affine[:3, 1] / spacing[1], volume.lps_affine[:3, 2] / spacing[2]
    result.ImageOrientationPatient = _decimals(*columns, *rows)
    result.PatientOrientation = ["L", "P"]
    result.PixelSpacing = _decimals(*(step * grid.step for step in spacing[1:]))
    result.SliceThickness = positive_number(header, "SliceThickness")
    result.SpacingBetweenSlices = _decimals(spacing[0] * -grid.slices.step)
    return result


def _capture(result: Dataset, volume: Volume, index: int, jpeg: bytes, pixels: int) -> Dataset:
    """Fill one instance: the slice `index` of the standard axial view, of so many pixels."""
    set_sequence(result, "SourceImageSequence", [reference(volume.headers[source_slice(volume, index)])])
    result.ImagePositionPatient = _decimals(*slice_corner(volume, index))
    result.LossyImageCompressionRatio = f"{3 * pixels / len(jpeg):.2f}"
    result.PixelData = encapsulate([jpeg])
    result["PixelData"].VR = "OB"
    result["PixelData"].is_undefined_length = True
    return result


def _decimals(*values: float) -> list[str]:
    """Values of a DS attribute."""
    return [format_number_as_ds(float(value)) for value in values]
