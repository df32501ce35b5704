"""Coded terms and colours that the results share."""

from dataclasses import dataclass

from pydicom.sr.coding import Code

from covid_ct.analysis.findings import LesionKind, Side

LUNG = Code("39607008", "SCT", "Lung")
SIDES = {Side.RIGHT: Code("24028007", "SCT", "Right"), Side.LEFT: Code("7771000", "SCT", "Left")}
GROUND_GLASS = Code("112120", "DCM", "Ground glass opacity")
# The standard's only other word for a dense opacity of the lung (CID 6102); the segment's label says consolidation.
CONSOLIDATION = Code("112121", "DCM", "Infiltrate")
ANATOMICAL_STRUCTURE = Code("123037004", "SCT", "Anatomical Structure")
MORPHOLOGICALLY_ALTERED_STRUCTURE = Code("49755003", "SCT", "Morphologically Altered Structure")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")


@dataclass(frozen=True)
class Structure:
    """One structure that is outlined, as segmentation, reports and pictures name and colour it.

    Attributes
    ----------
    label: str
        Name for people; also the tracking identifier.
    category, type: Code
        Segmented property category and type.
    modifier: Code or None
        Side of a paired organ.
    region: Code or None
        Organ that holds the structure, where it is not an organ itself.
    color: tuple[int, int, int]
        sRGB, 0-255.
    """

    label: str
    category: Code
    type: Code
    modifier: Code | None
    region: Code | None
    color: tuple[int, int, int]


STRUCTURES_OF_LUNGS: dict[int, Structure] = {
    Side.RIGHT: Structure("Right lung", ANATOMICAL_STRUCTURE, LUNG, SIDES[Side.RIGHT], None, (197, 165, 145)),
    Side.LEFT: Structure("Left lung", ANATOMICAL_STRUCTURE, LUNG, SIDES[Side.LEFT], None, (145, 170, 197)),
}
STRUCTURES_OF_LESIONS: dict[int, Structure] = {
    LesionKind.GROUND_GLASS: Structure(
        "Ground glass", MORPHOLOGICALLY_ALTERED_STRUCTURE, GROUND_GLASS, None, LUNG, (255, 176, 0)
    ),
    LesionKind.CONSOLIDATION: Structure(
        "Consolidation", MORPHOLOGICALLY_ALTERED_STRUCTURE, CONSOLIDATION, None, LUNG, (220, 38, 127)
    ),
}
