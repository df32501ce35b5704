"""Content items of structured reports (PS3.3 C.17.3), as small functions that nest."""

from collections.abc import Sequence

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.valuerep import format_number_as_ds

CONTAINS = "CONTAINS"
CONTEXT = "HAS OBS CONTEXT"
MODIFIER = "HAS CONCEPT MOD"
SELECTED_FROM = "SELECTED FROM"


def _item(relationship: str, value_type: str, name: Code, children: Sequence[Dataset]) -> Dataset:
    """Content item without its value."""
    item = Dataset()
    item.RelationshipType = relationship
    item.ValueType = value_type
    item.ConceptNameCodeSequence = [CodedConcept.from_code(name)]
    if children:
        item.ContentSequence = list(children)
    return item


def container(name: Code, children: Sequence[Dataset], template: str | None = None) -> Dataset:
    """CONTAINER, after a template of DICOM's content mapping resource where one is named."""
    item = _item(CONTAINS, "CONTAINER", name, children)
    item.ContinuityOfContent = "SEPARATE"
    if template is not None:
        identification = Dataset()
        identification.MappingResource = "DCMR"
        identification.TemplateIdentifier = template
        item.ContentTemplateSequence = [identification]
    return item


def code(relationship: str, name: Code, value: Code, children: Sequence[Dataset] = ()) -> Dataset:
    """CODE: a coded value."""
    item = _item(relationship, "CODE", name, children)
    item.ConceptCodeSequence = [CodedConcept.from_code(value)]
    return item


def text(relationship: str, name: Code, value: str) -> Dataset:
    """TEXT."""
    item = _item(relationship, "TEXT", name, ())
    item.TextValue = value
    return item


def uid_reference(relationship: str, name: Code, value: str) -> Dataset:
    """UIDREF."""
    item = _item(relationship, "UIDREF", name, ())
    item.UID = value
    return item


def number(name: Code, value: float, unit: Code, children: Sequence[Dataset] = ()) -> Dataset:
    """NUM: a measurement with its unit."""
    item = _item(CONTAINS, "NUM", name, children)
    measured = Dataset()
    measured.MeasurementUnitsCodeSequence = [CodedConcept.from_code(unit)]
    measured.NumericValue = format_number_as_ds(round(value, 6))
    item.MeasuredValueSequence = [measured]
    return item


def image(relationship: str, name: Code, instance: Dataset, segment_number: int | None = None) -> Dataset:
    """IMAGE: a reference to an image, or to one segment of a segmentation."""
    item = _item(relationship, "IMAGE", name, ())
    referenced = Dataset()
    referenced.ReferencedSOPClassUID = instance.SOPClassUID
    referenced.ReferencedSOPInstanceUID = instance.SOPInstanceUID
    if segment_number is not None:
        referenced.ReferencedSegmentNumber = segment_number
    item.ReferencedSOPSequence = [referenced]
    return item


def polyline(name: Code, points: Sequence[tuple[float, float]], source: Dataset) -> Dataset:
    """SCOORD: a closed line on an image.

    Parameters
    ----------
    name: Code
    points: Sequence[tuple[float, float]]
        Column and row of each corner, the last as the first, in pixels from the top left corner of the top left pixel.
    source: Dataset
        The content item of the image that it lies on.

    Returns
    -------
    Dataset
    """
    item = _item(CONTAINS, "SCOORD", name, [source])
    item.GraphicType = "POLYLINE"
    item.GraphicData = [coordinate for point in points for coordinate in point]
    return item
