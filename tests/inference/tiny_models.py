"""Networks of a few nodes, whose answers are known, written as real ONNX files with real manifests."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 64

LUNGS_MANIFEST: dict[str, Any] = {
    "role": "lungs",
    "name": "Tiny lungs",
    "version": "1.0.0",
    "file": "model.onnx",
    "sha256": "",
    "licence": "AGPL-3.0-or-later",
    "accuracy": "not measured",
    "input": {
        "dimensions": 2,
        "directions": "LPS",
        "region": "field",
        "region_margin_mm": 0,
        "outside_lungs_hu": None,
        "spacing_mm": None,
        "size": [SIZE, SIZE],
        "clip_hu": [-1024, 600],
        "scale_to": [-1024, 600],
        "standardise": False,
    },
    "output": {
        "activation": "softmax",
        "classes": ["background", "right lung", "left lung"],
        "aggregation": None,
        "calibration": None,
    },
}


def manifest(role: str, *, model_input: dict[str, Any] | None = None, output: dict[str, Any] | None = None, **top: Any):
    """A manifest with some entries changed."""
    defaults = {
        "lungs": {},
        "lesions": {"classes": ["background", "ground glass", "consolidation"]},
        "covid": {"classes": ["COVID-19"], "activation": "sigmoid", "aggregation": {"slices": 8, "quantile": 0.5}},
    }
    return {
        **LUNGS_MANIFEST,
        "role": role,
        "name": f"Tiny {role}",
        **top,
        "input": {
            **LUNGS_MANIFEST["input"],
            **({} if role == "lungs" else {"region": "lungs", "region_margin_mm": 5}),
            **(model_input or {}),
        },
        "output": {**LUNGS_MANIFEST["output"], **defaults[role], **(output or {})},
    }


def write(folder: Path, content: dict[str, Any], model: onnx.ModelProto) -> Path:
    """Write model and manifest into the folder of the manifest's role, with the right sha256."""
    folder = folder / content["role"]
    folder.mkdir(parents=True, exist_ok=True)
    data = model.SerializeToString()
    (folder / content["file"]).write_bytes(data)
    (folder / "model.json").write_text(json.dumps({**content, "sha256": hashlib.sha256(data).hexdigest()}))
    return folder


def network(nodes: Sequence[onnx.NodeProto], constants: dict[str, Any], dimensions: int = 2, features: int = 0):
    """ONNX model from "x" (and "features") to "y"."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, *(f"d{i}" for i in range(dimensions))])]
    if features:
        inputs.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", features]))
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.asarray(value, np.int64 if name == "axes" else np.float32), name)
            for name, value in constants.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _band(name: str, low: float, high: float) -> tuple[list[onnx.NodeProto], dict[str, float]]:
    """A logit that is positive between two HU."""
    return [
        helper.make_node("Sub", ["x", f"{name}_low"], [f"{name}_above"]),
        helper.make_node("Sub", [f"{name}_high", "x"], [f"{name}_below"]),
        helper.make_node("Mul", [f"{name}_above", f"{name}_below"], [f"{name}_product"]),
        helper.make_node("Mul", [f"{name}_product", "steep"], [name]),
    ], {f"{name}_low": low, f"{name}_high": high}


def lungs_by_density(columns: int = SIZE) -> onnx.ModelProto:
    """Voxels from -970 to -450 HU are lung; the side is told by the column."""
    nodes, constants = _band("lung", -970, -450)
    nodes += [
        helper.make_node("Sub", ["lung", "position"], ["right"]),
        helper.make_node("Add", ["lung", "position"], ["left"]),
        helper.make_node("Mul", ["x", "zero"], ["background"]),
        helper.make_node("Concat", ["background", "right", "left"], ["y"], axis=1),
    ]
    position = np.linspace(-5, 5, columns).reshape(1, 1, 1, -1)
    return network(nodes, {**constants, "steep": 1e-3, "zero": 0.0, "position": position})


def lesions_by_density(dimensions: int = 2) -> onnx.ModelProto:
    """Voxels from -750 to -350 HU are ground glass, from -350 to 100 HU consolidation."""
    glass, constants = _band("glass", -750, -350)
    solid, more = _band("solid", -350, 100)
    nodes = [
        *glass,
        *solid,
        helper.make_node("Mul", ["x", "zero"], ["background"]),
        helper.make_node("Concat", ["background", "glass", "solid"], ["y"], axis=1),
    ]
    return network(nodes, {**constants, **more, "steep": 1e-3, "zero": 0.0}, dimensions)


def covid_by_mean(dimensions: int = 2) -> onnx.ModelProto:
    """Logit = mean HU of the image / 100 + 8."""
    axes = list(range(2, 2 + dimensions))
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["y"]),
    ]
    return network(nodes, {"axes": axes, "slope": 0.01, "offset": 8.0}, dimensions)


def covid_by_feature(count: int) -> onnx.ModelProto:
    """Logit = the first feature, whatever the image."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("MatMul", ["features", "first"], ["value"]),
        helper.make_node("Add", ["value", "nothing"], ["y"]),
    ]
    first = np.eye(count, 1)
    return network(nodes, {"axes": [2, 3], "zero": 0.0, "first": first}, features=count)


def nan_above(hu: float) -> onnx.ModelProto:
    """Lungs by density, but NaN as soon as a voxel is denser than this."""
    model = lungs_by_density()
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.extend(
        [
            helper.make_node("Sub", ["limit", "x"], ["room"]),
            helper.make_node("Sqrt", ["room"], ["root"]),
            helper.make_node("Mul", ["root", "zero"], ["poison"]),
            helper.make_node("Add", ["plain", "poison"], ["y"]),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(hu), "limit"))
    return model


def endless_above(hu: float) -> onnx.ModelProto:
    """Lungs by density, but a loop without end as soon as a voxel is denser than this."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Mul", ["grid", "one"], ["same"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("grid", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.float32(1.0), "one")],
    )
    model = lungs_by_density()
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.extend(
        [
            helper.make_node("ReduceMax", ["x"], ["densest"], keepdims=0),
            helper.make_node("Greater", ["densest", "limit"], ["dense"]),
            helper.make_node("Loop", ["", "dense", "plain"], ["y"], body=body),
        ]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(hu), "limit"))
    return model


def in_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, but that its answer goes through 8 bits, in steps of one."""
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["plain", "step", "middle"], ["bytes"]),
            helper.make_node("DequantizeLinear", ["bytes", "step", "middle"], ["y"]),
        ]
    )
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(1.0), "step"), numpy_helper.from_array(np.uint8(128), "middle")]
    )
    return model


def ending_in(operation: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, but that the network itself makes probabilities, reshaped once more."""
    model.graph.node[-1].output[0] = "plain"
    axis = {"axis": 1} if operation == "Softmax" else {}
    model.graph.node.extend(
        [
            helper.make_node(operation, ["plain"], ["probable"], **axis),
            helper.make_node("Identity", ["probable"], ["y"]),
        ]
    )
    return model


def write_all(folder: Path) -> Path:
    """The three models by density."""
    write(folder, manifest("lungs"), lungs_by_density())
    write(folder, manifest("lesions"), lesions_by_density())
    write(folder, manifest("covid", model_input={"outside_lungs_hu": -1000}), covid_by_mean())
    return folder
