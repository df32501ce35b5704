"""Measure the models on the labelled data: python -m models.training.accuracy DATA [--models FOLDER].

Lungs and lesions are each found by several networks, of which every one has not seen a fold of the patients: through
the product's own pre-processing each patient is measured with the network that did not see it. The classifier is
cross-validated when it is trained (models/covid/cross_validation.json).
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.analysis.findings import Findings
from covid_ct.inference.manifest import Role, load_manifest
from covid_ct.inference.session import Model
from covid_ct.parallel import cores, in_parallel
from covid_ct.series.folder import read_folder
from covid_ct.series.volume import Volume
from models.training import data
from models.training.member import write_member
from models.training.slices import SliceMaps, auc, dice, segment_lungs, segment_slice

WORST = Path(__file__).parent / "worst"
WORST_COUNT = 10

SEGMENTERS: tuple[Role, ...] = ("lungs", "lesions")

CROSS_VALIDATION = "cross_validation.json"
"""Figures that a model's training measured on patients that it had not seen."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    on: str
    value: float
    note: str = ""

    def __str__(self) -> str:
        return f"| {self.what} | {self.on} | {self.value:.4f} | {self.note} |"


@contextmanager
def committee_members(models: Path, role: Role) -> Iterator[list[Model]]:
    """The networks of a committee, each alone; the place of one is the fold that it has not seen."""
    with TemporaryDirectory() as folder:
        members = []
        for fold in range(data.FOLDS):
            write_member(models / role, Path(folder) / str(fold), fold)
            members.append(Model(load_manifest(Path(folder) / str(fold), role), threads=1))
        yield members


def labelled(folder: Path, role: Role, step: int = 1) -> Iterator[data.Slices]:
    """The sets on which a model is measured.

    Parameters
    ----------
    folder: Path
        Holds training/*.npz.
    role: Role
        lungs or lesions.
    step: int
        Only every so manieth slice of the CLAHE patients.
    """
    yield data.hu_slices(folder) if role == "lungs" else data.medseg_slices(folder, data.FINE)
    clahe = data.clahe_slices(folder)
    yield clahe.part(np.arange(len(clahe)) % step == 0)


def segment(lungs: Sequence[Model], lesions: Sequence[Model], slices: data.Slices) -> list[SliceMaps]:
    """Lungs and lesions of slices.

    Parameters
    ----------
    lungs, lesions: Sequence[Model]
        A model for each fold, or one for all; without lesion models no lesions are looked for.
    slices: data.Slices
    """

    def work(index: int) -> SliceMaps:
        fold = int(slices.folds[index])
        if not lesions:
            found = segment_lungs(lungs[fold % len(lungs)], slices.hu[index])
            return SliceMaps(found, np.zeros_like(found))
        return segment_slice(lungs[fold % len(lungs)], lesions[fold % len(lesions)], slices.hu[index])

    numbers = in_parallel(work, range(len(slices)), cores())
    return list(tqdm(numbers, desc=slices.name, total=len(slices), mininterval=10))


def cross_validate(models: Path, role: Role, folder: Path, step: int = 1, worst: bool = False) -> Iterator[Row]:
    """Dice on every labelled slice, of the network that has not seen its patient.

    For lesions the lungs are those of the lung network that has not seen the patient either.

    Parameters
    ----------
    models: Path
    role: Role
        lungs or lesions.
    folder: Path
        Holds training/*.npz.
    step: int
        Only every so manieth slice of the CLAHE patients.
    worst: bool
        Whether to leave pictures of the worst cases in models/training/worst, which git ignores.
    """
    with ExitStack() as stack:
        lungs = stack.enter_context(committee_members(models, "lungs"))
        lesions = stack.enter_context(committee_members(models, "lesions")) if role == "lesions" else []
        clean = clean_shares(models, folder) if lesions else None
        for slices in labelled(folder, role, step):
            maps = segment(lungs, lesions, slices)
            yield from _rows(role, maps, slices, "cross-validated", worst)
            if clean is not None:
                yield _infected(maps, slices, clean)


def measure_shipped(models: Path, folder: Path, step: int = 1) -> Iterator[Row]:
    """Dice of the shipped files on the slices that they were trained on: no measure of unseen data."""
    lungs, lesions = ([Model(load_manifest(models / role, role), threads=1)] for role in SEGMENTERS)
    for role in SEGMENTERS:
        for slices in labelled(folder, role, step):
            maps = segment(lungs, lesions if role == "lesions" else [], slices)
            yield from _rows(role, maps, slices, "seen in training", False)


def _rows(role: Role, maps: list[SliceMaps], slices: data.Slices, how: str, worst: bool) -> Iterator[Row]:
    found = np.stack([each.lungs if role == "lungs" else each.lesions for each in maps])
    truth = slices.lungs if role == "lungs" else slices.lesions
    what, on = f"{role}, Dice", f"{slices.name}, {len(slices)}, {how}"
    values = dice(found > 0, truth > 0)
    pooled = 2 * ((found > 0) & (truth > 0)).sum() / ((found > 0).sum() + (truth > 0).sum())
    yield Row(what, on, float(values.mean()), f"median {np.median(values):.3f}, of all pixels together {pooled:.3f}")
    patients = np.unique(slices.patients)
    if len(patients) < len(slices):
        means = [values[slices.patients == patient].mean() for patient in patients]
        note = f"of {len(patients)} patients, from {min(means):.3f} to {max(means):.3f}"
        yield Row(f"{what}, mean of patients", on, float(np.mean(means)), note)
    both = (found > 0) & (truth > 0) & (truth < data.EITHER)
    if role == "lungs":
        yield Row("lungs, sides mixed up, share of lung", on, float((found != truth)[both].mean()))
    for kind, name in ((1, "ground glass"), (2, "consolidation")):
        if role == "lesions" and (truth == kind).any():
            shown = truth != data.EITHER
            overlap = ((found == kind) & (truth == kind)).sum()
            total = ((found == kind) & shown).sum() + (truth == kind).sum()
            yield Row(f"{name}, Dice of all pixels", on, float(2 * overlap / total))
    if worst:
        WORST.mkdir(exist_ok=True)
        for earlier in WORST.glob(f"{role}_{slices.name.split()[0]}_*.png"):
            earlier.unlink()
        for rank, index in enumerate(np.argsort(values)[:WORST_COUNT]):
            name = f"{role}_{slices.name.split()[0]}_{rank}_dice{values[index]:.2f}.png"
            _picture(slices.hu[index], found[index] > 0, truth[index] > 0).save(WORST / name)


def _picture(hu: NDArray[np.int16], found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Image.Image:
    """A slice with agreement in green, what the model adds in red, what it misses in blue."""
    low, high = data.LUNG_WINDOW_HU
    grey = np.clip((hu - low) / (high - low) * 255, 0, 255)
    picture = np.repeat(grey[..., np.newaxis], 3, axis=2)
    for mask, colour in ((found & truth, (0, 255, 0)), (found & ~truth, (255, 0, 0)), (truth & ~found, (0, 0, 255))):
        picture[mask] = 0.6 * picture[mask] + 0.4 * np.array(colour)
    return Image.fromarray(picture.astype(np.uint8)).resize((512, 512))


def keep_figures(models: Path, role: Role, folder: Path) -> None:
    """Cross-validate a model, and keep the figures beside it."""
    rows = list(cross_validate(models, role, folder, worst=True))
    sha256 = load_manifest(models / role, role).sha256
    content = {"date": str(date.today()), "sha256": sha256, "rows": [asdict(row) for row in rows]}
    (models / role / CROSS_VALIDATION).write_text(json.dumps(content, indent=2) + "\n")


def kept_figures(models: Path, role: Role) -> tuple[str, list[Row]]:
    """When figures were kept, and the figures."""
    content = json.loads((models / role / CROSS_VALIDATION).read_text())
    return content["date"], [Row(**row) for row in content["rows"]]


def line(models: Path, role: Role) -> str:
    """The kept Dice figures of a model in one line, for its manifest."""
    day, rows = kept_figures(models, role)
    means = []
    for row in rows:
        if row.what == f"{role}, Dice":
            name, count, _ = row.on.split(", ")
            means.append(f"{row.value:.3f} on {name} ({count})")
    return f"Dice {' and '.join(means)}, cross-validated by patient, {day}"


def series(folder: Path) -> Iterator[tuple[str, bool, Volume]]:
    """Whole series: name, whether of COVID-19, volume."""
    for name in ("covid-positive", "healthy", "tumour-8mm"):
        if (folder / "series" / name).is_dir():
            yield name, name.startswith("covid"), read_folder(folder / "series" / name)


def measure_series(analyzer: Analyzer, folder: Path) -> Iterator[Row]:
    """Lesion ratio and probability of whole series; of these, the training of the classifier saw the tumours'."""
    own = ((name, volume) for name, _, volume in series(folder))
    for name, volume in chain(own, data.tumours()):
        findings: Findings = analyzer.analyze(volume)
        yield Row("lesion by lung", f"series {name}", findings.measurements.lesion_to_lung_ratio.total)
        yield Row("COVID-19 probability", f"series {name}", findings.covid_probability)


def measure_figures(models: Path) -> Iterator[Row]:
    """The classifier's cross-validated figures, as its training left them."""
    figures = json.loads((models / "covid" / CROSS_VALIDATION).read_text())
    on = "figures, {} COVID-19 and {} other, cross-validated".format(*figures["figures"])
    yield Row("COVID-19 against other, AUC", on, figures["auc"])
    for name, text in (
        ("auc_of_trivial_features", "the same from shape, size and brightness of the picture alone"),
        ("auc_of_lesion_ratio", "the same from the lesion ratio alone"),
        ("auc_of_lesion_distribution", "the same from the lesions' distribution alone"),
    ):
        yield Row(text, on, figures[name])
    for name, probability in figures["probability_of_tumours_unseen"].items():
        yield Row("COVID-19 probability", f"{name}, by units that had not seen it", probability)


def clean_shares(models: Path, folder: Path) -> NDArray[np.float64]:
    """Share of lung that is lesion, of every slice of series without COVID-19 that no training saw."""
    analyzer = Analyzer(models)
    return np.concatenate(
        [
            _shares(findings.lungs, findings.lesions)
            for name, is_covid, volume in series(folder)
            if not is_covid
            for findings in [analyzer.analyze(volume)]
        ]
    )


def _infected(maps: list[SliceMaps], slices: data.Slices, clean: NDArray[np.float64]) -> Row:
    """How well the share of lung that is lesion tells infected slices from clean ones.

    Every slice of the CLAHE patients and of MedSeg is infected, so that clean ones come from other sources.
    """
    shares = _shares(np.stack([each.lungs for each in maps]), np.stack([each.lesions for each in maps]))
    on = f"{slices.name}, {len(slices)}, cross-validated, against {len(clean)} slices of healthy and tumour-8mm"
    return Row("infected against clean slices, AUC", on, auc(shares, clean))


def _shares(lungs: NDArray[np.uint8], lesions: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of lung that is lesion, of every slice that shows lung."""
    area = np.count_nonzero(lungs, axis=(1, 2))
    return (np.count_nonzero(lesions, axis=(1, 2)) / np.maximum(area, 1))[area > 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--step", type=int, default=1, help="take every so manieth slice of the CLAHE patients")
    arguments = parser.parse_args()
    print("| measure | on | value | |\n|---|---|---|---|")
    for row in chain(
        *(cross_validate(arguments.models, role, arguments.data, arguments.step) for role in SEGMENTERS),
        measure_shipped(arguments.models, arguments.data, arguments.step),
        measure_series(Analyzer(arguments.models), arguments.data),
        measure_figures(arguments.models),
    ):
        print(row, flush=True)


if __name__ == "__main__":
    main()
