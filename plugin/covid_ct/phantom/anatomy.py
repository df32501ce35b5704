"""The thorax, painted in HU from the outside in.

Coordinates and conventions are those of `fields`. HU of tissues without contrast agent after textbook values
(fat -100, muscle 50, blood 42, liver 58, spleen 48, lung -870 to -800 with more blood towards the back).
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from covid_ct.phantom.fields import (
    GRID,
    Array,
    Canvas,
    Texture,
    coverage,
    ellipsoid,
    grid_z,
    mix,
    pixel_centres,
    profile,
)
from covid_ct.phantom.lesions import Patch, patch_coverage, place_patches, single_slice_patches
from covid_ct.phantom.lungs import (
    cavity_distance,
    cavity_profile,
    diaphragm_height,
    heart_distance,
    lung_distances,
    oblique_fissure_distance,
    windpipe_points,
)
from covid_ct.phantom.options import Lesions
from covid_ct.phantom.vessels import draw, lung_trees

CHUNK = 8
"""Slices painted at a time, so that all fields of a chunk stay in the processor's cache."""

BRONCHIAL_WALL_MM = 0.9
"""Thickness in mm of the walls of the bronchi inside the lungs."""

RIB_STEP_MM = 25.0
"""Distance in mm between one rib and the next."""


@dataclass(frozen=True)
class Anatomy:
    """The thorax on the drawing grid.

    Attributes
    ----------
    hu: Array
        HU of the healthy thorax without table and noise, shape (heights, GRID, GRID).
    lung: Array
        Fraction 0-1 of each voxel that is lung.
    ground_glass, consolidation: Array
        Fraction 0-1 of each voxel that is such a lesion.
    lesion_hu: Array
        HU where lesion fills the voxel.
    """

    hu: Array
    lung: Array
    ground_glass: Array
    consolidation: Array
    lesion_hu: Array


def build_anatomy(seed: int, lesions: Lesions) -> Anatomy:
    """Paint the thorax.

    Parameters
    ----------
    seed: int
        Start of all random numbers.
    lesions: Lesions
        Which lesions to add; everything else is the same whatever they are.

    Returns
    -------
    Anatomy
    """
    rng = np.random.default_rng(seed)
    vessels, bronchi = lung_trees(rng)
    vessel, lumen = draw(vessels), draw(bronchi)
    wall = draw([replace(tree, radii=tree.radii + np.float32(BRONCHIAL_WALL_MM)) for tree in bronchi])
    fine, coarse, muscle = Texture(5.0, rng), Texture(30.0, rng), Texture(9.0, rng)
    patches = _patches(lesions, rng)

    heights, across = grid_z(), pixel_centres(GRID)
    shape = (len(heights), GRID, GRID)
    anatomy = Anatomy(*[np.zeros(shape, np.float32) for _ in range(5)])
    y, x = across[None, :, None], across[None, None, :]

    def paint(start: int) -> None:
        chunk = slice(start, start + CHUNK)
        canvas = Canvas(heights[chunk], anatomy.hu[chunk])
        z = heights[chunk, None, None]
        _paint_body(canvas, z, y, x, muscle[chunk])
        _paint_abdomen(canvas, z, y, x)
        _paint_mediastinum(canvas, z, y, x)
        grain, blood = fine[chunk], coarse[chunk]
        _paint_skeleton(canvas, z, y, x, grain)

        lung = coverage(np.minimum(*lung_distances(z, y, x)))
        tissue = -862 + 0.45 * (y + 30) + 0.12 * (-z) + 11 * blood + 13 * grain
        fissure = np.abs(oblique_fissure_distance(z, y, x))
        tissue += 75 * np.clip(1.2 - fissure, 0, 1)
        tissue += wall[chunk] * (-250 - tissue)
        tissue += vessel[chunk] * (40 - tissue)
        tissue += lumen[chunk] * (-960 - tissue)
        canvas.hu[:] += lung * (tissue - canvas.hu)
        for points, radii in windpipe_points():
            canvas.paint_rod(points, [radius + 1.6 for radius in radii], 30)
        for points, radii in windpipe_points():
            canvas.paint_rod(points, radii, -985)

        glass, solid = patch_coverage(patches, (z, y, x), grain)
        anatomy.lung[chunk] = lung
        anatomy.ground_glass[chunk] = glass * lung
        anatomy.consolidation[chunk] = solid * lung
        hazy = np.maximum(-580 + 45 * grain + 40 * blood, tissue)
        dense = 30 + 8 * grain + lumen[chunk] * (-900 - 30)
        anatomy.lesion_hu[chunk] = np.where(solid > 0.5, dense, hazy)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(paint, range(0, len(heights), CHUNK)))
    return anatomy


def _patches(lesions: Lesions, rng: np.random.Generator) -> list[Patch]:
    right, left = place_patches(True, 10, 1.15, rng), place_patches(False, 7, 1.0, rng)
    match lesions:
        case Lesions.BOTH:
            return right + left
        case Lesions.RIGHT:
            return right
        case Lesions.SINGLE_SLICE:
            return single_slice_patches()
        case Lesions.NONE:
            return []


def _paint_body(canvas: Canvas, z: Array, y: Array, x: Array, grain: Array) -> None:
    """Skin, fat and muscle outside the chest's cavity, and the fat inside it."""
    canvas.hu[:] = -1000
    half_width = profile(z, (-200, -100, -40, 20, 70, 110, 140, 165, 190), (160, 162, 164, 167, 171, 168, 138, 88, 70))
    half_depth = profile(z, (-200, -100, -40, 20, 70, 110, 140, 165, 190), (116, 120, 119, 113, 104, 95, 84, 72, 66))
    middle = profile(z, (-200, -100, 0, 70, 110, 190), (6, 3, 3, 8, 13, 20))
    exponent = np.float32(2.5)
    reach = (np.abs(x) / half_width) ** exponent + (np.abs(y - middle) / half_depth) ** exponent
    reach = np.maximum(reach, np.float32(1e-3)) ** (1 / exponent)
    skin = (1 - 1 / reach) * np.sqrt(x * x + (y - middle) ** 2)
    body = coverage(skin)
    canvas.hu[:] += body * (10 - canvas.hu)
    mix(canvas.hu, skin + 2.2, -102 + 4 * grain)

    inner = cavity_distance(z, y, x)
    # The muscles of back and shoulders are thicker than those between the ribs.
    back = np.exp(-(((np.abs(x) - 32) / 26) ** 2)) * np.clip(y / 60, 0, 1)
    pectoral = np.exp(-(((np.abs(x) - 70) / 40) ** 2)) * np.clip(-y / 60, 0, 1) * np.clip((z + 20) / 60, 0, 1)
    thickness = 15 + 22 * back + 10 * pectoral + 110 * np.clip((z - 10) / 95, 0, 1) ** 2
    muscle = np.maximum(inner - thickness, skin + 9)
    strands = 46 + 7 * grain - 130 * np.clip(grain - 1.5, 0, 1)
    mix(canvas.hu, muscle, strands)
    mix(canvas.hu, inner, -98 + 4 * grain)


def _paint_abdomen(canvas: Canvas, z: Array, y: Array, x: Array) -> None:
    """Diaphragm, liver, stomach with its bubble, spleen, kidneys: what lies below the domes."""
    if float(z.min()) > -40:
        return
    inner = cavity_distance(z, y, x)
    right_dome, left_dome = diaphragm_height(y, x)
    below_right = np.maximum(0.7 * (z - right_dome), inner + 2)
    below_left = np.maximum(0.7 * (z - left_dome), inner + 2)
    dome = np.minimum(np.maximum(below_right, x - 2), np.maximum(below_left, 2 - x))
    mix(canvas.hu, np.maximum(dome, -dome - 3), 48)
    liver = np.maximum(below_right + 2, x - 28 - 0.35 * (z + 90))
    liver = np.maximum(liver, -ellipsoid((z, y, x), (-175, 62, -55), (40, 34, 36)))
    mix(canvas.hu, liver, 58)
    left = below_left + 3
    stomach = np.maximum(ellipsoid((z, y, x), (-125, -22, 62), (48, 48, 44)), left)
    mix(canvas.hu, stomach, 48)
    filling = np.maximum(ellipsoid((z, y, x), (-125, -22, 62), (44, 44, 40)), left + 4)
    mix(canvas.hu, filling, 18)
    mix(canvas.hu, np.maximum(filling, y + 34), -990)
    spleen = np.maximum(ellipsoid((z, y, x), (-122, 46, 98), (38, 38, 30)), left)
    mix(canvas.hu, spleen, 48)
    for side in (-1, 1):
        canvas.paint_ellipsoid((-185, 52, side * 56), (46, 22, 26), 32)


def _paint_mediastinum(canvas: Canvas, z: Array, y: Array, x: Array) -> None:
    """Heart, great vessels and gullet in their fat."""
    heart = heart_distance(z, y, x) + 5
    right_dome, _ = diaphragm_height(y, x)
    heart = np.maximum(heart, np.where(z < -75, 0.5 * (right_dome - z), -9))
    mix(canvas.hu, heart.astype(np.float32), 42)
    # Ascending aorta, arch and descending aorta.
    aorta = [(-10, -14, -4), (25, -22, -14), (50, -14, -8), (60, 8, 8), (52, 34, 19), (30, 41, 21), (-60, 42, 20)]
    canvas.paint_rod([*aorta, (-210, 34, 10)], [15, 16, 15, 14, 13, 12.5, 12, 10], 44)
    canvas.paint_rod([(125, -2, -30), (60, -6, -27), (0, -4, -28)], [7, 9, 10], 43)
    canvas.paint_rod([(-80, 8, -22), (-210, 14, -24)], [12, 11], 42)
    canvas.paint_rod([(10, -24, 14), (18, -6, 22)], [14, 12], 42)
    canvas.paint_rod([(18, -6, 22), (12, 6, 40)], [11, 9], 42)
    canvas.paint_rod([(14, -4, 14), (4, 4, -36)], [10, 8], 42)
    canvas.paint_rod([(-22, 16, 30), (-16, 18, -30)], [14, 13], 42)
    for x_top, x_low in ((-14, -9), (8, 5), (20, 14)):
        canvas.paint_rod([(165, 4, 2.2 * x_top), (100, 0, x_top), (60, -6, x_low)], [4, 5, 6], 43)
    canvas.paint_rod([(160, 16, 4), (40, 28, 6), (-60, 30, 8), (-110, 16, 20)], [5, 6, 6, 7], 35)
    for side in (-1, 1):
        canvas.paint_ellipsoid((158, -2, side * 20), (22, 14, 10), 95)


def _paint_skeleton(canvas: Canvas, z: Array, y: Array, x: Array, grain: Array) -> None:
    """Ribs with their cartilage, spine, breastbone, shoulder blades, collarbones and the heads of the upper arms."""
    inner = cavity_distance(z, y, x)
    _, _, middle = cavity_profile(z)
    # 0 at the breastbone, pi at the spine: ribs run down from the back to the front.
    angle = np.arctan2(np.abs(x), middle - y)
    level = z - 95 * (angle / np.float32(np.pi)) ** 1.3
    height = np.mod(level, RIB_STEP_MM) - RIB_STEP_MM / 2
    rib = (np.sqrt(((inner - 6) / 4) ** 2 + (height / 6.5) ** 2) - 1) * 4
    rib = np.maximum(rib, z - 122).astype(np.float32)
    rib = np.maximum(rib, -190 - level + 18 * angle)
    cartilage = np.clip((0.75 - angle) / 0.1, 0, 1)
    marrow = 200 + 60 * grain
    mix(canvas.hu, rib, (1 - cartilage) * 680 + cartilage * 110)
    mix(canvas.hu, rib + 1.8, (1 - cartilage) * marrow + cartilage * 95)

    _paint_spine(canvas, grain)
    _, depth, _ = cavity_profile(z)
    breastbone = np.maximum(np.abs(x) - 15 - 8 * np.clip((z - 50) / 20, 0, 1), np.abs(y - middle + depth + 7) - 5.5)
    breastbone = np.maximum(breastbone, np.abs(z - 15) - 72).astype(np.float32)
    mix(canvas.hu, breastbone, 380)
    mix(canvas.hu, breastbone + 1.8, 150 + 30 * grain)

    blade_centre = 92 + 0.12 * (z - 60)
    plate = np.abs(inner - 19 - 0.10 * (z - 40)) - 2.6
    blade = np.maximum(plate, np.abs(np.abs(x) - blade_centre) - profile(z, (-30, 60, 130), (4, 34, 22)))
    blade = np.maximum(np.maximum(blade, 14 - y), np.abs(z - 55) - 72).astype(np.float32)
    mix(canvas.hu, blade, 480)
    for side in (-1, 1):
        clavicle = [(92, -52, side * 20), (112, -40, side * 75), (128, -12, side * 130)]
        canvas.paint_rod(clavicle, [6.5, 5.5, 6], 620)
        canvas.paint_rod(clavicle, [4, 3.2, 3.5], 260)
        canvas.paint_ellipsoid((128, 22, side * 140), (24, 20, 19), 480)
        canvas.paint_ellipsoid((128, 22, side * 140), (21, 17, 16), 190)


def _paint_spine(canvas: Canvas, grain: Array) -> None:
    """Bodies, discs, arches, processes and the canal."""
    part = canvas.window((-1000, 20, -45), (1000, 125, 45))
    if part is None:
        return
    (z, y, x), hu, marrow = part.at, part.hu, grain[part.box]
    spine_y = np.float32(58) - np.clip((z - 40) * np.float32(0.12), 0, 20)
    from_disc = np.abs(np.mod(z, 25) - 12.5)
    body = np.sqrt((x / 17) ** 2 + ((y - spine_y) / 14) ** 2) * 15 - 15 + 1.2 * np.cos(from_disc / 4)
    vertebra = np.maximum(body, 3 - from_disc).astype(np.float32)
    mix(hu, body.astype(np.float32), 80)
    mix(hu, vertebra, 430)
    mix(hu, vertebra + 2, 170 + 35 * marrow)
    arch = np.sqrt((x / 15) ** 2 + ((y - spine_y - 22) / 12) ** 2) * 13 - 13
    process = np.maximum(np.abs(x) - 3.5, np.abs(y - spine_y - 40) - 13)
    wing = np.maximum(np.abs(np.abs(x) - 22) - 12, np.abs(y - spine_y - 18 - 0.3 * np.abs(x)) - 5)
    wing = np.maximum(wing, np.abs(from_disc - 8) - 4)
    process = np.maximum(np.minimum(process, wing), 3.5 - from_disc)
    behind = np.minimum(arch, process).astype(np.float32)
    mix(hu, behind, 420)
    mix(hu, behind + 2.2, 220 + 40 * marrow)
    canal = np.sqrt((x / 10) ** 2 + ((y - spine_y - 21) / 8) ** 2) * 9 - 9
    mix(hu, canal.astype(np.float32), 25)
