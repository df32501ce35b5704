"""Coded terms and colours that the results share."""

from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
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


def code_item(code: Code) -> Dataset:
    """Item of a code sequence."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item


def cielab(color: tuple[int, int, int]) -> list[int]:
    """Colour as DICOM's CIELab values (PS3.3 C.10.7.1.1): PCS-Values scaled to 16 bits.

    Parameters
    ----------
    color: tuple[int, int, int]
        sRGB, 0-255.

    Returns
    -------
    list[int]
        L*, a*, b* with L* 0-100 and a*, b* -128-127 each scaled to 0-65535.

    Notes
    -----
    IEC 61966-2-1 for sRGB, CIE 15 for L*a*b*, under the white point D65: that is how DCMTK, dcmqi and dcmjs (so 3D
    Slicer and OHIF) turn it back; under D50 they show colours that nobody chose.
    """
    encoded = np.asarray(color) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ linear / np.array([0.9505, 1.0, 1.0890])
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    lightness, a, b = 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])
    scaled = np.array([lightness / 100, (a + 128) / 255, (b + 128) / 255]) * 65535
    return [int(value) for value in np.clip(np.rint(scaled), 0, 65535)]
