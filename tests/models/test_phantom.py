"""The shipped models on a phantom whose truth is known: another one than those of the training."""

import numpy as np
import pytest

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.analysis.findings import LesionKind, Side
from covid_ct.phantom import Lesions, PhantomOptions, make_phantom
from tests.models.shipped import MODELS, volume_of


@pytest.fixture(scope="module")
def analyzer():
    return Analyzer(MODELS, threads=2)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(PhantomOptions(seed=7, slices=50, spacing_mm=6.0, matrix=256))


@pytest.fixture(scope="module")
def findings(analyzer, phantom):
    return analyzer.analyze(volume_of(phantom))


def dice(found, truth):
    return 2.0 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth))


@pytest.mark.parametrize("side", Side)
def test_each_lung_is_found_on_its_side(findings, phantom, side):
    assert dice(findings.lungs == side, phantom.truth.lungs == side) > 0.97


def test_volumes_and_ratio_are_the_truth(findings, phantom):
    truth = phantom.truth
    measured = findings.measurements
    assert measured.lung_volume_ml.total == pytest.approx(truth.lung_volume_ml(), rel=0.03)
    ratio = truth.lesion_volume_ml() / truth.lung_volume_ml()
    assert measured.lesion_to_lung_ratio.total == pytest.approx(ratio, abs=0.015)


def test_consolidated_lung_is_lung(findings, phantom):
    """Thresholds cut it away."""
    consolidated = phantom.truth.lesions == LesionKind.CONSOLIDATION
    assert np.count_nonzero(findings.lungs[consolidated]) > 0.9 * np.count_nonzero(consolidated) > 0


def test_lesions_lie_where_they_are(findings, phantom):
    assert dice(findings.lesions > 0, phantom.truth.lesions > 0) > 0.75


def test_a_phantom_without_lesions_has_hardly_any(analyzer):
    phantom = make_phantom(PhantomOptions(seed=8, slices=40, spacing_mm=7.0, matrix=256, lesions=Lesions.NONE))
    assert analyzer.analyze(volume_of(phantom)).measurements.lesion_to_lung_ratio.total < 0.003
