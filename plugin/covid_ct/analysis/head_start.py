"""The first network at work on slices that are read, while the others still are."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Self

import numpy as np
from numpy.typing import NDArray

from covid_ct.inference.scan import Scan
from covid_ct.inference.session import Model
from covid_ct.inference.windows import answer_slices, in_batches, looked_at
from covid_ct.parallel import computing_threads
from covid_ct.series.volume import Volume


class HeadStart:
    """Answers of a 2-D network for slices as they come, in any order; of a 3-D network there are none.

    A context manager, on whose exit nothing runs any more. The network has threads of its own, behind those that read:
    what it has not begun when all is read is left to the analysis. It sees the batches that the analysis would make,
    since some networks (of dynamic quantisation) answer for a slice by what else is in its batch.

    Parameters
    ----------
    model: Model
        Of role lungs.
    uids: Sequence[str]
        SOPInstanceUIDs of the series as it will be read, in the order of `Volume.headers`. If it turns out otherwise,
        all answers took time for nothing.
    affine: NDArray[np.float64]
        As `Volume.affine`.

    Attributes
    ----------
    model: Model
    """

    def __init__(self, model: Model, uids: Sequence[str], affine: NDArray[np.float64]) -> None:
        self.model = model
        self._expected = _feet_to_head(uids, affine)
        spacing = float(np.linalg.norm(affine[:3, 0]))
        flat = model.manifest.input.dimensions == 2
        batches = in_batches(looked_at(model, range(len(uids)), spacing), model.batch) if flat else []
        # Of each slice that is wanted: its batch.
        self._batch_of = {self._expected[index]: tuple(batch) for batch in batches for index in batch}
        self._come: dict[tuple[int, ...], dict[str, NDArray[np.int16]]] = {tuple(batch): {} for batch in batches}
        self._lock = threading.Lock()
        self._pool = computing_threads(model.workers)
        self._begun: dict[tuple[int, ...], Future[NDArray[np.uint8]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def offer(self, image: Volume) -> None:
        """Take a volume of one slice; the network runs as soon as a batch is complete."""
        uid = str(image.headers[0].SOPInstanceUID)
        batch = self._batch_of.get(uid)
        if batch is None:
            return
        with self._lock:
            come = self._come[batch]
            come[uid] = image.to_lps(image.hu)[0].copy()
            if len(come) == len(batch):
                stack = [self._come[batch].pop(self._expected[index]) for index in batch]
                self._begun[batch] = self._pool.submit(self._answer, stack, image.lps_spacing)

    def _answer(self, stack: list[NDArray[np.int16]], spacing: tuple[float, float, float]) -> NDArray[np.uint8]:
        scan = Scan(np.stack(stack), spacing)
        return answer_slices(self.model, scan, range(len(stack)), scan.box(self.model.manifest.input))

    def known(self, volume: Volume) -> dict[int, NDArray[np.uint8]]:
        """The answers by index of the slice in the standard axial view, as `predict` takes them; no more are made.

        Raises
        ------
        ModelError
            Raised if the network failed or answered with what is no number.
        """
        self._pool.shutdown(cancel_futures=True)
        uids = _feet_to_head([str(header.SOPInstanceUID) for header in volume.headers], volume.affine)
        answers: dict[int, NDArray[np.uint8]] = {}
        for batch, run in self._begun.items():
            if not run.cancelled():
                result = run.result()
                answers |= {index: result[:, number] for number, index in enumerate(batch)}
        return answers if list(uids) == list(self._expected) else {}


def _feet_to_head(uids: Sequence[str], affine: NDArray[np.float64]) -> Sequence[str]:
    return uids if affine[2, 0] > 0 else uids[::-1]
