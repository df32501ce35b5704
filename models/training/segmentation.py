"""Training of the two segmentation networks."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset
from tqdm import tqdm

from covid_ct.parallel import cores
from models.training.augment import (
    Geometry,
    add_domes,
    add_opacities,
    equalise,
    move,
    swap_sides,
    uniform,
    vary_intensities,
)
from models.training.data import EITHER, IGNORED, Slices, regions

SEED = 20200211
BATCH = 16
THREADS = min(2, cores())
"""Each takes a part of every batch; less than eight images are too few to normalise by."""

SMALL = 200
"""Slices with fewer pixels of lung than this are not drawn more often still."""

THICKEST = 4
"""Slices are mixed with neighbours that are up to so many slices away."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What tells one training from another.

    Attributes
    ----------
    role: str
        "lungs" or "lesions".
    geometry: Geometry
    clip_hu: tuple[float, float]
        Mapped to 0-1.
    steps: int
        Number of batches.
    rate: float
        Largest learning rate.
    opacities: float
        Part of the images without own lesions that get made-up ones.
    domes: float
        Part of the images with known lungs that get made-up domes of the diaphragm.
    """

    role: str
    geometry: Geometry
    clip_hu: tuple[float, float]
    steps: int
    rate: float = 3e-3
    opacities: float = 0.3
    domes: float = 0.0


class Pool:
    """One source's slices as tensors, from which batches are drawn.

    Parameters
    ----------
    slices: Slices
    share: float
        Its share of every batch.
    equalised: float
        Part of the images that are shown after CLAHE.
    whole_field: bool
        Whether the images are cut to the whole field or to the lungs.
    by_patient: bool
        Whether the lungs' box is that of the slice or of the patient.
    own_lesions: bool
        Whether the images have lesions of their own already.
    favour_small: bool
        Whether slices with little lung (the domes of the diaphragm, the tips) are drawn more often.
    thickened: float
        Part of the images that are mixed with a neighbour, as thick slices and breathing do.
    """

    def __init__(
        self,
        slices: Slices,
        share: float,
        *,
        whole_field: bool,
        equalised: float = 0.0,
        by_patient: bool = False,
        own_lesions: bool = False,
        favour_small: bool = False,
        thickened: float = 0.0,
    ) -> None:
        area = np.count_nonzero(slices.lungs, axis=(1, 2)).astype(np.float32)
        self.weights = torch.from_numpy(np.clip(area, SMALL, None) ** (-0.6 if favour_small else 0.0))
        self.share, self.equalised, self.own_lesions, self.thickened = share, equalised, own_lesions, thickened
        self.patients = torch.from_numpy(slices.patients)
        self.hu = torch.from_numpy(slices.hu)
        self.other = torch.from_numpy(np.stack([equalise(image) for image in slices.hu])) if equalised else self.hu
        self.labels = torch.from_numpy(np.stack([slices.lungs, slices.lesions], axis=1))
        if whole_field:
            self.boxes = torch.tensor([[0.0, slices.hu.shape[1], 0.0, slices.hu.shape[2]]]).repeat(len(slices), 1)
        else:
            self.boxes = torch.from_numpy(regions(slices, by_patient))

    def draw(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images, labels (lungs and lesions), boxes, and which images may get made-up lesions."""
        index = torch.multinomial(self.weights, count, replacement=True, generator=random)
        other = torch.rand(count, generator=random) < self.equalised
        hu = torch.where(other[:, None, None], self.other[index], self.hu[index]).float()
        if self.thickened:
            away = torch.randint(-THICKEST, THICKEST + 1, (count,), generator=random)
            near = (index + away).clamp(0, len(self.hu) - 1)
            near = torch.where(self.patients[near] == self.patients[index], near, index)
            mixed = torch.rand(count, generator=random) < self.thickened
            # Less than half, so that the labels stay those of the slice itself.
            part = torch.where(mixed, uniform(random, count, 0.1, 0.45), 0.0)[:, None, None]
            hu = hu.lerp(torch.where(other[:, None, None], self.other[near], self.hu[near]).float(), part)
        clean = torch.full((count,), not self.own_lesions)
        return hu[:, None], self.labels[index], self.boxes[index], clean


class _Batches(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches of network inputs and labels, made beside the training by a process of its own."""

    def __init__(self, pools: Sequence[Pool], recipe: Recipe) -> None:
        self.pools, self.recipe = pools, recipe

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        torch.set_num_threads(1)
        random = torch.Generator().manual_seed(SEED)
        while True:
            yield self._batch(random)

    def _batch(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        recipe = self.recipe
        cumulated = np.cumsum([pool.share for pool in self.pools])
        # Systematic sampling: every source gets its share as evenly as whole numbers allow.
        picks = (np.arange(BATCH) + torch.rand(1, generator=random).item()) / BATCH * cumulated[-1]
        counts = np.bincount(np.searchsorted(cumulated, picks), minlength=len(self.pools))
        parts = [pool.draw(int(count), random) for pool, count in zip(self.pools, counts, strict=True) if count]
        hu, labels, boxes, clean = (torch.cat(values) for values in zip(*parts, strict=True))
        hu, labels, mirrored = move(hu, labels, boxes, recipe.geometry, random)
        lungs, lesions = swap_sides(labels[:, 0], mirrored), labels[:, 1]
        domed = (lungs != IGNORED).flatten(1).all(dim=1) & (torch.rand(len(hu), generator=random) < recipe.domes)
        if domed.any():
            hu[domed], gone = add_domes(hu[domed], (lungs[domed] > 0)[:, None], random)
            lungs[domed] = torch.where(gone, 0, lungs[domed])
        chosen = clean & (torch.rand(len(hu), generator=random) < recipe.opacities)
        if chosen.any():
            # Where labels say nothing of the middle, air tells lung (and airways, which are small).
            aerated = (lungs[chosen] == IGNORED) & (hu[chosen, 0] < -500)
            known = (lungs[chosen] > 0) & (lungs[chosen] != IGNORED) | aerated
            opaque, made_up = add_opacities(hu[chosen], known[:, None], random)
            hu[chosen], lesions[chosen] = opaque, torch.where(made_up > 0, made_up, lesions[chosen])
        hu = vary_intensities(hu, random)
        low, high = recipe.clip_hu
        return (hu.clamp(low, high) - low) / (high - low), lungs if recipe.role == "lungs" else lesions


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy and soft Dice; where the class is unknown, of all foreground classes together."""
    logarithms = functional.log_softmax(logits, dim=1)
    foreground = torch.logsumexp(logarithms[:, 1:], dim=1)
    known = labels != IGNORED
    exact = torch.where(known & (labels != EITHER), labels, 0)
    likelihood = torch.where(labels == EITHER, foreground, logarithms.gather(1, exact[:, None])[:, 0])
    entropy = -(likelihood * known).sum() / known.sum().clamp(min=1)
    probability = foreground.exp() * known
    truth = ((labels > 0) & known).float()
    overlap = (probability * truth).sum((1, 2))
    total = (probability + truth).sum((1, 2))
    # Over the batch and over each image, so that neither large nor small lesions rule.
    dice = (2 * overlap.sum() + 1) / (total.sum() + 1)
    each = ((2 * overlap + 20) / (total + 20)).mean()
    return entropy + 0.25 * (1 - dice) + 0.75 * (1 - each)


def _twin(network: nn.Module) -> nn.Module:
    """A copy with running means of its own that has the network's very parameters."""
    twin = copy.deepcopy(network)
    for module, original in zip(twin.modules(), network.modules(), strict=True):
        for name, parameter in original.named_parameters(recurse=False):
            setattr(module, name, parameter)
    return twin


def train(
    network: nn.Module,
    pools: Sequence[Pool],
    recipe: Recipe,
    report: Callable[[nn.Module], str],
) -> tuple[nn.Module, list[float]]:
    """Train, and give back the running average of the weights and the curve of losses."""
    torch.manual_seed(SEED)
    batches = iter(DataLoader(_Batches(pools, recipe), batch_size=None, num_workers=1, prefetch_factor=3))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device, memory_format=torch.channels_last).train()
    average = copy.deepcopy(network)
    # Threads that meet once a step lose far less on a busy machine than threads that meet within every convolution.
    torch.set_num_threads(1)
    twins = [network] if device.type == "cuda" else [network, *(_twin(network) for _ in range(1, THREADS))]
    pool = ThreadPoolExecutor(len(twins), initializer=torch.set_num_threads, initargs=(1,))

    def learn(twin: nn.Module, images: Tensor, labels: Tensor) -> float:
        images = images.to(device, memory_format=torch.channels_last)
        loss = segmentation_loss(twin(images), labels.to(device)) / len(twins)
        loss.backward()
        return float(loss.detach())

    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.steps, pct_start=0.15)
    losses = []
    for step in (progress := tqdm(range(recipe.steps), mininterval=10)):
        images, labels = next(batches)
        optimiser.zero_grad()
        # Batches are sorted by source; every twin gets some of each.
        parts = [slice(index, None, len(twins)) for index in range(len(twins))]
        losses.append(sum(pool.map(learn, twins, [images[part] for part in parts], [labels[part] for part in parts])))
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
        with torch.no_grad():
            keep = min(0.998, step / (step + 10))
            for mean, value in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                mean.copy_(mean.lerp(value, 1 - keep) if mean.is_floating_point() else value)
        if (step + 1) % max(1, recipe.steps // 2) == 0:
            log.info("step %d: %s", step + 1, report(average))
    return average.cpu().eval(), losses


def _still(slices: Slices, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Slices and their labels as the network sees them without augmentation, in batches."""
    still = Geometry(recipe.geometry.size, (1.0, 1.0 + 1e-7), 0.0, 0.0, 0.0)
    if recipe.role == "lungs":
        boxes = torch.tensor([[0.0, slices.hu.shape[1], 0.0, slices.hu.shape[2]]]).repeat(len(slices), 1)
    else:
        boxes = torch.from_numpy(regions(slices, by_patient=False))
    low, high = recipe.clip_hu
    random = torch.Generator().manual_seed(SEED)
    for start in range(0, len(slices), BATCH):
        part = slice(start, start + BATCH)
        maps = torch.from_numpy(np.stack([slices.lungs[part], slices.lesions[part]], axis=1))
        hu, labels, _ = move(torch.from_numpy(slices.hu[part])[:, None].float(), maps, boxes[part], still, random)
        yield (hu.clamp(low, high) - low) / (high - low), labels[:, 0 if recipe.role == "lungs" else 1]


def prepare(slices: Slices, recipe: Recipe) -> Tensor:
    """Slices as the network sees them, shape (slices, 1, rows, columns)."""
    return torch.cat([images for images, _ in _still(slices, recipe)])


@torch.no_grad()
def predict(network: nn.Module, slices: Slices, recipe: Recipe) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Most likely classes of slices, and the labels, both as the network sees them."""
    device = next(network.parameters()).device
    predicted, truth = [], []
    training = network.training
    network.eval()
    for images, labels in _still(slices, recipe):
        logits = network(images.to(device))
        foreground = 1.0 - torch.softmax(logits, dim=1)[:, 0]
        classes = torch.where(foreground > 0.5, 1 + logits[:, 1:].argmax(dim=1), 0)
        predicted.append(classes.cpu().numpy().astype(np.uint8))
        truth.append(labels.numpy().astype(np.uint8))
    network.train(training)
    return np.concatenate(predicted), np.concatenate(truth)
