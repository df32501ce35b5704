"""Training of the classifier: COVID-19 pneumonia or not, from the lungs of a slice and where its lesions lie."""

import copy
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from training import data
from training.augment import Geometry, equalise, move, vary_intensities
from training.networks import UNet
from training.segmentation import SEED
from training.slices import segment_slice

from covid_ct.analysis.distribution import distribution
from covid_ct.inference.manifest import FEATURES
from covid_ct.inference.preprocessing import resize
from covid_ct.inference.session import Model

SIZE = (144, 192)
CLIP_HU = (-1200.0, 200.0)
OUTSIDE_HU = -1000
MARGIN = 7
"""Pixels around the lungs, of 1.4 mm: the manifest's region_margin_mm."""

BATCH = 24
FIGURE_SHARE = 6.0
FOLDS = 5

STILL = Geometry(SIZE, (1.0, 1.0000001), 0.0, 0.0, 0.0)
MOVED = Geometry(SIZE, (0.85, 1.2), 12.0, 0.06, 0.5)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cases:
    """Slices with what the shipped lung and lesion models say of them.

    Attributes
    ----------
    name: str
    hu: Tensor
        Shape (slices, 256, 256), int16.
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


class Classifier(nn.Module):
    """The lesion network's encoder, pooled over the picture, beside the lesions' distribution.

    Parameters
    ----------
    segmenter: UNet
        Where the encoder's weights come from.
    widths: tuple[int, ...]
        Of that network.
    """

    def __init__(self, segmenter: UNet, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem, self.encoder = segmenter.stem, segmenter.encoder
        self.head = nn.Sequential(
            nn.Dropout(0.4), nn.Linear(2 * (widths[-1] + widths[-2]), 48), nn.ReLU(), nn.Dropout(0.3), nn.Linear(48, 1)
        )
        self.features = nn.Linear(len(FEATURES), 1)

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        maps = self.stem(image)
        pooled = []
        for level, stage in enumerate(self.encoder):
            maps = stage(maps)
            if level >= len(self.encoder) - 2:
                pooled += [maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))]
        return self.head(torch.cat(pooled, dim=1)) + self.features(features)


def _prepare(hu: Tensor, lungs: Tensor, geometry: Geometry, vary: bool, random: torch.Generator) -> Tensor:
    masks = lungs > 0
    boxes = torch.empty(len(hu), 4)
    for index, mask in enumerate(masks):
        rows, columns = (torch.nonzero(mask.any(dim=axis))[:, 0] for axis in (1, 0))
        boxes[index] = torch.tensor(
            [rows[0] - MARGIN, rows[-1] + 1 + MARGIN, columns[0] - MARGIN, columns[-1] + 1 + MARGIN]
        )
    boxes = boxes.clamp(0, hu.shape[-1])
    dilated = functional.max_pool2d(masks[:, None].float(), 3, 1, 1)
    moved, kept, _ = move(hu[:, None].float(), dilated, boxes, geometry, random)
    if vary:
        moved = vary_intensities(moved, random)
    moved = torch.where(kept > 0, moved, torch.tensor(float(OUTSIDE_HU)))
    low, high = CLIP_HU
    return (moved.clamp(low, high) - low) / (high - low)


def fit(classifier: Classifier, sources: list[tuple[Cases, float]], steps: int) -> Classifier:
    """Train on sources with their shares of every batch."""
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    encoder = [*classifier.stem.parameters(), *classifier.encoder.parameters()]
    heads = [*classifier.head.parameters(), *classifier.features.parameters()]
    rates = [3e-4, 3e-3]
    optimiser = torch.optim.AdamW(
        [{"params": encoder, "lr": rates[0]}, {"params": heads, "lr": rates[1]}], weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.2)
    classifier.train()
    cumulated = np.cumsum([share for _, share in sources])
    for _ in tqdm(range(steps), mininterval=10):
        picks = (np.arange(BATCH) + torch.rand(1, generator=random).item()) / BATCH * cumulated[-1]
        images, features, truth = [], [], []
        counts = np.bincount(np.searchsorted(cumulated, picks), minlength=len(sources))
        for (cases, _), count in zip(sources, counts, strict=True):
            index = torch.randint(0, len(cases), (int(count),), generator=random)
            equalised = (torch.rand(len(index), generator=random) < 0.25) & ("CLAHE" not in cases.name)
            hu = torch.where(equalised[:, None, None], cases.other[index], cases.hu[index])
            if len(index):
                images.append(_prepare(hu, cases.lungs[index], MOVED, True, random))
                features.append(cases.features[index])
                truth += [float(cases.is_covid)] * len(index)
        logits = classifier(torch.cat(images), torch.cat(features))[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits, torch.tensor(truth) * 0.94 + 0.03)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return classifier.eval()


@torch.no_grad()
def logits_of(classifier: Classifier, cases: Cases) -> NDArray[np.float32]:
    """Logit of each slice."""
    random = torch.Generator().manual_seed(SEED)
    answers = []
    for start in range(0, len(cases), 32):
        part = slice(start, start + 32)
        images = _prepare(cases.hu[part], cases.lungs[part], STILL, False, random)
        answers.append(classifier(images, cases.features[part])[:, 0])
    return torch.cat(answers).numpy()


def auc(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties one half."""
    difference = positive[:, np.newaxis] - negative[np.newaxis]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def platt(logits: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept that make probabilities of logits (Platt 1999), by Newton's method."""
    design = np.stack([logits, np.ones_like(logits)], axis=1).astype(np.float64)
    weights = np.array([1.0, 0.0])
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
    """Fold of each of some figures: stretches of neighbours, which may stem from one paper, stay together."""
    return np.arange(count) // 8 % FOLDS


def cross_validate(
    segmenter: UNet,
    widths: tuple[int, ...],
    positive: Cases,
    negative: Cases,
    others: list[tuple[Cases, float]],
    steps: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits of every figure from classifiers that saw neither it nor its neighbours."""
    results = []
    for cases in (positive, negative):
        results.append(np.zeros(len(cases), np.float32))
    for fold in range(FOLDS):
        shown = [(cases.part(blocks(len(cases)) != fold), FIGURE_SHARE) for cases in (positive, negative)]
        classifier = fit(Classifier(copy.deepcopy(segmenter), widths), [*shown, *others], steps)
        for cases, logits in zip((positive, negative), results, strict=True):
            held = blocks(len(cases)) == fold
            logits[held] = logits_of(classifier, cases.part(held))
        log.info("fold %d of %d done", fold + 1, FOLDS)
    return results[0], results[1]


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
