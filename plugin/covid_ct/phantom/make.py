"""From anatomy to the images of a scanner, with the truth on the same grid."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from covid_ct.analysis.findings import LesionKind, Side, where_label
from covid_ct.phantom.anatomy import Anatomy, build_anatomy
from covid_ct.phantom.fields import (
    FIELD_OF_VIEW_MM,
    GRID,
    PIXEL_MM,
    STEP_MM,
    Array,
    coverage,
    grid_z,
    linear_neighbours,
    pixel_centres,
    profile,
)
from covid_ct.phantom.lesions import SINGLE_SLICE_MM
from covid_ct.phantom.options import Lesions, PhantomOptions, Position

CENTRE_MM = (4.0, -150.0, -120.0)
"""Patient coordinates (x, y, z; LPS, mm) of the middle of the chest: off zero, so that a lost origin shows."""

NOISE_HU = 13.0
"""Standard deviation in HU of the noise in the lungs' middle at a slab of 3 mm; thinner slabs have more."""


NOISES = 12
"""Number of noise images; each slice's noise is the sum of two of them, shifted at random."""


@dataclass(frozen=True)
class PhantomTruth:
    """What is really in the phantom.

    Attributes
    ----------
    lungs: NDArray[np.uint8]
        0 or a `Side`; with lesions and small vessels, without trachea, main bronchi and hilum. On the phantom's grid.
    lesions: NDArray[np.uint8]
        0 or a `LesionKind`; nonzero only where `lungs` is.
    voxel_ml: float
        Volume of one voxel in ml.
    """

    lungs: NDArray[np.uint8]
    lesions: NDArray[np.uint8]
    voxel_ml: float

    def lung_volume_ml(self, side: Side | None = None) -> float:
        """Volume in ml of one lung, or of both."""
        return self.voxel_ml * float(np.count_nonzero(self.lungs if side is None else where_label(self.lungs, side)))

    def lesion_volume_ml(self, kind: LesionKind | None = None, side: Side | None = None) -> float:
        """Volume in ml of lesions: of one kind or both, in one lung or both."""
        chosen = self.lesions > 0 if kind is None else where_label(self.lesions, kind)
        if side is not None:
            chosen = chosen & where_label(self.lungs, side)
        return self.voxel_ml * float(np.count_nonzero(chosen))

    def to_dict(self) -> dict[str, dict[str, float]]:
        """The volumes in ml and the lesion-to-lung ratio, each for total, right and left, under the findings' names."""
        sides = {"total": None, "right": Side.RIGHT, "left": Side.LEFT}
        lungs = {name: self.lung_volume_ml(side) for name, side in sides.items()}
        lesions = {name: self.lesion_volume_ml(None, side) for name, side in sides.items()}
        return {
            "lung_volume_ml": lungs,
            "lesion_volume_ml": lesions,
            "lesion_to_lung_ratio": {name: lesions[name] / lungs[name] if lungs[name] else 0.0 for name in sides},
            "ground_glass_volume_ml": {
                name: self.lesion_volume_ml(LesionKind.GROUND_GLASS, side) for name, side in sides.items()
            },
            "consolidation_volume_ml": {
                name: self.lesion_volume_ml(LesionKind.CONSOLIDATION, side) for name, side in sides.items()
            },
        }


@dataclass(frozen=True)
class Phantom:
    """A scan of the phantom.

    Attributes
    ----------
    options: PhantomOptions
    hu: NDArray[np.int16]
        Shape (slices, rows, columns) as stored: rows and columns as the options turn them, slices ascending along the
        normal (row cosine x column cosine).
    affine: NDArray[np.float64]
        4x4 matrix from (slice, row, column) indices of a voxel's centre to patient coordinates (LPS, mm).
    truth: PhantomTruth
    """

    options: PhantomOptions
    hu: NDArray[np.int16]
    affine: NDArray[np.float64]
    truth: PhantomTruth


def make_phantom(options: PhantomOptions | None = None) -> Phantom:
    """Make a thorax whose truth is known.

    Parameters
    ----------
    options: PhantomOptions | None
        The default is upright, with lesions in both lungs.

    Returns
    -------
    Phantom
        The same, voxel by voxel, for the same options; and the same anatomy in patient coordinates however it is
        turned.
    """
    options = options or PhantomOptions()
    return scan(build_anatomy(options.seed, options.lesions), options)


def scan(anatomy: Anatomy, options: PhantomOptions) -> Phantom:
    """Make one of several scans of one thorax.

    Parameters
    ----------
    anatomy: Anatomy
        Built with the options' seed and lesions.
    options: PhantomOptions

    Returns
    -------
    Phantom
        As from `make_phantom`.
    """
    hu, lungs, lesions = _images(anatomy, options)
    pixel = FIELD_OF_VIEW_MM / options.matrix
    first = [
        CENTRE_MM[2] - options.spacing_mm * (options.slices - 1) / 2,
        CENTRE_MM[1] + float(pixel_centres(options.matrix)[0]),
        CENTRE_MM[0] + float(pixel_centres(options.matrix)[0]),
    ]
    affine = np.zeros((4, 4))
    for axis, (step, start, patient_axis) in enumerate(
        zip((options.spacing_mm, pixel, pixel), first, (2, 1, 0), strict=True)
    ):
        affine[patient_axis, axis] = step
        affine[patient_axis, 3] = start
    affine[3, 3] = 1

    for axis in _flipped_axes(options):
        affine[:3, 3] += affine[:3, axis] * (hu.shape[axis] - 1)
        affine[:3, axis] *= -1
        hu, lungs, lesions = np.flip(hu, axis), np.flip(lungs, axis), np.flip(lesions, axis)
    voxel_ml = options.spacing_mm * pixel**2 / 1000
    return Phantom(options, hu, affine, PhantomTruth(lungs, lesions, voxel_ml))


def _flipped_axes(options: PhantomOptions) -> list[int]:
    """Axes of the standard axial view to turn round, so that slices still ascend along the normal."""
    columns = options.position in (Position.FFS, Position.HFP)
    rows = (options.position is Position.HFP) != options.columns_to_front
    return [axis for axis, flipped in enumerate((rows != columns, rows, columns)) if flipped]


def _slab_weights(options: PhantomOptions) -> Array:
    """Matrix from the drawing grid's slices to the scan's: the mean over each slab, shape (slices, heights)."""
    heights = grid_z()
    middles = (np.arange(options.slices) - (options.slices - 1) / 2) * options.spacing_mm
    parts = max(1, round(options.slab_mm))
    offsets = ((np.arange(parts) + 0.5) / parts - 0.5) * options.slab_mm
    samples = (middles[:, None] + offsets).ravel()
    lower, share = linear_neighbours(samples, float(heights[0]), STEP_MM, len(heights))
    weights = np.zeros((options.slices, len(heights)), np.float32)
    rows = np.repeat(np.arange(options.slices), parts)
    np.add.at(weights, (rows, lower), (1 - share) / parts)
    np.add.at(weights, (rows, lower + 1), share / parts)
    return weights


def _images(
    anatomy: Anatomy, options: PhantomOptions
) -> tuple[NDArray[np.int16], NDArray[np.uint8], NDArray[np.uint8]]:
    """HU, lungs and lesions in the standard axial view: slices to the head, rows to the back, columns to the left."""
    weights = _slab_weights(options)
    middles = weights @ grid_z()
    across = pixel_centres(options.matrix)
    lower, share = linear_neighbours(across, float(pixel_centres(GRID)[0]), PIXEL_MM, GRID)
    table = _table(across, options.position)
    rng = np.random.default_rng(options.seed + 1)
    noises = [_noise(rng, options.matrix) / np.float32(2**0.5) for _ in range(NOISES)]
    shape = (options.slices, options.matrix, options.matrix)
    hu, lungs, lesions = np.empty(shape, np.int16), np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    side = np.where(across < 0.5, np.uint8(Side.RIGHT), np.uint8(Side.LEFT))
    single = int(np.argmin(np.abs(middles - SINGLE_SLICE_MM)))
    # Across the shoulders the least radiation comes through.
    loudness = profile(middles, (-200, -60, 0, 80, 125, 190), (1.25, 1.0, 0.95, 1.1, 1.7, 1.3))
    loudness = loudness * NOISE_HU * np.float32((3.0 / options.slab_mm) ** 0.5)

    def slab(field: Array, index: int) -> Array:
        mean = sum(weights[index, height] * field[height] for height in np.flatnonzero(weights[index]))
        rows = mean[lower] + share[:, None] * (mean[lower + 1] - mean[lower])
        return np.asarray(rows[:, lower] + share * (rows[:, lower + 1] - rows[:, lower]), np.float32)

    shifts = rng.integers(0, (NOISES, options.matrix, options.matrix), (options.slices, 2, 3))

    def take(index: int) -> None:
        image = slab(anatomy.hu, index)
        lung = slab(anatomy.lung, index)
        inside = lung > 0.5
        lungs[index] = inside * side
        if options.lesions is not Lesions.SINGLE_SLICE or index == single:
            glass, solid = slab(anatomy.ground_glass, index), slab(anatomy.consolidation, index)
            ill = np.minimum(glass + solid, 1)
            image += ill * (np.maximum(slab(anatomy.lesion_hu, index), image) - image)
            lesion = inside & (ill > 0.5)
            lesions[index] = lesion * np.where(solid > 0.5, LesionKind.CONSOLIDATION, LesionKind.GROUND_GLASS)
        image = np.where(image < -995, np.maximum(image, table), image)
        image += loudness[index] * sum(
            np.roll(noises[one], (down, along), (0, 1)) for one, down, along in shifts[index]
        )
        hu[index] = np.clip(np.rint(image), -1024, 3071)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(take, range(options.slices)))
    return hu, lungs, lesions


def _noise(rng: np.random.Generator, matrix: int) -> Array:
    """Noise of deviation 1 with the grain of a standard chest kernel: little at low frequencies, none at the top."""
    white = rng.standard_normal((matrix, matrix), np.float32)
    grain_px = 0.75 * matrix / FIELD_OF_VIEW_MM
    grain = gaussian_filter(white, grain_px, mode="wrap") - 0.75 * gaussian_filter(white, 2.2 * grain_px, mode="wrap")
    return np.asarray(grain / grain.std(), np.float32)


def _table(across: Array, position: Position) -> Array:
    """HU of the table under the patient: a thin, bent shell with foam inside; air elsewhere. Shape (matrix, matrix)."""
    x, y = across[None, :], across[:, None]
    below = -y if position is Position.HFP else y
    sag = below - 133 + 28 * (x / 170) ** 2
    width = np.abs(x) - 172
    shell = np.maximum(np.abs(sag) - 1.2, width)
    foam = np.maximum(np.maximum(-sag, sag - 20), width)
    table = np.full((len(across), len(across)), -1000, np.float32)
    table += coverage(foam.astype(np.float32)) * (-930 - table)
    table += coverage(shell.astype(np.float32)) * (-120 - table)
    return table
