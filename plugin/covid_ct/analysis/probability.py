"""The probability of COVID-19 pneumonia in a series, from a classifier of slices or of the volume."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from covid_ct.analysis.distribution import distribution
from covid_ct.inference.manifest import FEATURES, Calibration, SpacedOver
from covid_ct.inference.scan import Scan
from covid_ct.inference.session import Model
from covid_ct.inference.windows import to_tensor
from covid_ct.parallel import in_parallel

CERTAIN = 1e-6
"""Probabilities nearer to 0 or 1 than this are taken as that near, so that their logits stay finite."""

LUNG_WEIGHT = 0.005
"""Share of the lungs beside the lesions where slices are spaced over these: where hardly any of the lungs is lesion, a
vessel taken for one does not decide alone what is looked at."""

FEATURE_STEP = 2
"""Rows and columns are thinned so much where lesions are described, which needs no more."""


def covid_probability(model: Model, scan: Scan, lesions: NDArray[np.uint8], tick: Callable[[float], None]) -> float:
    """Run a classifier over a scan.

    A 2-D network sees slices evenly spaced over the lungs or over their lesions, each with the features of that slice;
    the quantile of their logits stands for the series. A 3-D network sees the region at once, with the features of the
    series.

    Parameters
    ----------
    model: Model
        Of role covid.
    scan: Scan
        With its lungs.
    lesions: NDArray[np.uint8]
        Label map of `LesionKind`, shape as the scan's.
    tick: Callable[[float], None]
        Called after every batch with the fraction done; may raise to stop.

    Returns
    -------
    float
        0-1, calibrated where the manifest says how.

    Raises
    ------
    ModelError
        Raised if the network fails or answers with what is no number.
    """
    lungs = scan.lungs
    if lungs is None:
        raise ValueError("a scan is classified by lungs that are known")
    model_input, output = model.manifest.input, model.manifest.output
    box = scan.box(model_input)
    if output.aggregation is None:
        with_lung = np.any(lungs, axis=(1, 2))
        image = scan.volume(model_input, box)[np.newaxis]
        features = _features(model, lungs[with_lung], lesions[with_lung])
        probabilities = model.run(to_tensor(image, model_input), features)[:, -1]
        tick(1.0)
        return aggregate(probabilities, 0.5, output.calibration)
    wanted = evenly_spaced(slice_weights(lungs, lesions, output.aggregation.spaced_over), output.aggregation.slices)
    # Where there are fewer slices, or lesions in few of them, some stand for several.
    chosen, times = np.unique(wanted, return_counts=True)
    batches = [chosen[start : start + model.batch] for start in range(0, len(chosen), model.batch)]

    def work(batch: NDArray[np.int64]) -> NDArray[np.float32]:
        images = scan.slices(model_input, scan.slice_boxes(model_input, batch.tolist(), box))
        features = np.concatenate([_features(model, lungs[[index]], lesions[[index]]) for index in batch])
        return model.run(to_tensor(images, model_input), features)[:, -1]

    answers = []
    for answer in in_parallel(work, batches, model.workers):
        answers.append(answer)
        tick(len(answers) / len(batches))
    return aggregate(np.repeat(np.concatenate(answers), times), output.aggregation.quantile, output.calibration)


def slice_weights(lungs: NDArray[np.uint8], lesions: NDArray[np.uint8], spaced_over: SpacedOver) -> NDArray[np.float64]:
    """How much each slice counts where slices are spaced evenly, shape (slices,).

    Parameters
    ----------
    lungs, lesions: NDArray[np.uint8]
        Label maps, shape (slices, rows, columns).
    spaced_over: SpacedOver
        "lungs": every slice with lung alike. "lesions": by its area of lesion, and `LUNG_WEIGHT` of that of its lung.
    """
    # Plane by plane, NumPy counts many times faster than along an axis.
    lung, lesion = (np.array([np.count_nonzero(plane) for plane in labels], float) for labels in (lungs, lesions))
    return (lung > 0).astype(float) if spaced_over == "lungs" else lesion + LUNG_WEIGHT * lung


def evenly_spaced(weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """So many indices, ascending, in the middles of as many equal stretches of the sum of the weights."""
    ends = np.cumsum(weights)
    indices: NDArray[np.int64] = np.searchsorted(ends, (np.arange(count) + 0.5) / count * ends[-1], side="right")
    return indices


def aggregate(probabilities: NDArray[np.float32], quantile: float, calibration: Calibration | None) -> float:
    """Probability of a series from those of its slices.

    Parameters
    ----------
    probabilities: NDArray[np.float32]
        Shape (slices,), 0-1.
    quantile: float
        Of the logits, 0-1; linear between two slices.
    calibration: Calibration | None
        Platt scaling of that logit.

    Returns
    -------
    float
    """
    inner = np.clip(probabilities.astype(np.float64), CERTAIN, 1.0 - CERTAIN)
    logit = float(np.quantile(np.log(inner / (1.0 - inner)), quantile))
    if calibration is not None:
        logit = calibration.slope * logit + calibration.intercept
    # tanh does not overflow where exp would.
    return 0.5 * (1.0 + math.tanh(0.5 * logit))


def _features(model: Model, lungs: NDArray[np.uint8], lesions: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The features that a network asks for, shape (1, features)."""
    names = model.manifest.features
    if not names:
        return np.zeros((1, 0), np.float32)
    thinned = (slice(None), slice(None, None, FEATURE_STEP), slice(None, None, FEATURE_STEP))
    values = distribution(lungs[thinned], lesions[thinned])
    return values[[FEATURES.index(name) for name in names]][np.newaxis]
