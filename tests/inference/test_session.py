import json
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from covid_ct.errors import ModelError
from covid_ct.inference import providers
from covid_ct.inference.manifest import load_manifest
from covid_ct.inference.providers import CPU, CUDA, TENSORRT
from covid_ct.inference.session import Model
from covid_ct.inference.slot import ModelSlot
from tests.inference import tiny_models


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
            "shape",
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


def test_logits_that_are_called_probabilities_are_found(tmp_path):
    """As bytes, on which the analysis stands, they would be any number."""
    content = tiny_models.manifest("lungs", output={"activation": "none"})
    tiny_models.write(tmp_path, content, tiny_models.lungs_by_density())
    with pytest.raises(ModelError, match="outside of 0 to 1"):
        load(tmp_path).run(np.full((1, 64, 64), -850, np.float32))


@pytest.mark.parametrize(("role", "operation"), [("lungs", "Softmax"), ("covid", "Sigmoid")])
def test_probabilities_are_made_once(tmp_path, role, operation):
    """Made again, they would all lie near one another."""
    network = tiny_models.ending_in(
        operation, getattr(tiny_models, {"lungs": "lungs_by_density"}.get(role, "covid_by_mean"))()
    )
    tiny_models.write(tmp_path, tiny_models.manifest(role), network)
    with pytest.raises(ModelError, match=f'ends in {operation} itself.* write "none"'):
        load(tmp_path, role)
    tiny_models.write(tmp_path, tiny_models.manifest(role, output={"activation": "none"}), network)
    plain = tiny_models.write_all(tmp_path / "plain")
    images = np.full((2, 64, 64), -850, np.float32)
    np.testing.assert_allclose(load(tmp_path, role).run(images), load(plain, role).run(images), rtol=1e-5)


@pytest.mark.parametrize(
    ("axis", "length", "words"),
    [(0, 1, "exactly 1 images at once.*dynamic_axes"), (1, 3, "shape .*3.* promises .*1, 64")],
)
def test_a_tensor_of_another_shape_is_told(tmp_path, axis, length, words):
    network = tiny_models.lungs_by_density()
    network.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = length
    tiny_models.write(tmp_path, tiny_models.manifest("lungs"), network)
    with pytest.raises(ModelError, match=words):
        load(tmp_path)


@pytest.mark.parametrize("wrong", [True, False])
def test_a_network_that_overflows_in_8_bits_is_run_in_floats(tmp_path, monkeypatch, wrong):
    """As on a processor with AVX2 but without VNNI."""
    tiny_models.write(tmp_path, tiny_models.manifest("lungs"), tiny_models.in_bytes(tiny_models.lungs_by_density()))
    real = onnxruntime.InferenceSession

    class Session(real):
        def __init__(self, content, options, providers):
            super().__init__(content, options, providers=providers)
            self.slip = 9 if wrong and options.get_session_config_entry("session.disable_quant_qdq") == "0" else 0

        def run(self, outputs, feed, options=None):
            return [answer + self.slip * (answer > 0) for answer in super().run(outputs, feed, options)]

    right = load(tmp_path)
    assert right.warnings == ()
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    model = load(tmp_path)
    assert len(model.warnings) == wrong
    assert all("calculated in floats" in warning and "by up to 9.0" in warning for warning in model.warnings)
    images = np.full((1, 64, 64), -850, np.float32)
    np.testing.assert_array_equal(model.run(images), right.run(images))


def test_nan_on_a_patient_is_told(tmp_path):
    tiny_models.write(tmp_path, tiny_models.manifest("lungs"), tiny_models.nan_above(100))
    model = load(tmp_path)
    with pytest.raises(ModelError, match="no numbers"):
        model.run(np.full((1, 64, 64), 200, np.float32))


def test_a_run_without_end_is_ended(tmp_path):
    tiny_models.write(tmp_path, tiny_models.manifest("lungs"), tiny_models.endless_above(0))
    model = load(tmp_path, run_limit_s=0.5)
    assert model.run(np.full((1, 64, 64), -850, np.float32)).shape == (1, 3, 64, 64)
    with pytest.raises(ModelError, match=r"within 0\.5 s"):
        model.run(np.full((1, 64, 64), 200, np.float32))
    assert threading.active_count() < 20, "no thread is lost"


def test_an_onnx_file_that_does_not_open_is_told(tmp_path):
    model = tiny_models.lungs_by_density()
    model.graph.node[0].op_type = "NoSuchOperator"
    tiny_models.write(tmp_path, tiny_models.manifest("lungs"), model)
    with pytest.raises(ModelError, match="NoSuchOperator"):
        load(tmp_path)


class Machine:
    """An ONNX Runtime with GPU providers: which are built in, load their libraries, open the network and take nodes.

    Logits of those in `wrong` are turned round.
    """

    def __init__(self, monkeypatch, built, loads, opens, takes, wrong=()):
        machine = self
        machine.tried = []
        machine.options = {}
        machine.sizes = []
        real = onnxruntime.InferenceSession

        class Session(real):
            def __init__(self, content, options, providers):
                names = [name for name, _ in providers]
                machine.tried.append(names)
                machine.options |= dict(providers)
                if names[0] not in opens:
                    raise RuntimeError(f"{names[0]} broke\nin detail")
                super().__init__(content, options, providers=[CPU])
                self.names = names if names[0] in loads else [CPU]

            def get_providers(self):
                return self.names

            def run(self, outputs, feed, options=None):
                machine.sizes.append([len(array) for array in feed.values()])
                sign = -1 if self.names[0] in wrong else 1
                return [sign * answer for answer in super().run(outputs, feed)]

            def end_profiling(self):
                provider = self.names[0] if self.names[0] in takes else CPU
                # A real profile, of the same network, in which the nodes get another provider's name.
                path = super().end_profiling()
                text = Path(path).read_text()
                assert CPU in text or self.names == [CPU]
                Path(path).write_text(text.replace(CPU, provider))
                return path

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(built))
        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)


ALL = (TENSORRT, CUDA, CPU)


@pytest.mark.parametrize(
    ("built", "loads", "opens", "takes", "asked", "used", "warned"),
    [
        (ALL, ALL, ALL, ALL, ALL, TENSORRT, []),
        (ALL, ALL, ALL, ALL, (CUDA, CPU), CUDA, []),
        (ALL, ALL, ALL, ALL, (CPU,), CPU, []),
        (ALL, ALL, ALL, ALL, (CPU, CUDA), CPU, []),
        ((CUDA, CPU), ALL, ALL, ALL, ALL, CUDA, ["built without"]),
        ((CPU,), ALL, ALL, ALL, ALL, CPU, ["built without", "built without"]),
        (ALL, (CUDA, CPU), ALL, ALL, ALL, CUDA, ["could not be loaded"]),
        (ALL, (CPU,), ALL, ALL, ALL, CPU, ["could not be loaded", "could not be loaded"]),
        (ALL, ALL, (CUDA, CPU), ALL, ALL, CUDA, ["TensorrtExecutionProvider broke"]),
        (ALL, (CPU,), (CUDA, CPU), ALL, ALL, CPU, ["broke", "could not be loaded"]),
        (ALL, ALL, (CPU,), ALL, ALL, CPU, ["broke", "broke"]),
        (ALL, ALL, ALL, (CUDA, CPU), ALL, CUDA, ["takes no node"]),
        (ALL, ALL, ALL, (CPU,), ALL, CPU, ["takes no node", "takes no node"]),
    ],
)
def test_the_first_provider_that_works_is_used_and_the_others_told(
    models, monkeypatch, tmp_path, built, loads, opens, takes, asked, used, warned
):
    machine = Machine(monkeypatch, built, loads, opens, takes)
    model = load(models, providers=asked)
    assert model.provider == used
    assert machine.tried[-1][0] == CPU, "which runs the network, or says what a GPU should answer"
    assert used == CPU or machine.tried[-2][0] == used
    assert len(model.warnings) == len(warned)
    for sentence, word, provider in zip(model.warnings, warned, asked, strict=False):
        assert word in sentence
        assert provider in sentence


@pytest.mark.parametrize("role", ["lungs", "lesions", "covid"])
def test_a_gpu_that_answers_otherwise_than_the_cpu_is_not_used(models, monkeypatch, role):
    Machine(monkeypatch, ALL, ALL, ALL, ALL, wrong=(TENSORRT,))
    model = load(models, role, providers=ALL)
    assert model.provider == CUDA
    assert len(model.warnings) == 1
    assert "TensorrtExecutionProvider: for a drawn chest its probabilities differ by up to" in model.warnings[0]


def test_a_gpu_always_sees_the_same_shape(models, monkeypatch, tmp_path):
    machine = Machine(monkeypatch, ALL, ALL, ALL, ALL)
    model = load(models, providers=(CUDA, CPU), gpu=3)
    assert machine.options[CUDA] == {"device_id": "3", "use_tf32": "0"}
    assert machine.options[CPU] == {}
    images = np.full((5, 64, 64), -850, np.float32)
    answer = model.run(images)
    assert answer.shape == (5, 3, 64, 64)
    np.testing.assert_array_equal(answer, load(models, providers=(CPU,)).run(images))
    on_the_gpu = [size for size in machine.sizes if size != [1]]
    assert on_the_gpu[:3] == [[model.batch]] * 3


def test_libraries_of_cuda_are_loaded_for_a_gpu_only(models, monkeypatch):
    """onnxruntime-gpu does not look where pip puts them (seen with onnxruntime-gpu 1.31 and an H200)."""
    Machine(monkeypatch, ALL, (CPU,), ALL, ALL)
    loaded = []

    def preload():
        loaded.append(CUDA)
        print("Failed to load libcudart.so.13: no such file")

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    providers._load_cuda.cache_clear()
    try:
        load(models, providers=(CPU,))
        assert loaded == []
        model = load(models, providers=ALL)
    finally:
        providers._load_cuda.cache_clear()
    assert loaded == [CUDA], "once is enough"
    assert all("could not be loaded (Failed to load libcudart.so.13" in warning for warning in model.warnings)


@pytest.mark.parametrize(("loads", "opens"), [(ALL, ALL), ((CPU,), ALL), (ALL, (CPU,))])
def test_profiles_are_removed(models, monkeypatch, tmp_path, loads, opens):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    Machine(monkeypatch, ALL, loads, opens, ALL)
    load(models, providers=(CUDA, CPU))
    assert list((tmp_path / "temporary").iterdir()) == []


class TestSlot:
    def slot(self, folder, providers, **options):
        return ModelSlot(load_manifest(folder / "lungs", "lungs"), providers, **options)

    def test_tensorrt_is_built_beside_and_taken_up_later(self, models, monkeypatch, tmp_path):
        machine = Machine(monkeypatch, ALL, ALL, ALL, ALL)
        allowed = threading.Event()
        build = ModelSlot._build
        monkeypatch.setattr(ModelSlot, "_build", lambda slot: allowed.wait() and build(slot))
        slot = self.slot(models, ALL, engine_cache=tmp_path / "engines")
        first = slot.model
        assert (first.provider, slot.warnings) == (CUDA, ())
        allowed.set()
        slot.wait()
        assert slot.model.provider == TENSORRT
        assert first.provider == CUDA  # an analysis that has begun goes on with what it has
        folder = machine.options[TENSORRT]["trt_engine_cache_path"]
        assert folder.startswith(str(tmp_path / "engines"))
        # The next start finds the engine.
        machine.tried.clear()
        assert self.slot(models, ALL, engine_cache=tmp_path / "engines").model.provider == TENSORRT
        assert [names[0] for names in machine.tried] == [TENSORRT, CPU]

    def test_a_build_that_fails_is_told_and_changes_nothing(self, models, monkeypatch, tmp_path):
        Machine(monkeypatch, ALL, ALL, (CUDA, CPU), ALL)
        slot = self.slot(models, ALL, engine_cache=tmp_path / "engines")
        slot.wait()
        assert slot.model.provider == CUDA
        assert slot.warnings == (
            "The lungs model cannot run on TensorrtExecutionProvider: TensorrtExecutionProvider broke.",
        )
        assert not (tmp_path / "engines").exists()

    def test_tensorrt_alone_is_waited_for(self, models, monkeypatch, tmp_path):
        Machine(monkeypatch, ALL, ALL, ALL, ALL)
        assert self.slot(models, (TENSORRT,)).model.provider == TENSORRT


def test_engines_have_a_key_of_all_that_they_depend_on(monkeypatch):
    def key(sha256="ab", version="1.22", tensorrt=("tensorrt 10.9",), gpu=("H200", "12080"), number=0):
        monkeypatch.setattr(onnxruntime, "__version__", version)
        monkeypatch.setattr(providers, "_tensorrt_versions", lambda: tensorrt)
        monkeypatch.setattr(providers, "gpu_identity", lambda number: gpu)
        return providers.engine_key(sha256, number)

    keys = {
        key(),
        key(sha256="cd"),
        key(version="1.23"),
        key(tensorrt=("tensorrt 10.10",)),
        key(gpu=("L4", "12080")),
        key(gpu=("H200", "12090")),
    }
    assert len(keys) == 6
    assert key() in keys


def test_no_provider_is_an_error_not_a_fallback(models, monkeypatch, tmp_path):
    Machine(monkeypatch, (CPU,), ALL, ALL, ALL)
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
