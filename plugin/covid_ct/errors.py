"""The one tree of exceptions. Every message is a sentence for a person."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a series is not analysed: the stable code beside the sentence."""

    NOT_CT = "NotCT"
    LOCALIZER = "Localizer"
    OWN_RESULT = "OwnResult"
    MULTI_FRAME = "MultiFrame"
    TOO_FEW_SLICES = "TooFewSlices"
    TOO_MANY_SLICES = "TooManySlices"
    NOT_AXIAL = "NotAxial"
    MIXED_ORIENTATION = "MixedOrientation"
    MIXED_SIZE = "MixedSize"
    MIXED_IDENTITY = "MixedIdentity"
    DUPLICATE_POSITIONS = "DuplicatePositions"
    GAPS = "Gaps"
    UNEVEN_SPACING = "UnevenSpacing"
    GANTRY_TILT = "GantryTilt"
    BAD_GEOMETRY = "BadGeometry"
    BAD_HEADER = "BadHeader"
    BAD_PIXELS = "BadPixels"
    NO_LUNGS = "NoLungs"


class CovidCtError(Exception):
    """Base of every error that this package raises on purpose."""


class SeriesRefused(CovidCtError):
    """Raised if a series cannot be analysed, however often it is tried.

    Parameters
    ----------
    reason: Reason
        Stable code, for programs.
    sentence: str
        What is wrong with which series, for people. Holds UIDs at most, no name and no patient ID.
    """

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class ModelError(CovidCtError):
    """Raised if a model is missing, differs from its manifest, or answers with what it should not."""


class AnalysisCancelled(CovidCtError):
    """Raised if an analysis was cancelled while it ran."""
