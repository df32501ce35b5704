"""A drawn chest that any network can be tried on, for whether two providers answer alike."""

import numpy as np
from numpy.typing import NDArray

from covid_ct.inference.manifest import ModelInput
from covid_ct.inference.preprocessing import scale_intensities

AIR_HU, MUSCLE_HU, LUNG_HU, GROUND_GLASS_HU, CONSOLIDATION_HU = -1000.0, 40.0, -860.0, -500.0, 20.0

ELLIPSES = (
    (0.0, 0.0, 0.8, 0.97, MUSCLE_HU),
    (0.0, -0.45, 0.6, 0.36, LUNG_HU),
    (0.0, 0.45, 0.6, 0.36, LUNG_HU),
    (0.35, -0.5, 0.18, 0.15, GROUND_GLASS_HU),
    (0.35, 0.5, 0.18, 0.15, GROUND_GLASS_HU),
    (-0.2, 0.45, 0.05, 0.04, CONSOLIDATION_HU),
)
"""Row and column of the centre, and the half axes, with -1 to 1 the image's edges; what comes later lies above."""


def drawn_chest(model_input: ModelInput) -> NDArray[np.float32]:
    """The chest as a network gets it, shape (1, rows, columns), or (1, and the three axes of the manifest).

    The same slice everywhere along z.
    """
    rows, columns = (np.linspace(-1.0, 1.0, count) for count in model_input.size[-2:])
    image = np.full(model_input.size[-2:], AIR_HU, np.float32)
    for row, column, height, width, hu in ELLIPSES:
        inside = ((rows - row) / height)[:, np.newaxis] ** 2 + ((columns - column) / width) ** 2 < 1.0
        image[inside] = hu
    chest = np.broadcast_to(image, model_input.size)
    if model_input.axes == "xyz":
        chest = chest.T
    return scale_intensities(
        np.array(chest[np.newaxis]), model_input.clip_hu, model_input.scale_to, model_input.standardise
    )
