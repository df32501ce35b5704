"""The first network at work on slices that are read, while the others still are."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Self

import numpy as np
from numpy.typing import NDArray

from covid_ct.inference.scan import Scan
from covid_ct.inference.session import Model
from covid_ct.inference.windows import answer_slices, looked_at
from covid_ct.parallel import computing_threads
from covid_ct.series.volume import Volume


class HeadStart:
    """Answers of a 2-D network for slices as they come, in any order; of a 3-D network there are none.

    A context manager, on whose exit nothing runs any more. The network has threads of its own, behind those that read:
    what it has not begun when all is read is left to the analysis.

    Parameters
    ----------
    model: Model
        Of role lungs.
    uids: Sequence[str]
        SOPInstanceUIDs of the series as it will be read, in the order of `Volume.headers`. If it turns out otherwise,
        answers that are not needed took time for nothing.
    affine: NDArray[np.float64]
        As `Volume.affine`.

    Attributes
    ----------
    model: Model
    """

    def __init__(self, model: Model, uids: Sequence[str], affine: NDArray[np.float64]) -> None:
        self.model = model
        ascending = _feet_to_head(uids, affine)
        spacing = float(np.linalg.norm(affine[:3, 0]))
        flat = model.manifest.input.dimensions == 2
        self._wanted = {ascending[index] for index in looked_at(model, range(len(uids)), spacing)} if flat else set()
        self._waiting: list[tuple[str, NDArray[np.int16]]] = []
        self._lock = threading.Lock()
        self._pool = computing_threads(model.workers)
        self._begun: list[Future[dict[str, NDArray[np.uint8]]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def offer(self, image: Volume) -> None:
        """Take a volume of one slice; the network runs as soon as a batch is complete."""
        uid = str(image.headers[0].SOPInstanceUID)
        if uid not in self._wanted:
            return
        with self._lock:
            self._waiting.append((uid, image.to_lps(image.hu)[0].copy()))
            if len(self._waiting) == self.model.batch:
                self._begun.append(self._pool.submit(self._answer, self._waiting, image.lps_spacing))
                self._waiting = []

    def _answer(
        self, batch: list[tuple[str, NDArray[np.int16]]], spacing: tuple[float, float, float]
    ) -> dict[str, NDArray[np.uint8]]:
        scan = Scan(np.stack([hu for _, hu in batch]), spacing)
        answers = answer_slices(self.model, scan, range(len(batch)), scan.box(self.model.manifest.input))
        return {uid: answers[:, number] for number, (uid, _) in enumerate(batch)}

    def known(self, volume: Volume) -> dict[int, NDArray[np.uint8]]:
        """The answers by index of the slice in the standard axial view, as `predict` takes them; no more are made.

        Raises
        ------
        ModelError
            Raised if the network failed or answered with what is no number.
        """
        self._pool.shutdown(cancel_futures=True)
        answers: dict[str, NDArray[np.uint8]] = {}
        for run in self._begun:
            if not run.cancelled():
                answers |= run.result()
        uids = _feet_to_head([str(header.SOPInstanceUID) for header in volume.headers], volume.affine)
        return {index: answers[uid] for index, uid in enumerate(uids) if uid in answers}


def _feet_to_head(uids: Sequence[str], affine: NDArray[np.float64]) -> Sequence[str]:
    return uids if affine[2, 0] > 0 else uids[::-1]
