"""The shipped ONNX files against the figures of their cards, on part of the data that the figures were taken on."""

import json

import pytest

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.inference.manifest import load_manifest
from covid_ct.inference.session import Model
from covid_ct.series.folder import read_folder
from models.training.accuracy import kept_figures, measure_slices
from tests.models.shipped import DATA, MODELS, card_figure

STEP = 6
"""Every so manieth slice of the CLAHE patients is measured; neighbours are much alike."""

TOLERANCE = {"lungs, Dice": 0.01, "lesions, Dice": 0.03}
"""What a part of the slices, or another version of ONNX Runtime, may differ from the card."""

ROLES = ("lungs", "lesions", "covid")


@pytest.mark.parametrize("role", ROLES)
def test_each_model_is_small_and_is_the_manifests(role):
    manifest = load_manifest(MODELS / role, role)
    assert manifest.file.stat().st_size < 5_000_000
    Model(manifest, threads=1)
    assert "non-commercial" in manifest.licence


@pytest.mark.parametrize("role", ROLES)
def test_each_card_names_the_version_of_its_model(role):
    manifest = load_manifest(MODELS / role, role)
    assert f"version {manifest.version}" in (MODELS / role / "README.md").read_text()


def test_the_classifiers_card_holds_what_its_training_left():
    figures = json.loads((MODELS / "covid" / "cross_validation.json").read_text())
    assert card_figure("covid", "COVID-19 against other, AUC", "figures") == pytest.approx(figures["auc"], abs=5e-4)


@pytest.mark.parametrize("role", ["lungs", "lesions"])
def test_the_cards_hold_what_their_models_reached_on_slices_not_yet_seen(role):
    _, _, rows = kept_figures(MODELS, role)
    assert rows
    for row in rows:
        assert card_figure(role, row.what, row.on) == pytest.approx(row.value, abs=5e-4)


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


@pytest.fixture(scope="module")
def measured():
    lungs, lesions = (Model(load_manifest(MODELS / role, role), threads=2) for role in ("lungs", "lesions"))
    return list(measure_slices(lungs, lesions, DATA, STEP))


@needs_data
@pytest.mark.parametrize(
    ("measure", "data"),
    [
        ("lungs, Dice", "HU slices"),
        ("lungs, Dice", "CLAHE patients"),
        ("lesions, Dice", "MedSeg slices"),
        ("lesions, Dice", "CLAHE patients"),
    ],
)
def test_the_shipped_files_do_no_worse_than_their_cards_say(measured, measure, data):
    # The last round of training saw these slices: a bound on what the export and ONNX Runtime do, no new measurement.
    value = next(row.value for row in measured if row.what == measure and row.on.startswith(data))
    assert value >= card_figure(measure.split(",", maxsplit=1)[0], measure, data) - TOLERANCE[measure]


@pytest.fixture(scope="module")
def findings():
    analyzer = Analyzer(MODELS, threads=2)
    names = ("covid-positive", "healthy", "tumour-8mm")
    return {name: analyzer.analyze(read_folder(DATA / "series" / name)) for name in names}


@needs_data
def test_covid_19_is_ranked_above_healthy_and_tumour(findings):
    others = [findings[name].covid_probability for name in ("healthy", "tumour-8mm")]
    assert findings["covid-positive"].covid_probability > max(others)


@needs_data
def test_a_healthy_chest_has_hardly_any_lesion(findings):
    assert findings["healthy"].measurements.lesion_to_lung_ratio.total < 0.003
