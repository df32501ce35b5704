"""Running a segmentation network over a whole scan: slice by slice in 2-D, in overlapping windows in 3-D."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from covid_ct.inference.grid import Grid
from covid_ct.inference.manifest import ModelInput, Role
from covid_ct.inference.preprocessing import Box, axis_weights, resample_plane
from covid_ct.inference.scan import SLICES_AT_ONCE, Scan
from covid_ct.inference.session import Model, tensor_size
from covid_ct.parallel import in_parallel

FIELD_GRID = (256, 256)
"""Rows and columns of the grid on which the answers for differently cropped slices are put together."""

STEP_MM: dict[Role, float] = {"lungs": 4.0, "lesions": 2.0}
"""Slices that a 2-D network looks at lie at most so far apart, however thin the series' own are.

Against the phantom's truth at 1 mm, all slices gave a Dice of 0.988 for lungs and 0.858 for lesions, these steps the
same to 0.001. On two series of 2 mm, lungs looked at every 4 mm agreed with those of all slices to Dice 0.998, and in
volume to 0.1 %.
"""


@dataclass(frozen=True)
class Prediction:
    """A network's answer for a scan.

    Attributes
    ----------
    grid: Grid
        The slices that were looked at, and where its cells lie.
    probabilities: NDArray[np.uint8]
        Shape (classes without the background, slices, rows, columns of the grid); 255 stands for 1.
    """

    grid: Grid
    probabilities: NDArray[np.uint8]


def predict(
    model: Model, scan: Scan, tick: Callable[[float], None], known: Mapping[int, NDArray[np.uint8]] | None = None
) -> Prediction:
    """Run a segmentation network over a scan.

    Parameters
    ----------
    model: Model
        Of role lungs or lesions.
    scan: Scan
    tick: Callable[[float], None]
        Called after every batch or window with the fraction done; may raise to stop.
    known: Mapping[int, NDArray[np.uint8]] | None
        A 2-D network's answers for some slices by their index, from `answer_slices`; used where those for a whole
        batch are there.

    Returns
    -------
    Prediction
        Slices without lung are not looked at where the lungs are known.

    Raises
    ------
    ModelError
        Raised if the network fails or answers with what is no number.
    """
    if model.manifest.input.dimensions == 3:
        return _predict_windows(model, scan, tick)
    return _predict_slices(model, scan, tick, known or {})


def to_tensor(images: NDArray[np.float32], model_input: ModelInput) -> NDArray[np.float32]:
    """Turn (batch, [slices,] rows, columns) of the standard axial view to the axes and directions of a network."""
    if model_input.directions == "RAS":
        images = images[..., ::-1, ::-1]
    if model_input.axes == "xyz":
        images = images.transpose(0, *range(images.ndim - 1, 0, -1))
    return np.ascontiguousarray(images)


def from_tensor(answer: NDArray[np.float32], model_input: ModelInput) -> NDArray[np.float32]:
    """Turn (batch, classes, and the network's axes) back to the standard axial view."""
    if model_input.axes == "xyz":
        answer = answer.transpose(0, 1, *range(answer.ndim - 1, 1, -1))
    if model_input.directions == "RAS":
        answer = answer[..., ::-1, ::-1]
    return answer


def _foreground(model: Model, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities without the background."""
    answer = model.run(tensor)
    return answer if answer.shape[1] == 1 else answer[:, 1:]


def looked_at(model: Model, indices: Sequence[int], spacing_mm: float) -> list[int]:
    """Which of some slices, so far apart, a 2-D network looks at: every so many, and the last one."""
    spread = list(indices[:: max(1, int(round(STEP_MM[model.manifest.role] / spacing_mm, 3)))])
    return spread if spread[-1] == indices[-1] else [*spread, indices[-1]]


def in_batches(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    """Indices in groups of a size, the last of which may be smaller."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def answer_slices(model: Model, scan: Scan, indices: Sequence[int], common: Box) -> NDArray[np.uint8]:
    """A 2-D network's answer for some slices, run as one batch; as `Prediction.probabilities`.

    Parameters
    ----------
    model: Model
    scan: Scan
    indices: Sequence[int]
    common: Box
        What the scan's `box` gives for the model.
    """
    model_input = model.manifest.input
    boxes = scan.slice_boxes(model_input, indices, common)
    tensor = to_tensor(scan.slices(model_input, boxes), model_input)
    answer = from_tensor(_foreground(model, tensor), model_input)
    if _own_boxes(model_input):
        answer = np.stack([_paste(part, box, scan.hu.shape) for part, box in zip(answer, boxes, strict=True)])
    return _to_bytes(answer).swapaxes(0, 1)


def _own_boxes(model_input: ModelInput) -> bool:
    """Cropped to the body, every slice has a box of its own; all meet on the grid of the field."""
    return model_input.region == "body"


def _predict_slices(
    model: Model, scan: Scan, tick: Callable[[float], None], known: Mapping[int, NDArray[np.uint8]]
) -> Prediction:
    model_input = model.manifest.input
    common = scan.box(model_input)
    wanted = list(range(*common.slices))
    if scan.lungs is not None:
        wanted = [index for index in wanted if scan.lungs[index].any()]
    indices = looked_at(model, wanted, scan.spacing[0])
    cells = FIELD_GRID if _own_boxes(model_input) else (model_input.size[0], model_input.size[1])
    grid = Grid(np.array(indices), common.rows, common.columns, cells)
    classes = len(model.manifest.output.classes) - 1
    probabilities = np.zeros((classes, len(indices), *cells), np.uint8)
    batches = []
    for batch in in_batches(range(len(indices)), model.batch):
        if all(indices[number] in known for number in batch):
            for number in batch:
                probabilities[:, number] = known[indices[number]]
        else:
            batches.append(batch)

    def work(batch: Sequence[int]) -> None:
        probabilities[:, batch] = answer_slices(model, scan, [indices[number] for number in batch], common)

    for number, _ in enumerate(in_parallel(work, batches, model.workers), start=1):
        tick(number / len(batches))
    return Prediction(grid, probabilities)


def _paste(answer: NDArray[np.float32], box: Box, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Classes of one slice, from the network's grid over its box to the grid of the field."""
    matrices = []
    for interval, cells, count, target in zip(
        (box.rows, box.columns), answer.shape[1:], shape[1:], FIELD_GRID, strict=True
    ):
        scale = cells / (interval[1] - interval[0])
        field = (-interval[0] * scale, (count - interval[0]) * scale)
        matrices.append(axis_weights(cells, field, target))
    return resample_plane(answer, *matrices)


def _predict_windows(model: Model, scan: Scan, tick: Callable[[float], None]) -> Prediction:
    model_input = model.manifest.input
    box = scan.box(model_input)
    volume = scan.volume(model_input, box)
    # The windows are laid along the network's own axes, from its own origin.
    tensor = to_tensor(volume[np.newaxis], model_input)[0]
    averaged = from_tensor(sliding_windows(model, tensor, tick)[np.newaxis], model_input)[0]
    # Back to the scan's own slices; rows and columns stay the network's.
    depth = axis_weights(volume.shape[0], (0, volume.shape[0]), box.shape[0])
    probabilities = np.empty((len(averaged), box.shape[0], *volume.shape[1:]), np.uint8)
    for start in range(0, box.shape[0], SLICES_AT_ONCE):
        rows = depth[start : start + SLICES_AT_ONCE]
        for target, source in zip(probabilities, averaged, strict=True):
            plane = rows @ source.reshape(len(source), -1)
            target[start : start + SLICES_AT_ONCE] = _to_bytes(plane).reshape(-1, *source.shape[1:])
    return Prediction(Grid.of_box(box, (volume.shape[1], volume.shape[2])), probabilities)


def sliding_windows(model: Model, volume: NDArray[np.float32], tick: Callable[[float], None]) -> NDArray[np.float32]:
    """Mean answer of a 3-D network over overlapping windows.

    The windows are laid as MONAI's sliding_window_inference lays them: at steps of (1 - overlap) of their size, the
    last ones pushed back to the edge, a volume smaller than the window padded evenly on both sides.

    Parameters
    ----------
    model: Model
    volume: NDArray[np.float32]
        Prepared, with the network's axes and directions.
    tick: Callable[[float], None]

    Returns
    -------
    NDArray[np.float32]
        Probabilities, shape (classes without the background, and the volume's axes).
    """
    model_input = model.manifest.input
    size = tensor_size(model_input)
    missing = [max(0, want - have) for want, have in zip(size, volume.shape, strict=True)]
    before = [count // 2 for count in missing]
    padded = np.pad(
        volume,
        [(first, count - first) for first, count in zip(before, missing, strict=True)],
        constant_values=volume.min() if model_input.standardise else model_input.scale_to[0],
    )
    starts = [
        _window_starts(length, window, model_input.overlap) for length, window in zip(padded.shape, size, strict=True)
    ]
    total = np.zeros((len(model.manifest.output.classes) - 1, *padded.shape), np.float32)
    # How many windows cover a voxel is a product of how many cover it along each axis.
    counts = [np.zeros(length, np.float32) for length in padded.shape]
    for axis, (firsts, window) in enumerate(zip(starts, size, strict=True)):
        for first in firsts:
            counts[axis][first : first + window] += 1.0
    corners = list(product(*starts))
    for number, corner in enumerate(corners, start=1):
        place = tuple(slice(first, first + window) for first, window in zip(corner, size, strict=True))
        total[(slice(None), *place)] += _foreground(model, np.ascontiguousarray(padded[place])[np.newaxis])[0]
        tick(number / len(corners))
    total /= counts[0][:, np.newaxis, np.newaxis]
    total /= counts[1][:, np.newaxis]
    total /= counts[2]
    inside = tuple(slice(first, first + length) for first, length in zip(before, volume.shape, strict=True))
    return total[(slice(None), *inside)]


def _window_starts(length: int, window: int, overlap: float) -> list[int]:
    """First index of every window along one axis."""
    step = max(1, int(window * (1.0 - overlap)))
    count = -(-(length - window) // step) + 1
    return [min(number * step, length - window) for number in range(count)]


def _to_bytes(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (probabilities * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)
