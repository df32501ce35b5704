"""A network that is ready to run: ONNX Runtime under the providers asked for, or a sentence that says why not."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from covid_ct.errors import ModelError
from covid_ct.inference.drawn_chest import drawn_chest
from covid_ct.inference.manifest import Manifest, ModelInput, read_model
from covid_ct.inference.providers import (
    CPU,
    FALLBACKS,
    UnavailableError,
    engine_key,
    first_line,
    nodes_by_provider,
    open_session,
)
from covid_ct.parallel import cores

GPU_BATCH = 32
"""Slices that a GPU gets at once; a smaller rest is filled up, since every new shape costs it a start."""

CPU_BATCH = 2
"""Slices that a thread of the CPU gets at once: few, so that they stay in its cache."""

GPU_WORKERS = 2
"""Batches at once on a GPU: one is prepared while the other runs."""

ROUNDING = 1e-3
"""How far a probability may lie outside of 0 to 1."""

AGREEMENT = 0.2
"""A GPU whose probabilities for a drawn chest differ from the CPU's by more than this anywhere is not used.

Our networks do not where they are calculated as floats, as CUDA does. Of earlier ones, in 8 bits whose steps floats
do not hold exactly, that for lungs differed by 0.02 then, by 0.03 to 0.07 where all its weights were 0.3 % off as
well, and by 0.35 where its bytes were taken for signed ones, which is all that TensorRT knows. That for COVID-19
differed by 0.01 as floats and by up to 0.02 with such weights; that for lesions, which finds none here, by less than
0.01 in all of these, so that no more than gross errors show in it. All of it was simulated on a CPU.
"""

OVERFLOW = 1.0
"""A network in 8 bits whose logits for a drawn chest differ by more than this anywhere from those in floats is run in
floats.

A CPU with AVX2 but without VNNI adds two products in 16 bits, where weights of more than 7 bits overflow: networks of
ours that had such weights differed by 2 to 14 then (QEMU's Haswell; the one for lesions found none any more), and by
0.07 to 0.22 on a CPU with VNNI. The shipped ones answer the same on both.
"""

RUN_LIMIT_S = 300.0
"""Longest time in seconds that one run of a network may take; a batch takes less than a second, even a large 3-D
network on a slow machine about a minute."""


class Model:
    """One network, loaded, checked against its manifest and tried once.

    Parameters
    ----------
    manifest: Manifest
    providers: Sequence[str]
        ONNX Runtime's execution providers, the preferred first. One that cannot be had is passed over for the next
        with a sentence in `warnings`, never in silence.
    threads: int
        CPU threads; 0 takes one for each core. A 2-D network runs so many batches at once, each on one thread, which
        leaves no core idle between two layers; a 3-D network runs one window at a time on all of them.
    gpu: int
        Number of the GPU that CUDA and TensorRT use.
    engine_cache: Path | None
        Folder in which TensorRT's engines are kept from start to start, each network's under its `engine_key`.
    run_limit_s: float
        Longest time in seconds that one run may take.

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

    def __init__(
        self,
        manifest: Manifest,
        providers: Sequence[str] = (CPU,),
        threads: int = 0,
        *,
        gpu: int = 0,
        engine_cache: Path | None = None,
        run_limit_s: float = RUN_LIMIT_S,
    ) -> None:
        self.manifest = manifest
        self._threads = threads or cores()
        self._run_limit_s = run_limit_s
        self._tried = False
        content = read_model(manifest)
        engines = engine_folder(manifest, gpu, engine_cache)
        warnings: list[str] = []
        for provider in providers:
            try:
                self.provider = provider
                self._session = open_session(
                    content, provider, threads=max(1, self._threads // self.workers), gpu=gpu, engines=engines
                )
                self._names = self._check_inputs()
                self._try(content, warnings)
            except UnavailableError as error:
                warnings.append(f"The {manifest.role} model cannot run on {provider}: {error}.")
            else:
                break
        else:
            raise ModelError(
                f"No provider can run the {manifest.role} model {manifest.file}. {' '.join(warnings)} "
                f"Export the network again, or name a provider that is there in Providers ({CPU} always is)."
            )
        self.warnings = tuple(warnings)

    @property
    def batch(self) -> int:
        """Number of slices to run together."""
        if self.provider in FALLBACKS:
            return GPU_BATCH
        # A classifier looks at few slices, and ours keeps maps of some 20 MB for each that it looks at.
        return 1 if self.manifest.role == "covid" else CPU_BATCH

    @property
    def workers(self) -> int:
        """Number of batches to run at once, on as many threads."""
        if self.manifest.input.dimensions == 3:
            return 1
        return GPU_WORKERS if self.provider in FALLBACKS else self._threads

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
            Raised if the network fails, does not end in time, answers in another shape, or with what is no number.
        """
        count = len(images)
        feed: dict[str, NDArray[np.float32]] = {self._names[0]: images[:, np.newaxis]}
        if self.manifest.features:
            feed[self._names[1]] = features if features is not None else np.zeros((count, 0), np.float32)
        if self.batch == GPU_BATCH and self.manifest.input.dimensions == 2:
            feed = {name: _fill_up(array, GPU_BATCH) for name, array in feed.items()}
        answer = self._answer(feed)[:count]
        grid = () if self.manifest.role == "covid" else images.shape[1:]
        expected = (count, self.manifest.output.channels, *grid)
        if answer.shape != expected:
            raise self._error(f"answers in the shape {answer.shape} where its manifest promises {expected}")
        probabilities = _activate(answer.astype(np.float32, copy=False), self.manifest.output.activation)
        # A sum is NaN or infinite as soon as one of its parts is.
        if not np.isfinite(probabilities.sum()):
            raise self._error("answers with values that are no numbers (NaN or infinite)")
        if self.manifest.output.activation == "none" and (
            probabilities.min() < -ROUNDING or probabilities.max() > 1.0 + ROUNDING
        ):
            raise self._error(
                "answers with values outside of 0 to 1 where its manifest promises probabilities "
                '(for logits, its activation is "softmax" or "sigmoid")'
            )
        return probabilities

    def _answer(self, feed: Mapping[str, NDArray[np.float32]]) -> NDArray[Any]:
        """The network's first output; a run that does not end is ended between two of the network's operations."""
        options = onnxruntime.RunOptions()
        late = threading.Timer(self._run_limit_s, setattr, (options, "terminate", True))
        late.daemon = True
        # A GPU's first run builds its engine, for as long as that takes.
        if self._tried or self.provider not in FALLBACKS:
            late.start()
        try:
            answer: NDArray[Any] = self._session.run(None, feed, options)[0]
        # ONNX Runtime's exceptions have no public class in common.
        except Exception as error:
            what = f"did not answer within {self._run_limit_s:g} s" if options.terminate else "failed"
            raise self._error(f"{what} ({first_line(error)})") from error
        finally:
            late.cancel()
        return answer

    def _check_inputs(self) -> list[str]:
        inputs = self._session.get_inputs()
        names = [argument.name for argument in inputs]
        wanted = 2 if self.manifest.features else 1
        if len(names) != wanted:
            raise self._error(f"has {len(names)} inputs ({', '.join(names)}) where its manifest describes {wanted}")
        if wanted == 2:
            if "features" not in names:
                raise self._error(f'has no input named "features" but {", ".join(names)}')
            names.sort(key=lambda name: name == "features")
        shape = next(argument.shape for argument in inputs if argument.name == names[0])
        expected = ("batch", 1, *tensor_size(self.manifest.input))
        if self.manifest.input.dimensions == 2 and isinstance(shape[0], int):
            raise self._error(
                f"takes exactly {shape[0]} images at once; export it with a dynamic first axis "
                f'(dynamic_axes={{"{names[0]}": {{0: "batch"}}}})'
            )
        if len(shape) != len(expected) or any(
            isinstance(length, int) and length != want for length, want in zip(shape[1:], expected[1:], strict=True)
        ):
            raise self._error(f"takes the shape {tuple(shape)} where its manifest promises {expected}")
        return names

    def _try(self, content: bytes, warnings: list[str]) -> None:
        """Run once, on nothing; see that a GPU had a part in it, and that the answers are right."""
        no_features = np.zeros((1, len(self.manifest.features)), np.float32)
        self.run(np.zeros((1, *tensor_size(self.manifest.input)), np.float32), no_features)
        self._tried = True
        if self.provider in FALLBACKS:
            if nodes_by_provider(self._session)[self.provider] == 0:
                raise UnavailableError("it takes no node of the network")
            difference = self._difference_from_cpu(no_features)
            if difference > AGREEMENT:
                raise UnavailableError(
                    f"for a drawn chest its probabilities differ by up to {difference:.2f} from those of {CPU}"
                )
        elif b"QuantizeLinear" in content:
            warnings += self._avoid_overflow(content, no_features)

    def _avoid_overflow(self, content: bytes, features: NDArray[np.float32]) -> list[str]:
        """Go on in floats where this CPU calculates the network wrongly in 8 bits, with a sentence that says so."""
        feed = dict(zip(self._names, (drawn_chest(self.manifest.input)[:, np.newaxis], features), strict=False))
        in_bytes, session = self._answer(feed), self._session
        threads = max(1, self._threads // self.workers)
        self._session = open_session(content, CPU, threads=threads, gpu=0, engines=None, in_floats=True)
        difference = float(np.abs(self._answer(feed) - in_bytes).max())
        if difference <= (AGREEMENT if self.manifest.output.activation == "none" else OVERFLOW):
            self._session = session
            return []
        return [
            f"The {self.manifest.role} model is calculated in floats, which takes longer: in 8 bits its answer for a "
            f"drawn chest differs by up to {difference:.1f} on this processor, as it may on one with AVX2 but without "
            "VNNI; export it with weights of 7 bits (reduce_range of ONNX Runtime's quantize_static)."
        ]

    def _difference_from_cpu(self, features: NDArray[np.float32]) -> float:
        """Largest difference between the provider's probabilities and the CPU's for a drawn chest."""
        chest = drawn_chest(self.manifest.input)
        expected = Model(self.manifest, (CPU,), self._threads, run_limit_s=self._run_limit_s).run(chest, features)
        return float(np.abs(self.run(chest, features) - expected).max())

    def _error(self, what: str) -> ModelError:
        manifest = self.manifest
        return ModelError(
            f"The {manifest.role} model {manifest.name} {manifest.version} ({manifest.file}) {what}; "
            "correct its manifest or export the network again."
        )


def tensor_size(model_input: ModelInput) -> tuple[int, ...]:
    """Sizes of the tensor's last axes, in the order of the manifest's `axes`."""
    return model_input.size[::-1] if model_input.axes == "xyz" else model_input.size


def engine_folder(manifest: Manifest, gpu: int, engine_cache: Path | None) -> Path | None:
    """Where TensorRT's engines of a network are kept."""
    return engine_cache / engine_key(manifest.sha256, gpu) if engine_cache is not None else None


def _fill_up(array: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The array with zeros behind it, up to a number of images."""
    filled = np.zeros((count, *array.shape[1:]), np.float32)
    filled[: len(array)] = array
    return filled


def _activate(answer: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    """Probabilities from logits; may overwrite them."""
    if activation == "softmax":
        answer -= answer.max(axis=1, keepdims=True)
        np.exp(answer, out=answer)
        answer /= answer.sum(axis=1, keepdims=True)
    elif activation == "sigmoid":
        # The clip keeps exp from overflowing and changes nothing that a float32 can tell from 0 or 1.
        answer = np.float32(1.0) / (np.float32(1.0) + np.exp(-np.clip(answer, -80.0, 80.0)))
    return answer
