"""One analysis from a volume to its findings."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covid_ct.analysis.edges import join_edges, trim_edge
from covid_ct.analysis.findings import Findings, LabelMaps, ModelIdentity
from covid_ct.analysis.head_start import HeadStart
from covid_ct.analysis.lesions import find_lesions
from covid_ct.analysis.lungs import cut_off_warning, cut_through_warning, find_lungs, one_sided_warning
from covid_ct.analysis.measurements import measure
from covid_ct.analysis.probability import covid_probability
from covid_ct.analysis.upsampling import paint
from covid_ct.errors import AnalysisCancelled
from covid_ct.inference.manifest import Role, load_manifest
from covid_ct.inference.providers import CPU
from covid_ct.inference.scan import Scan
from covid_ct.inference.session import RUN_LIMIT_S, Model
from covid_ct.inference.slot import ModelSlot
from covid_ct.inference.windows import predict
from covid_ct.series.volume import Volume

ROLES: tuple[Role, ...] = ("lungs", "lesions", "covid")
"""The models of an analysis, in the order in which they run; each in the folder of its name."""

STAGES = {"lungs": (0.0, 0.5), "lesions": (0.5, 0.9), "probability": (0.9, 1.0)}
"""Share of the whole, about, that each stage takes."""


class Analyzer:
    """The three models, loaded and checked, and what is made with them.

    Parameters
    ----------
    models_folder: Path
        Holds the folders lungs, lesions and covid, each with model.json and the ONNX file that it names.
    providers: Sequence[str]
        ONNX Runtime's execution providers, the preferred first.
    threads: int
        CPU threads for the networks; 0 takes one for each core.
    gpu: int
        Number of the GPU that CUDA and TensorRT use.
    engine_cache: Path | None
        Folder in which TensorRT's engines are kept; None builds them anew at every start.
    run_limit_s: float
        Longest time in seconds that one run of a network may take.

    Raises
    ------
    ModelError
        Raised if a model is missing, differs from its manifest, or does not answer as it promises.
    """

    def __init__(
        self,
        models_folder: Path,
        providers: Sequence[str] = (CPU,),
        threads: int = 0,
        *,
        gpu: int = 0,
        engine_cache: Path | None = None,
        run_limit_s: float = RUN_LIMIT_S,
    ) -> None:
        self._slots = {
            role: ModelSlot(
                load_manifest(models_folder / role, role),
                tuple(providers),
                threads,
                gpu=gpu,
                engine_cache=engine_cache,
                run_limit_s=run_limit_s,
            )
            for role in ROLES
        }

    @property
    def identities(self) -> tuple[ModelIdentity, ...]:
        """Which models, on which providers an analysis that begins now would run, in the order of `ROLES`."""
        return tuple(_identity(slot.model) for slot in self._slots.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """Which of the providers asked for could not be had, as sentences for log and status."""
        return tuple(warning for slot in self._slots.values() for warning in slot.warnings)

    def wait(self) -> None:
        """Wait until no TensorRT engine is being built."""
        for slot in self._slots.values():
            slot.wait()

    @property
    def settings(self) -> dict[str, object]:
        """What changes the findings beside the models' sha256s: the manifests, by the sha256 of each."""
        return {f"{role} manifest": slot.model.manifest.manifest_sha256 for role, slot in self._slots.items()}

    @property
    def fingerprint(self) -> str:
        """sha256 over all models and settings: other models, other findings."""
        parts = [*(identity.sha256 for identity in self.identities), *map(str, self.settings.values())]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def head_start(self, uids: Sequence[str], affine: NDArray[np.float64]) -> HeadStart:
        """The first network, ready for slices of a series that is being read, for `analyze`.

        Parameters
        ----------
        uids: Sequence[str]
            SOPInstanceUIDs of the series, in the order in which they will be in its volume.
        affine: NDArray[np.float64]
            As `Volume.affine`.
        """
        return HeadStart(self._slots["lungs"].model, uids, affine)

    def analyze(
        self,
        volume: Volume,
        progress: Callable[[str, float], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        head_start: HeadStart | None = None,
        segmented: Callable[[LabelMaps], None] = lambda _maps: None,
    ) -> Findings:
        """Analyse one series. The same volume gives the same findings.

        Parameters
        ----------
        volume: Volume
        progress: Callable[[str, float], None] | None
            Called with the stage ("lungs", "lesions", "probability") and the fraction, 0-1, of the whole analysis that
            is done.
        cancelled: Callable[[], bool] | None
            Asked after every batch of slices whether to stop.
        head_start: HeadStart | None
            What is known of slices that were read first; makes no difference but in time.
        segmented: Callable[[LabelMaps], None]
            Called on a thread of its own with the label maps, which are final, while the classifier runs. What it
            raises ends the analysis.

        Returns
        -------
        Findings

        Raises
        ------
        AnalysisCancelled
            Raised if `cancelled` said so.
        SeriesRefused
            Raised if the series shows no lungs.
        ModelError
            Raised if a model fails or answers with what is no number.
        """

        def ticker(stage: str) -> Callable[[float], None]:
            start, stop = STAGES[stage]

            def tick(fraction: float) -> None:
                if cancelled is not None and cancelled():
                    raise AnalysisCancelled(f"The analysis of series {volume.series_uid} was cancelled.")
                if progress is not None:
                    progress(stage, start + fraction * (stop - start))

            tick(0.0)
            return tick

        # What runs now runs to the end, even if an engine gets ready meanwhile.
        models = {role: slot.model for role, slot in self._slots.items()}
        tick = ticker("lungs")
        known = {}
        if head_start is not None:
            models["lungs"], known = head_start.model, head_start.known(volume)
        lungs = np.zeros(volume.hu.shape, np.uint8)
        lesions = np.zeros(volume.hu.shape, np.uint8)
        # Views: what is painted into them stands in the volume's own grid.
        lungs_view, lesions_view = volume.to_lps(lungs), volume.to_lps(lesions)
        hu = volume.to_lps(volume.hu)
        spacing = volume.lps_spacing

        scan = Scan(hu, spacing)
        prediction = predict(models["lungs"], scan, tick, known)
        lung_map = find_lungs(prediction, scan, volume.series_uid)
        paint(lungs_view, lung_map)
        # Grids of this size are not to lie about while the next stage works.
        del prediction, lung_map

        scan = Scan(hu, spacing, lungs_view)
        prediction = predict(models["lesions"], scan, ticker("lesions"))
        lesion_map, grown = find_lesions(prediction, scan)
        paint(lesions_view, lesion_map)
        join_edges(lungs_view, lesions_view, prediction.grid, grown)
        trim_edge(lungs_view, lesions_view, hu, spacing[1])
        del prediction, lesion_map, grown

        # ONNX Runtime classifies without Python's lock; what else is to be done with the maps mostly needs it.
        with ThreadPoolExecutor(1, thread_name_prefix="covid-maps") as beside:
            others = beside.submit(segmented, LabelMaps(lungs, lesions))
            measuring = beside.submit(measure, volume, lungs, lesions)
            probability = covid_probability(models["covid"], scan, lesions_view, ticker("probability"))
            # A GPU classifies in less time than the first of the two takes: this thread has time for the second.
            measurements = measure(volume, lungs, lesions) if measuring.cancel() else measuring.result()
            others.result()
        oddities = (
            cut_off_warning(lungs_view, spacing[1] * spacing[2]),
            cut_through_warning(hu, lungs_view),
            one_sided_warning(measurements.lung_volume_ml),
        )
        return Findings(
            lungs=lungs,
            lesions=lesions,
            measurements=measurements,
            covid_probability=probability,
            models=tuple(_identity(model) for model in models.values()),
            warnings=(*volume.warnings, *(sentence for sentence in oddities if sentence)),
        )


def _identity(model: Model) -> ModelIdentity:
    manifest = model.manifest
    return ModelIdentity(
        role=manifest.role,
        name=manifest.name,
        version=manifest.version,
        sha256=manifest.sha256,
        provider=model.provider,
        accuracy=manifest.accuracy,
    )
