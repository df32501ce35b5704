"""From a lung network's probabilities to one label map of the right and the left lung."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from covid_ct.analysis.airways import find_airways
from covid_ct.analysis.findings import BySide, Side, where_label
from covid_ct.analysis.parts import part_sizes
from covid_ct.analysis.upsampling import GridMap
from covid_ct.errors import Reason, SeriesRefused
from covid_ct.inference.grid import Grid
from covid_ct.inference.preprocessing import BODY_HU, body_boxes, mask_box
from covid_ct.inference.scan import Scan
from covid_ct.inference.windows import Prediction
from covid_ct.parallel import in_parallel

HALF = 127
"""Probabilities above this (255 stands for 1) are lung."""

MIN_LUNGS_ML = 300.0
"""Less than this is no chest: the two lungs of an adult hold 2000 ml and more even when breathed out."""

MIN_PART_SHARE = 0.01
"""Connected parts smaller than this share of the largest one are no lungs (gas in the bowel, air in skin folds)."""

BASAL_PART_SHARE = 0.25
"""A part up to this share of the largest one is gas under the diaphragm if it lies at the lungs' lower end."""

BASAL_HEIGHT = 0.2
"""What counts as their lower end: a centre in this share of the largest part's height."""

MAX_HOLE_MM2 = 500.0
"""Holes within a slice up to this area are vessels and small consolidations, which belong to the lung.

The mediastinum, where lungs touch before and behind it, is far larger.
"""

MIN_SIDE_SHARE = 0.05
"""A lung with less than this share of both is told of in a warning."""

MAX_CUT_MM2 = 1000.0
"""More lung than this in the first or last slice: the scan ends within the lungs."""

CUT_THROUGH = 0.8
"""If the body is at an edge of the images more than this share as deep as where it is deepest, they end within the
chest. Arms and flanks that do not fit in, as is common, came to 0.64; a series of one lung alone to 0.95 and more."""

MIDDLE = (0.35, 0.65)
"""Share of the lungs' width in which they are divided where a network does not tell the sides apart."""

ONE_LUNG = 0.5
"""If even the best cut between the lungs runs through more than this share of what a column of them holds on average,
it is one lung. Of six chests it was 0.04 at most for both lungs together, and 1.1 at least for one alone."""

BODIES = 20
"""Slices, about, in which the body is looked for."""


def find_lungs(prediction: Prediction, scan: Scan, series_uid: str) -> GridMap:
    """Keep what is lung, leave out the large airways, fill vessels in, and tell right from left.

    Parameters
    ----------
    prediction: Prediction
        Of a network with the classes right lung, left lung, or lung.
    scan: Scan
        What was looked at.
    series_uid: str
        For the sentence of a refusal.

    Returns
    -------
    GridMap
        Labels are `Side`, on the grid of the prediction.

    Raises
    ------
    SeriesRefused
        Raised if there are no lungs.
    """
    either = sum_classes(prediction.probabilities)
    mask = either > HALF
    cell_mm = prediction.grid.cell_mm(scan.spacing)
    cell_ml = float(np.prod(cell_mm)) / 1000.0
    _refuse_unless(np.count_nonzero(mask) * cell_ml >= MIN_LUNGS_ML, series_uid)
    airways = find_airways(scan, prediction.grid, mask)
    box = mask_box(mask, (0, 1, 1))
    mask, airways = mask[box.index], airways[box.index]
    kept = _lung_parts(mask & ~airways)
    _refuse_unless(np.count_nonzero(kept) * cell_ml >= MIN_LUNGS_ML, series_uid)
    filled = kept | (_small_holes(kept, MAX_HOLE_MM2 / (cell_mm[1] * cell_mm[2])) & ~airways)
    inside = either[box.index]
    inside[mask & ~kept] = 0
    inside[filled & ~kept] = 255
    # What was cut away with the box is no lung; nothing there is above one half.
    labels = np.zeros(either.shape, np.uint8)
    if len(prediction.probabilities) == 1:
        labels[box.index] = _sides_by_position(filled, _middle(scan, prediction.grid) - box.columns[0])
    else:
        right, left = (part[box.index] for part in prediction.probabilities)
        labels[box.index] = _sides_by_class(filled, right, left)
    return GridMap(prediction.grid, either, labels)


def sum_classes(probabilities: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Probability of any class, shape (slices, rows, columns), from that of each; always a copy."""
    either: NDArray[np.uint8] = probabilities[0].copy()
    for other in probabilities[1:]:
        # Rounding may lift the sum of two classes above 255.
        np.add(either, np.minimum(other, 255 - either), out=either)
    return either


def one_sided_warning(volume_ml: BySide) -> str | None:
    """Sentence for a series that shows one lung only, as after a pneumonectomy; None for two lungs."""
    sides = [("right", volume_ml.right), ("left", volume_ml.left)]
    (small, small_ml), (large, large_ml) = sorted(sides, key=lambda side: side[1])
    if small_ml >= MIN_SIDE_SHARE * volume_ml.total:
        return None
    return (
        f"Hardly any {small} lung was found ({small_ml:.0f} ml beside {large_ml:.0f} ml on the {large}); "
        "what was measured of it means little."
    )


def cut_off_warning(labels: NDArray[np.uint8], pixel_mm2: float) -> str | None:
    """Sentence for a series that ends within the lungs.

    Parameters
    ----------
    labels: NDArray[np.uint8]
        Shape (slices, rows, columns), slices from feet to head.
    pixel_mm2: float
        Area of a pixel.
    """
    ends = {"lowest": labels[0], "highest": labels[-1]}
    cut = [name for name, image in ends.items() if np.count_nonzero(image) * pixel_mm2 > MAX_CUT_MM2]
    if not cut:
        return None
    return f"The lungs reach the {' and the '.join(cut)} slice: they were not scanned as a whole."


def cut_through_warning(hu: NDArray[np.int16], labels: NDArray[np.uint8]) -> str | None:
    """Sentence for images that end within the chest, as a reconstruction of one lung does.

    Parameters
    ----------
    hu: NDArray[np.int16]
        Shape (slices, rows, columns), standard axial view.
    labels: NDArray[np.uint8]
        Same shape; nonzero is lung.
    """
    showing = np.flatnonzero(labels.max(axis=(1, 2)))
    showing = showing[:: max(1, len(showing) // BODIES)]
    depths = np.count_nonzero((hu[showing] > BODY_HU) | (labels[showing] > 0), axis=1)
    shares = np.median(depths[:, (0, -1)] / depths.max(axis=1, keepdims=True), axis=0)
    cut = [side for side, share in zip(("right", "left"), shares, strict=True) if share > CUT_THROUGH]
    if not cut:
        return None
    return (
        f"The images end within the chest on the patient's {' and '.join(cut)}: the lungs do not show as a whole, and "
        "what is called the right and the left lung may be the other or parts of one."
    )


def _refuse_unless(enough: np.bool_ | bool, series_uid: str) -> None:
    if not enough:
        raise SeriesRefused(
            Reason.NO_LUNGS,
            f"Less than {MIN_LUNGS_ML:.0f} ml of lung were found in series {series_uid}; send a CT of the whole chest.",
        )


def _lung_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of a mask that are lungs."""
    parts, count = ndimage.label(mask)
    sizes = part_sizes(parts, count)
    largest = int(np.argmax(sizes))
    kept: NDArray[np.bool_] = parts == largest
    heights = np.flatnonzero(kept.any(axis=(1, 2)))
    lowest, highest = heights[0], heights[-1] + 1
    for part in np.flatnonzero(sizes >= MIN_PART_SHARE * sizes[largest]):
        if part != largest:
            own = parts == part
            heights = np.flatnonzero(own.any(axis=(1, 2)))
            basal = (heights[0] + heights[-1] + 1) / 2 < lowest + BASAL_HEIGHT * (highest - lowest)
            if not (basal and sizes[part] < BASAL_PART_SHARE * sizes[largest]):
                kept |= own
    return kept


def _small_holes(mask: NDArray[np.bool_], max_cells: float) -> NDArray[np.bool_]:
    """Regions outside a mask that are closed within their slice and no larger than a number of cells."""

    def work(image: NDArray[np.bool_]) -> NDArray[np.bool_]:
        # A rim joins the outside into one region.
        regions, count = ndimage.label(np.pad(~image, 1, constant_values=True))
        if count == 1:
            return np.zeros_like(image)
        small = np.bincount(regions.ravel()) <= max_cells
        small[0] = False
        return np.asarray(small[regions[1:-1, 1:-1]])

    return np.stack(list(in_parallel(work, mask)))


def _sides_by_class(mask: NDArray[np.bool_], right: NDArray[np.uint8], left: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sides as the network gives them; parts cut off from the lung of their name get their surroundings' side."""
    sides = np.where(left > right, np.uint8(Side.LEFT), np.uint8(Side.RIGHT))
    sides[~mask] = 0
    for side, other in ((Side.RIGHT, Side.LEFT), (Side.LEFT, Side.RIGHT)):
        own_side = where_label(sides, side)
        if not own_side.any():
            continue
        # One cell more on every side, to see what a part touches.
        where = mask_box(own_side, (1, 1, 1)).index
        around = sides[where]
        parts, count = ndimage.label(own_side[where])
        sizes = part_sizes(parts, count)
        small = np.flatnonzero((sizes > 0) & (sizes < MIN_SIDE_SHARE * sizes.max()))
        boxes = ndimage.find_objects(parts) if small.size else []
        for part in small:
            near = tuple(slice(max(0, span.start - 1), span.stop + 1) for span in boxes[part - 1])
            own = parts[near] == part
            if np.any(ndimage.binary_dilation(own) & where_label(around[near], other)):
                around[near][own] = other
    return sides


def _middle(scan: Scan, grid: Grid) -> float:
    """Column of a network's grid in which the middle of the body lies."""
    bodies = body_boxes(scan.hu[:: max(1, len(scan.hu) // BODIES)])
    middle = float(np.median([sum(body.columns) / 2 for body in bodies]))
    return (middle - grid.columns[0]) / (grid.columns[1] - grid.columns[0]) * grid.cells[1]


def _sides_by_position(mask: NDArray[np.bool_], middle: float) -> NDArray[np.uint8]:
    """Sides by the column, in each slice, that cuts the least lung near the middle of the lungs' width.

    Where every such column cuts through much lung, there is but one, whose side is the one of the body's middle column
    on which it lies.
    """
    columns = mask.any(axis=(0, 1))
    extent = np.flatnonzero(columns)
    width = extent[-1] + 1 - extent[0]
    start, stop = (round(extent[0] + share * width) for share in MIDDLE)
    if stop - start < 1:
        start, stop = int(extent[0]), int(extent[-1]) + 1
    cut = mask[:, :, start:stop].sum(axis=1).astype(np.float64)
    if cut.min(axis=1).sum() > ONE_LUNG * np.count_nonzero(mask) / width:
        lies_left = np.flatnonzero(mask) % mask.shape[2] > middle
        return np.where(mask, np.uint8(Side.LEFT if lies_left.mean() > 0.5 else Side.RIGHT), np.uint8(0))
    # Neighbouring slices are cut alike, and among equal columns the middle one is taken.
    cut = ndimage.uniform_filter1d(cut, 5, axis=0, mode="nearest")
    cut += 1e-3 * np.abs(np.arange(stop - start) - (stop - start - 1) / 2)
    divides = start + np.argmin(cut, axis=1)
    is_left = np.arange(mask.shape[2]) > divides[:, np.newaxis]
    sides = np.where(is_left[:, np.newaxis], np.uint8(Side.LEFT), np.uint8(Side.RIGHT))
    return np.where(mask, sides, np.uint8(0))
