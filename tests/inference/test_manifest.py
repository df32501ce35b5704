import copy
import hashlib
import json
import re
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from covid_ct.errors import ModelError
from covid_ct.inference.manifest import Aggregation, Calibration, load_manifest, read_model
from tests.inference import tiny_models


def save(folder, content):
    (folder / "model.json").write_text(json.dumps(content))
    return folder


def changed(path, value, role="lungs"):
    """A good manifest with one entry changed, or removed where the value is Ellipsis."""
    content = copy.deepcopy({**tiny_models.manifest(role), "sha256": "0" * 64})
    *sections, key = path.split(".")
    place = content
    for section in sections:
        place = place[section]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return content


def test_a_good_manifest_is_read(tmp_path):
    content = tiny_models.manifest(
        "covid",
        sha256="AB" * 32,
        features=["bilateral", "posterior"],
        output={"calibration": {"slope": 2, "intercept": -0.5}},
    )
    manifest = load_manifest(save(tmp_path, content), "covid")
    assert manifest.file == tmp_path / "model.onnx"
    assert manifest.sha256 == "ab" * 32
    assert manifest.features == ("bilateral", "posterior")
    assert manifest.input.size == (64, 64)
    assert manifest.input.clip_hu == (-1024, 600)
    assert manifest.input.interpolation == "area"
    assert manifest.input.finest_mm is None
    assert manifest.output.aggregation == Aggregation(8, "lungs", 0.5)
    assert manifest.output.calibration == Calibration(2, -0.5)
    assert manifest.output.channels == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("role", "lesions"),
        ("name", ""),
        ("name", 3),
        ("version", ...),
        ("file", "../model.onnx"),
        ("file", "/etc/passwd"),
        ("sha256", "abc"),
        ("accuracy", None),
        ("extra", 1),
        ("features", ["bilateral"]),
        ("input", []),
        ("input.dimensions", 4),
        ("input.dimensions", True),
        ("input.size", [64]),
        ("input.size", [64, 0]),
        ("input.size", [64, 64.5]),
        ("input.region", "lungs"),
        ("input.region", "head"),
        ("input.outside_lungs_hu", -1000),
        ("input.spacing_mm", [5, 1, 1]),
        ("input.clip_hu", [600, -1000]),
        ("input.clip_hu", [0, "1"]),
        ("input.scale_to", [0, float("nan")]),
        ("input.scale_to", [1, 1]),
        ("input.axes", "xyz"),
        ("input.standardise", 0),
        ("input.directions", "LAS"),
        ("input.overlap", 0.95),
        ("input.interpolation", "cubic"),
        ("input.finest_mm", 0),
        ("input.finest_mm", "1.8"),
        ("input.window", 3),
        ("output.classes", ["background", "left lung", "right lung"]),
        ("output.classes", ["background", ["lung"]]),
        ("output.activation", "sigmoid"),
        ("output.activation", "tanh"),
        ("output.aggregation", {"slices": 3, "quantile": 0.5}),
        ("output.threshold", 0.5),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, path, value):
    with pytest.raises(ModelError) as caught:
        load_manifest(save(tmp_path, changed(path, value)), "lungs")
    message = str(caught.value)
    assert str(tmp_path / "model.json") in message
    assert path.split(".")[-1] in message
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("output.aggregation", None),
        ("output.aggregation", {"slices": 0, "quantile": 0.5}),
        ("output.aggregation", {"slices": 3, "quantile": 1.5}),
        ("output.aggregation", {"slices": 3, "quantile": 0.5, "spaced_over": "heart"}),
        ("output.calibration", {"slope": 1}),
        ("output.calibration", {"slope": -1, "intercept": 0}),
        ("output.calibration", {"slope": 0, "intercept": 0}),
        ("features", ["lesion_ratio", "lesion_ratio"]),
        ("features", ["age"]),
    ],
)
def test_a_wrong_classifier_is_named(tmp_path, path, value):
    with pytest.raises(ModelError, match=r"model\.json"):
        load_manifest(save(tmp_path, changed(path, value, "covid")), "covid")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"role": "lungs"}', "\xff"])
def test_no_manifest_is_no_crash(tmp_path, text):
    (tmp_path / "model.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"model\.json"):
        load_manifest(tmp_path, "lungs")


def test_a_3d_network_has_a_spacing_and_no_finest_pixel(tmp_path):
    content = tiny_models.manifest("lesions", model_input={"dimensions": 3, "size": [4, 8, 8], "finest_mm": 1.8})
    with pytest.raises(ModelError, match=r"finest_mm.* is for 2-D networks"):
        load_manifest(save(tmp_path, {**content, "sha256": "0" * 64}), "lesions")


def test_a_missing_manifest_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"lungs model cannot be read.*or --models"):
        load_manifest(tmp_path / "lungs", "lungs")


def test_a_changed_file_is_refused(tmp_path):
    folder = tiny_models.write(tmp_path, tiny_models.manifest("lungs"), tiny_models.lungs_by_density())
    manifest = load_manifest(folder, "lungs")
    assert hashlib.sha256(read_model(manifest)).hexdigest() == manifest.sha256
    manifest.file.write_bytes(manifest.file.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="sha256"):
        read_model(manifest)
    manifest.file.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(manifest)


def test_weights_in_other_files_are_refused(tmp_path):
    model = tiny_models.lungs_by_density()
    folder = tiny_models.write(tmp_path, tiny_models.manifest("lungs"), model)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../../etc/passwd")
    folder = tiny_models.write(tmp_path, tiny_models.manifest("lungs"), model)
    with pytest.raises(ModelError, match="other files"):
        read_model(load_manifest(folder, "lungs"))


def test_weights_in_other_files_are_found_in_a_subgraph(tmp_path):
    """An If node's branch is a graph of its own."""
    hidden = numpy_helper.from_array(tiny_models.np.zeros(4, tiny_models.np.float32), "hidden")
    onnx.external_data_helper.set_external_data(hidden, "/etc/passwd")
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["hidden"], ["out"])], "branch", [], [], [hidden]
    )
    model = tiny_models.lungs_by_density()
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    folder = tiny_models.write(tmp_path, tiny_models.manifest("lungs"), model)
    with pytest.raises(ModelError, match="other files"):
        read_model(load_manifest(folder, "lungs"))


def test_what_is_no_onnx_is_refused(tmp_path):
    folder = tiny_models.write(tmp_path, tiny_models.manifest("lungs"), tiny_models.lungs_by_density())
    junk = b"\x0f" * 64
    (folder / "model.onnx").write_bytes(junk)
    content = json.loads((folder / "model.json").read_text())
    save(folder, {**content, "sha256": hashlib.sha256(junk).hexdigest()})
    with pytest.raises(ModelError, match="no ONNX file"):
        read_model(load_manifest(folder, "lungs"))


README = Path(__file__).resolve().parents[2] / "models" / "README.md"


@pytest.mark.parametrize("example", re.findall(r"### .*?\((\w+)\)\n.*?```json\n(.*?)```", README.read_text(), re.S))
def test_the_readmes_manifests_are_good(tmp_path, example):
    role, entries = example
    content = {**tiny_models.manifest(role), "sha256": "0" * 64, **json.loads(f"{{{entries}}}")}
    assert load_manifest(save(tmp_path, content), role).role == role


def test_the_readme_has_an_example_for_every_role():
    assert set(re.findall(r"### .*?\((\w+)\)\n", README.read_text())) == {"lungs", "lesions", "covid"}
