"""What a phantom shall be like."""

from dataclasses import dataclass
from enum import StrEnum


class Lesions(StrEnum):
    """Which lesions the phantom has."""

    BOTH = "both"
    """Both lungs, the right one more."""
    RIGHT = "right"
    """The right lung alone."""
    SINGLE_SLICE = "single-slice"
    """Both lungs, on one slice alone."""
    NONE = "none"
    """Healthy lungs."""


class Position(StrEnum):
    """PatientPosition (0018,5100): how the patient lies in the scanner, and so how the images are turned."""

    HFS = "HFS"
    """Head first, supine: rows to the patient's left, columns to the back."""
    FFS = "FFS"
    """Feet first, supine: rows to the patient's right, columns to the back."""
    HFP = "HFP"
    """Head first, prone: rows to the patient's right, columns to the front."""


@dataclass(frozen=True)
class PhantomOptions:
    """Choices for one phantom; the same options always give the same phantom, voxel by voxel.

    Attributes
    ----------
    seed: int
        Start of the random numbers that shape vessels, lesions and noise.
    slices: int
        Number of slices; they are centred on the middle of the chest. Default is 100.
    spacing_mm: float
        Distance in mm between neighbouring slices. Default is 3 mm; 300 mm in all hold the whole lungs.
    thickness_mm: float
        Thickness in mm of the slab that a slice averages; 0 means the spacing. Default is 0.
    matrix: int
        Rows and columns. The field of view is 358.4 mm, so 512 has pixels of 0.7 mm. Default is 512.
    lesions: Lesions
        Default is both lungs.
    position: Position
        Default is head first, supine. The anatomy stays where it is in patient coordinates.
    columns_to_front: bool
        Turn the columns' direction round, so that images are stored upside down. Default is no.
    reversed_order: bool
        Number the instances from the other end of the series. Default is no.
    """

    seed: int = 1
    slices: int = 100
    spacing_mm: float = 3.0
    thickness_mm: float = 0.0
    matrix: int = 512
    lesions: Lesions = Lesions.BOTH
    position: Position = Position.HFS
    columns_to_front: bool = False
    reversed_order: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.slices <= 2000:
            raise ValueError(f"A phantom has 1 to 2000 slices, not {self.slices}.")
        if not 0.3 <= self.spacing_mm <= 20:
            raise ValueError(f"A phantom's slices lie 0.3 to 20 mm apart, not {self.spacing_mm} mm.")
        if not 0 <= self.thickness_mm <= 20:
            raise ValueError(f"A phantom's slices are at most 20 mm thick, not {self.thickness_mm} mm.")
        if not 64 <= self.matrix <= 1024:
            raise ValueError(f"A phantom has 64 to 1024 rows and columns, not {self.matrix}.")

    @property
    def slab_mm(self) -> float:
        """Thickness in mm of the slab that a slice averages."""
        return self.thickness_mm or self.spacing_mm
