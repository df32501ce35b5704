"""What the networks of one analysis look at, cut and prepared as each of them wants it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covid_ct.inference.manifest import ModelInput
from covid_ct.inference.preprocessing import (
    Box,
    axis_weights,
    body_boxes,
    coarse_size,
    field_box,
    mask_box,
    prepare_slices,
    resize,
    scale_intensities,
    set_outside,
)

SLICES_AT_ONCE = 8
"""Slices that are resampled together, so that no floating-point volume of the whole scan is ever made."""


@dataclass(frozen=True)
class Scan:
    """A CT in the standard axial view, and where its lungs are once that is known.

    Attributes
    ----------
    hu: NDArray[np.int16]
        Shape (slices, rows, columns); may be a view.
    spacing: tuple[float, float, float]
        mm between slices, rows and columns.
    lungs: NDArray[np.uint8] | None
        Same shape; nonzero is lung. None before the lung model has run.
    """

    hu: NDArray[np.int16]
    spacing: tuple[float, float, float]
    lungs: NDArray[np.uint8] | None = None

    def box(self, model_input: ModelInput) -> Box:
        """The one box that holds what a network is to see of all slices; for "body", the bodies of all slices."""
        if model_input.region == "lungs":
            if self.lungs is None:
                raise ValueError("the region of the lungs is not known before the lung model has run")
            return mask_box(self.lungs, self._margins(model_input))
        if model_input.region == "body" and model_input.dimensions == 3:
            boxes = body_boxes(self.hu, self._margins(model_input)[1:])
            return Box((0, len(self.hu)), _span([box.rows for box in boxes]), _span([box.columns for box in boxes]))
        return field_box(self.hu.shape)

    def slice_boxes(self, model_input: ModelInput, indices: Sequence[int], common: Box) -> list[Box]:
        """Box of every one of some slices, one slice thick, for a 2-D network whose `box` is known."""
        boxes = [common] * len(indices)
        if model_input.region == "body":
            boxes = body_boxes(self.hu[list(indices)], self._margins(model_input)[1:])
        return [Box((index, index + 1), box.rows, box.columns) for index, box in zip(indices, boxes, strict=True)]

    def slices(self, model_input: ModelInput, boxes: Sequence[Box]) -> NDArray[np.float32]:
        """Prepared slices, shape (boxes, *size), in the standard axial view."""
        prepared = np.empty((len(boxes), *model_input.size), np.float32)
        start = 0
        # Slices that share rows and columns are prepared together.
        while start < len(boxes):
            stop = start + 1
            while stop < len(boxes) and boxes[stop].index[1:] == boxes[start].index[1:]:
                stop += 1
            indices = [box.slices[0] for box in boxes[start:stop]]
            coarse = None
            if model_input.finest_mm is not None:
                coarse = coarse_size(boxes[start].shape[1:], self.spacing[1:], model_input.finest_mm)
            prepared[start:stop] = prepare_slices(
                self._cut(model_input, indices, boxes[start]),
                (model_input.size[0], model_input.size[1]),
                clip_hu=model_input.clip_hu,
                scale_to=model_input.scale_to,
                standardise=model_input.standardise,
                interpolation=model_input.interpolation,
                coarse=coarse,
            )
            start = stop
        return prepared

    def volume(self, model_input: ModelInput, box: Box) -> NDArray[np.float32]:
        """A box as a 3-D network gets it: at its spacing, or scaled to its size.

        The grid covers the box exactly, so that its spacing is the manifest's to within half a voxel of the whole.

        Returns
        -------
        NDArray[np.float32]
            Shape (slices, rows, columns) of the new grid, in the standard axial view.
        """
        if model_input.spacing_mm is None:
            slices, rows, columns = model_input.size
        else:
            slices, rows, columns = (
                max(1, round(count * have / want))
                for count, have, want in zip(box.shape, self.spacing, model_input.spacing_mm, strict=True)
            )
        low, high = map(np.float32, model_input.clip_hu)
        depth = axis_weights(box.shape[0], (0, box.shape[0]), slices, model_input.interpolation)
        volume = np.zeros((slices, rows * columns), np.float32)
        for start in range(0, box.shape[0], SLICES_AT_ONCE):
            stop = min(start + SLICES_AT_ONCE, box.shape[0])
            part = self._cut(model_input, range(box.slices[0] + start, box.slices[0] + stop), box)
            part = np.clip(part, low, high)
            share = depth[:, start:stop]
            touched = np.unique(share.nonzero()[0])
            if touched.size:
                plane = resize(part, (rows, columns), model_input.interpolation).reshape(stop - start, -1)
                volume[touched] += share[touched] @ plane
        scaled = scale_intensities(
            volume[np.newaxis], model_input.clip_hu, model_input.scale_to, model_input.standardise
        )
        return scaled.reshape(slices, rows, columns)

    def _cut(self, model_input: ModelInput, indices: Sequence[int], box: Box) -> NDArray[np.int16]:
        """Rows and columns of a box in some slices; the outside of the lungs is blanked where the network wants it."""
        # A slice of neighbours is a view, a list would be a copy.
        together = indices[-1] - indices[0] == len(indices) - 1
        picked = (slice(indices[0], indices[-1] + 1) if together else list(indices), *box.index[1:])
        hu = self.hu[picked]
        if model_input.outside_lungs_hu is None or self.lungs is None:
            return hu
        return set_outside(hu, self.lungs[picked] > 0, model_input.outside_lungs_hu)

    def _margins(self, model_input: ModelInput) -> tuple[int, int, int]:
        slices, rows, columns = (round(model_input.region_margin_mm / step) for step in self.spacing)
        return slices, rows, columns


def _span(intervals: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return min(start for start, _ in intervals), max(stop for _, stop in intervals)
