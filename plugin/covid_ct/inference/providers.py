"""ONNX Runtime's execution providers: which one runs a network, and proof that it does."""

import contextlib
import ctypes
import functools
import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import onnxruntime

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

FALLBACKS: dict[str, tuple[str, ...]] = {TENSORRT: (CUDA, CPU), CUDA: (CPU,)}
"""Who runs the nodes that a provider leaves, shape arithmetic mostly."""

PRECISION = "fp32"
"""What TensorRT calculates in; part of the engines' key."""


class UnavailableError(Exception):
    """Raised if a provider cannot run a network; the message says why and is no whole sentence."""


def open_session(
    content: bytes, provider: str, *, threads: int, gpu: int, engines: Path | None, in_floats: bool = False
) -> Any:
    """Open a network on one provider.

    Parameters
    ----------
    content: bytes
        The ONNX file.
    provider: str
    threads: int
        CPU threads of one run.
    gpu: int
        Number of the GPU.
    engines: Path | None
        Folder in which TensorRT keeps this network's engines; None keeps none.
    in_floats: bool
        Whether a CPU calculates as floats what the file has in 8 bits between QuantizeLinear and DequantizeLinear.

    Returns
    -------
    onnxruntime.InferenceSession
        On a GPU it writes a profile until `nodes_by_provider` reads it.

    Raises
    ------
    UnavailableError
        Raised if ONNX Runtime has no such provider, cannot load its libraries, or cannot run the network on it.
    """
    if provider not in onnxruntime.get_available_providers():
        raise UnavailableError("this ONNX Runtime was built without it")
    missing = _load_cuda() if provider in FALLBACKS else ""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would take the cores from Orthanc between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1" if in_floats else "0")
    folder = None
    if provider in FALLBACKS:
        folder = mkdtemp(prefix="covid-ct-profile-")
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
    names = (provider, *FALLBACKS.get(provider, ()))
    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=[(name, _options(name, gpu, engines)) for name in names]
        )
    # ONNX Runtime's exceptions have no public class in common.
    except Exception as error:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        raise UnavailableError(first_line(error)) from error
    # ONNX Runtime goes on without a provider whose libraries it cannot load.
    if session.get_providers()[0] != provider:
        nodes_by_provider(session)
        raise UnavailableError(f"its libraries could not be loaded{missing and f' ({missing})'}")
    return session


@functools.cache
def _load_cuda() -> str:
    """Load the libraries of CUDA and cuDNN that pip installed, which the loader does not look for; what is missing.

    Where they are installed otherwise, ONNX Runtime finds them by itself.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        onnxruntime.preload_dlls()
    return printed.getvalue().partition("\n")[0]


def nodes_by_provider(session: Any) -> Counter[str]:
    """End a session's profile and count the nodes that each provider ran in it."""
    path = Path(session.end_profiling())
    try:
        events = json.loads(path.read_bytes())
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)
    return Counter(event["args"]["provider"] for event in events if "provider" in event.get("args", {}))


def engine_key(model_sha256: str, gpu: int) -> str:
    """Name under which TensorRT's engines for a network are kept: engines fit nothing but what they were built with.

    Parameters
    ----------
    model_sha256: str
    gpu: int
        Number of the GPU.

    Returns
    -------
    str
        Hexadecimal; another one for another network, ONNX Runtime, TensorRT, driver, GPU or precision.
    """
    parts = [model_sha256, onnxruntime.__version__, *_tensorrt_versions(), *gpu_identity(gpu), PRECISION]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def first_line(error: Exception) -> str:
    """An error's message without what follows its first line, and without the full stop."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _options(provider: str, gpu: int, engines: Path | None) -> dict[str, str]:
    if provider == CPU:
        return {}
    options = {"device_id": str(gpu)}
    if provider == CUDA:
        # TensorFloat-32 rounds a network's maps to ten bits, and masks would differ from those of a CPU.
        options["use_tf32"] = "0"
    if provider == TENSORRT and engines is not None:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engines),
        }
    return options


def _tensorrt_versions() -> Iterator[str]:
    """TensorRT's Python packages with their versions; none where it was installed otherwise."""
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"] or ""
        if name.lower().startswith("tensorrt"):
            yield f"{name} {distribution.version}"


def gpu_identity(gpu: int) -> Iterator[str]:
    """Name of a GPU and version of CUDA's driver, asked of the driver itself; nothing where there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    name, version, device = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), gpu):
        return
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    yield from (name.value.decode(errors="replace"), str(version.value))
