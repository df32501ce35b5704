"""The labelled slices as one kind of thing: upright images in HU with label maps, grouped by patient.

Every array is in the standard axial view (slices from feet to head, rows from anterior to posterior, columns from
the patient's right to left) and of 256x256 pixels, those of MedSeg of 512x512 too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

from covid_ct.inference.preprocessing import resize
from covid_ct.phantom.make import make_phantom
from covid_ct.phantom.options import PhantomOptions
from covid_ct.series.folder import read_folder
from covid_ct.series.volume import Volume

SIZE = 256
"""Rows and columns of an image."""

FINE = 512
"""Rows and columns of a MedSeg slice in its source."""

EITHER = 3
"""Label of a pixel known to be foreground (lung, lesion) whose class nobody knows."""

IGNORED = 255
"""Label of a pixel about which nothing is known."""

LUNG_WINDOW_HU = (-1350.0, 150.0)
"""HU that 0 and 255 stand for in an 8-bit picture of a CT in the lung window (width 1500, centre -600)."""

HEALTHY_WINDOW_HU = (-1105.0, 126.0)
"""The same for the pictures of the whole series of healthy chests, as slices that the HU set holds too tell."""

EQUALISED_HU = (-1340.0, 740.0)
"""HU that 0 and 255 stand for, roughly, in the CLAHE-equalised images of Ma et al. 2020.

Their healthy lung lies at 60 and muscle at 168 on the average over patients; the line through (60, -850 HU) and
(168, 30 HU) gives these ends. Equalisation is local, so that no mapping is exact.
"""

CLAHE_STARTS = (0, 159, 279, 397, 510, 626, 696, 789, 970, 1136, 1265, 1331, 1364, 1365, 1366, 1375)
"""Index of the first slice of each patient in lungs_and_lesions_clahe.npz, and the number of slices.

The set counts slices 1136 to 1146 as a patient apart, but they show the one of 1147 to 1264.
"""

CLAHE_UPSIDE_DOWN_FROM = 1136
"""From this slice on the images of lungs_and_lesions_clahe.npz have the back at the top."""

FOLDS = 4
"""Networks that are trained side by side, each on all folds but one of its own."""

CLAHE_FOLDS = (0, 1, 1, 1, 0, 0, 2, 3, 2, 3, 3, 2, 2, 2, 2)
"""Fold of each CLAHE patient: about as many slices in each, some with much lesion and some with little."""

MEDSEG_PATIENTS = {
    (1, 11): 0,
    (3, 8, 21): 3,
    (4, 5, 12, 13, 37): 0,
    (6, 34): 2,
    (9, 24, 36): 1,
    (10, 17): 0,
    (14, 48): 1,
    (18, 33, 47): 2,
    (19, 20): 1,
    (22, 45): 1,
    (23, 38): 1,
    (28, 49): 3,
    (32, 44): 3,
    (35, 46): 2,
}
"""MedSeg slices, by their place in lesions_full_field.npz, that show one patient, and the fold of each, chosen so that
all folds hold about as many slices.

The set names no patients. These are alike in ribs, spine, skin and disease, and in how the picture was cut, or name the
same examination in their margin; that 36 belongs to 9 and 24, and 46 to 35, is less sure. Every other slice counts as a
patient of its own.
"""

SHOWN_TO_ALL = -1
"""Fold of slices that no network is measured on."""

WRONG_LUNG_MASKS = (39, 101, 191)
"""Slices of lungs_hu.npz whose masks hold the air around the patient too. Left out."""

SLICES_OF_WHOLE_SERIES = (57, 84)
"""Slices of lungs_hu.npz that the whole series of healthy chests, shown to all networks, hold too. Left out."""

PHANTOM_SEED = 100
"""Seed of the first phantom in training."""

TUMOURS = Path(__file__).resolve().parents[2] / "build/tumours"
"""Where the Makefile puts the series of `tumours.txt`, a folder each, and at last a file `ready`."""

TUMOUR_SLICES = 45
"""So many slices of each of them the classifier learns from, and less than twice as many."""


def picture_to_hu(picture: NDArray[np.uint8], ends: tuple[float, float] = LUNG_WINDOW_HU) -> NDArray[np.int16]:
    """An 8-bit picture of a CT as HU, by the line through the HU that 0 and 255 stand for."""
    return np.rint(ends[0] + (ends[1] - ends[0]) / 255.0 * picture.astype(np.float32)).astype(np.int16)


@dataclass(frozen=True)
class Slices:
    """Labelled slices of one source.

    Attributes
    ----------
    name: str
    hu: NDArray[np.int16]
        Shape (slices, size, size).
    lungs: NDArray[np.uint8]
        0, 1 (right), 2 (left), EITHER or IGNORED.
    lesions: NDArray[np.uint8]
        0, 1 (ground glass), 2 (consolidation), EITHER or IGNORED.
    patients: NDArray[np.int64]
        A number for the patient of each slice.
    folds: NDArray[np.int64]
        The network of so many that does not see the slice, the same for all of a patient, or SHOWN_TO_ALL.
    """

    name: str
    hu: NDArray[np.int16]
    lungs: NDArray[np.uint8]
    lesions: NDArray[np.uint8]
    patients: NDArray[np.int64]
    folds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hu)

    def part(self, chosen: NDArray[np.bool_]) -> "Slices":
        """The slices that a mask chooses."""
        return replace(
            self,
            hu=self.hu[chosen],
            lungs=self.lungs[chosen],
            lesions=self.lesions[chosen],
            patients=self.patients[chosen],
            folds=self.folds[chosen],
        )


def sides(lung: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Label a slice's lung mask by side, as far as position tells it.

    A connected part that lies on one side of the middle is labelled whole. Of one that lies on both (lungs that
    touch) only what is far from the middle is labelled, the rest is EITHER.
    """
    labels = np.zeros(lung.shape, np.uint8)
    columns = np.flatnonzero(lung.any(axis=0))
    if columns.size == 0:
        return labels
    parts, count = ndimage.label(lung)
    sizes = ndimage.sum_labels(lung, parts, np.arange(1, count + 1))
    centres = np.array([centre[1] for centre in ndimage.center_of_mass(lung, parts, np.arange(1, count + 1))])
    large = sizes > 0.1 * sizes.sum()
    two_sided = large.sum() == 2
    middle = centres[large].mean() if two_sided else SIZE / 2
    margin = 0.06 * SIZE
    position = np.arange(SIZE)[np.newaxis].repeat(SIZE, axis=0)
    for index in range(count):
        mask = parts == index + 1
        extent = np.flatnonzero(mask.any(axis=0))
        crossing = min(middle - extent[0], extent[-1] - middle)
        if crossing < margin and abs(centres[index] - middle) > 0.5 * margin:
            labels[mask] = 1 if centres[index] < middle else 2
        else:
            labels[mask & (position < middle - 2 * margin)] = 1
            labels[mask & (position > middle + 2 * margin)] = 2
            labels[mask & (labels == 0)] = EITHER
    return labels


def lungs_by_threshold(hu: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Aerated lung, airways included, of a whole series without large lesions: connected air inside the body."""
    padded = np.pad(hu < -400, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    for image in padded:
        parts, _ = ndimage.label(image)
        image[parts == parts[0, 0]] = False
    inside = ndimage.binary_opening(padded[:, 1:-1, 1:-1], np.ones((1, 2, 2)))
    parts, count = ndimage.label(inside)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = np.flatnonzero(sizes > 0.15 * sizes.max())
    return np.isin(parts, kept)


def whole_series_labels(hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    """What can be known of the lungs in a whole series without masks.

    Air connected to the lungs and far from the middle is lung, everything away from the lungs is not, which
    includes bowel gas; between (airways, vessels, pleura) nothing is said.
    """
    aerated = lungs_by_threshold(hu)
    near = ndimage.binary_dilation(aerated, np.ones((1, 3, 3)), iterations=2)
    labels = np.where(near, IGNORED, 0).astype(np.uint8)
    columns = np.flatnonzero(aerated.any(axis=(0, 1)))
    middle, half = (columns[0] + columns[-1]) / 2, (columns[-1] - columns[0]) / 2
    position = np.arange(SIZE)[np.newaxis, np.newaxis]
    for label, side in ((1, position < middle - 0.3 * half), (2, position > middle + 0.3 * half)):
        labels[ndimage.binary_closing(aerated, np.ones((1, 3, 3))) & side] = label
    return labels


def hu_slices(folder: Path) -> Slices:
    """lungs_hu.npz: one slice of each of 200 patients, lungs labelled."""
    data = np.load(folder / "training/lungs_hu.npz")
    patients = np.delete(np.arange(len(data["image_hu"])), WRONG_LUNG_MASKS + SLICES_OF_WHOLE_SERIES)
    hu = np.clip(data["image_hu"][patients], -1024, 1500)
    return Slices(
        "HU slices",
        hu,
        np.stack([sides(mask > 0) for mask in data["lung"][patients]]),
        np.full(hu.shape, IGNORED, np.uint8),
        patients,
        patients % FOLDS,
    )


def clahe_slices(folder: Path) -> Slices:
    """lungs_and_lesions_clahe.npz: COVID-19 patients, upright, lungs and lesions labelled."""
    data = np.load(folder / "training/lungs_and_lesions_clahe.npz")
    numbers = np.searchsorted(CLAHE_STARTS, np.arange(CLAHE_STARTS[-1]), side="right") - 1
    upright = {}
    for name in ("image", "lung", "lesion"):
        upright[name] = data[name].copy()
        upright[name][CLAHE_UPSIDE_DOWN_FROM:] = upright[name][CLAHE_UPSIDE_DOWN_FROM:, ::-1]
    return Slices(
        "CLAHE patients",
        picture_to_hu(upright["image"], EQUALISED_HU),
        np.stack([sides(mask > 0) for mask in upright["lung"]]),
        np.where(upright["lesion"] > 0, EITHER, 0).astype(np.uint8),
        np.array(CLAHE_STARTS)[numbers],
        np.array(CLAHE_FOLDS)[numbers],
    )


def medseg_slices(folder: Path, size: int = SIZE) -> Slices:
    """The MedSeg slices, whole and upright, ground glass and consolidation apart; lungs are known at lesions only.

    Parameters
    ----------
    folder: Path
    size: int
        Rows and columns, SIZE or FINE.
    """
    whole = np.load(folder / "training/lesions_full_field.npz")
    crops = np.load(folder / "training/lesions_ggo_consolidation.npz")
    lesions, lungs = [], []
    for lesion, number in zip(whole["lesion"], whole["number"], strict=True):
        label = crops[f"label_{number}"].T
        # The crops are parts of the fields at the same scale: they lie where the lesions overlap most.
        overlap = fftconvolve(lesion > 0, label[::-1, ::-1] > 0)
        top, left = (
            int(place) - size + 1
            for place, size in zip(np.unravel_index(overlap.argmax(), overlap.shape), label.shape, strict=True)
        )
        placed = np.zeros(lesion.shape, np.uint8)
        target = placed[max(0, top) : top + label.shape[0], max(0, left) : left + label.shape[1]]
        target[:] = label[max(0, -top) :, max(0, -left) :][: target.shape[0], : target.shape[1]]
        field = np.where(lesion > 0, np.where(placed > 0, placed, EITHER), 0)
        step = len(field) // size
        lesions.append(field[::step, ::step].astype(np.uint8))
        # The crops were made around the lungs, so there is none outside.
        lung = np.zeros(lesion.shape, np.uint8)
        lung[max(0, top) : top + label.shape[0], max(0, left) : left + label.shape[1]] = IGNORED
        lungs.append(np.where(field > 0, EITHER, lung)[::step, ::step].astype(np.uint8))
    lesion_labels = np.stack(lesions)
    patients = np.arange(len(lesion_labels))
    # Neighbours, which may be of one patient too, stay together.
    folds = patients * FOLDS // len(patients)
    for numbers, fold in MEDSEG_PATIENTS.items():
        patients[list(numbers)], folds[list(numbers)] = numbers[0], fold
    return Slices(
        "MedSeg slices",
        picture_to_hu(np.rint(resize(whole["image"], (size, size))).astype(np.uint8)),
        np.stack(lungs),
        lesion_labels,
        patients,
        folds,
    )


def whole_series(folder: Path) -> Iterator[Slices]:
    """whole_series_without_covid.npz: five chests without COVID-19; what is not lung is known, and lesions are none."""
    data = np.load(folder / "training/whole_series_without_covid.npz")
    for number, name in enumerate(key for key in data if key.endswith(("_window", "_hu"))):
        array = data[name]
        hu = picture_to_hu(array, HEALTHY_WINDOW_HU) if array.dtype == np.uint8 else np.clip(array, -1024, 1500)
        yield Slices(
            name,
            hu,
            whole_series_labels(hu),
            np.zeros(hu.shape, np.uint8),
            np.full(len(hu), number),
            np.full(len(hu), SHOWN_TO_ALL),
        )


def tumours() -> Iterator[tuple[str, Volume]]:
    """Whole chest CTs of people with lung cancer, by name, if they were fetched."""
    for path in sorted(TUMOURS.glob("*/")) if (TUMOURS / "ready").exists() else ():
        yield path.name, read_folder(path)


def some_slices(volume: Volume) -> NDArray[np.int16]:
    """`TUMOUR_SLICES` of a whole CT and less than twice as many, evenly spaced, in HU, shape (slices, 256, 256)."""
    hu = volume.to_lps(volume.hu)
    step = max(1, len(hu) // TUMOUR_SLICES)
    return np.rint(resize(hu[step // 2 :: step], (SIZE, SIZE))).astype(np.int16)


def phantoms() -> Slices:
    """Made-up chests of our own, everything known; other seeds than the one of tests and demo."""
    made = [
        make_phantom(
            PhantomOptions(seed=PHANTOM_SEED + number, slices=30, spacing_mm=10.0, thickness_mm=thickness, matrix=SIZE)
        )
        for number, thickness in enumerate((1.0, 2.0, 5.0, 1.0))
    ]
    return Slices(
        "phantoms",
        np.concatenate([phantom.hu for phantom in made]),
        np.concatenate([phantom.truth.lungs for phantom in made]),
        np.concatenate([phantom.truth.lesions for phantom in made]),
        np.repeat(np.arange(len(made)), [len(phantom.hu) for phantom in made]),
        np.full(sum(len(phantom.hu) for phantom in made), SHOWN_TO_ALL),
    )


def regions(slices: Slices, by_patient: bool) -> NDArray[np.float32]:
    """Bounding box (top, bottom, left, right) of all that is or may be lung, shape (slices, 4).

    Parameters
    ----------
    slices: Slices
    by_patient: bool
        Whether all slices of a patient share one box, as in a whole series.
    """
    boxes = np.empty((len(slices), 4), np.float32)
    for index in range(len(slices)):
        chosen = slices.lungs[slices.patients == slices.patients[index]] if by_patient else slices.lungs[[index]]
        area = (chosen != 0).any(axis=0)
        rows, columns = (np.flatnonzero(area.any(axis=axis)) for axis in (1, 0))
        boxes[index] = (
            (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows.size else (0, area.shape[0], 0, area.shape[1])
        )
    return boxes
