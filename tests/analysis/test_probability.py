import math

import numpy as np
import pytest

from covid_ct.analysis.distribution import distribution
from covid_ct.analysis.findings import LesionKind, Side
from covid_ct.analysis.probability import aggregate, covid_probability, evenly_spaced, slice_weights
from covid_ct.inference.manifest import FEATURES, Calibration, load_manifest
from covid_ct.inference.scan import Scan
from covid_ct.inference.session import Model
from tests.inference import tiny_models

SHAPE = (20, 64, 64)


def test_the_quantile_of_the_logits_is_calibrated():
    probabilities = np.array([0.1, 0.2, 0.9], np.float32)
    assert aggregate(probabilities, 0.5, None) == pytest.approx(0.2)
    assert aggregate(probabilities, 1.0, None) == pytest.approx(0.9)
    calibrated = aggregate(probabilities, 0.5, Calibration(2.0, 1.0))
    assert calibrated == pytest.approx(1 / (1 + math.exp(-(2 * math.log(0.25) + 1))), rel=1e-5)


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_a_certain_network_makes_no_infinity(certain):
    value = aggregate(np.array([certain], np.float32), 0.5, Calibration(1e6, 0.0))
    assert value == pytest.approx(certain, abs=1e-6)


def test_slices_are_evenly_spaced():
    assert evenly_spaced(np.array([0.0] * 10 + [1.0] * 10 + [0.0]), 2).tolist() == [12, 17]
    assert evenly_spaced(np.ones(3), 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert evenly_spaced(np.ones(5), 5).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced(np.array([0.0, 1.0, 0.0, 3.0, 0.0]), 4).tolist() == [1, 3, 3, 3]


def test_slices_spaced_over_the_lungs_are_those_with_lung(lungs):
    lungs[:4] = 0
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[10, 20:30, 10:20] = LesionKind.GROUND_GLASS
    assert slice_weights(lungs, lesions, "lungs").tolist() == [0] * 4 + [1] * 16


def test_slices_spaced_over_lesions_are_where_lesions_are(lungs):
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[10:12, 12:48, 7:28] = LesionKind.GROUND_GLASS
    lesions[15, 12:48, 7:28] = LesionKind.CONSOLIDATION
    chosen = evenly_spaced(slice_weights(lungs, lesions, "lesions"), 12).tolist()
    assert [chosen.count(index) for index in (10, 11, 15)] == [4, 4, 4]


@pytest.mark.parametrize("pixels", [0, 3])
def test_slices_spaced_over_hardly_any_lesion_are_all_over_the_lungs(lungs, pixels):
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[10, 20, 10 : 10 + pixels] = LesionKind.GROUND_GLASS
    chosen = evenly_spaced(slice_weights(lungs, lesions, "lesions"), 10).tolist()
    assert len(set(chosen)) == 10


@pytest.mark.parametrize(("spaced_over", "expected"), [("lungs", 0.5), ("lesions", 1 / (1 + math.exp(-1)))])
def test_a_series_is_judged_by_the_slices_that_its_manifest_wants(tmp_path, lungs, spaced_over, expected):
    """The network answers with the share of consolidation, which one slice of twenty shows."""
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[7, 12:48, 7:28] = LesionKind.CONSOLIDATION
    content = tiny_models.manifest("covid", features=["consolidation_share", "lower"])
    content["output"]["aggregation"] = {"slices": 16, "spaced_over": spaced_over, "quantile": 0.5}
    hu = np.full(SHAPE, -800, np.int16)
    assert classify(tmp_path, content, tiny_models.covid_by_feature(2), hu, lungs, lesions) == pytest.approx(expected)


def features(lungs, lesions):
    return dict(zip(FEATURES, distribution(lungs, lesions).tolist(), strict=True))


@pytest.fixture
def lungs():
    array = np.zeros(SHAPE, np.uint8)
    array[:, 10:50, 5:30], array[:, 10:50, 35:60] = Side.RIGHT, Side.LEFT
    return array


def test_a_peripheral_posterior_lesion_of_one_side(lungs):
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[2:6, 46:50, 5:15] = LesionKind.GROUND_GLASS
    assert features(lungs, lesions) == pytest.approx(
        {
            "lesion_ratio": 4 * 4 * 10 / (20 * 40 * 50),
            "consolidation_share": 0,
            "bilateral": 0,
            "peripheral": 1,
            "posterior": 1,
            "lower": 1,
            "multifocal": 0,
        }
    )


def test_central_lesions_of_both_sides(lungs):
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[12:16, 22:28, 15:20] = LesionKind.GROUND_GLASS
    lesions[12:14, 22:28, 45:50] = LesionKind.CONSOLIDATION
    assert features(lungs, lesions) == pytest.approx(
        {
            "lesion_ratio": 180 / 40000,
            "consolidation_share": 1 / 3,
            "bilateral": 0.5,
            "peripheral": 0,
            "posterior": 0,
            "lower": 0,
            "multifocal": 1 / 3,
        }
    )


def test_no_lesion_is_all_zero(lungs):
    assert not distribution(lungs, np.zeros(SHAPE, np.uint8)).any()
    assert not distribution(np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)).any()


def classify(folder, content, network, hu, lungs, lesions):
    tiny_models.write(folder, content, network)
    model = Model(load_manifest(folder / "covid", "covid"), threads=1)
    return covid_probability(model, Scan(hu, (5, 1, 1), lungs), lesions, lambda fraction: None)


def test_slices_outside_the_lungs_and_tissue_around_them_do_not_count(tmp_path, lungs):
    lungs[:8] = 0
    hu = np.where(lungs > 0, -800, 3000).astype(np.int16)
    content = tiny_models.manifest("covid", model_input={"outside_lungs_hu": -800, "region_margin_mm": 0})
    # The rim of the dilated mask is bone of 600 HU (clipped), the rest is what the network is to see.
    value = classify(tmp_path, content, tiny_models.covid_by_mean(), hu, lungs, np.zeros(SHAPE, np.uint8))
    share = 40 * 4 / (40 * 55)  # two pixels of rim on either side of each lung's inner edge
    assert value == pytest.approx(1 / (1 + math.exp(-14 * share)), rel=0.02)


def test_a_slice_gets_its_own_features(tmp_path, lungs):
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[:15, 20:30, 10:20] = LesionKind.CONSOLIDATION
    content = tiny_models.manifest("covid", features=["consolidation_share", "lower"])
    content["output"]["aggregation"] = {"slices": 20, "quantile": 0.0}
    hu = np.full(SHAPE, -800, np.int16)
    network = tiny_models.covid_by_feature(2)
    assert classify(tmp_path, content, network, hu, lungs, lesions) == pytest.approx(0.5)
    content["output"]["aggregation"]["quantile"] = 1.0
    assert classify(tmp_path, content, network, hu, lungs, lesions) == pytest.approx(1 / (1 + math.exp(-1)))


def test_a_volume_is_classified_at_once(tmp_path, lungs):
    content = tiny_models.manifest(
        "covid",
        model_input={"dimensions": 3, "size": [8, 16, 16], "axes": "xyz", "directions": "RAS"},
        output={"aggregation": None},
    )
    hu = np.full(SHAPE, -750, np.int16)
    value = classify(tmp_path, content, tiny_models.covid_by_mean(3), hu, lungs, np.zeros(SHAPE, np.uint8))
    assert value == pytest.approx(1 / (1 + math.exp(-0.5)), rel=1e-4)
    content["output"]["calibration"] = {"slope": 2.0, "intercept": 1.0}
    value = classify(tmp_path, content, tiny_models.covid_by_mean(3), hu, lungs, np.zeros(SHAPE, np.uint8))
    assert value == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-4)
