"""The curves of the model cards: numbers only, no patient's image."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

mpl.use("Agg")
from matplotlib import pyplot as plt


def losses(values: list[float], path: Path, window: int = 25) -> None:
    """Curve of the training loss, averaged over a window of steps."""
    smooth = np.convolve(values, np.ones(window) / window, mode="valid")
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(np.arange(len(smooth)) + window, smooth)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)


def reliability(probability: NDArray[np.float64], truth: NDArray[np.bool_], path: Path, bins: int = 8) -> None:
    """How often cases with a probability are what the probability says, in bins of equal counts."""
    order = np.argsort(probability)
    groups = np.array_split(order, bins)
    figure, axes = plt.subplots(figsize=(4.5, 4.5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    expected = [probability[group].mean() for group in groups]
    observed = [truth[group].mean() for group in groups]
    errors = [np.sqrt(share * (1 - share) / len(group)) for share, group in zip(observed, groups, strict=True)]
    axes.errorbar(expected, observed, yerr=errors, marker="o", capsize=3)
    axes.set(xlabel="predicted probability", ylabel="share that is COVID-19", xlim=(0, 1), ylim=(0, 1))
    figure.savefig(path, dpi=90, metadata={"Software": None})
    plt.close(figure)
