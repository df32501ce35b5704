"""The shape of the lungs: the chest's cavity less mediastinum, heart and diaphragm.

Coordinates and conventions are those of `fields`.
"""

import numpy as np

from covid_ct.phantom.fields import Array, ellipsoid, profile, smooth_max, smooth_min

HILUM_RIGHT = (2.0, 8.0, -40.0)
HILUM_LEFT = (10.0, 12.0, 42.0)
"""Where vessels and bronchi enter the lungs, as (z, y, x) in mm; the left one lies higher."""

ROUNDING_MM = 7.0
"""Rounding in mm of the lungs' edges."""

_HEART = (-48.0, -24.0, 28.0)
_HEART_RADII = (56.0, 50.0, 60.0)


def cavity_profile(z: Array) -> tuple[Array, Array, Array]:
    """Half width, half depth and the middle's y in mm of the chest's cavity at heights z."""
    half_width = profile(z, (-180, -120, -70, -20, 25, 65, 95, 112, 124), (134, 137, 137, 131, 120, 102, 78, 58, 36))
    half_depth = profile(z, (-180, -120, -70, -20, 25, 65, 95, 112, 124), (92, 95, 96, 92, 84, 71, 57, 45, 28))
    middle = profile(z, (-120, -20, 40, 80, 124), (2, 0, 6, 14, 24))
    return half_width, half_depth, middle


def cavity_distance(z: Array, y: Array, x: Array) -> Array:
    """Signed distance in mm, along the ray from the middle, to the inner chest wall.

    Parameters
    ----------
    z, y, x: Array
        Coordinates in mm that broadcast with each other; z with one value a slice.

    Returns
    -------
    Array
        Negative inside, in the broadcast shape.
    """
    half_width, half_depth, middle = cavity_profile(z)
    depth = y - middle
    exponent = np.float32(2.35)
    reach = (np.abs(x) / half_width) ** exponent + (np.abs(depth) / half_depth) ** exponent
    reach = np.maximum(reach, np.float32(1e-3)) ** (1 / exponent)
    return (1 - 1 / reach) * np.sqrt(x * x + depth * depth)


def heart_distance(z: Array, y: Array, x: Array) -> Array:
    """Signed distance in mm to the heart with its fat, which dents the left lung."""
    turned_x, turned_y = 0.85 * x + 0.45 * y, 0.9 * y - 0.35 * x
    middle_x, middle_y = 0.85 * _HEART[2] + 0.45 * _HEART[1], 0.9 * _HEART[1] - 0.35 * _HEART[2]
    return ellipsoid((z, turned_y, turned_x), (_HEART[0], middle_y, middle_x), _HEART_RADII)


def mediastinum_distance(z: Array, y: Array, x: Array) -> Array:
    """Signed distance in mm to all that lies between the lungs: heart, great vessels, hila, gullet, spine."""
    width = profile(z, (-180, -60, 10, 60, 110), (20, 22, 31, 33, 29))
    core = (np.sqrt((x / width) ** 2 + ((y - 4) / 52) ** 2) - 1) * width
    spine = np.sqrt((x / 29) ** 2 + ((y - 62) / 30) ** 2) * 29 - 29
    distance = smooth_min(core.astype(np.float32), spine.astype(np.float32), 8)
    distance = smooth_min(distance, heart_distance(z, y, x), 8)
    aorta = np.sqrt((x - 20) ** 2 + (y - 42) ** 2) - np.where(z < 48, 15, 0).astype(np.float32)
    distance = smooth_min(distance, aorta.astype(np.float32), 4)
    for hilum in (HILUM_RIGHT, HILUM_LEFT):
        distance = smooth_min(distance, ellipsoid((z, y, x), hilum, (24, 15, 13)), 6)
    return distance


def diaphragm_height(y: Array, x: Array) -> tuple[Array, Array]:
    """Heights in mm of the right and the left dome over (y, x); the right one stands higher."""
    right = -58 - 58 * (((x + 66) / 76) ** 2 + ((y + 16) / 92) ** 2)
    left = -76 - 58 * (((x - 70) / 74) ** 2 + ((y + 12) / 94) ** 2)
    return right.astype(np.float32), left.astype(np.float32)


def lung_distances(z: Array, y: Array, x: Array) -> tuple[Array, Array]:
    """Signed distances in mm, negative inside, to the right and the left lung.

    Parameters
    ----------
    z, y, x: Array
        Coordinates in mm that broadcast with each other.

    Returns
    -------
    tuple[Array, Array]
        Right and left lung, each with its vessels, without trachea, main bronchi and hilum.
    """
    outside_middle = smooth_max(cavity_distance(z, y, x) + 1, -mediastinum_distance(z, y, x), ROUNDING_MM)
    right_dome, left_dome = diaphragm_height(y, x)
    # A dome's distance is measured upright; on its slopes the true one is shorter.
    right = smooth_max(outside_middle, 0.7 * (right_dome - z), ROUNDING_MM)
    left = smooth_max(outside_middle, 0.7 * (left_dome - z), ROUNDING_MM)
    # Behind the breastbone the lungs nearly touch, but for a wedge of fat.
    fat = 6 * np.clip((-y - 50) / 40, 0, 1)
    return np.maximum(right, x + 2 + fat), np.maximum(left, 3 - x + fat)


def windpipe_points() -> list[tuple[list[tuple[float, float, float]], list[float]]]:
    """Trachea and main bronchi as rods: points as (z, y, x) in mm and lumen radii in mm."""
    carina = (32.0, 12.0, 1.0)
    trachea = ([(210.0, 0.0, 0.0), (120.0, 4.0, 0.0), (70.0, 8.0, -1.0), carina], [9.0, 9.0, 8.5, 8.5])
    right = ([carina, (16.0, 12.0, -20.0), HILUM_RIGHT], [7.5, 7.0, 5.5])
    left = ([carina, (18.0, 14.0, 22.0), HILUM_LEFT], [7.0, 6.2, 5.0])
    return [trachea, right, left]


def oblique_fissure_distance(z: Array, y: Array, x: Array) -> Array:
    """Signed distance in mm to the surface that parts the lower lobes from those above."""
    return ((y - 20) + 0.95 * (z + 10) + 6 * np.sin(x / 22)).astype(np.float32) / np.float32(1.38)
