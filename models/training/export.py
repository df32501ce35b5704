"""From a trained network to model.onnx and model.json."""

import hashlib
import json
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from covid_ct.inference.manifest import FEATURES

LICENCE = "Trained on research data for non-commercial research; the weights are for non-commercial research only."


def export(network: nn.Module, size: tuple[int, int], path: Path) -> None:
    """Write a network with one image input and a dynamic batch axis as one ONNX file."""
    network = network.eval().cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, *size),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    onnx.checker.check_model(onnx.load(path))


def export_classifier(network: nn.Module, size: tuple[int, int], path: Path) -> None:
    """Write a classifier with an image and a feature input as one ONNX file."""
    network = network.eval().cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        network,
        (torch.zeros(1, 1, *size), torch.zeros(1, len(FEATURES))),
        path,
        input_names=["image", "features"],
        output_names=["logit"],
        dynamic_axes={"image": {0: "batch"}, "features": {0: "batch"}, "logit": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    onnx.checker.check_model(onnx.load(path))


def write_manifest(
    folder: Path,
    *,
    role: str,
    name: str,
    version: str,
    accuracy: str,
    inputs: dict[str, Any],
    output: dict[str, Any],
    features: list[str] | None = None,
) -> None:
    """Write model.json beside model.onnx."""
    manifest: dict[str, Any] = {
        "role": role,
        "name": name,
        "version": version,
        "file": "model.onnx",
        "sha256": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest(),
        "licence": LICENCE,
        "accuracy": accuracy,
        "input": inputs,
        "output": output,
    }
    if features:
        manifest["features"] = features
    (folder / "model.json").write_text(json.dumps(manifest, indent=2) + "\n")
