"""Measure the shipped ONNX files on the labelled data: python -m models.training.accuracy DATA [--models FOLDER].

Lungs and lesions are measured through the product's own pre-processing on whole patients that the training did not see
(models/*/held_back.json, written before a last round sees them too); the classifier's figures on single figures are
cross-validated when it is trained (models/covid/cross_validation.json).
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.analysis.findings import Findings
from covid_ct.inference.manifest import Role, load_manifest
from covid_ct.inference.session import Model
from covid_ct.series.folder import read_folder
from covid_ct.series.volume import Volume
from models.training import data
from models.training.slices import auc, dice, segment_slice

WORST = Path(__file__).parent / "worst"
WORST_COUNT = 10

SEGMENTERS: tuple[Role, ...] = ("lungs", "lesions")

HELD_BACK = "held_back.json"
"""Figures that a model reached on slices while it had not seen them."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    on: str
    value: float
    note: str = ""

    @property
    def role(self) -> Role:
        """The model that is measured."""
        return "lungs" if self.what.startswith(("lungs", "sides")) else "lesions"

    def __str__(self) -> str:
        return f"| {self.what} | {self.on} | {self.value:.4f} | {self.note} |"


def every(slices: data.Slices, step: int) -> data.Slices:
    """Every so manieth slice."""
    return slices.part(np.arange(len(slices)) % step == 0)


def measure_slices(lungs: Model, lesions: Model, folder: Path, step: int = 1, worst: bool = False) -> Iterator[Row]:
    """Dice on the held-back slices of the three labelled sets.

    Parameters
    ----------
    lungs, lesions: Model
    folder: Path
        Holds training/*.npz.
    step: int
        Only every so manieth slice of the CLAHE patients.
    worst: bool
        Whether to leave pictures of the worst cases in models/training/worst, which git ignores.
    """
    for slices in (
        data.hu_slices(folder),
        data.medseg_slices(folder),
        every(data.clahe_slices(folder, held_back=True), step),
    ):
        held = slices.part(slices.held_back)
        maps = [segment_slice(lungs, lesions, hu) for hu in tqdm(held.hu, desc=slices.name, mininterval=10)]
        if (held.lungs != data.IGNORED).all():
            found = np.stack([each.lungs for each in maps])
            yield from _rows("lungs, Dice", found, held, worst)
        if (held.lesions != data.IGNORED).all():
            found = np.stack([each.lesions for each in maps])
            yield from _rows("lesions, Dice", found, held, worst)


def _rows(what: str, found: NDArray[np.uint8], held: data.Slices, worst: bool) -> Iterator[Row]:
    truth = held.lungs if what.startswith("lungs") else held.lesions
    on = f"{held.name}, {len(held)} held back"
    values = dice(found > 0, truth > 0)
    pooled = 2 * ((found > 0) & (truth > 0)).sum() / ((found > 0).sum() + (truth > 0).sum())
    yield Row(what, on, float(values.mean()), f"median {np.median(values):.3f}, of all pixels together {pooled:.3f}")
    patients = np.unique(held.patients)
    if len(patients) < len(held):
        for patient in patients:
            chosen = held.patients == patient
            yield Row(what, f"of these, the patient from slice {patient}", float(values[chosen].mean()))
    both = (found > 0) & (truth > 0) & (truth < data.EITHER)
    if both.any() and what.startswith("lungs"):
        yield Row("sides mixed up, share of lung", on, float((found != truth)[both].mean()))
    for kind, name in ((1, "ground glass"), (2, "consolidation")):
        if what.startswith("lesions") and (truth == kind).any():
            shown = truth != data.EITHER
            overlap = ((found == kind) & (truth == kind)).sum()
            total = ((found == kind) & shown).sum() + (truth == kind).sum()
            yield Row(f"{name}, Dice of all pixels", on, float(2 * overlap / total))
    if worst:
        WORST.mkdir(exist_ok=True)
        for rank, index in enumerate(np.argsort(values)[:WORST_COUNT]):
            name = f"{what.split(',', maxsplit=1)[0]}_{held.name.split()[0]}_{rank}_dice{values[index]:.2f}.png"
            _picture(held.hu[index], found[index] > 0, truth[index] > 0).save(WORST / name)


def _picture(hu: NDArray[np.int16], found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Image.Image:
    """A slice with agreement in green, what the model adds in red, what it misses in blue."""
    low, high = data.LUNG_WINDOW_HU
    grey = np.clip((hu - low) / (high - low) * 255, 0, 255)
    picture = np.repeat(grey[..., np.newaxis], 3, axis=2)
    for mask, colour in ((found & truth, (0, 255, 0)), (found & ~truth, (255, 0, 0)), (truth & ~found, (0, 0, 255))):
        picture[mask] = 0.6 * picture[mask] + 0.4 * np.array(colour)
    return Image.fromarray(picture.astype(np.uint8)).resize((512, 512))


def keep_figures(models: Path, role: Role, folder: Path) -> None:
    """Measure a model on slices that it has not seen, and keep the figures beside it."""
    lungs, lesions = (Model(load_manifest(models / name, name)) for name in SEGMENTERS)
    rows = [row for row in measure_slices(lungs, lesions, folder, worst=True) if row.role == role]
    if role == "lesions":
        rows += infected(Analyzer(models), lungs, lesions, folder)
    sha256 = load_manifest(models / role, role).sha256
    content = {"date": str(date.today()), "sha256": sha256, "rows": [asdict(row) for row in rows]}
    (models / role / HELD_BACK).write_text(json.dumps(content, indent=2) + "\n")


def kept_figures(models: Path, role: Role) -> tuple[str, str, list[Row]]:
    """When figures were kept, the sha256 of the model measured, and the figures."""
    content = json.loads((models / role / HELD_BACK).read_text())
    return content["date"], content["sha256"], [Row(**row) for row in content["rows"]]


def line(models: Path, role: Role) -> str:
    """The kept Dice figures of a model in one line, for its manifest."""
    day, _, rows = kept_figures(models, role)
    means = [f"{row.value:.3f} on {row.on}" for row in rows if row.what == f"{role}, Dice" and "held back" in row.on]
    return f"Dice {', '.join(means)}, {day}"


def series(folder: Path) -> Iterator[tuple[str, bool, Volume]]:
    """Whole series: name, whether of COVID-19, volume."""
    for name in ("covid-positive", "healthy", "tumour-8mm"):
        if (folder / "series" / name).is_dir():
            yield name, name.startswith("covid"), read_folder(folder / "series" / name)


def measure_series(analyzer: Analyzer, folder: Path) -> Iterator[Row]:
    """Lesion ratio and probability of whole series that no training saw."""
    for name, _, volume in series(folder):
        findings: Findings = analyzer.analyze(volume)
        yield Row("lesion by lung", f"series {name}", findings.measurements.lesion_to_lung_ratio.total)
        yield Row("COVID-19 probability", f"series {name}", findings.covid_probability)


def measure_figures(models: Path) -> Iterator[Row]:
    """The classifier's cross-validated figures, as its training left them."""
    figures = json.loads((models / "covid" / "cross_validation.json").read_text())
    on = "figures, {} COVID-19 and {} other, cross-validated".format(*figures["figures"])
    yield Row("COVID-19 against other, AUC", on, figures["auc"])
    for name, text in (
        ("auc_of_trivial_features", "the same from shape, size and brightness of the picture alone"),
        ("auc_of_lesion_ratio", "the same from the lesion ratio alone"),
        ("auc_of_lesion_distribution", "the same from the lesions' distribution alone"),
    ):
        yield Row(text, on, figures[name])


def infected(analyzer: Analyzer, lungs: Model, lesions: Model, folder: Path) -> Iterator[Row]:
    """How well the share of lung that is lesion tells infected slices from clean ones.

    Every slice of the CLAHE patients and of MedSeg is infected, so that clean ones come from series without COVID-19
    that no training saw.
    """
    clean = [
        _shares(findings.lungs, findings.lesions)
        for name, is_covid, volume in series(folder)
        if not is_covid
        for findings in [analyzer.analyze(volume)]
    ]
    for slices in (data.medseg_slices(folder), data.clahe_slices(folder, held_back=True)):
        held = slices.part(slices.held_back)
        maps = [segment_slice(lungs, lesions, hu) for hu in tqdm(held.hu, desc=slices.name, mininterval=10)]
        shares = _shares(np.stack([each.lungs for each in maps]), np.stack([each.lesions for each in maps]))
        on = f"{held.name}, {len(held)} held back, against {sum(map(len, clean))} slices of healthy and tumour-8mm"
        yield Row("infected against clean slices, AUC", on, auc(shares, np.concatenate(clean)))


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
    lungs, lesions = (Model(load_manifest(arguments.models / role, role)) for role in SEGMENTERS)
    print("| measure | on | value | |\n|---|---|---|---|")
    for role in SEGMENTERS:
        for row in kept_figures(arguments.models, role)[2]:
            print(row, flush=True)
    for row in measure_slices(lungs, lesions, arguments.data, arguments.step):
        if load_manifest(arguments.models / row.role, row.role).sha256 != kept_figures(arguments.models, row.role)[1]:
            print(replace(row, on=f"shipped file, which saw these slices: {row.on}"), flush=True)
    for row in measure_series(Analyzer(arguments.models), arguments.data):
        print(row, flush=True)
    for row in measure_figures(arguments.models):
        print(row, flush=True)


if __name__ == "__main__":
    main()
