"""Real series as other scanners and techniques would show them: COVID-19 stays ranked above healthy and tumour."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.analysis.findings import Findings
from covid_ct.results.pictures import in_lung_window
from covid_ct.series.folder import read_folder
from covid_ct.series.volume import AIR_HU, Volume
from models.training.data import picture_to_hu, tumours
from tests.models.shipped import DATA, MODELS, figures_of_classifier

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")]

SERIES = ("covid-positive", "healthy", "tumour-8mm")

THICK_MM = 8.0
BESIDE = 128
"""Pixels of air beside each edge of an image whose field is wider."""


def with_hu(volume: Volume, hu: np.ndarray) -> Volume:
    return replace(volume, hu=np.clip(hu, AIR_HU, 3000).astype(np.int16))


def blurred(volume: Volume) -> np.ndarray:
    return ndimage.gaussian_filter(volume.hu.astype(np.float32), (0, 1.2, 1.2))


def thick(volume: Volume) -> Volume:
    """Means of so many neighbouring slices that they are about so thick."""
    step = max(1, round(THICK_MM / volume.spacing[0]))
    count = len(volume.hu) // step
    means = volume.hu[: count * step].reshape(count, step, *volume.hu.shape[1:]).mean(axis=1)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 0] * (step - 1) / 2
    affine[:3, 0] *= step
    return Volume(means.astype(np.int16), affine, volume.headers[: count * step : step])


def wide_field(volume: Volume) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] -= BESIDE * (affine[:3, 1] + affine[:3, 2])
    beside = ((0, 0), (BESIDE, BESIDE), (BESIDE, BESIDE))
    return replace(volume, hu=np.pad(volume.hu, beside, constant_values=AIR_HU), affine=affine)


def coarse(volume: Volume) -> Volume:
    affine = volume.affine @ np.diag([1.0, 2.0, 2.0, 1.0])
    return replace(volume, hu=np.ascontiguousarray(volume.hu[:, ::2, ::2]), affine=affine)


def turned(volume: Volume) -> Volume:
    images = [ndimage.rotate(image, 15, reshape=False, order=1, cval=AIR_HU) for image in volume.hu]
    return with_hu(volume, np.stack(images))


def breathing(volume: Volume) -> Volume:
    """The mean of each image and itself, moved by six rows."""
    return with_hu(volume, (volume.hu.astype(np.int32) + np.roll(volume.hu, 6, axis=1)) // 2)


def turned_over(volume: Volume) -> Volume:
    """As recorded for a patient who lay the other way: the spine where the breastbone should be."""
    return replace(volume, hu=np.ascontiguousarray(volume.hu[:, ::-1, ::-1]))


def taken_badly(volume: Volume) -> Iterator[tuple[str, Volume]]:
    yield "breathing", breathing(volume)
    yield "turned over", turned_over(volume)


def others_see_it(volume: Volume) -> Iterator[tuple[str, Volume]]:
    noise = np.random.default_rng(0).normal(0, 120, volume.hu.shape)
    yield "noise of 120 HU", with_hu(volume, volume.hu + noise)
    yield "sharp kernel", with_hu(volume, 2.0 * volume.hu - blurred(volume))
    yield "soft kernel", with_hu(volume, blurred(volume))
    yield "40 HU more", with_hu(volume, volume.hu + 40)
    yield "40 HU less", with_hu(volume, volume.hu - 40)
    yield "8 mm", thick(volume)
    yield "wide field", wide_field(volume)
    yield "256x256", coarse(volume)
    yield "turned", turned(volume)
    yield "8-bit lung window", with_hu(volume, picture_to_hu(in_lung_window(volume.hu)))


def milder(volume: Volume, findings: Findings, share: float) -> Volume:
    """The slices without lesion, and so many of those with some that they are a share of all that show lung."""
    lung, lesion = (np.count_nonzero(labels, axis=(1, 2)) for labels in (findings.lungs, findings.lesions))
    others = np.flatnonzero(lesion == 0)
    with_lesion = np.flatnonzero(lesion)
    count = round(share / (1 - share) * np.count_nonzero(lung[others]))
    kept = with_lesion[((np.arange(count) + 0.5) / count * len(with_lesion)).astype(int)]
    chosen = np.sort(np.concatenate([others, kept]))
    return Volume(volume.hu[chosen], volume.affine, tuple(volume.headers[index] for index in chosen))


def findings_of(
    analyzer: Analyzer, volume: Volume, changes: Callable[[Volume], Iterator[tuple[str, Volume]]]
) -> dict[str, tuple[float, float]]:
    """Probability and lesion by lung of a series, as each change shows it."""
    found = {}
    for how, seen in changes(volume):
        findings = analyzer.analyze(seen)
        found[how] = findings.covid_probability, findings.measurements.lesion_to_lung_ratio.total
    return found


@pytest.fixture(scope="module")
def analyzer() -> Analyzer:
    return Analyzer(MODELS, threads=2)


@pytest.fixture(scope="module")
def volumes() -> dict[str, Volume]:
    return {name: read_folder(DATA / "series" / name) for name in SERIES}


@pytest.fixture(scope="module")
def as_they_are(analyzer, volumes) -> dict[str, Findings]:
    return {name: analyzer.analyze(volume) for name, volume in volumes.items()}


def test_covid_19_is_ranked_above_healthy_and_tumour_however_they_are_taken(analyzer, volumes):
    found = {name: findings_of(analyzer, volume, others_see_it) for name, volume in volumes.items()}
    lowest = np.min(list(found["covid-positive"].values()), axis=0)
    highest = np.max([*found["healthy"].values(), *found["tumour-8mm"].values()], axis=0)
    assert (lowest > highest).all(), found
    # Of larger tumours more is marked than of a mild pneumonia.
    larger = {name: findings_of(analyzer, volume, others_see_it) for name, volume in tumours()}
    assert all(probability < lowest[0] for seen in larger.values() for probability, _ in seen.values()), larger


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3])
def test_covid_19_is_ranked_above_the_others_however_few_slices_show_it(analyzer, volumes, as_they_are, share):
    mild = milder(volumes["covid-positive"], as_they_are["covid-positive"], share)
    others = [as_they_are[name].covid_probability for name in ("healthy", "tumour-8mm")]
    others += figures_of_classifier()["probability_of_tumours_unseen"].values()
    assert analyzer.analyze(mild).covid_probability > max(others)


def test_covid_19_is_ranked_above_the_others_where_all_are_taken_badly(analyzer, volumes):
    """Not above those that are taken well: these two changes take the probability of a series further."""
    positive, *others = (findings_of(analyzer, volume, taken_badly) for volume in volumes.values())
    for how, (probability, ratio) in positive.items():
        for other in others:
            assert probability > other[how][0], (how, positive, others)
            assert ratio > other[how][1], (how, positive, others)
