import copy
import dataclasses
import itertools
import json
import shutil
import threading

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from covid_ct.analysis.analyzer import Analyzer
from covid_ct.analysis.findings import LesionKind, Side
from covid_ct.analysis.measurements import measure
from covid_ct.errors import AnalysisCancelled, ModelError, Reason, SeriesRefused
from covid_ct.phantom import Lesions, PhantomOptions, Position, make_phantom
from covid_ct.series.volume import Volume
from tests.analysis import chest
from tests.inference import tiny_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Networks of one convolution, which tell tissue by density at a pixel for every pixel of the chest."""
    folder = tmp_path_factory.mktemp("models")
    size = list(chest.SHAPE[1:])
    tiny_models.write(
        folder, tiny_models.manifest("lungs", model_input={"size": size}), tiny_models.lungs_by_density(size[1])
    )
    content = tiny_models.manifest("lesions", model_input={"region": "field", "size": size})
    tiny_models.write(folder, content, tiny_models.lesions_by_density())
    content = tiny_models.manifest("covid", model_input={"outside_lungs_hu": -1000})
    tiny_models.write(folder, content, tiny_models.covid_by_mean())
    return folder


@pytest.fixture(scope="module")
def analyzer(folder):
    return Analyzer(folder, threads=1)


def test_the_chest_is_measured(analyzer):
    volume = chest.volume()
    findings = analyzer.analyze(volume)
    values = findings.measurements
    assert values.lung_volume_ml.right == pytest.approx(chest.millilitres(chest.RIGHT), rel=0.02)
    # The network by density takes the large consolidation for no lung; as a hole in it, it is filled.
    assert values.lung_volume_ml.left == pytest.approx(chest.millilitres(chest.LEFT), rel=0.02)
    assert values.lung_volume_ml.total == pytest.approx(values.lung_volume_ml.right + values.lung_volume_ml.left)
    glass, solid = chest.millilitres(chest.GLASS), chest.millilitres(chest.SOLID)
    assert values.ground_glass_volume_ml.right == pytest.approx(glass, rel=0.05)
    assert values.consolidation_volume_ml.left == pytest.approx(solid, rel=0.05)
    assert values.lesion_to_lung_ratio.right == pytest.approx(glass / chest.millilitres(chest.RIGHT), rel=0.05)
    assert [lesion.side for lesion in values.lesions] == ["right", "left"]
    assert 0 < findings.covid_probability < 1
    assert findings.warnings == ("The volume's own warning.",)
    assert [model.role for model in findings.models] == ["lungs", "lesions", "covid"]
    assert {model.provider for model in findings.models} == {"CPUExecutionProvider"}
    json.dumps(findings.to_dict(), allow_nan=False)


@pytest.mark.parametrize("flips", list(itertools.product((1, -1), repeat=3)))
def test_however_the_series_is_stored_the_patient_is_the_same(analyzer, flips):
    upright = analyzer.analyze(chest.volume())
    volume = chest.volume(flips=flips)
    findings = analyzer.analyze(volume)
    assert findings.lungs.shape == volume.hu.shape
    np.testing.assert_array_equal(volume.to_lps(findings.lungs), upright.lungs)
    np.testing.assert_array_equal(volume.to_lps(findings.lesions), upright.lesions)
    assert findings.covid_probability == upright.covid_probability
    for lesion, same in zip(findings.measurements.lesions, upright.measurements.lesions, strict=True):
        assert lesion.center_mm == pytest.approx(same.center_mm)
        expected = same.slice_index if flips[0] > 0 else len(volume.hu) - 1 - same.slice_index
        assert np.array_equal(
            findings.lesions[lesion.slice_index] > 0,
            np.flip(upright.lesions[same.slice_index] > 0, [axis for axis in (0, 1) if flips[axis + 1] < 0]),
        )
        assert abs(lesion.slice_index - expected) <= 3  # slices of equal area


def test_the_same_volume_gives_the_same_findings(analyzer):
    first, second = (analyzer.analyze(chest.volume()) for _ in range(2))
    np.testing.assert_array_equal(first.lungs, second.lungs)
    np.testing.assert_array_equal(first.lesions, second.lesions)
    assert first.to_dict() == second.to_dict()


def test_lesions_lie_in_lungs(analyzer):
    findings = analyzer.analyze(chest.volume())
    assert findings.lesions.any()
    assert not findings.lesions[findings.lungs == 0].any()


@pytest.mark.parametrize("flip", [1, -1])
def test_a_lesion_that_reaches_beyond_the_lungs_is_lung_and_the_rest_of_it_is_none(analyzer, flip):
    """Ground glass that crosses the chest wall, of which the network takes what is denser for no lung."""
    array = np.where(chest.hu() == 40, 200, chest.hu()).astype(np.int16)
    # Of 45 columns 35 lie in the lung, 5 are as far away as lesions may reach, 5 further.
    array[10:14, 50:70, 100:135] = -600
    array[10:14, 50:70, 135:145] = -400
    volume = chest.volume(array, flips=(flip, 1, 1))
    findings = analyzer.analyze(volume)
    lungs, lesions = volume.to_lps(findings.lungs), volume.to_lps(findings.lesions)
    assert not lesions[lungs == 0].any()
    assert (lungs[11, 55:65, 135:139] == Side.LEFT).all()
    assert (lesions[11, 55:65, 135:139] == LesionKind.GROUND_GLASS).all()
    assert not lungs[11, 55:65, 142:].any()


def test_tissue_at_the_lungs_edge_that_a_coarse_network_takes_for_lung_is_none(folder, tmp_path):
    """Of a cell of four columns three are lung."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    content = tiny_models.manifest("lungs", model_input={"size": [32, 40]})
    tiny_models.write(tmp_path, content, tiny_models.lungs_by_density(40))
    array = np.where(chest.hu() == 40, 150, chest.hu()).astype(np.int16)
    array[4:36, 36:92, 70] = -850
    lungs = Analyzer(tmp_path, threads=1).analyze(chest.volume(array)).lungs
    assert (lungs[6:34, 44:84, 70] == Side.RIGHT).all()
    assert not lungs[6:34, 44:84, 71].any()


def test_no_lungs_are_refused_with_the_series(analyzer):
    empty = np.where(chest.hu() < -500, 40, chest.hu()).astype(np.int16)
    with pytest.raises(SeriesRefused, match=r"1\.2\.3\.4") as caught:
        analyzer.analyze(chest.volume(empty))
    assert caught.value.reason is Reason.NO_LUNGS


def test_one_lung_is_analysed_with_a_warning(analyzer):
    findings = analyzer.analyze(chest.volume(chest.hu(left=False)))
    assert findings.measurements.lung_volume_ml.left == 0
    assert findings.measurements.lesion_to_lung_ratio.left == 0
    assert findings.measurements.lung_volume_ml.right == pytest.approx(chest.millilitres(chest.RIGHT), rel=0.02)
    assert "left lung" in findings.warnings[-1]


@pytest.mark.parametrize("flip", [1, -1])
def test_lungs_cut_off_are_told(analyzer, flip):
    findings = analyzer.analyze(chest.volume(chest.hu()[8:], flips=(flip, 1, 1)))
    assert "lowest slice" in findings.warnings[-1]
    assert "highest" not in findings.warnings[-1]


def test_one_lung_reconstructed_alone_is_told(analyzer):
    findings = analyzer.analyze(chest.volume(chest.hu()[:, :, :80]))
    assert any("within the chest on the patient's left" in warning for warning in findings.warnings)


def test_healthy_lungs_have_no_lesion(analyzer):
    array = chest.hu()
    array[chest.GLASS] = array[chest.SOLID] = -850
    findings = analyzer.analyze(chest.volume(array))
    # By density alone the lungs' edge looks like a lesion in a cell or two.
    assert findings.measurements.lesion_to_lung_ratio.total < 0.01


def test_progress_ascends_through_the_stages(analyzer):
    seen = []
    analyzer.analyze(chest.volume(), lambda stage, fraction: seen.append((stage, fraction)))
    assert list(dict.fromkeys(stage for stage, _ in seen)) == ["lungs", "lesions", "probability"]
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)


@pytest.mark.parametrize("stage", ["lungs", "lesions", "probability"])
def test_an_analysis_is_cancelled_at_any_stage(analyzer, stage):
    stop = threading.Event()
    with pytest.raises(AnalysisCancelled, match=r"1\.2\.3\.4"):
        analyzer.analyze(chest.volume(), lambda now, _: stop.set() if now == stage else None, stop.is_set)


def test_the_maps_are_final_when_they_are_shown(analyzer):
    shown = []
    findings = analyzer.analyze(
        chest.volume(), segmented=lambda maps: shown.append((maps.lungs.copy(), maps.lesions.copy()))
    )
    [(lungs, lesions)] = shown
    np.testing.assert_array_equal(lungs, findings.lungs)
    np.testing.assert_array_equal(lesions, findings.lesions)
    assert lesions.any()


@pytest.mark.parametrize("slow", ["showing", "classifying"])
def test_measuring_waits_for_one_of_showing_and_classifying_only(analyzer, monkeypatch, slow):
    expected = analyzer.analyze(chest.volume()).measurements
    measured, waited = threading.Event(), []

    def wait_until_measured(*_):
        waited.append(measured.wait(10))
        return 0.5

    def measured_now(*arguments):
        measurements = measure(*arguments)
        measured.set()
        return measurements

    monkeypatch.setattr("covid_ct.analysis.analyzer.measure", measured_now)
    if slow == "classifying":
        monkeypatch.setattr("covid_ct.analysis.analyzer.covid_probability", wait_until_measured)
        findings = analyzer.analyze(chest.volume())
    else:
        findings = analyzer.analyze(chest.volume(), segmented=wait_until_measured)
    assert waited == [True]
    assert findings.measurements == expected


def test_the_models_named_are_those_that_ran(folder):
    """An engine may get ready in the middle of an analysis."""
    analyzer = Analyzer(folder, threads=1)

    def engine_is_ready(_maps):
        faster = copy.copy(analyzer._slots["lungs"].model)
        faster.provider = "TensorrtExecutionProvider"
        analyzer._slots["lungs"]._model = faster

    findings = analyzer.analyze(chest.volume(), segmented=engine_is_ready)
    assert {model.provider for model in findings.models} == {"CPUExecutionProvider"}
    assert analyzer.identities[0].provider == "TensorrtExecutionProvider"


def test_whoever_is_shown_the_maps_and_fails_ends_the_analysis(analyzer):
    def fail(_maps):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        analyzer.analyze(chest.volume(), segmented=fail)


def test_nan_on_a_patient_is_a_model_error(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    tiny_models.write(tmp_path, tiny_models.manifest("lungs"), tiny_models.nan_above(300))
    analyzer = Analyzer(tmp_path, threads=1)
    analyzer.analyze(chest.volume())
    with pytest.raises(ModelError, match="no numbers"):
        analyzer.analyze(chest.volume(np.where(chest.hu() == 40, 400, chest.hu()).astype(np.int16)))


def test_models_are_checked_at_once(folder, tmp_path):
    with pytest.raises(ModelError, match="lungs"):
        Analyzer(tmp_path)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "covid" / "model.onnx").unlink()
    with pytest.raises(ModelError, match="covid"):
        Analyzer(tmp_path)


def test_the_fingerprint_tells_models_and_settings_apart(folder, tmp_path, analyzer):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    assert Analyzer(tmp_path).fingerprint == analyzer.fingerprint
    path = tmp_path / "covid" / "model.json"
    path.write_text(path.read_text().replace('"quantile": 0.5', '"quantile": 0.6'))
    assert Analyzer(tmp_path).fingerprint != analyzer.fingerprint


def test_the_phantoms_sides_and_lungs_are_found(analyzer):
    """By density the networks find what is aerated; air outside the chest is kept from them."""
    options = PhantomOptions(slices=50, spacing_mm=6, matrix=128, position=Position.HFP, lesions=Lesions.RIGHT)
    phantom = make_phantom(options)
    near = binary_dilation(phantom.truth.lungs > 0, iterations=2)
    hu = np.where(near, phantom.hu, 40).astype(np.int16)
    findings = analyzer.analyze(Volume(hu, phantom.affine, chest.volume().headers))
    for label in (1, 2):
        found, truth = findings.lungs == label, phantom.truth.lungs == label
        assert 2 * np.count_nonzero(found & truth) / (np.count_nonzero(found) + np.count_nonzero(truth)) > 0.9
    assert dataclasses.asdict(findings.measurements)["lung_volume_ml"]["total"] == pytest.approx(
        phantom.truth.lung_volume_ml(), rel=0.1
    )
