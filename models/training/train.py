"""Train one of the three models: python -m models.training.train {lungs,lesions,covid} DATA.

Writes model.onnx, model.json and the curves of the card into the model's folder, and the weights that another
training starts from into models/training/weights (not in the repository).
"""

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.inference.manifest import load_manifest
from covid_ct.inference.session import Model
from covid_ct.series.volume import Volume
from models.training import accuracy, covid, data, plots
from models.training.augment import Geometry
from models.training.export import export_committee, write_manifest
from models.training.maps import Maps, export_classifiers
from models.training.networks import Classifier, Committee, OneForeground, UNet, cut_at
from models.training.segmentation import SEED, Pool, Recipe, prepare, train
from models.training.slices import auc

VERSIONS = {"lungs": "2.3.0", "lesions": "2.5.0", "covid": "2.6.0"}
WEIGHTS = Path(__file__).parent / "weights"

WIDTHS = (16, 32, 64, 96, 128)
LUNGS = Recipe(
    "lungs", Geometry((256, 256), zoom=(0.7, 1.25), prone=0.1), clip_hu=(-1200.0, 200.0), steps=2500, domes=0.25
)
LESIONS = Recipe("lesions", Geometry((192, 256), zoom=(0.85, 1.3), bend=0.015), clip_hu=(-1200.0, 200.0), steps=4700)

LUNG_THRESHOLD = 0.7
"""Probability from which a pixel is lung: best of 0.3 to 0.9 on slices of the HU set and of CLAHE patients that the
training saw."""

LESION_THRESHOLD = 0.39
"""Probability from which a pixel is lesion: half of the Dice that is reached (0.78 on slices that the training saw).

A pixel raises the expected Dice where its probability is above half of that Dice (Lipton et al. 2014, arXiv:1402.1892).
"""

log = logging.getLogger("training")


def lung_pools(folder: Path) -> list[Pool]:
    """What the lung model learns from."""
    series = list(data.whole_series(folder))
    return [
        Pool(data.hu_slices(folder), 6, whole_field=True, equalised=0.2),
        Pool(data.clahe_slices(folder), 7, whole_field=True, favour_small=True, thickened=0.35),
        Pool(data.medseg_slices(folder), 1, whole_field=True, own_lesions=True),
        Pool(data.phantoms(), 1, whole_field=True, own_lesions=True),
        *(Pool(one, 0.7, whole_field=True, equalised=0.35, thickened=0.2) for one in series),
    ]


def lesion_pools(folder: Path) -> list[Pool]:
    """What the lesion model learns from."""
    clahe, series = data.clahe_slices(folder), list(data.whole_series(folder))
    return [
        Pool(clahe, 4, whole_field=False, own_lesions=True, favour_small=True, pasted=0.25),
        Pool(clahe, 3, whole_field=False, own_lesions=True, by_patient=True, pasted=0.25),
        Pool(data.medseg_slices(folder, data.FINE), 12, whole_field=False, own_lesions=True, pasted=0.4),
        Pool(data.phantoms(), 1, whole_field=False, own_lesions=True, by_patient=True),
        *(Pool(one, 0.8, whole_field=False, equalised=0.3, by_patient=True) for one in series),
    ]


def classifier_cases(
    folder: Path, tumours: Sequence[tuple[str, Volume]], pair: tuple[Model, Model]
) -> list[tuple[covid.Cases, float]]:
    """What the classifier learns from, and the share of each source; the two kinds of figures first."""
    series = np.concatenate([one.hu[::3] for one in data.whole_series(folder)])
    sources: list[tuple[str, NDArray[np.int16], bool, float]] = [
        ("COVID-19 figures", covid.figures(folder, "covid"), True, 3.0),
        ("other figures", covid.figures(folder, "other"), False, 3.0),
        ("CLAHE patients", data.clahe_slices(folder).hu[::8], True, 0.6),
        ("MedSeg slices", data.medseg_slices(folder).hu, True, 0.2),
        ("series without COVID-19", series, False, 0.4),
        ("HU slices", data.hu_slices(folder).hu, False, 0.2),
        *((name, data.some_slices(volume), False, 0.8 / len(tumours)) for name, volume in tumours),
    ]
    return [(covid.make_cases(name, images, is_covid, pair), share) for name, images, is_covid, share in sources]


def publish_classifier(
    maps: Maps, classifiers: Sequence[Classifier], calibration: tuple[float, float], target: Path, measured: str
) -> None:
    """Write the ONNX file and the manifest of a classifier."""
    export_classifiers(maps, classifiers, target / "model.onnx")
    slope, intercept = calibration
    write_manifest(
        target,
        role="covid",
        name="Committee of lesion networks on lungs",
        version=VERSIONS["covid"],
        accuracy=measured,
        inputs=asdict(covid.INPUT),
        output={
            "activation": "sigmoid",
            "classes": ["COVID-19"],
            "aggregation": {"slices": 16, "spaced_over": "lesions", "quantile": 0.75},
            "calibration": {"slope": round(slope, 4), "intercept": round(intercept, 4)},
        },
    )


def probability_with(models: Path, volume: Volume, publish: Callable[[Path], None]) -> float:
    """Probability of a series by the models of a folder, but for the classifier, which is published for this alone."""
    with TemporaryDirectory() as temporary:
        for role in ("lungs", "lesions"):
            (Path(temporary) / role).symlink_to((models / role).resolve())
        (Path(temporary) / "covid").mkdir()
        publish(Path(temporary) / "covid")
        return Analyzer(Path(temporary)).analyze(volume).covid_probability


def train_covid(folder: Path, models: Path) -> None:
    tumours = list(data.tumours())
    if not tumours:
        raise SystemExit("The chest CTs of tumours are missing, which the classifier learns from; run `make tumours`.")
    pair = (
        Model(load_manifest(models / "lungs", "lungs"), threads=1),
        Model(load_manifest(models / "lesions", "lesions"), threads=1),
    )
    sources = classifier_cases(folder, tumours, pair)
    positive, negative = (cases for cases, _ in sources[:2])
    maps = Maps(models / "lesions" / "model.onnx", covid.SIZE)
    # The sources as each of the lesion networks sees them.
    seen = list(zip(*(covid.embed(maps, cases, share) for cases, share in sources), strict=True))
    judged = [covid.cross_validate(embedded) for embedded in seen]
    yes, no = (np.mean(logits, axis=0) for logits in zip(*judged, strict=True))
    logits = np.concatenate([yes, no])
    truth = np.arange(len(logits)) < len(yes)
    slope, intercept = covid.platt(logits, truth)

    def publish(target: Path, measured: str = "not measured", without: str = "") -> None:
        """Write the classifier that learned from all sources but the one of a name."""
        known = [number for number, (cases, _) in enumerate(sources) if cases.name != without]
        classifiers = [covid.fit([embedded[number] for number in known]) for embedded in seen]
        publish_classifier(maps, classifiers, (slope, intercept), target, measured)

    trivial = covid.linear_auc(*(covid.trivial_features(folder, kind) for kind in ("covid", "other")))
    lesions = auc(positive.features[:, 0].numpy(), negative.features[:, 0].numpy())
    distribution = covid.linear_auc(positive.features.double().numpy(), negative.features.double().numpy())
    probability = 1 / (1 + np.exp(-slope * logits - intercept))
    figures = {
        "lesions_sha256": pair[1].manifest.sha256,
        "figures": [len(yes), len(no)],
        "auc": round(auc(yes, no), 3),
        "auc_of_trivial_features": round(trivial, 3),
        "auc_of_lesion_ratio": round(lesions, 3),
        "auc_of_lesion_distribution": round(distribution, 3),
        "confusion_at_one_half": {
            "COVID-19 called COVID-19": int((probability[truth] > 0.5).sum()),
            "COVID-19 called other": int((probability[truth] <= 0.5).sum()),
            "other called COVID-19": int((probability[~truth] > 0.5).sum()),
            "other called other": int((probability[~truth] <= 0.5).sum()),
        },
        "probability_of_tumours_unseen": {
            name: round(probability_with(models, volume, partial(publish, without=name)), 3) for name, volume in tumours
        },
    }
    log.info("%s", figures)
    target = models / "covid"
    publish(
        target,
        f"AUC {figures['auc']} for COVID-19 against other figures (UCSD COVID-CT, {len(yes)} and {len(no)}, "
        f"cross-validated, {date.today()}); shape and brightness alone {figures['auc_of_trivial_features']}",
    )
    (target / "cross_validation.json").write_text(json.dumps(figures, indent=2) + "\n")
    plots.reliability(probability, truth, target / "reliability.png")


def untrained_networks() -> list[UNet]:
    """One network for each fold, with random weights."""
    networks = []
    for fold in range(data.FOLDS):
        torch.manual_seed(SEED + fold)
        networks.append(UNet(3, WIDTHS))
    return networks


def lung_networks() -> list[UNet]:
    """The networks of the lungs with new last layers, of which each has not seen the lesion network's own fold."""
    networks = untrained_networks()
    for network, trained in zip(networks, trained_networks("lungs"), strict=True):
        trained.head = network.head
        network.load_state_dict(trained.state_dict())
    return networks


def train_segmentation(recipe: Recipe, folder: Path, models: Path) -> None:
    if recipe.role == "lungs":
        networks, pools = untrained_networks(), lung_pools(folder)
    else:
        networks, pools = lung_networks(), lesion_pools(folder)
    trained, losses = train(networks, pools, recipe)
    WEIGHTS.mkdir(exist_ok=True)
    torch.save([network.state_dict() for network in trained], WEIGHTS / f"{recipe.role}.pt")
    publish(recipe, folder, models)
    describe(recipe, models, "not yet measured")
    accuracy.keep_figures(models, recipe.role, folder)
    describe(recipe, models, accuracy.line(models, recipe.role))
    plots.losses(losses, models / recipe.role / "training.png")


def trained_networks(role: str) -> list[UNet]:
    """The networks that the last training of a role left."""
    file = WEIGHTS / f"{role}.pt"
    if not file.is_file():
        raise SystemExit(f"{file} is missing, which the training of the {role} leaves; run that first.")
    networks = []
    for weights in torch.load(file):
        network = UNet(3, WIDTHS)
        network.load_state_dict(weights)
        networks.append(network.eval())
    return networks


def publish(recipe: Recipe, folder: Path, models: Path) -> None:
    """Write the ONNX file of a role from the weights of its networks."""
    networks = trained_networks(recipe.role)
    for network in networks:
        cut_at(network, LUNG_THRESHOLD if recipe.role == "lungs" else LESION_THRESHOLD)
    # The kinds of lesion are told better by density (see the card), which the analysis does for one class.
    members = networks if recipe.role == "lungs" else [OneForeground(network) for network in networks]
    export_committee(
        Committee(members), recipe.geometry.size, models / recipe.role / "model.onnx", representative(recipe, folder)
    )


def describe(recipe: Recipe, models: Path, measured: str) -> None:
    """Write the manifest of a segmentation network beside its ONNX file."""
    low, high = recipe.clip_hu
    write_manifest(
        models / recipe.role,
        role=recipe.role,
        name=f"Committee of U-Nets for {recipe.role}",
        version=VERSIONS[recipe.role],
        accuracy=measured,
        inputs={
            "dimensions": 2,
            "directions": "LPS",
            "region": "field" if recipe.role == "lungs" else "lungs",
            "region_margin_mm": 0 if recipe.role == "lungs" else 10,
            "outside_lungs_hu": None,
            "spacing_mm": None,
            "size": list(recipe.geometry.size),
            "clip_hu": [low, high],
            "scale_to": [0, 1],
            "standardise": False,
        },
        output={
            "activation": "softmax" if recipe.role == "lungs" else "sigmoid",
            "classes": ["background", "right lung", "left lung"]
            if recipe.role == "lungs"
            else ["background", "lesion"],
            "aggregation": None,
            "calibration": None,
        },
    )


def representative(recipe: Recipe, folder: Path) -> NDArray[np.float32]:
    """Some images of every source of the training, as the network sees them."""
    size = data.SIZE if recipe.role == "lungs" else data.FINE
    hu, clahe, medseg = data.hu_slices(folder), data.clahe_slices(folder), data.medseg_slices(folder, size)
    images = []
    for slices, step in ((clahe, 40), (medseg, 2), (hu, 10), *((one, 12) for one in data.whole_series(folder))):
        if recipe.role == "lesions" and slices.name == hu.name:
            continue
        images.append(prepare(slices.part(np.arange(len(slices)) % step == 0), recipe)[:, 0])
    return torch.cat(images).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("lungs", "lesions", "covid"))
    parser.add_argument("data", type=Path, help="folder that holds training/*.npz")
    parser.add_argument("--models", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--steps", type=int, help="number of batches, for a trial")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.role == "covid":
        train_covid(arguments.data, arguments.models)
    else:
        recipe = LUNGS if arguments.role == "lungs" else LESIONS
        train_segmentation(replace(recipe, steps=arguments.steps or recipe.steps), arguments.data, arguments.models)


if __name__ == "__main__":
    main()
