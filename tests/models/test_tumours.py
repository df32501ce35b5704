"""Chest CTs of tumours with sharp kernels, of which the training of the classifier saw some slices."""

import pytest

from covid_ct.analysis.analyzer import Analyzer
from models.training.data import tumours
from tests.models.shipped import MODELS, needs_tumours

pytestmark = [pytest.mark.slow, needs_tumours]


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return Analyzer(MODELS, threads=2)


@pytest.fixture(scope="module")
def found(analyzer):
    findings = {name: analyzer.analyze(volume) for name, volume in tumours()}
    assert set(findings) == {"Lung_Dx-A0001", "RIDER-1129164940", "TCGA-34-2605"}
    return findings


def test_tumours_are_not_called_covid_19(found):
    assert max(findings.covid_probability for findings in found.values()) < 0.5


def test_the_sharp_kernel_is_told(found):
    for findings in found.values():
        assert any("sharp kernel" in warning for warning in findings.warnings)
