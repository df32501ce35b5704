"""From a trained network to model.onnx and model.json."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from models.training.member import LOGITS, keep_output, member_name, sign
from models.training.networks import Committee

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
        networks: dict[str, list[onnx.NodeProto]] = {}
        for node in onnx.load(prepared).graph.node:
            networks.setdefault(node.name.split("/")[1] if "/" in node.name else "", []).append(node)
        kept = []
        for nodes in networks.values():
            convolutions = [number for number, node in enumerate(nodes) if node.op_type == "Conv"]
            kept += [*nodes[: convolutions[0]], *nodes[convolutions[-1] :]] if convolutions else nodes
        quantize_static(
            prepared,
            path,
            _Samples(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=[node.name for node in kept],
        )


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
