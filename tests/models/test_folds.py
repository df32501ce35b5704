"""That no patient of the labelled slices is in two folds, as far as images that are alike tell it."""

import numpy as np
import pytest

from covid_ct.inference.preprocessing import resize
from models.training.data import clahe_slices, hu_slices, medseg_slices, whole_series
from tests.models.shipped import DATA

pytestmark = pytest.mark.skipif(not (DATA / "training").is_dir(), reason="the labelled slices are not here")

COARSE = (48, 48)
"""Rows and columns in which images are compared."""

ALIKE = 0.88
"""Correlation above which two coarse images are taken to show one patient. Of different ones it is up to 0.874."""


def likeness(one, other):
    """Correlation of each image of a stack with each of another one."""
    return patterns(one) @ patterns(other).T


def patterns(hu):
    coarse = resize(np.clip(hu, -1200, 200), COARSE).reshape(len(hu), -1)
    coarse -= coarse.mean(axis=1, keepdims=True)
    return coarse / np.linalg.norm(coarse, axis=1, keepdims=True)


@pytest.mark.parametrize("read", [hu_slices, clahe_slices, medseg_slices])
def test_all_slices_of_a_patient_are_in_one_fold(read):
    slices = read(DATA)
    for patient in np.unique(slices.patients):
        assert len(set(slices.folds[slices.patients == patient])) == 1
    counts = np.bincount(slices.folds)
    assert counts.min() > 0.75 * counts.max()


@pytest.mark.parametrize("read", [clahe_slices, medseg_slices])
def test_images_that_are_alike_are_in_one_fold(read):
    slices = read(DATA)
    alike = likeness(slices.hu, slices.hu) > ALIKE
    other_fold = slices.folds[:, np.newaxis] != slices.folds
    other_patient = slices.patients[:, np.newaxis] != slices.patients
    assert not np.argwhere(alike & (other_fold | other_patient)).tolist()


def test_no_slice_that_is_measured_is_in_a_series_that_all_networks_see():
    shown = np.concatenate([series.hu for series in whole_series(DATA)])
    for read in (hu_slices, clahe_slices, medseg_slices):
        # Lungs of different people are this much alike in the HU set, which holds one slice of each.
        assert likeness(read(DATA).hu, shown).max() < 0.95
