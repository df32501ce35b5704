"""Training of the two segmentation networks."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from tqdm import tqdm

from covid_ct.parallel import cores
from models.training.augment import (
    Geometry,
    add_domes,
    add_opacities,
    equalise,
    move,
    paste_lesions,
    swap_sides,
    uniform,
    vary_intensities,
)
from models.training.data import EITHER, IGNORED, Slices, regions

SEED = 20200211
BATCH = 20
"""Images made at once; each network learns from those of them that are not of its fold, about fifteen."""

THREADS = cores()

SMALL = 200
"""Slices with fewer pixels of lung than this are not drawn more often still."""

THICKEST = 4
"""Slices are mixed with neighbours that are up to so many slices away."""


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
    pasted: float
        Part of the images that get the lesions of another image as well.
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
        pasted: float = 0.0,
    ) -> None:
        area = np.count_nonzero(slices.lungs, axis=(1, 2)).astype(np.float32)
        self.weights = torch.from_numpy(np.clip(area, SMALL, None) ** (-0.6 if favour_small else 0.0))
        self.share, self.equalised, self.own_lesions = share, equalised, own_lesions
        self.thickened, self.pasted = thickened, pasted
        self.patients = torch.from_numpy(slices.patients)
        self.folds = torch.from_numpy(slices.folds)
        self.hu = torch.from_numpy(slices.hu)
        self.other = torch.from_numpy(np.stack([equalise(image) for image in slices.hu])) if equalised else self.hu
        self.labels = torch.from_numpy(np.stack([slices.lungs, slices.lesions], axis=1))
        if whole_field:
            self.boxes = torch.tensor([[0.0, slices.hu.shape[1], 0.0, slices.hu.shape[2]]]).repeat(len(slices), 1)
        else:
            self.boxes = torch.from_numpy(regions(slices, by_patient))

    def _paste(
        self, hu: Tensor, labels: Tensor, folds: Tensor, geometry: Geometry, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Lay lesions of images of the same folds into some images; gives these and all lesions."""
        lesions = labels[:, 1].clone()
        chosen = torch.rand(len(folds), generator=random) < self.pasted
        if chosen.any():
            same = (self.folds == folds[chosen, None]).float()
            index = torch.multinomial(same, 1, generator=random)[:, 0]
            donor_hu, donor_labels, _ = move(
                self.hu[index].float()[:, None], self.labels[index], self.boxes[index], geometry, random
            )
            hu[chosen], lesions[chosen] = paste_lesions(
                hu[chosen], labels[chosen, 0] > 0, lesions[chosen], donor_hu, donor_labels[:, 1]
            )
        return hu, lesions

    def draw(
        self, count: int, geometry: Geometry, random: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Moved images, lungs, lesions, which images may get made-up lesions, and folds."""
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
        hu, labels, mirrored = move(hu[:, None], self.labels[index], self.boxes[index], geometry, random)
        hu, lesions = self._paste(hu, labels, self.folds[index], geometry, random)
        return hu, swap_sides(labels[:, 0], mirrored), lesions, clean, self.folds[index]


class Batches(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Endless batches of network inputs, labels and folds, made beside the training by processes of their own.

    Each batch has a seed of its own, so that they are the same however many processes make them.
    """

    def __init__(self, pools: Sequence[Pool], recipe: Recipe) -> None:
        self.pools, self.recipe = pools, recipe

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        for number in itertools.count(worker.id, worker.num_workers) if worker else itertools.count():
            yield self._batch(torch.Generator().manual_seed(SEED + number))

    def _batch(self, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        recipe = self.recipe
        cumulated = np.cumsum([pool.share for pool in self.pools])
        # Systematic sampling: every source gets its share as evenly as whole numbers allow.
        picks = (np.arange(BATCH) + torch.rand(1, generator=random).item()) / BATCH * cumulated[-1]
        counts = np.bincount(np.searchsorted(cumulated, picks), minlength=len(self.pools))
        drawn = [
            pool.draw(int(count), recipe.geometry, random)
            for pool, count in zip(self.pools, counts, strict=True)
            if count
        ]
        hu, lungs, lesions, clean, folds = (torch.cat(values) for values in zip(*drawn, strict=True))
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
        return (hu.clamp(low, high) - low) / (high - low), lungs if recipe.role == "lungs" else lesions, folds


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


def _half_precision(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16; one that has to convert is half as fast by it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


class _Learner:
    """One network of the committee, its optimiser, and the running average of its weights.

    Parameters
    ----------
    network: nn.Module
    fold: int
        Slices of this fold it does not see.
    recipe: Recipe
    device: torch.device
    """

    def __init__(self, network: nn.Module, fold: int, recipe: Recipe, device: torch.device) -> None:
        self.fold, self.device = fold, device
        self.network = network.to(device, memory_format=torch.channels_last).train()
        self.average = copy.deepcopy(self.network)
        self.steps = 0
        self._half = _half_precision(device)
        self._optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=1e-2)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimiser, recipe.rate, total_steps=recipe.steps, pct_start=0.15
        )

    def learn(self, batch: tuple[Tensor, Tensor, Tensor]) -> float:
        """One step on the images that are not of the network's fold; gives the loss."""
        images, labels, folds = batch
        seen = folds != self.fold
        images = images[seen].to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            logits = self.network(images)
        loss = segmentation_loss(logits.float(), labels[seen].to(self.device))
        self._optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimiser.step()
        self._schedule.step()
        keep = min(0.998, self.steps / (self.steps + 10))
        self.steps += 1
        with torch.no_grad():
            for mean, value in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
                mean.copy_(mean.lerp(value, 1 - keep) if mean.is_floating_point() else value)
        return float(loss.detach())


def train(networks: Sequence[nn.Module], pools: Sequence[Pool], recipe: Recipe) -> tuple[list[nn.Module], list[float]]:
    """Train networks side by side, each without the slices of its own fold.

    Returns
    -------
    tuple[list[nn.Module], list[float]]
        The networks with the running average of their weights, and the curve of their mean loss.
    """
    torch.manual_seed(SEED)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Where the networks are on a GPU the cores have nothing else to do.
    workers = max(1, cores() - 1) if device.type == "cuda" else 1
    batches = iter(DataLoader(Batches(pools, recipe), batch_size=None, num_workers=workers, prefetch_factor=3))
    # A network to a thread: threads that share one would have to meet within every convolution.
    torch.set_num_threads(1)
    threads = 1 if device.type == "cuda" else min(THREADS, len(networks))
    learners = [_Learner(network, fold, recipe, device) for fold, network in enumerate(networks)]
    losses = []
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in (progress := tqdm(range(recipe.steps), mininterval=10)):
            learn = partial(_Learner.learn, batch=next(batches))
            losses.append(float(np.mean(list(pool.map(learn, learners)))))
            progress.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
    return [learner.average.cpu().eval() for learner in learners], losses


def prepare(slices: Slices, recipe: Recipe) -> Tensor:
    """Slices as the network sees them without augmentation, shape (slices, 1, rows, columns)."""
    still = Geometry(recipe.geometry.size, (1.0, 1.0 + 1e-7), 0.0, 0.0, 0.0)
    if recipe.role == "lungs":
        boxes = torch.tensor([[0.0, slices.hu.shape[1], 0.0, slices.hu.shape[2]]]).repeat(len(slices), 1)
    else:
        boxes = torch.from_numpy(regions(slices, by_patient=False))
    low, high = recipe.clip_hu
    hu = torch.from_numpy(slices.hu)[:, None].float()
    maps = torch.from_numpy(slices.lungs)[:, None]
    moved, _, _ = move(hu, maps, boxes, still, torch.Generator().manual_seed(SEED))
    return (moved.clamp(low, high) - low) / (high - low)
