import json

import numpy as np
import onnxruntime
import pytest
from tests.inference import tiny_models

from covid_ct.errors import ModelError
from covid_ct.inference.manifest import load_manifest
from covid_ct.inference.session import CPU, Model

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def load(folder, role="lungs", **options):
    return Model(load_manifest(folder / role, role), **options)


@pytest.fixture
def models(tmp_path):
    return tiny_models.write_all(tmp_path)


def test_probabilities_sum_to_one(models):
    images = np.full((3, 64, 64), -850, np.float32)
    images[1] = 40
    answer = load(models, threads=1).run(images)
    assert answer.shape == (3, 3, 64, 64)
    np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)
    assert answer[0, 1, 0, 0] > 0.99  # the right lung is on the left of the image
    assert answer[0, 2, 0, -1] > 0.99
    assert answer[1, 0].min() > 0.99


def test_a_sigmoid_answers_one_channel(models):
    answer = load(models, "covid").run(np.stack([np.full((64, 64), -900, np.float32), np.zeros((64, 64), np.float32)]))
    np.testing.assert_allclose(answer[:, 0], [1 / (1 + np.e), 1 / (1 + np.exp(-8))], rtol=1e-4)


@pytest.mark.parametrize(
    ("content", "network", "word"),
    [
        (tiny_models.manifest("lungs", output={"classes": ["background", "lung"]}), "lungs_by_density", "shape"),
        (tiny_models.manifest("lungs", model_input={"size": [64, 32]}), "lungs_by_density", "failed"),
        (
            tiny_models.manifest("lungs", model_input={"dimensions": 3, "size": [8, 64, 64]}),
            "lungs_by_density",
            "failed",
        ),
        (tiny_models.manifest("covid", features=["bilateral"]), "covid_by_mean", "inputs"),
        (
            tiny_models.manifest("covid", output={"activation": "softmax", "classes": ["other", "COVID-19"]}),
            "covid_by_mean",
            "shape",
        ),
    ],
)
def test_a_network_that_is_not_the_manifests_is_found_at_start(tmp_path, content, network, word):
    tiny_models.write(tmp_path, content, getattr(tiny_models, network)())
    with pytest.raises(ModelError, match=word) as caught:
        load(tmp_path, content["role"])
    assert content["name"] in str(caught.value)


def test_a_network_of_nan_is_found_at_start(tmp_path):
    tiny_models.write(tmp_path, tiny_models.manifest("lungs"), tiny_models.nan_above(-1))
    with pytest.raises(ModelError, match="no numbers"):
        load(tmp_path)


def test_nan_on_a_patient_is_told(tmp_path):
    tiny_models.write(tmp_path, tiny_models.manifest("lungs"), tiny_models.nan_above(100))
    model = load(tmp_path)
    with pytest.raises(ModelError, match="no numbers"):
        model.run(np.full((1, 64, 64), 200, np.float32))


def test_an_onnx_file_that_does_not_open_is_told(tmp_path):
    model = tiny_models.lungs_by_density()
    model.graph.node[0].op_type = "NoSuchOperator"
    tiny_models.write(tmp_path, tiny_models.manifest("lungs"), model)
    with pytest.raises(ModelError, match="NoSuchOperator"):
        load(tmp_path)


class Machine:
    """An ONNX Runtime with GPU providers: which are built in, load their libraries, and take the network."""

    def __init__(self, monkeypatch, built, loads, takes):
        self.tried = []
        real = onnxruntime.InferenceSession

        def session(content, options, providers):
            names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
            self.tried.append(names)
            if names[0] not in takes:
                raise RuntimeError(f"{names[0]} broke\nin detail")
            inner = real(content, options, providers=[CPU])
            inner.get_providers = lambda: names if names[0] in loads else [CPU]
            return inner

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(built))
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)


ALL = (TENSORRT, CUDA, CPU)


@pytest.mark.parametrize(
    ("built", "loads", "takes", "asked", "used", "warned"),
    [
        (ALL, ALL, ALL, ALL, TENSORRT, []),
        (ALL, ALL, ALL, (CUDA, CPU), CUDA, []),
        (ALL, ALL, ALL, (CPU,), CPU, []),
        (ALL, ALL, ALL, (CPU, CUDA), CPU, []),
        ((CUDA, CPU), ALL, ALL, ALL, CUDA, ["built without"]),
        ((CPU,), ALL, ALL, ALL, CPU, ["built without", "built without"]),
        (ALL, (CUDA, CPU), ALL, ALL, CUDA, ["could not be loaded"]),
        (ALL, (CPU,), ALL, ALL, CPU, ["could not be loaded", "could not be loaded"]),
        (ALL, ALL, (CUDA, CPU), ALL, CUDA, ["TensorrtExecutionProvider broke"]),
        (ALL, (CPU,), (CUDA, CPU), ALL, CPU, ["broke", "could not be loaded"]),
        (ALL, ALL, (CPU,), ALL, CPU, ["broke", "broke"]),
    ],
)
def test_the_first_provider_that_works_is_used_and_the_others_told(
    models, monkeypatch, built, loads, takes, asked, used, warned
):
    machine = Machine(monkeypatch, built, loads, takes)
    model = load(models, providers=asked)
    assert model.provider == used
    assert machine.tried[-1][0] == used
    assert len(model.warnings) == len(warned)
    for sentence, word, provider in zip(model.warnings, warned, asked, strict=False):
        assert word in sentence
        assert provider in sentence


def test_no_provider_is_an_error_not_a_fallback(models, monkeypatch):
    Machine(monkeypatch, (CPU,), ALL, ALL)
    with pytest.raises(ModelError, match="CUDAExecutionProvider: this ONNX Runtime was built without it"):
        load(models, providers=[CUDA])


def test_the_features_input_may_come_in_any_order(tmp_path):
    network = tiny_models.covid_by_feature(2)
    network.graph.input.insert(0, network.graph.input.pop())
    tiny_models.write(tmp_path, tiny_models.manifest("covid", features=["bilateral", "lower"]), network)
    model = load(tmp_path, "covid")
    answer = model.run(np.zeros((2, 64, 64), np.float32), np.array([[0, 9], [3, 9]], np.float32))
    np.testing.assert_allclose(answer[:, 0], [0.5, 1 / (1 + np.exp(-3))], rtol=1e-5)
    assert json.loads((tmp_path / "covid" / "model.json").read_text())["features"] == ["bilateral", "lower"]
