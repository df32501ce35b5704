"""Connected parts of large masks, without a large array beside them."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def part_sizes(parts: Iterable[NDArray[np.int32]], count: int) -> NDArray[np.int64]:
    """Number of cells of every connected part.

    Counted slice by slice: NumPy's bincount makes 64-bit numbers of whatever it counts.

    Parameters
    ----------
    parts: Iterable[NDArray[np.int32]]
        Labels from `scipy.ndimage.label`, slice by slice.
    count: int
        Number of parts.

    Returns
    -------
    NDArray[np.int64]
        Shape (count + 1,); the first, of the background, is 0.
    """
    sizes = np.zeros(count + 1, np.int64)
    for image in parts:
        found = np.bincount(image.ravel())
        sizes[: len(found)] += found
    sizes[0] = 0
    return sizes
