"""Augmentation: HU volumes, 8-bit windows, equalised and noisy pictures, sharp and thick slices as one domain."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.training.data import EQUALISED_HU, picture_to_hu

AIR_HU = -1024.0

AERATED_HU = -500.0
"""Less than this is lung with air in it, or air outside."""


def equalise(hu: NDArray[np.int16], tiles: int = 8, limit: float = 0.015) -> NDArray[np.int16]:
    """An image after min-max scaling and contrast-limited adaptive histogram equalisation (Zuiderveld 1994), as HU.

    Parameters
    ----------
    hu: NDArray[np.int16]
        Shape (256, 256).
    tiles: int
        Number of tiles along each axis.
    limit: float
        Share of a tile's pixels above which a histogram's bin is cut.
    """
    clipped = np.clip(hu, -1024, 600).astype(np.float32)
    low, high = float(clipped.min()), float(clipped.max())
    grey = np.rint(255 * (clipped - low) / max(high - low, 1.0)).astype(np.int64)
    size = hu.shape[0] // tiles
    tile = (np.arange(hu.shape[0]) // size)[:, np.newaxis] * tiles + np.arange(hu.shape[1]) // size
    histogram = np.bincount((tile * 256 + grey).ravel(), minlength=tiles * tiles * 256).reshape(-1, 256) / size**2
    cut = np.minimum(histogram, limit)
    cut += (1.0 - cut.sum(axis=1, keepdims=True)) / 256
    table = (np.cumsum(cut, axis=1) * 255).reshape(tiles, tiles, 256)
    place = np.clip((np.arange(hu.shape[0]) + 0.5) / size - 0.5, 0, tiles - 1)
    lower = np.minimum(place.astype(int), tiles - 2)
    weight = place - lower
    rows, columns = lower[:, np.newaxis], lower[np.newaxis]
    vertical, horizontal = weight[:, np.newaxis], weight[np.newaxis]
    mixed = (1 - vertical) * (
        (1 - horizontal) * table[rows, columns, grey] + horizontal * table[rows, columns + 1, grey]
    ) + vertical * ((1 - horizontal) * table[rows + 1, columns, grey] + horizontal * table[rows + 1, columns + 1, grey])
    return picture_to_hu(np.rint(mixed).astype(np.uint8), EQUALISED_HU)


@dataclass(frozen=True)
class Geometry:
    """How far images are moved about.

    Attributes
    ----------
    size: tuple[int, int]
        Rows and columns of the result.
    zoom: tuple[float, float]
        Range of the part of the box that is shown, 1 being all of it.
    degrees: float
        Largest rotation.
    shift: float
        Largest shift, as a part of the box.
    mirror: float
        Probability of a mirror flip.
    prone: float
        Probability of a flip that shows the spine at the top, as unturned images of patients who lie prone do.
    bend: float
        Standard deviation of an elastic displacement, as a part of half the image.
    """

    size: tuple[int, int]
    zoom: tuple[float, float] = (0.8, 1.25)
    degrees: float = 12.0
    shift: float = 0.08
    mirror: float = 0.5
    prone: float = 0.0
    bend: float = 0.0


def uniform(random: torch.Generator, count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=random)


def move(
    hu: Tensor, labels: Tensor, boxes: Tensor, geometry: Geometry, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut boxes out of images, turned, scaled, shifted and mirrored at random.

    Parameters
    ----------
    hu: Tensor
        Shape (images, 1, rows, columns).
    labels: Tensor
        Shape (images, maps, rows, columns).
    boxes: Tensor
        Shape (images, 4): top, bottom, left, right in pixels.

    Returns
    -------
    tuple[Tensor, Tensor, Tensor]
        Images, labels, and which images were mirrored.
    """
    count, (rows, columns) = len(hu), hu.shape[-2:]
    angle = torch.deg2rad(uniform(random, count, -geometry.degrees, geometry.degrees))
    zoom = torch.exp(uniform(random, count, *np.log(geometry.zoom)))
    stretch = torch.exp(uniform(random, count, -geometry.shift, geometry.shift))
    mirrored = torch.rand(count, generator=random) < geometry.mirror
    height, width = (boxes[:, 1] - boxes[:, 0]) * zoom * stretch, (boxes[:, 3] - boxes[:, 2]) * zoom / stretch
    row = (boxes[:, 0] + boxes[:, 1]) / 2 + height * uniform(random, count, -geometry.shift, geometry.shift)
    column = (boxes[:, 2] + boxes[:, 3]) / 2 + width * uniform(random, count, -geometry.shift, geometry.shift)
    sign = torch.where(mirrored, -1.0, 1.0)
    upside = torch.where(torch.rand(count, generator=random) < geometry.prone, -1.0, 1.0)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1], theta[:, 0, 2] = (
        sign * cosine * width / columns,
        -upside * sine * height / columns,
        2 * column / columns - 1,
    )
    theta[:, 1, 0], theta[:, 1, 1], theta[:, 1, 2] = (
        sign * sine * width / rows,
        upside * cosine * height / rows,
        2 * row / rows - 1,
    )
    grid = functional.affine_grid(theta, [count, 1, *geometry.size], align_corners=False)
    if geometry.bend:
        bend = torch.cat([_smooth_noise(count, 5, geometry.size, random) for _ in range(2)], dim=1)
        grid = grid + geometry.bend * bend.permute(0, 2, 3, 1)
    moved = functional.grid_sample(hu - AIR_HU, grid, mode="bilinear", align_corners=False) + AIR_HU
    turned = functional.grid_sample(labels.float(), grid, mode="nearest", align_corners=False)
    return moved, turned.round().long(), mirrored


def swap_sides(lungs: Tensor, mirrored: Tensor) -> Tensor:
    """Right becomes left in mirrored label maps."""
    swapped = torch.where(lungs == 1, 2, torch.where(lungs == 2, 1, lungs))
    return torch.where(mirrored[:, None, None], swapped, lungs)


def _smooth_noise(count: int, cells: int, size: tuple[int, int], random: torch.Generator) -> Tensor:
    coarse = torch.randn(count, 1, cells, cells, generator=random)
    return functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)


def _exceeded_by(share: Tensor, pattern: Tensor, mask: Tensor) -> Tensor:
    """What a share, shape (images,), of a mask's pixels exceeds in a pattern, shape (images, 1, 1, 1)."""
    ordered = torch.where(mask, pattern, torch.tensor(-9.0)).flatten(1).sort(dim=1, descending=True).values
    place = (mask.flatten(1).sum(1).clamp(min=1) * share).long().clamp(max=ordered.shape[1] - 1)
    return ordered.gather(1, place[:, None])[:, :, None, None]


def add_opacities(hu: Tensor, lungs: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Lay made-up ground glass and consolidation into lungs.

    Parameters
    ----------
    hu: Tensor
        Shape (images, 1, rows, columns).
    lungs: Tensor
        Same shape, true where lung is known.

    Returns
    -------
    tuple[Tensor, Tensor]
        Images, and a label map (images, rows, columns): 0, 1 (ground glass), 2 (consolidation).
    """
    count, size = len(hu), (hu.shape[-2], hu.shape[-1])
    cells = 4 + int(torch.randint(0, 7, (1,), generator=random))
    pattern = _smooth_noise(count, cells, size, random) + 0.4 * _smooth_noise(count, 24, size, random)
    # Towards the pleura and the back, where COVID-19 prefers to be.
    # At a quarter of the size, where a wide mean costs little.
    depth = functional.avg_pool2d(functional.avg_pool2d(lungs.float(), 4), 7, 1, 3)
    depth = functional.interpolate(depth, size=size, mode="bilinear", align_corners=False)
    pattern = pattern - 1.2 * depth + 0.6 * torch.linspace(-1, 1, size[0])[None, None, :, None]
    sparse = lungs[..., ::4, ::4]
    # Most leave more than half of the lung; in some slices nearly all is grey, as in the lowest ones.
    most = torch.rand(count, generator=random) < 0.25
    share = torch.where(most, uniform(random, count, 0.45, 0.85), uniform(random, count, 0.02, 0.45))
    threshold = _exceeded_by(share, pattern[..., ::4, ::4], sparse)
    soft = torch.sigmoid((pattern - threshold) * uniform(random, count, 4, 25)[:, None, None, None])
    strength = (soft * lungs).clamp(0, 1)
    texture = 60 * _smooth_noise(count, 48, size, random) + 40 * torch.randn(hu.shape, generator=random)
    dense = torch.rand(count, generator=random)[:, None, None, None] < 0.35
    target = torch.where(
        dense,
        uniform(random, count, -150, 60)[:, None, None, None],
        uniform(random, count, -680, -330)[:, None, None, None],
    )
    opaque = torch.maximum(hu, hu + strength * (target + texture - hu))
    visible = (strength > 0.5) & (target > hu + 60) | (strength > 0.5) & dense
    visible = functional.max_pool2d(functional.avg_pool2d(visible.float(), 3, 1, 1).gt(0.5).float(), 3, 1, 1).bool()
    visible &= (strength > 0.5) & lungs
    return opaque, torch.where(visible, 1 + dense.long(), 0)[:, 0]


def paste_lesions(
    hu: Tensor, lungs: Tensor, lesions: Tensor, donor_hu: Tensor, donor_lesions: Tensor
) -> tuple[Tensor, Tensor]:
    """Lay other images' lesions into images, where these show lung with air in it, or lesion.

    Parameters
    ----------
    hu, donor_hu: Tensor
        Shape (images, 1, rows, columns), all cut to the lungs, so that lung lies on lung.
    lungs: Tensor
        Shape (images, rows, columns), true where lung is or may be.
    lesions, donor_lesions: Tensor
        Label maps of the same shape; nowhere IGNORED.

    Returns
    -------
    tuple[Tensor, Tensor]
        Images and label maps with the lesions of both.
    """
    seen = ((hu < AERATED_HU) & lungs[:, None] | (lesions > 0)[:, None]).float()
    # A closing, so that vessels within the lung count as lung.
    seen = -functional.max_pool2d(-functional.max_pool2d(seen, 5, 1, 2), 5, 1, 2)
    pasted = (donor_lesions > 0)[:, None] & (seen > 0)
    strength = functional.avg_pool2d(pasted.float(), 3, 1, 1)
    return hu.lerp(donor_hu, strength), torch.where(pasted[:, 0], donor_lesions, lesions)


def add_domes(hu: Tensor, lungs: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Put the domes of the diaphragm, sharp or blurred by breathing, where lung was: what is left lies at the back.

    Parameters
    ----------
    hu: Tensor
        Shape (images, 1, rows, columns).
    lungs: Tensor
        Same shape, true where lung is known.

    Returns
    -------
    tuple[Tensor, Tensor]
        Images, and where (images, rows, columns) lung became liver, spleen or heart.
    """
    count, size = len(hu), (hu.shape[-2], hu.shape[-1])
    sparse = lungs[..., ::4, ::4]
    depth = functional.avg_pool2d(functional.avg_pool2d(lungs.float(), 4), 9, 1, 4)
    rows, columns = (torch.linspace(-1, 1, length // 4) for length in size)
    pattern = 1.5 * depth + uniform(random, count, 0.08, 0.25)[:, None, None, None] * _smooth_noise(
        count, 7, (size[0] // 4, size[1] // 4), random
    )
    pattern = pattern - uniform(random, count, 0.2, 1.4)[:, None, None, None] * rows[None, None, :, None]
    # One dome stands higher than the other.
    pattern = pattern + uniform(random, count, -0.5, 0.5)[:, None, None, None] * columns[None, None, None]
    share = 1 - (1 - uniform(random, count, 0.0, 0.97)).square()
    threshold = _exceeded_by(share, pattern, sparse)
    pattern = functional.interpolate(pattern - threshold, size=size, mode="bicubic", align_corners=False)
    sharpness = torch.exp(uniform(random, count, math.log(6), math.log(80)))[:, None, None, None]
    edges = functional.max_pool2d(lungs.float(), 3, 1, 1)
    strength = torch.sigmoid(pattern * sharpness) * edges
    tissue = uniform(random, count, -20, 90)[:, None, None, None] + 12 * _smooth_noise(count, 24, size, random)
    tissue = tissue + uniform(random, count, 0, 45)[:, None, None, None] * torch.randn(hu.shape, generator=random)
    return hu + strength * (tissue - hu), ((strength > 0.5) & lungs)[:, 0]


def breathe(hu: Tensor, random: torch.Generator) -> Tensor:
    """Images as breathing blurs some of them: the mean of one and itself moved by some pixels, mostly up or down.

    Parameters
    ----------
    hu: Tensor
        Shape (images, rows, columns).
    """
    count = len(hu)
    breathing = torch.rand(count, generator=random) < 0.3
    pixels = torch.randint(1, 5, (count,), generator=random) * (2 * torch.randint(0, 2, (count,), generator=random) - 1)
    axes = (torch.rand(count, generator=random) < 0.3).int()
    moved = torch.stack([image.roll(int(by), int(axis)) for image, by, axis in zip(hu, pixels, axes, strict=True)])
    return torch.where(breathing[:, None, None], (hu + moved) / 2, hu)


def vary_intensities(hu: Tensor, random: torch.Generator) -> Tensor:
    """Change images in HU as scanners, kernels, windows and exports to pictures do."""
    count, size = len(hu), (hu.shape[-2], hu.shape[-1])

    def some(probability: float) -> Tensor:
        return (torch.rand(count, generator=random) < probability)[:, None, None, None]

    def column(low: float, high: float) -> Tensor:
        return uniform(random, count, low, high)[:, None, None, None]

    blurred = functional.avg_pool2d(hu, 3, 1, 1, count_include_pad=False)
    hu = torch.where(some(0.4), hu + column(-1.0, 1.0) * (hu - blurred), hu)
    noise = torch.randn(hu.shape, generator=random)
    coarse = functional.avg_pool2d(torch.randn(hu.shape, generator=random), 3, 1, 1) * 2.2
    hu = hu + torch.where(some(0.5), noise, coarse) * torch.where(some(0.6), column(0, 70), torch.zeros(1))
    bias = _smooth_noise(count, 3, size, random) * column(0, 40)
    hu = hu + torch.where(some(0.3), bias, torch.zeros(1))
    # Another window than the assumed one: anything from a slight error to an altogether wrong one.
    slight = (hu + 850) * column(0.88, 1.14) - 850 + column(-50, 50)
    wrong = (hu + 850) * column(0.65, 1.5) - 850 + column(-220, 300)
    hu = torch.where(some(0.4), wrong, torch.where(some(0.7), slight, hu))
    bent = ((hu + 1200) / 1400).clamp(0, 1).pow(torch.exp(column(-0.35, 0.35))) * 1400 - 1200
    return torch.where(some(0.25), bent, hu)
