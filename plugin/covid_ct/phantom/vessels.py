"""Branching vessels and bronchi of the lungs.

Coordinates and conventions are those of `fields`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covid_ct.phantom.fields import GRID, PIXEL_MM, STEP_MM, Array, Place, grid_z, pixel_centres
from covid_ct.phantom.lungs import HILUM_LEFT, HILUM_RIGHT, lung_distances

MURRAY = 2.7
"""Exponent of Murray's law for the radii at a fork, as measured in pulmonary arteries."""

SAMPLE_MM = 0.8
"""Distance in mm between the balls that a vessel is drawn with."""


@dataclass(frozen=True)
class Tree:
    """One tree of tubes.

    Attributes
    ----------
    points: NDArray[np.float32]
        Shape (samples, 3), points along all branches as (z, y, x) in mm.
    radii: NDArray[np.float32]
        Shape (samples,), radius of the tube there in mm.
    """

    points: NDArray[np.float32]
    radii: NDArray[np.float32]


def points_in_lung(right: bool, count: int, margin_mm: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Random points, evenly spread, at least `margin_mm` inside one lung; shape (count, 3) as (z, y, x) in mm."""
    found = np.empty((0, 3), np.float32)
    side = -1.0 if right else 1.0
    while len(found) < count:
        z, y, x = rng.uniform((-140, -100, 0), (130, 100, 140), (4 * count, 3)).astype(np.float32).T
        distance = lung_distances(z, y, side * x)[0 if right else 1]
        found = np.concatenate([found, np.stack([z, y, side * x], 1)[distance < -margin_mm]])
    return found[:count]


def grow(root: Place, targets: NDArray[np.float32], tip_mm: float, rng: np.random.Generator) -> Tree:
    """Tree from a root to all targets: each joins, nearest first, where it adds least to the length of its way.

    Parameters
    ----------
    root: Place
    targets: NDArray[np.float32]
        Shape (count, 3), the tips.
    tip_mm: float
        Radius in mm of a tip; forks follow Murray's law.
    rng: np.random.Generator
        Bends the branches.

    Returns
    -------
    Tree
    """
    origin = np.asarray(root, np.float32)
    targets = targets[np.argsort(np.linalg.norm(targets - origin, axis=1))]
    count = len(targets) + 1
    nodes = np.concatenate([origin[None], targets])
    parent = np.zeros(count, int)
    way = np.zeros(count, np.float32)
    for new in range(1, count):
        distance = np.linalg.norm(nodes[:new] - nodes[new], axis=1)
        # Part of the way already run counts, so that branches lead outward rather than along the lung.
        joined = int(np.argmin(distance + 0.3 * way[:new]))
        parent[new] = joined
        way[new] = way[joined] + distance[joined]
    tips = np.zeros(count)
    for node in range(count - 1, 0, -1):
        tips[node] = max(tips[node], 1.0)
        tips[parent[node]] += tips[node]
    radius = (tip_mm * tips ** (1 / MURRAY)).astype(np.float32)

    start, end = nodes[parent[1:]], nodes[1:]
    length = np.linalg.norm(end - start, axis=1)
    steps = np.maximum(2, np.ceil(length / SAMPLE_MM)).astype(int)
    branch = np.repeat(np.arange(count - 1), steps)
    t = ((np.arange(len(branch)) - np.repeat(np.cumsum(steps) - steps, steps)) / np.repeat(steps, steps))[:, None]
    bend = rng.normal(0, 0.08, (count - 1, 3)) * length[:, None]
    points = start[branch] + t * (end - start)[branch] + (4 * t * (1 - t)) * bend[branch]
    # A branch leaves a thick parent thin, and thins on its way.
    radii = radius[1:][branch] * (1.06 - 0.12 * t[:, 0])
    return Tree(points.astype(np.float32), radii.astype(np.float32))


def draw(trees: Sequence[Tree]) -> Array:
    """Fraction 0-1 of each voxel of the drawing grid that is inside any tree.

    Returns
    -------
    Array
        Shape (heights, GRID, GRID).
    """
    heights, across = grid_z(), pixel_centres(GRID)
    drawn = np.zeros((len(heights), GRID, GRID), np.float32)
    flat = drawn.reshape(-1)
    points = np.concatenate([tree.points for tree in trees])
    radii = np.concatenate([tree.radii for tree in trees])
    step = np.array([STEP_MM, PIXEL_MM, PIXEL_MM], np.float32)
    origin = np.array([heights[0], across[0], across[0]], np.float32)
    middle = np.rint((points - origin) / step).astype(int)
    reach = np.ceil((radii[:, None] + PIXEL_MM) / step).astype(int).max(1)
    strides = np.array([GRID * GRID, GRID, 1])
    for box in np.unique(reach):
        chosen = reach == box
        around = np.arange(-box, box + 1)
        voxels = np.clip(middle[chosen][:, :, None] + around, 0, np.array(drawn.shape)[:, None] - 1)
        squared = ((voxels * step[:, None] + origin[:, None] - points[chosen][:, :, None]) ** 2).astype(np.float32)
        distance = np.sqrt(_outer_sum(squared))
        thickness = radii[chosen][:, None, None, None]
        inside = np.clip(0.5 + (thickness - distance) / np.float32(PIXEL_MM), 0, 1)
        # What is thinner than a voxel fills it only in part.
        inside *= np.minimum(1, (thickness / np.float32(0.62 * PIXEL_MM)) ** 2)
        np.maximum.at(flat, _outer_sum(voxels * strides[:, None]).ravel(), inside.ravel())
    return drawn


def _outer_sum(terms: Array) -> Array:
    """Sum over a box of what each axis adds: from shape (n, 3, k) to (n, k, k, k)."""
    return terms[:, 0, :, None, None] + terms[:, 1, None, :, None] + terms[:, 2, None, None, :]


def lung_trees(rng: np.random.Generator) -> tuple[list[Tree], list[Tree]]:
    """Vessels (arteries and veins) and bronchi (to the middle of the lungs) of both lungs.

    Returns
    -------
    tuple[list[Tree], list[Tree]]
        Vessels, and the bronchi's lumens.
    """
    vessels, bronchi = [], []
    for right, hilum in ((True, HILUM_RIGHT), (False, HILUM_LEFT)):
        count = 1800 if right else 1550
        below = (hilum[0] - 16, hilum[1] - 4, hilum[2])
        vessels.append(grow(hilum, points_in_lung(right, count, 2.5, rng), 0.5, rng))
        vessels.append(grow(below, points_in_lung(right, count, 3.5, rng), 0.48, rng))
        tips = points_in_lung(right, 45, 15, rng)
        bronchi.append(grow(hilum, tips, 0.85, rng))
    return vessels, bronchi
