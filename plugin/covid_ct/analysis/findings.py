"""The value that an analysis makes: masks, measurements, probability, and what made them."""

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Side(IntEnum):
    """Labels of the lung map; the patient's right and left."""

    RIGHT = 1
    LEFT = 2


class LesionKind(IntEnum):
    """Labels of the lesion map."""

    GROUND_GLASS = 1
    CONSOLIDATION = 2


def where_label(labels: NDArray[np.uint8], label: int) -> NDArray[np.bool_]:
    """Where a label map holds a `Side` or a `LesionKind`.

    NumPy takes sixteen times longer to compare an array with an IntEnum than with a number of its own type.
    """
    return np.asarray(labels == np.uint8(label))


@dataclass(frozen=True)
class BySide:
    """One measure for both lungs together and for each of them (the patient's right and left)."""

    total: float
    right: float
    left: float


@dataclass(frozen=True)
class Thirds:
    """One measure for the upper, middle and lower third of one lung, by height of that lung from feet to head."""

    upper: float
    middle: float
    lower: float


@dataclass(frozen=True)
class Lesion:
    """One connected lesion.

    Attributes
    ----------
    side: str
        "right" or "left".
    volume_ml: float
        Ground glass and consolidation together.
    slice_index: int
        Index along the volume's slices where its area is largest.
    center_mm: tuple[float, float, float]
        Its centroid in patient coordinates (LPS, mm).
    """

    side: str
    volume_ml: float
    slice_index: int
    center_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Measurements:
    """What was measured. Volumes in ml, ratios as fractions 0-1.

    Lung volume includes lesions and vessels, not the trachea and the main bronchi.
    """

    lung_volume_ml: BySide
    lesion_volume_ml: BySide
    lesion_to_lung_ratio: BySide
    ground_glass_volume_ml: BySide
    consolidation_volume_ml: BySide
    ground_glass_to_lung_ratio: BySide
    consolidation_to_lung_ratio: BySide
    lesion_to_lung_ratio_of_thirds: dict[str, Thirds]
    lesions: tuple[Lesion, ...]


@dataclass(frozen=True)
class ModelIdentity:
    """Which model made a result.

    Attributes
    ----------
    role: str
        "lungs", "lesions" or "covid".
    name, version, sha256: str
        From the manifest; the sha256 is that of the ONNX file.
    provider: str
        ONNX Runtime's execution provider that really ran it.
    accuracy: str
        Measured accuracy in a line, with the data it comes from, from the manifest.
    """

    role: str
    name: str
    version: str
    sha256: str
    provider: str
    accuracy: str


@dataclass(frozen=True)
class LabelMaps:
    """Where the lungs and their lesions are.

    Attributes
    ----------
    lungs: NDArray[np.uint8]
        Label map on the volume's grid, shape (slices, rows, columns): 0 or a `Side`.
    lesions: NDArray[np.uint8]
        Label map on the same grid: 0 or a `LesionKind`; nonzero only where `lungs` is.
    """

    lungs: NDArray[np.uint8]
    lesions: NDArray[np.uint8]


@dataclass(frozen=True)
class Findings(LabelMaps):
    """The result of one analysis.

    Attributes
    ----------
    measurements: Measurements
    covid_probability: float
        Probability of COVID-19 pneumonia, 0-1, of the classifier named in `models`.
    models: tuple[ModelIdentity, ...]
        In the order lungs, lesions, covid.
    warnings: tuple[str, ...]
        Sentences, the volume's first.
    """

    measurements: Measurements
    covid_probability: float
    models: tuple[ModelIdentity, ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The findings without the masks, ready for JSON."""
        return {
            "slices": len(self.lungs),
            **asdict(self.measurements),
            "covid_probability": self.covid_probability,
            "models": [asdict(model) for model in self.models],
            "warnings": list(self.warnings),
            "research_use_only": True,
        }
