"""The shipped ONNX files against the figures of their cards, on part of the data that the figures were taken on."""

import json

import pytest

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.inference.manifest import load_manifest
from covid_ct.inference.session import Model
from covid_ct.series.folder import read_folder
from models.training.accuracy import cross_validate, kept_figures, measure_shipped
from tests.models.shipped import DATA, MODELS, card_figure, figures_of_classifier

STEP = 6
"""Every so manieth slice of the CLAHE patients is measured; neighbours are much alike."""

TOLERANCE = {"lungs": 0.01, "lesions": 0.03}
"""What a part of the slices, or another version of ONNX Runtime, may differ from the card."""

ROLES = ("lungs", "lesions", "covid")


@pytest.mark.parametrize("role", ROLES)
def test_each_model_is_small_and_is_the_manifests(role):
    manifest = load_manifest(MODELS / role, role)
    assert manifest.file.stat().st_size < 6_000_000
    Model(manifest, threads=1)
    assert "non-commercial" in manifest.licence


@pytest.mark.parametrize("role", ROLES)
def test_each_card_names_the_version_of_its_model(role):
    manifest = load_manifest(MODELS / role, role)
    assert f"version {manifest.version}" in (MODELS / role / "README.md").read_text()


def test_the_classifiers_card_holds_what_its_training_left():
    figures = figures_of_classifier()
    assert figures["lesions_sha256"] == load_manifest(MODELS / "lesions", "lesions").sha256
    assert card_figure("covid", "COVID-19 against other, AUC", "figures") == pytest.approx(figures["auc"], abs=5e-4)


def test_the_classifiers_card_holds_what_tumours_had_that_it_had_not_seen():
    figures = figures_of_classifier()
    assert len(figures["probability_of_tumours_unseen"]) == 3
    for name, probability in figures["probability_of_tumours_unseen"].items():
        assert card_figure("covid", "COVID-19 probability", name) == pytest.approx(probability, abs=5e-4)


@pytest.mark.parametrize("role", ["lungs", "lesions"])
def test_the_cards_hold_what_the_cross_validation_left(role):
    _, rows = kept_figures(MODELS, role)
    assert rows
    for row in rows:
        assert card_figure(role, row.what, row.on) == pytest.approx(row.value, abs=5e-4)


@pytest.mark.parametrize("role", ["lungs", "lesions"])
def test_the_cross_validation_is_that_of_the_shipped_file(role):
    kept = json.loads((MODELS / role / "cross_validation.json").read_text())
    assert kept["sha256"] == load_manifest(MODELS / role, role).sha256


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")

FIGURES = [
    ("lungs", "HU slices"),
    ("lungs", "CLAHE patients"),
    ("lesions", "MedSeg slices"),
    ("lesions", "CLAHE patients"),
]


@pytest.fixture(scope="module")
def cross_validated():
    return [row for role in ("lungs", "lesions") for row in cross_validate(MODELS, role, DATA, STEP)]


@pytest.fixture(scope="module")
def shipped():
    return list(measure_shipped(MODELS, DATA, STEP))


def value_of(rows, role, data):
    return next(row.value for row in rows if row.what == f"{role}, Dice" and row.on.startswith(data))


@needs_data
@pytest.mark.parametrize(("role", "data"), FIGURES)
def test_each_patient_is_found_by_the_network_that_has_not_seen_it_as_the_card_says(cross_validated, role, data):
    expected = card_figure(role, f"{role}, Dice", data)
    assert value_of(cross_validated, role, data) == pytest.approx(expected, abs=TOLERANCE[role])


@needs_data
@pytest.mark.parametrize(("role", "data"), FIGURES)
def test_all_networks_together_do_no_worse_than_each_alone(shipped, role, data):
    # The shipped files saw these slices: a bound on what the export and ONNX Runtime do, no new measurement.
    assert value_of(shipped, role, data) >= card_figure(role, f"{role}, Dice", data) - TOLERANCE[role]


@pytest.fixture(scope="module")
def findings():
    analyzer = Analyzer(MODELS, threads=2)
    names = ("covid-positive", "healthy", "tumour-8mm")
    return {name: analyzer.analyze(read_folder(DATA / "series" / name)) for name in names}


@needs_data
def test_covid_19_is_ranked_above_healthy_and_tumour(findings):
    others = [findings[name].covid_probability for name in ("healthy", "tumour-8mm")]
    others += figures_of_classifier()["probability_of_tumours_unseen"].values()
    assert findings["covid-positive"].covid_probability > max(others)


@needs_data
def test_a_healthy_chest_has_hardly_any_lesion(findings):
    assert findings["healthy"].measurements.lesion_to_lung_ratio.total < 0.003
