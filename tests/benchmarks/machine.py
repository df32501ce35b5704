"""What the figures were measured on, and how quick it is by itself."""

import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, shape_inference

from covid_ct.inference.providers import CPU, open_session
from covid_ct.parallel import cores

PACKAGES = ("numpy", "scipy", "pydicom", "highdicom", "fpdf2", "pillow")
"""Packages whose versions stand beside the figures."""

BLOCK_BYTES = 256 * 2**20
"""Size of the blocks that are copied and written to learn the machine's rates: far more than a cache holds."""


def describe() -> str:
    """The machine in general words."""
    models = {line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")}
    memory_gb = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")) / 2**20
    return f"{cores()} cores ({', '.join(sorted(models))}), {memory_gb:.0f} GB of memory, {platform.system()}"


def versions() -> str:
    """Versions of what the plugin runs on."""
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}, {packages}"


def load() -> float:
    """Processes that wanted to run in the last minute, on average."""
    return os.getloadavg()[0]


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def quickest(work: Callable[[], object], times: int) -> float:
    """Shortest of several runs, in seconds."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def copy_rate() -> float:
    """Bytes per second that all cores together copy in memory."""
    parts = cores()
    pairs = [(np.ones(BLOCK_BYTES // parts, np.uint8), np.zeros(BLOCK_BYTES // parts, np.uint8)) for _ in range(parts)]
    with ThreadPoolExecutor(parts) as pool:
        return BLOCK_BYTES / quickest(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)), 5)


def write_rate() -> float:
    """Bytes per second that reach the disk."""
    content = os.urandom(BLOCK_BYTES // 8)
    with tempfile.NamedTemporaryFile() as file:

        def write() -> None:
            file.seek(0)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

        return len(content) / quickest(write, 3)


def multiplications(model: Path) -> int:
    """Multiplications that a network's convolutions need for one image."""
    network = onnx.load(model)
    for argument in network.graph.input:
        dimension = argument.type.tensor_type.shape.dim[0]
        dimension.dim_value = 1
    graph = shape_inference.infer_shapes(network).graph
    sizes = {item.name: list(item.dims) for item in graph.initializer}
    for node in graph.node:
        # Weights of a quantized network pass through the one node, those that two convolutions share through the other.
        if node.op_type in ("DequantizeLinear", "Identity") and node.input[0] in sizes:
            sizes[node.output[0]] = sizes[node.input[0]]
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]][2:])) * int(np.prod(sizes[node.input[1]]))
    return total


def is_quantized(model: Path) -> bool:
    """Whether a network calculates in 8 bits."""
    return any(node.op_type == "QuantizeLinear" for node in onnx.load(model).graph.node)


def multiplication_rate(*, quantized: bool) -> float:
    """Multiplications per second of convolutions in ONNX Runtime, one network on each core as the plugin runs them."""
    channels, size, layers = 64, 128, 8
    content = _convolutions(channels, size, layers, quantized=quantized)
    image = np.zeros((1, channels, size, size), np.float32)
    sessions = [open_session(content, CPU, threads=1, gpu=0, engines=None) for _ in range(cores())]
    with ThreadPoolExecutor(len(sessions)) as pool:
        seconds = quickest(lambda: list(pool.map(lambda session: session.run(None, {"image": image}), sessions)), 8)
    return len(sessions) * layers * channels**2 * 9 * size**2 / seconds


def _convolutions(channels: int, size: int, layers: int, *, quantized: bool) -> bytes:
    """A network of nothing but convolutions."""
    weights = np.ones((channels, channels, 3, 3), np.int8 if quantized else np.float32)
    initializers = [numpy_helper.from_array(weights, "weights")]
    nodes = []
    if quantized:
        initializers += [
            numpy_helper.from_array(np.float32(0.01), "scale"),
            numpy_helper.from_array(np.uint8(0), "zero"),
            numpy_helper.from_array(np.int8(0), "zero of weights"),
        ]
        nodes.append(helper.make_node("DequantizeLinear", ["weights", "scale", "zero of weights"], ["real weights"]))
    name = "image"
    for layer in range(layers):
        if quantized:
            nodes += _through_bytes(name, f"in {layer}")
            name = f"in {layer}"
        nodes.append(
            helper.make_node(
                "Conv", [name, "real weights" if quantized else "weights"], [f"out {layer}"], pads=[1, 1, 1, 1]
            )
        )
        name = f"out {layer}"
    if quantized:
        nodes += _through_bytes(name, "answer")
        name = "answer"
    shape = (1, channels, size, size)
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _through_bytes(source: str, target: str) -> Sequence[onnx.NodeProto]:
    return (
        helper.make_node("QuantizeLinear", [source, "scale", "zero"], [f"{target} bytes"]),
        helper.make_node("DequantizeLinear", [f"{target} bytes", "scale", "zero"], [target]),
    )


def has_gpu() -> bool:
    """Whether ONNX Runtime was built for one and a driver is there."""
    return "CUDAExecutionProvider" in onnxruntime.get_available_providers() and Path("/dev/nvidiactl").exists()
