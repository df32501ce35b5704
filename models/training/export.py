"""From a trained network to model.onnx and model.json."""

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    create_calibrator,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from models.training.member import LOGITS, keep_output, member_name, sign
from models.training.networks import Committee

PERCENTILE = 99.98
"""8 bits hold a map's values up to this percentile, and down to its counterpart at the lower end; what lies beyond is
cut off."""

LICENCE = "Trained on research data for non-commercial research; the weights are for non-commercial research only."


def export(
    network: nn.Module, examples: Sequence[Tensor], path: Path, inputs: Sequence[str], outputs: Sequence[str]
) -> None:
    """Write a network as one ONNX file, with a dynamic first axis of all inputs and outputs."""
    network = network.eval().cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        network,
        tuple(examples),
        path,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
        opset_version=17,
        dynamo=False,
    )
    onnx.checker.check_model(onnx.load(path))


class _Samples(CalibrationDataReader):
    def __init__(self, images: NDArray[np.float32]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image[np.newaxis, np.newaxis]}


def export_committee(committee: Committee, size: tuple[int, int], path: Path, images: NDArray[np.float32]) -> None:
    """Write a committee as one ONNX file, in 8 bits, whose one output is the networks' mean answer.

    Parameters
    ----------
    committee: Committee
    size: tuple[int, int]
        Rows and columns of an image.
    path: Path
    images: NDArray[np.float32]
        Prepared images, shape (images, rows, columns), from which the ranges of all maps are taken.
    """
    members = [member_name(number) for number in range(len(committee.networks))]
    export(committee, [torch.zeros(1, 1, *size)], path, ["image"], [LOGITS, *members])
    _quantise(path, images)
    keep_output(path, LOGITS)


def _quantise(path: Path, images: NDArray[np.float32]) -> None:
    """Turn an ONNX file's convolutions to 8 bits, which a CPU does twice as fast, in place.

    Of each network, what comes before the first convolution and from the last one on stays as it is, since masks are
    cut from its answer.
    """
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # The symbolic shape inference does not know DepthToSpace as PyTorch writes it; the plain one does.
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        networks: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            networks.setdefault(node.name.split("/")[1] if "/" in node.name else "", []).append(node)
        kept = []
        for nodes in networks.values():
            convolutions = [number for number, node in enumerate(nodes) if node.op_type == "Conv"]
            kept += [*nodes[: convolutions[0]], *nodes[convolutions[-1] :]] if convolutions else nodes
        excluded = {node.name for node in kept}
        weights = {node.input[1] for node in graph.node if node.op_type == "Conv" and node.name not in excluded}
        steps = _map_steps(prepared, images, Path(folder) / "augmented.onnx")
        for initializer in graph.initializer:
            if initializer.name in weights:
                steps[initializer.name] = _weight_steps(onnx.numpy_helper.to_array(initializer))
        quantize_static(
            prepared,
            path,
            # All ranges are known already, but it asks for some image.
            _Samples(images[:1]),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=sorted(excluded),
            extra_options={"TensorQuantOverrides": steps},
        )


def _map_steps(path: Path, images: NDArray[np.float32], augmented: Path) -> dict[str, list[dict[str, Any]]]:
    """Steps and zero points of 8 bits for all maps of a network.

    A step is a power of two, so that products and sums are exact in floats as well: a GPU, which calculates the
    convolutions as floats, then answers as a CPU does, which calculates them as whole numbers. The zero point is even,
    since who rounds halves to even does it before or after adding that.
    """
    calibrator = create_calibrator(
        path,
        augmented_model_path=str(augmented),
        calibrate_method=CalibrationMethod.Percentile,
        extra_options={"symmetric": False, "percentile": PERCENTILE},
    )
    # It keeps all maps of what it is given at once.
    for start in range(0, len(images), 8):
        calibrator.collect_data(_Samples(images[start : start + 8]))
    steps: dict[str, list[dict[str, Any]]] = {}
    for name, range_ in calibrator.compute_data().items():
        low, high = (float(np.squeeze(edge)) for edge in range_.range_value)
        low, high = min(low, 0.0), max(high, 0.0)
        step = 2.0 ** math.ceil(math.log2(max(high - low, 1e-6) / 254))
        zero = 2 * math.ceil(-low / step / 2)
        steps[name] = [
            {
                "quant_type": QuantType.QUInt8,
                "scale": np.array(step, np.float32),
                "zero_point": np.array(zero, np.uint8),
            }
        ]
    return steps


def _weight_steps(weights: NDArray[np.float32]) -> list[dict[str, Any]]:
    """Steps for the weights of each output channel of a convolution.

    They get seven of the eight bits: a CPU with AVX2 but without VNNI adds two products in 16 bits, which hold no more.
    Steps have three significant bits, see `_map_steps`.
    """
    steps = []
    for channel in weights:
        fraction, exponent = math.frexp(max(float(np.abs(channel).max()), 1e-6) / 64)
        steps.append(
            {
                "quant_type": QuantType.QInt8,
                "axis": 0,
                "scale": np.array(math.ldexp(math.ceil(fraction * 8) / 8, exponent), np.float32),
                "zero_point": np.array(0, np.int8),
            }
        )
    return steps


def write_manifest(
    folder: Path,
    *,
    role: str,
    name: str,
    version: str,
    accuracy: str,
    inputs: dict[str, Any],
    output: dict[str, Any],
) -> None:
    """Write model.json beside model.onnx."""
    manifest: dict[str, Any] = {
        "role": role,
        "name": name,
        "version": version,
        "file": "model.onnx",
        "sha256": "",
        "licence": LICENCE,
        "accuracy": accuracy,
        "input": inputs,
        "output": output,
    }
    sign(folder, manifest)
