"""Label maps as DICOM segmentations that every viewer opens: BINARY, Explicit VR Little Endian.

highdicom describes segments and geometry; it does not write the frames, for at 300 slices of 512 x 512 its
`Segmentation` takes longer than all results together may, and it refuses sources without type 2 attributes.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice

import numpy as np
from highdicom import (
    AlgorithmIdentificationSequence,
    CoordinateSystemNames,
    PixelMeasuresSequence,
    PlaneOrientationSequence,
)
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import SegmentationStorage

from covid_ct.analysis.findings import ModelIdentity, where_label
from covid_ct.results.explicit_vr import element, encoded, sequence, set_sequence
from covid_ct.results.source import (
    as_long_string,
    copy_frame_of_reference,
    copy_if_valid,
    decimal_strings,
    new_result,
    positive_number,
    reference,
    text_of,
)
from covid_ct.results.terms import (
    ARTIFICIAL_INTELLIGENCE,
    STRUCTURES_OF_LESIONS,
    STRUCTURES_OF_LUNGS,
    Structure,
)
from covid_ct.results.uids import ResultUids
from covid_ct.series.attributes import LOSSY
from covid_ct.series.volume import Volume

_SEGMENTATION = Code("113076", "DCM", "Segmentation")
_COSINE_DECIMALS = 9
_SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")


@dataclass(frozen=True)
class SegmentationKind:
    """What one of the segmentations holds and says about itself.

    Attributes
    ----------
    name: str
        Names its file and decides its UIDs.
    structures: Mapping[int, Structure]
        The structure that each label stands for, in the order of the segments.
    series_number: int
    series_description: str
    content_label: str
        DICOM CS: capitals, digits, underscores, at most 16.
    """

    name: str
    structures: Mapping[int, Structure]
    series_number: int
    series_description: str
    content_label: str


LUNGS = SegmentationKind("lungs.seg", STRUCTURES_OF_LUNGS, 9001, "COVID-19 CT: lungs (research use only)", "LUNGS")
LESIONS = SegmentationKind(
    "lesions.seg", STRUCTURES_OF_LESIONS, 9002, "COVID-19 CT: lesions (research use only)", "LESIONS"
)


def segmentation(
    volume: Volume, labels: NDArray[np.uint8], kind: SegmentationKind, model: ModelIdentity, uids: ResultUids
) -> Dataset | None:
    """BINARY segmentation of a label map on the source's grid.

    Parameters
    ----------
    volume: Volume
    labels: NDArray[np.uint8]
        Shape (slices, rows, columns), on the volume's grid.
    kind: SegmentationKind
    model: ModelIdentity
        What made the label map.
    uids: ResultUids

    Returns
    -------
    Dataset or None
        A segment for each structure that has a voxel, a frame for each slice that it has one in; none where no
        structure has one: 3D Slicer gives segments after an empty one wrong names and shows nothing of an empty object.
    """
    frames: list[tuple[int, int]] = []
    pixels = _packed(_masks(labels, kind, frames), labels[0].size)
    if not frames:
        return None
    numbers = {label: number for number, label in enumerate(dict.fromkeys(label for label, _ in frames), start=1)}
    header = volume.headers[0]
    result = new_result(
        header,
        uids,
        kind.name,
        sop_class_uid=SegmentationStorage,
        modality="SEG",
        series_number=kind.series_number,
        series_description=kind.series_description,
    )
    result.ImageType = ["DERIVED", "PRIMARY"]
    result.ContentLabel = kind.content_label
    result.ContentDescription = kind.series_description
    result.ContentCreatorName = ""
    copy_frame_of_reference(header, result, uids)
    _describe_pixels(result, volume)
    result.SegmentSequence = [
        _segment(number, kind.structures[label], model, uids) for label, number in numbers.items()
    ]
    _add_dimensions(result, uids.derive(kind.name, "dimensions"))
    set_sequence(
        result,
        "ReferencedSeriesSequence",
        [
            sequence("ReferencedInstanceSequence", *map(reference, volume.headers))
            + element("SeriesInstanceUID", str(header.SeriesInstanceUID).encode())
        ],
    )
    result.SharedFunctionalGroupsSequence = [_shared_groups(volume)]
    positions = {index: rank for rank, index in enumerate(sorted({index for _, index in frames}), start=1)}
    derivations = {index: _derivation(volume.headers[index]) for index in positions}
    plane_positions = {index: _plane_position(volume.headers[index]) for index in positions}
    identifications = {label: _identification(number) for label, number in numbers.items()}
    set_sequence(
        result,
        "PerFrameFunctionalGroupsSequence",
        (
            derivations[index]
            + _frame_content(numbers[label], positions[index])
            + plane_positions[index]
            + identifications[label]
            for label, index in frames
        ),
    )
    result.NumberOfFrames = len(frames)
    result.PixelData = pixels
    result["PixelData"].VR = "OB"
    return result


def tracking(uids: ResultUids, structure: Structure) -> tuple[str, str]:
    """Tracking identifier and tracking UID of a structure, the same in segmentation and measurement report."""
    return structure.label, uids.derive("tracking", structure.label)


def _describe_pixels(result: Dataset, volume: Volume) -> None:
    """Image pixel and segmentation image modules but the pixels."""
    result.SamplesPerPixel = 1
    result.PhotometricInterpretation = "MONOCHROME2"
    result.Rows, result.Columns = volume.headers[0].Rows, volume.headers[0].Columns
    result.BitsAllocated = result.BitsStored = 1
    result.HighBit = result.PixelRepresentation = 0
    result.SegmentationType = "BINARY"
    result.SegmentsOverlap = "NO"
    result.LossyImageCompression = "00"
    # "01" says that an image went through lossy compression once; one of the source's is enough (PS3.3 C.8.20.2.2).
    lossy = next((header for header in volume.headers if text_of(header, "LossyImageCompression") == "01"), None)
    if lossy is not None:
        for keyword in LOSSY:
            copy_if_valid(lossy, result, keyword)


def _segment(number: int, structure: Structure, model: ModelIdentity, uids: ResultUids) -> SegmentDescription:
    """Item of the Segment Sequence."""
    tracking_id, tracking_uid = tracking(uids, structure)
    item = SegmentDescription(
        segment_number=number,
        segment_label=structure.label,
        segmented_property_category=structure.category,
        segmented_property_type=structure.type,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            as_long_string(model.name),
            ARTIFICIAL_INTELLIGENCE,
            as_long_string(model.version),
            parameters={"sha256": model.sha256},
        ),
        tracking_uid=tracking_uid,
        tracking_id=tracking_id,
        anatomic_regions=None if structure.region is None else [structure.region],
        # It takes D65 for white, as DCMTK, dcmqi and dcmjs do: under D50 they would show colours that nobody chose.
        display_color=CIELabColor.from_rgb(*structure.color),
    )
    if structure.modifier is not None:
        item.segmented_property_type.SegmentedPropertyTypeModifierCodeSequence = [
            CodedConcept.from_code(structure.modifier)
        ]
    return item


def _add_dimensions(result: Dataset, organization_uid: str) -> None:
    """Frames ordered by segment, then by position."""
    organization = Dataset()
    organization.DimensionOrganizationUID = organization_uid
    result.DimensionOrganizationSequence = [organization]
    result.DimensionIndexSequence = []
    for pointer, group, label in (
        (0x0062000B, 0x0062000A, "Segment Number"),
        (0x00200032, 0x00209113, "Image Position Patient"),
    ):
        item = Dataset()
        item.DimensionOrganizationUID = organization_uid
        item.DimensionIndexPointer = pointer
        item.FunctionalGroupPointer = group
        item.DimensionDescriptionLabel = label
        result.DimensionIndexSequence.append(item)


def _shared_groups(volume: Volume) -> Dataset:
    """Item of the Shared Functional Groups Sequence: orientation and size of the voxels."""
    header = volume.headers[0]
    # dcmqi takes the slice thickness for the distance of the slices where this is missing.
    spacing_between_slices = round(volume.spacing[0], 9)
    groups = Dataset()
    groups.PixelMeasuresSequence = PixelMeasuresSequence(
        pixel_spacing=[float(text) for text in decimal_strings(header, "PixelSpacing")],
        slice_thickness=float(positive_number(header, "SliceThickness") or spacing_between_slices),
        spacing_between_slices=spacing_between_slices,
    )
    # The source's own may be of another length than one, or not quite at right angles.
    cosines = (volume.affine[:3, (2, 1)] / volume.spacing[:0:-1]).T.ravel()
    groups.PlaneOrientationSequence = PlaneOrientationSequence(
        CoordinateSystemNames.PATIENT, [round(float(cosine), _COSINE_DECIMALS) + 0.0 for cosine in cosines]
    )
    return groups


@cache
def _code(code: Code) -> bytes:
    """Encoded content of a code sequence's item."""
    return encoded(CodedConcept.from_code(code))


def _derivation(header: Dataset) -> bytes:
    """Encoded Derivation Image Sequence: which source image a frame was made from, and how."""
    source = (
        reference(header)
        + element("SpatialLocationsPreserved", b"YES")
        + sequence("PurposeOfReferenceCodeSequence", _code(_SOURCE_IMAGE))
    )
    return sequence(
        "DerivationImageSequence",
        sequence("SourceImageSequence", source) + sequence("DerivationCodeSequence", _code(_SEGMENTATION)),
    )


def _frame_content(segment_number: int, position: int) -> bytes:
    """Encoded Frame Content Sequence: the frame's place in the dimensions."""
    return sequence(
        "FrameContentSequence", element("DimensionIndexValues", struct.pack("<II", segment_number, position))
    )


def _plane_position(header: Dataset) -> bytes:
    """Encoded Plane Position Sequence: where the source image, and so the frame, lies."""
    position = "\\".join(decimal_strings(header, "ImagePositionPatient"))
    return sequence("PlanePositionSequence", element("ImagePositionPatient", position.encode()))


def _identification(segment_number: int) -> bytes:
    """Encoded Segment Identification Sequence."""
    number = element("ReferencedSegmentNumber", struct.pack("<H", segment_number))
    return sequence("SegmentIdentificationSequence", number)


def _masks(
    labels: NDArray[np.uint8], kind: SegmentationKind, frames: list[tuple[int, int]]
) -> Iterator[NDArray[np.bool_]]:
    """Mask of each slice that holds a label, label by label; `frames` gets the label and the slice's index."""
    for label in kind.structures:
        for index, plane in enumerate(labels):
            mask = where_label(plane, label)
            if mask.any():
                frames.append((label, index))
                yield mask.ravel()


def _packed(masks: Iterator[NDArray[np.bool_]], size: int) -> bytes:
    """Bits of masks of some size (PS3.5 8.1.1)."""
    # Bits run on from frame to frame, so only so many frames together end with a whole byte.
    together = 8 // math.gcd(8, size)
    packed = []
    while group := list(islice(masks, together)):
        packed.append(np.packbits(np.concatenate(group) if together > 1 else group[0], bitorder="little").data)
    pixels = b"".join(packed)
    return pixels + b"\0" * (len(pixels) % 2)
