"""Training of the classifier: COVID-19 pneumonia or not, from the lungs of a slice."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from covid_ct.analysis.distribution import distribution
from covid_ct.inference.manifest import ModelInput
from covid_ct.inference.preprocessing import resize
from covid_ct.inference.scan import Scan
from covid_ct.inference.session import Model
from models.training import data
from models.training.augment import Geometry, breathe, equalise, move, uniform, vary_intensities
from models.training.maps import Maps
from models.training.networks import Classifier, pool
from models.training.segmentation import SEED, THREADS
from models.training.slices import auc, segment_slice, spacing_mm

SIZE = (224, 320)
"""Finer than the grid that the lesion networks learned on; on that of 160x224 the figures are told apart less well."""

CLIP_HU = (-1200.0, 200.0)
OUTSIDE_HU = 40
"""The lungs' surroundings look like muscle, which the lesion network knows."""

MARGIN = 7
"""Pixels around the lungs, of 1.4 mm: as much as the input's region_margin_mm."""

INPUT = ModelInput(
    dimensions=2,
    size=SIZE,
    region="lungs",
    region_margin_mm=10,
    outside_lungs_hu=OUTSIDE_HU,
    spacing_mm=None,
    overlap=0,
    axes="zyx",
    directions="LPS",
    clip_hu=CLIP_HU,
    scale_to=(0, 1),
    standardise=False,
    interpolation="area",
    # Figures are coarse and smooth; the noise of a sharp kernel, which they do not show, looked like disease.
    finest_mm=1.8,
)
"""What the product shows of a series."""

VIEWS = 50
"""Times that every slice is shown: as it is, mirrored, and then changed at random."""

WEIGHT_DECAY = 2e-4
FOLDS = 5

MOVED = Geometry(SIZE, (0.8, 1.2), 15.0, 0.08, 0.5, prone=0.3)


@dataclass(frozen=True)
class Cases:
    """Slices with what the shipped lung and lesion models say of them.

    Attributes
    ----------
    name: str
    hu: Tensor
        Shape (slices, 256, 256), int16.
    other: Tensor
        The same slices after histogram equalisation.
    lungs: Tensor
        Same shape, uint8.
    features: Tensor
        Shape (slices, features), in the order of `FEATURES`.
    is_covid: bool
    """

    name: str
    hu: Tensor
    other: Tensor
    lungs: Tensor
    features: Tensor
    is_covid: bool

    def __len__(self) -> int:
        return len(self.hu)

    def part(self, chosen: NDArray[np.bool_]) -> "Cases":
        index = torch.from_numpy(np.flatnonzero(chosen))
        return Cases(
            self.name, self.hu[index], self.other[index], self.lungs[index], self.features[index], self.is_covid
        )


def make_cases(name: str, images: NDArray[np.int16], is_covid: bool, models: tuple[Model, Model]) -> Cases:
    """Run the lung and lesion models over slices; those without lungs are left out."""
    hu, other, lungs, features = [], [], [], []
    for image in tqdm(images, desc=name, mininterval=10):
        maps = segment_slice(*models, image)
        if np.count_nonzero(maps.lungs) < 0.02 * image.size:
            continue
        hu.append(image)
        other.append(equalise(image))
        lungs.append(maps.lungs)
        features.append(distribution(maps.lungs[np.newaxis], maps.lesions[np.newaxis]))
    return Cases(
        name,
        torch.from_numpy(np.stack(hu)),
        torch.from_numpy(np.stack(other)),
        torch.from_numpy(np.stack(lungs)),
        torch.from_numpy(np.stack(features)),
        is_covid,
    )


def figures(folder: Path, kind: str) -> NDArray[np.int16]:
    """The figures of one kind ("covid" or "other") at 256x256, in HU by the lung window, in their order."""
    archive = np.load(folder / "training/covid_vs_other_figures.npz")
    pictures = [resize(archive[name], (data.SIZE, data.SIZE)) for name in sorted(archive) if name.startswith(kind)]
    return data.picture_to_hu(np.rint(np.stack(pictures)).astype(np.uint8))


def _as_shown(hu: Tensor, lungs: Tensor) -> Tensor:
    """Slices as the product shows them."""
    shown = []
    for image, mask in zip(hu.numpy(), lungs.numpy(), strict=True):
        scan = Scan(image[np.newaxis], spacing_mm(image), mask[np.newaxis])
        shown.append(scan.slices(INPUT, [scan.box(INPUT)]))
    return torch.from_numpy(np.stack(shown))


def _changed(hu: Tensor, lungs: Tensor, random: torch.Generator) -> Tensor:
    """Slices moved and in other intensities."""
    masks = lungs > 0
    boxes = torch.empty(len(hu), 4)
    for index, mask in enumerate(masks):
        rows, columns = (torch.nonzero(mask.any(dim=axis))[:, 0] for axis in (1, 0))
        boxes[index] = torch.tensor(
            [rows[0] - MARGIN, rows[-1] + 1 + MARGIN, columns[0] - MARGIN, columns[-1] + 1 + MARGIN]
        )
    boxes = boxes.clamp(0, hu.shape[-1])
    dilated = functional.max_pool2d(masks[:, None].float(), 3, 1, 1)
    moved, kept, _ = move(hu[:, None], dilated, boxes, MOVED, random)
    moved = vary_intensities(moved, random)
    moved = torch.where(kept > 0, moved, torch.tensor(float(OUTSIDE_HU)))
    low, high = CLIP_HU
    return (moved.clamp(low, high) - low) / (high - low)


@dataclass(frozen=True)
class Embedded:
    """What a classifier sees of one source.

    Attributes
    ----------
    views: Tensor
        Shape (VIEWS, slices, features): every slice as it is, mirrored, then changed at random.
    is_covid: bool
    share: float
        Weight of the source among all.
    """

    views: Tensor
    is_covid: bool
    share: float


def _coarser(images: Tensor, random: torch.Generator) -> Tensor:
    """Some of the images as if made larger from small pictures."""
    factor = float(uniform(random, 1, 0.45, 1.0))
    small = functional.interpolate(images, scale_factor=factor, mode="bilinear", antialias=True)
    large = functional.interpolate(small, size=images.shape[-2:], mode="bilinear")
    return torch.where((torch.rand(len(images), generator=random) < 0.35)[:, None, None, None], large, images)


def _view(maps: Maps, cases: Cases, number: int) -> list[Tensor]:
    """Pooled maps of each network, shape (slices, features)."""
    random = torch.Generator().manual_seed(SEED + number)
    parts = []
    for start in tqdm(range(0, len(cases), 16), desc=f"{cases.name}, view {number}", mininterval=10):
        part = slice(start, start + 16)
        hu, lungs = cases.hu[part], cases.lungs[part]
        if number > 1:
            equalised = torch.rand(len(hu), generator=random) < (0.0 if "CLAHE" in cases.name else 0.2)
            hu = breathe(torch.where(equalised[:, None, None], cases.other[part].float(), hu.float()), random)
            images = _coarser(_changed(hu, lungs, random), random)
        else:
            images = _as_shown(hu, lungs)
            images = images.flip(3) if number == 1 else images
        parts.append([pool(network) for network in maps(images)])
    return [torch.cat(network) for network in zip(*parts, strict=True)]


def embed(maps: Maps, cases: Cases, share: float) -> list[Embedded]:
    """Pool a source's slices through the lesion networks, for the classifier of each."""
    torch.set_num_threads(1)
    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        views = list(threads.map(partial(_view, maps, cases), range(VIEWS)))
    return [Embedded(torch.stack(network), cases.is_covid, share) for network in zip(*views, strict=True)]


def fit(sources: Sequence[Embedded]) -> Classifier:
    """Logistic regression with weight decay on all views of all sources."""
    classifier = Classifier(sources[0].views.shape[-1])
    values = torch.cat([source.views.flatten(0, 1) for source in sources])
    truth = torch.cat([torch.full((source.views[..., 0].numel(),), float(source.is_covid)) for source in sources])
    weight = torch.cat(
        [torch.full((source.views[..., 0].numel(),), source.share / source.views[..., 0].numel()) for source in sources]
    )
    weight /= weight.sum()
    centre = (values * weight[:, None]).sum(dim=0)
    spread = ((values - centre).square() * weight[:, None]).sum(dim=0).sqrt().clamp(min=1e-3)
    classifier.centre.copy_(centre)
    classifier.spread.copy_(spread)
    design = (values - centre) / spread
    unit = classifier.linear
    nn.init.zeros_(unit.weight)
    nn.init.zeros_(unit.bias)
    optimiser = torch.optim.LBFGS(unit.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        entropy = functional.binary_cross_entropy_with_logits(unit(design)[:, 0], truth, weight=weight, reduction="sum")
        loss = entropy + WEIGHT_DECAY * unit.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return classifier


@torch.no_grad()
def logits_of(classifier: Classifier, embedded: Embedded, chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Logits of some slices, each as it is and mirrored."""
    return classifier(embedded.views[:2, torch.from_numpy(chosen)].mean(dim=0))[:, 0].numpy()


def platt(logits: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept that make probabilities of logits (Platt 1999), by Newton's method."""
    design = np.stack([logits, np.ones_like(logits)], axis=1).astype(np.float64)
    weights = np.zeros(2)
    positives, negatives = truth.sum(), (~truth).sum()
    # Platt's targets keep the probabilities of few cases from running to 0 and 1.
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    for _ in range(50):
        probability = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (target - probability)
        curvature = design.T @ (design * (probability * (1 - probability))[:, np.newaxis]) + 1e-9 * np.eye(2)
        weights = weights + np.linalg.solve(curvature, gradient)
    return float(weights[0]), float(weights[1])


def trivial_features(folder: Path, kind: str) -> NDArray[np.float64]:
    """What betrays a figure's source without a look at the lungs: shape, size, brightness, border, contrast.

    Returns
    -------
    NDArray[np.float64]
        Shape (figures, 6), in the order of `figures`.
    """
    archive = np.load(folder / "training/covid_vs_other_figures.npz")
    rows = []
    for name in sorted(archive):
        if name.startswith(kind):
            image = archive[name].astype(float)
            border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
            rows.append(
                [
                    image.shape[1] / image.shape[0],
                    np.log(image.size),
                    image.mean(),
                    border.mean(),
                    border.std(),
                    image.std(),
                ]
            )
    return np.array(rows)


def blocks(count: int) -> NDArray[np.int64]:
    """Fold of each of some figures: one stretch of neighbours, which may stem from one paper, for each.

    With many short stretches, eight figures long, papers were cut apart more often: the AUC was 0.854, of which 0.802
    is left.
    """
    return np.arange(count) * FOLDS // count


def cross_validate(sources: Sequence[Embedded]) -> list[NDArray[np.float32]]:
    """Logits of every figure, COVID-19 and other, from a linear unit that saw neither it nor its neighbours.

    Parameters
    ----------
    sources: Sequence[Embedded]
        The two kinds of figures first.
    """
    figures_, others = sources[:2], sources[2:]
    results = [np.zeros(part.views.shape[1], np.float32) for part in figures_]
    folds = [blocks(part.views.shape[1]) for part in figures_]
    for held in range(FOLDS):
        seen = [
            replace(part, views=part.views[:, torch.from_numpy(fold != held)])
            for part, fold in zip(figures_, folds, strict=True)
        ]
        classifier = fit([*seen, *others])
        for part, fold, logits in zip(figures_, folds, results, strict=True):
            logits[fold == held] = logits_of(classifier, part, fold == held)
    return results


def linear_auc(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Cross-validated AUC of a logistic regression, in the folds of `cross_validate`."""
    values = np.concatenate([positive, negative])
    truth = np.arange(len(values)) < len(positive)
    fold = np.concatenate([blocks(len(positive)), blocks(len(negative))])
    scores = np.zeros(len(values))
    for held in range(FOLDS):
        seen = fold != held
        centre, spread = values[seen].mean(axis=0), values[seen].std(axis=0) + 1e-9
        design = np.c_[(values - centre) / spread, np.ones(len(values))]
        weights = np.zeros(design.shape[1])
        for _ in range(30):
            probability = 1 / (1 + np.exp(-design[seen] @ weights))
            curvature = (design[seen].T * (probability * (1 - probability))) @ design[seen] + np.eye(len(weights))
            weights += np.linalg.solve(curvature, design[seen].T @ (truth[seen] - probability) - weights)
        scores[~seen] = design[~seen] @ weights
    return auc(scores[truth], scores[~truth])
