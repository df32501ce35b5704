"""The place of one model: what runs now, and the faster engine that is being built for it."""

import threading
from collections.abc import Sequence
from pathlib import Path

from covid_ct.errors import ModelError
from covid_ct.inference.manifest import Manifest
from covid_ct.inference.providers import TENSORRT
from covid_ct.inference.session import RUN_LIMIT_S, Model, engine_folder

READY = "ready"
"""Name of the empty file that marks a complete set of engines."""


class ModelSlot:
    """A model that works at once and may become faster.

    TensorRT takes minutes to build an engine. Where it is asked for first and no engine is kept yet, the model starts
    on the next provider, the engine is built on a thread, and analyses that begin later get it.

    Parameters
    ----------
    manifest, providers, threads, gpu, engine_cache, run_limit_s
        As of `Model`.

    Raises
    ------
    ModelError
        Raised if the model cannot run.
    """

    def __init__(
        self,
        manifest: Manifest,
        providers: Sequence[str],
        threads: int = 0,
        *,
        gpu: int = 0,
        engine_cache: Path | None = None,
        run_limit_s: float = RUN_LIMIT_S,
    ) -> None:
        self._manifest, self._providers = manifest, providers
        self._threads, self._gpu, self._engine_cache = threads, gpu, engine_cache
        self._run_limit_s = run_limit_s
        self._problem: tuple[str, ...] = ()
        self._builder: threading.Thread | None = None
        if providers[:1] == (TENSORRT,) and len(providers) > 1 and not self._engines_are_ready():
            self._model = self._open(providers[1:])
            self._builder = threading.Thread(target=self._build, name=f"tensorrt-{manifest.role}", daemon=True)
            self._builder.start()
        else:
            self._model = self._open(providers)
            self._mark_ready()

    @property
    def model(self) -> Model:
        """What an analysis that begins now is to use from its beginning to its end."""
        return self._model

    @property
    def warnings(self) -> tuple[str, ...]:
        """Which of the providers asked for could not be had, and why."""
        return (*self._problem, *self._model.warnings)

    def wait(self) -> None:
        """Wait until no engine is being built."""
        if self._builder is not None:
            self._builder.join()

    def _open(self, providers: Sequence[str]) -> Model:
        return Model(
            self._manifest,
            providers,
            self._threads,
            gpu=self._gpu,
            engine_cache=self._engine_cache,
            run_limit_s=self._run_limit_s,
        )

    def _build(self) -> None:
        try:
            # The provider that runs already stands behind it, for the sentence that says why TensorRT does not.
            self._model = self._open(self._providers)
        except ModelError as error:
            self._problem = (str(error),)
        else:
            self._mark_ready()

    def _engines_are_ready(self) -> bool:
        folder = engine_folder(self._manifest, self._gpu, self._engine_cache)
        return folder is not None and (folder / READY).exists()

    def _mark_ready(self) -> None:
        folder = engine_folder(self._manifest, self._gpu, self._engine_cache)
        if folder is not None and self._model.provider == TENSORRT:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / READY).touch()
