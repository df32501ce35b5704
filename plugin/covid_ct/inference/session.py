"""A network that is ready to run: ONNX Runtime under the providers asked for, or a sentence that says why not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from covid_ct.errors import ModelError
from covid_ct.inference.manifest import Manifest, ModelInput, read_model

CPU = "CPUExecutionProvider"

GPU_FALLBACKS: dict[str, tuple[str, ...]] = {
    "TensorrtExecutionProvider": ("CUDAExecutionProvider", CPU),
    "CUDAExecutionProvider": (CPU,),
}
"""Who runs the nodes that a provider leaves, shape arithmetic mostly."""


class Model:
    """One network, loaded, checked against its manifest and tried once.

    Parameters
    ----------
    manifest: Manifest
    providers: Sequence[str]
        ONNX Runtime's execution providers, the preferred first. One that cannot be had is passed over for the next
        with a sentence in `warnings`, never in silence.
    threads: int
        Threads of the CPU that one run may use; 0 lets ONNX Runtime take all cores.

    Attributes
    ----------
    manifest: Manifest
    provider: str
        The provider that really runs it.
    warnings: tuple[str, ...]
        Which of the providers asked for could not be had, and why.

    Raises
    ------
    ModelError
        Raised if the file is not the manifest's, no provider can run it, or it does not answer as the manifest says.
    """

    def __init__(self, manifest: Manifest, providers: Sequence[str] = (CPU,), threads: int = 0) -> None:
        self.manifest = manifest
        content = read_model(manifest)
        self._session, self.provider, self.warnings = _open(manifest, content, providers, threads)
        self._names = self._check_inputs()
        zeros = np.zeros((1, *tensor_size(manifest.input)), np.float32)
        self.run(zeros, np.zeros((1, len(manifest.features)), np.float32))

    def run(self, images: NDArray[np.float32], features: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Probabilities of the classes.

        Parameters
        ----------
        images: NDArray[np.float32]
            Prepared images, shape (batch, rows, columns), or (batch, and the three axes in the manifest's order).
        features: NDArray[np.float32] | None
            Shape (batch, features), for a manifest that names some.

        Returns
        -------
        NDArray[np.float32]
            Shape (batch, classes, ...) with the network's grid, or (batch, classes) of a classifier. A sigmoid's one
            channel is the probability of the last class.

        Raises
        ------
        ModelError
            Raised if the network fails, answers in another shape, or with what is no number.
        """
        feed: dict[str, NDArray[np.float32]] = {self._names[0]: images[:, np.newaxis]}
        if self.manifest.features:
            feed[self._names[1]] = features if features is not None else np.zeros((len(images), 0), np.float32)
        try:
            answer = self._session.run(None, feed)[0]
        # ONNX Runtime's exceptions have no public class in common.
        except Exception as error:
            raise self._error(f"failed ({_first_line(error)})") from error
        grid = () if self.manifest.role == "covid" else images.shape[1:]
        expected = (len(images), self.manifest.output.channels, *grid)
        if answer.shape != expected:
            raise self._error(f"answers in the shape {answer.shape} where its manifest promises {expected}")
        probabilities = _activate(answer.astype(np.float32, copy=False), self.manifest.output.activation)
        # A sum is NaN or infinite as soon as one of its parts is.
        if not np.isfinite(probabilities.sum(dtype=np.float64)):
            raise self._error("answers with values that are no numbers (NaN or infinite)")
        return probabilities

    def _check_inputs(self) -> list[str]:
        names = [argument.name for argument in self._session.get_inputs()]
        wanted = 2 if self.manifest.features else 1
        if len(names) != wanted:
            raise self._error(f"has {len(names)} inputs ({', '.join(names)}) where its manifest describes {wanted}")
        if wanted == 2:
            if "features" not in names:
                raise self._error(f'has no input named "features" but {", ".join(names)}')
            names.sort(key=lambda name: name == "features")
        return names

    def _error(self, what: str) -> ModelError:
        manifest = self.manifest
        return ModelError(
            f"The {manifest.role} model {manifest.name} {manifest.version} ({manifest.file}) {what}; "
            "correct its manifest or export the network again."
        )


def tensor_size(model_input: ModelInput) -> tuple[int, ...]:
    """Sizes of the tensor's last axes, in the order of the manifest's `axes`."""
    return model_input.size[::-1] if model_input.axes == "xyz" else model_input.size


def _open(
    manifest: Manifest, content: bytes, providers: Sequence[str], threads: int
) -> tuple[Any, str, tuple[str, ...]]:
    """Session, the provider it runs on, and a sentence for every provider that was passed over."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would take the cores from Orthanc between two runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    warnings: list[str] = []
    for provider in providers:
        problem = None
        session = None
        if provider not in onnxruntime.get_available_providers():
            problem = "this ONNX Runtime was built without it"
        else:
            try:
                session = onnxruntime.InferenceSession(
                    content, options, providers=[provider, *GPU_FALLBACKS.get(provider, ())]
                )
            # As in Model.run.
            except Exception as error:  # noqa: BLE001
                problem = _first_line(error)
            else:
                # ONNX Runtime goes on without a provider whose libraries it cannot load.
                if session.get_providers()[0] != provider:
                    problem = "its libraries could not be loaded"
        if problem is None:
            return session, provider, tuple(warnings)
        warnings.append(f"The {manifest.role} model cannot run on {provider}: {problem}.")
    raise ModelError(
        f"No provider can run the {manifest.role} model {manifest.file}. {' '.join(warnings)} "
        f"Export the network again, or name a provider that is there in Providers ({CPU} always is)."
    )


def _activate(answer: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    """Probabilities from logits; may overwrite them."""
    if activation == "softmax":
        answer = np.exp(answer - answer.max(axis=1, keepdims=True))
        answer /= answer.sum(axis=1, keepdims=True)
    elif activation == "sigmoid":
        # The clip keeps exp from overflowing and changes nothing that a float32 can tell from 0 or 1.
        answer = np.float32(1.0) / (np.float32(1.0) + np.exp(-np.clip(answer, -80.0, 80.0)))
    return answer


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
