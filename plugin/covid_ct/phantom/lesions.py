"""The phantom's pneumonia: patches of ground glass and consolidation, mostly outer, lower and at the back.

Coordinates and conventions are those of `fields`.
"""

from dataclasses import dataclass

import numpy as np

from covid_ct.phantom.fields import Array, Points
from covid_ct.phantom.lungs import cavity_distance
from covid_ct.phantom.vessels import points_in_lung

SINGLE_SLICE_MM = -35.0
"""Height in mm near which the lesions of one slice alone lie."""


@dataclass(frozen=True)
class Patch:
    """One lesion.

    Attributes
    ----------
    centre, radii: tuple[float, float, float]
        As (z, y, x) in mm; its edge is roughened, and it ends at the lung's.
    consolidated: bool
        Consolidation rather than ground glass.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    consolidated: bool

    def depth(self, at: Points) -> Array:
        """How deep inside as a fraction of the radius: 1 in the middle, 0 on the smooth edge, negative outside."""
        terms = [((axis - c) / r) ** 2 for axis, c, r in zip(at, self.centre, self.radii, strict=True)]
        return np.asarray(1 - np.sqrt(terms[0] + terms[1] + terms[2]), np.float32)


def place_patches(right: bool, count: int, size: float, rng: np.random.Generator) -> list[Patch]:
    """Random patches in one lung, each third one with a consolidated core towards the pleura.

    Parameters
    ----------
    right: bool
        The right lung, else the left.
    count: int
        Number of patches of ground glass.
    size: float
        Factor on their radii of 8 to 19 mm.
    rng: np.random.Generator

    Returns
    -------
    list[Patch]
        Each core behind its patch.
    """
    candidates = points_in_lung(right, 3000, 3, rng)
    z, y, x = candidates.T
    depth = -cavity_distance(z, y, x)
    # COVID-19 pneumonia is mostly peripheral, posterior and basal.
    weight = np.exp(-depth / 7) * np.exp(y / 40) * np.exp(-z / 90)
    chosen = rng.choice(len(candidates), count, replace=False, p=weight / weight.sum())
    patches = []
    for number, index in enumerate(chosen):
        centre = candidates[index]
        radii = size * rng.uniform(8, 19) * rng.uniform(0.75, 1.25, 3)
        patches.append(Patch(tuple(centre.tolist()), tuple(radii.tolist()), consolidated=False))
        if number % 3 == 0:
            outward = np.array([0.0, 0.25, np.sign(centre[2]) * 0.25]) * radii
            patches.append(Patch(tuple((centre + outward).tolist()), tuple((0.62 * radii).tolist()), consolidated=True))
    return patches


def single_slice_patches() -> list[Patch]:
    """One large patch in each lung around the height where a single slice is to show them."""
    return [
        Patch((SINGLE_SLICE_MM, 45.0, -88.0), (12.0, 20.0, 18.0), consolidated=False),
        Patch((SINGLE_SLICE_MM, 55.0, -92.0), (12.0, 9.0, 8.0), consolidated=True),
        Patch((SINGLE_SLICE_MM, 48.0, 92.0), (12.0, 15.0, 14.0), consolidated=False),
    ]


def patch_coverage(patches: list[Patch], at: Points, roughness: Array) -> tuple[Array, Array]:
    """Fraction 0-1 of each voxel that is ground glass, and that is consolidation; the lung's edge is not regarded.

    Parameters
    ----------
    patches: list[Patch]
    at: Points
        The voxels' centres; the heights of a few neighbouring slices.
    roughness: Array
        Random field of deviation 1 on these voxels that roughens the edges.

    Returns
    -------
    tuple[Array, Array]
        Ground glass with soft edges and consolidation with sharper ones; they never sum to more than 1.
    """
    heights = at[0]
    deepest = {kind: np.full(roughness.shape, -9, np.float32) for kind in (False, True)}
    for patch in patches:
        if abs(float(heights.mean()) - patch.centre[0]) < 1.6 * patch.radii[0] + float(np.ptp(heights)):
            np.maximum(deepest[patch.consolidated], patch.depth(at), out=deepest[patch.consolidated])
    rough = np.float32(0.13) * roughness
    glass = np.clip(0.5 + 5.0 * (deepest[False] + rough), 0, 1)
    solid = np.clip(0.5 + 6.0 * (deepest[True] + rough), 0, 1)
    return glass * (1 - solid), solid
