"""CT slices with lungs outlined and lesions tinted, for reports and the overlay series."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from covid_ct.analysis.findings import Findings, LesionKind, where_label
from covid_ct.results.terms import STRUCTURES_OF_LESIONS
from covid_ct.series.volume import Volume

LUNG_WINDOW = (-600, 1500)
"""Window centre and width in HU of every picture, the usual lung window."""
LUNG_COLOR = (86, 180, 233)
"""sRGB of the lungs' outline; with the lesions' colours it can be told apart by colour-blind eyes."""
TINT = 0.4
"""Share of the lesion's colour in a tinted pixel."""
MARGIN_MM = 12.0
"""What pictures show around the lungs, in mm."""
KEY_IMAGES = 3
"""How many axial slices a report shows."""

LUNG_OUTLINE = 1 + max(LesionKind)
"""Class of the pixels of the lungs' outline. The classes below are the labels of the lesion map, which are tinted;
those above, by as much, their outlines."""


def _lung_window_table() -> NDArray[np.uint8]:
    """Grey of every HU, by its bits as an unsigned number."""
    center, width = LUNG_WINDOW
    hu = np.arange(2**16, dtype=np.uint16).view(np.int16).astype(np.float64)
    return np.rint(np.clip((hu - center) / width + 0.5, 0, 1) * 255).astype(np.uint8)


_LUNG_WINDOW_TABLE = _lung_window_table()


def in_lung_window(hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Grey values of HU in the lung window."""
    # Every value is in the table, and "clip" is the quick way of not checking.
    return _LUNG_WINDOW_TABLE.take(hu.view(np.uint16), mode="clip")


@dataclass(frozen=True)
class Plane:
    """One plane of a volume, upright as radiologists look at it: the patient's right on the left of the picture.

    Attributes
    ----------
    hu: NDArray[np.int16]
    lungs, lesions: NDArray[np.uint8]
        Label maps, shape (rows, columns) as `hu`.
    spacing: tuple[float, float]
        Distance in mm between rows and between columns.
    index: int
        Place along the axis that the plane is cut from, in the standard axial view.
    """

    hu: NDArray[np.int16]
    lungs: NDArray[np.uint8]
    lesions: NDArray[np.uint8]
    spacing: tuple[float, float]
    index: int


class StandardView:
    """A volume and its findings in the standard axial view, cropped to the lungs.

    Parameters
    ----------
    volume: Volume
    findings: Findings
    """

    def __init__(self, volume: Volume, findings: Findings) -> None:
        spacing = volume.lps_spacing
        hu, lungs, lesions = (volume.to_lps(array) for array in (volume.hu, findings.lungs, findings.lesions))
        crop = _bounds(lungs, spacing)
        self._first = crop[0].start, crop[1].start
        self._spacing = spacing
        self._hu, self._lungs, self._lesions = hu[crop], lungs[crop], lesions[crop]
        # Plane by plane, NumPy counts many times faster than along an axis.
        self._lesion_area = np.array([np.count_nonzero(plane) for plane in self._lesions])

    def key_planes(self) -> list[Plane]:
        """Axial planes from head to feet: where most lesion is, or spread over the lungs where there is none."""
        return [self.axial(index) for index in reversed(self._key_indices())]

    def axial(self, index: int) -> Plane:
        """Axial plane, seen from the feet."""
        return Plane(
            self._hu[index],
            self._lungs[index],
            self._lesions[index],
            (self._spacing[1], self._spacing[2]),
            self._first[0] + index,
        )

    def coronal(self) -> Plane:
        """Coronal plane with the largest area of lesion, or of lung where there is none, seen from the front."""
        holding = np.flatnonzero(self._lesion_area)
        shown = self._lesions[holding[0] : holding[-1] + 1] if holding.size else self._lungs
        row = int(np.argmax([np.count_nonzero(plane) for plane in shown.swapaxes(0, 1)]))
        return Plane(
            self._hu[::-1, row],
            self._lungs[::-1, row],
            self._lesions[::-1, row],
            (self._spacing[0], self._spacing[2]),
            self._first[1] + row,
        )

    def _key_indices(self) -> list[int]:
        """Ascending: slices with most lesion, a third of those that hold any apart, then quarters of the lungs'."""
        holding = np.flatnonzero(self._lesion_area)
        apart = len(holding) / KEY_IMAGES
        chosen: list[int] = []
        for index in holding[np.argsort(-self._lesion_area[holding], kind="stable")].tolist():
            if all(abs(index - other) >= apart for other in chosen):
                chosen.append(index)
        height = len(self._lesion_area)
        spread = [height * (part + 1) // (KEY_IMAGES + 1) for part in range(KEY_IMAGES)]
        chosen += [index for index in spread if index not in chosen]
        return sorted(chosen[:KEY_IMAGES])


def _bounds(lungs: NDArray[np.uint8], spacing: tuple[float, float, float]) -> tuple[slice, slice, slice]:
    """Box around the lungs with a margin; everything where there are none."""
    by_slice = lungs.max(axis=0)
    # NumPy finds the largest twice as fast as any.
    shadows = (lungs.max(axis=(1, 2)) > 0, by_slice.any(axis=1), by_slice.any(axis=0))
    if not shadows[0].any():
        return slice(0, lungs.shape[0]), slice(0, lungs.shape[1]), slice(0, lungs.shape[2])
    z, y, x = (
        slice(max(int(shadow.argmax()) - margin, 0), len(shadow) - max(int(shadow[::-1].argmax()) - margin, 0))
        for shadow, margin in zip(shadows, (round(MARGIN_MM / step) for step in spacing), strict=True)
    )
    return z, y, x


def picture_of(plane: Plane, pixels_per_mm: float) -> NDArray[np.uint32]:
    """Picture of a plane in the lung window, with square pixels, lungs outlined, lesions tinted and outlined.

    Parameters
    ----------
    plane: Plane
    pixels_per_mm: float

    Returns
    -------
    NDArray[np.uint32]
        As of `colored`.
    """
    rows, columns = (
        max(round(size * step * pixels_per_mm), 1) for size, step in zip(plane.hu.shape, plane.spacing, strict=True)
    )

    def resized(array: NDArray[np.uint8], resampling: Image.Resampling) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize((columns, rows), resampling))

    def smooth(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return resized(mask.astype(np.uint8) * 255, Image.Resampling.BILINEAR) > 127

    classes = np.zeros((rows, columns), np.uint8)
    classes[_outline(smooth(plane.lungs > 0))] = LUNG_OUTLINE
    for label in STRUCTURES_OF_LESIONS:
        if (lesion := where_label(plane.lesions, label)).any():
            mask = smooth(lesion)
            classes[mask] = label
            classes[_outline(mask)] = LUNG_OUTLINE + label
    return colored(resized(in_lung_window(plane.hu), Image.Resampling.BICUBIC), classes)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Inner edge of a mask, two pixels wide."""
    return mask & ~eroded(eroded(mask, 0, 2), 1, 2)


def eroded(mask: NDArray[np.bool_], axis: int, reach: int) -> NDArray[np.bool_]:
    """What is in a mask with all its neighbours along one axis, up to a distance; beyond the border all is."""
    inner = mask.copy()
    along, neighbours = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
    for distance in range(1, reach + 1):
        along[distance:] &= neighbours[:-distance]
        along[:-distance] &= neighbours[distance:]
    return inner


def colored(grey: NDArray[np.uint8], classes: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Pixels of some grey values in the colours of their classes.

    Parameters
    ----------
    grey: NDArray[np.uint8]
    classes: NDArray[np.uint8]
        Shape as `grey`: 0, the label of a lesion, `LUNG_OUTLINE`, or the sum of these two.

    Returns
    -------
    NDArray[np.uint32]
        Each pixel is one number that holds the bytes red, green, blue and one to spare.
    """
    # Every value is in the table, and "clip" is the quick way of not checking.
    return _color_table().take(classes * np.uint16(256) + grey, mode="clip")


@cache
def _color_table() -> NDArray[np.uint32]:
    """Pixel for each class and grey: 256 greys for each class."""
    grey = np.repeat(np.arange(256)[:, None], 3, axis=1)
    table = np.stack([grey] * 2 * LUNG_OUTLINE).astype(np.float64)
    table[LUNG_OUTLINE] = LUNG_COLOR
    for label, structure in STRUCTURES_OF_LESIONS.items():
        table[label] = grey * (1 - TINT) + np.asarray(structure.color) * TINT
        table[LUNG_OUTLINE + label] = structure.color
    return as_pixels(table.reshape(-1, 3))


def as_pixels(colors: NDArray[Any]) -> NDArray[np.uint32]:
    """Colours of shape (..., 3) as one number for each pixel: NumPy and Pillow move these faster than bytes."""
    bytes_of_pixels = np.zeros((*colors.shape[:-1], 4), np.uint8)
    bytes_of_pixels[..., :3] = colors
    return bytes_of_pixels.view(np.uint32)[..., 0]


def as_jpeg(picture: NDArray[np.uint32], quality: int, subsampling: str) -> bytes:
    """Baseline JPEG in YCbCr.

    Parameters
    ----------
    picture: NDArray[np.uint32]
        As of `colored`.
    quality: int
        As Pillow counts it, up to 95.
    subsampling: str
        "4:4:4", or "4:2:2" for half the columns of colour.

    Returns
    -------
    bytes
    """
    rows, columns = picture.shape
    image = Image.frombuffer("RGBX", (columns, rows), picture, "raw", "RGBX", 0, 1)
    # Pillow lets go of Python's lock where it compresses into a file; this one is in memory.
    with os.fdopen(os.memfd_create("picture"), "w+b") as file:
        image.save(file, "JPEG", quality=quality, subsampling=subsampling)
        file.seek(0)
        return file.read()
