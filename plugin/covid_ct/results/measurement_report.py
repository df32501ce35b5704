"""The findings as a DICOM structured report: Comprehensive SR after TID 1500."""

from collections.abc import Mapping, Sequence

from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import ComprehensiveSRStorage

from covid_ct import RESEARCH_USE_ONLY, __version__, identity
from covid_ct.analysis.findings import BySide, Findings, LesionKind, ModelIdentity, Side
from covid_ct.results.content_items import (
    CONTAINS,
    CONTEXT,
    MODIFIER,
    SELECTED_FROM,
    code,
    container,
    image,
    number,
    polyline,
    text,
    uid_reference,
)
from covid_ct.results.explicit_vr import element, sequence, set_sequence
from covid_ct.results.outlines import outer_outline, part_of_lesion
from covid_ct.results.segmentation import tracking
from covid_ct.results.source import new_result, reference
from covid_ct.results.terms import LUNG, SIDES, STRUCTURES_OF_LESIONS, STRUCTURES_OF_LUNGS, Structure
from covid_ct.results.uids import ResultUids
from covid_ct.series.volume import Volume

NAME = "measurements.sr"
OUTLINED_LESIONS = 10
"""How many lesions are outlined: the largest."""

_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
_LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
_ENGLISH = Code("en", "RFC5646", "English")
_OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
_DEVICE = Code("121007", "DCM", "Device")
_DEVICE_UID = Code("121012", "DCM", "Device Observer UID")
_DEVICE_NAME = Code("121013", "DCM", "Device Observer Name")
_DEVICE_MANUFACTURER = Code("121014", "DCM", "Device Observer Manufacturer")
_DEVICE_MODEL = Code("121015", "DCM", "Device Observer Model Name")
_DEVICE_SERIAL = Code("121016", "DCM", "Device Observer Serial Number")
_PROCEDURE = Code("121058", "DCM", "Procedure reported")
_CT = Code("25045-6", "LN", "CT unspecified body region")
_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
_GROUP = Code("125007", "DCM", "Measurement Group")
_TRACKING_ID = Code("112039", "DCM", "Tracking Identifier")
_TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
_FINDING = Code("121071", "DCM", "Finding")
_FINDING_SITE = Code("363698007", "SCT", "Finding Site")
_LATERALITY = Code("272741003", "SCT", "Laterality")
_REFERENCED_SEGMENT = Code("121191", "DCM", "Referenced Segment")
_SOURCE_SERIES = Code("121232", "DCM", "Source series for segmentation")
_IMAGE_REGION = Code("111030", "DCM", "Image Region")
# The one name that Stone's reader looks for under a region.
_ORIGINAL_SOURCE = Code("111040", "DCM", "Original Source")
_ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
_ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
_ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
_COMMENT = Code("121106", "DCM", "Comment")
_LESION = Code("52988006", "SCT", "Lesion")
_COVID_19 = Code("840539006", "SCT", "Disease caused by SARS-CoV-2")
_VOLUME = Code("118565006", "SCT", "Volume")
_AREA = Code("42798000", "SCT", "Area")
_SHARE = Code("113288", "DCM", "Volume Ratio")
_PROBABILITY = Code("122157", "DCM", "Probability")
_ML = Code("ml", "UCUM", "Milliliter")
_MM2 = Code("mm2", "UCUM", "square millimeter")
_PERCENT = Code("%", "UCUM", "Percent")
_NO_UNITS = Code("1", "UCUM", "no units")


def measurement_report(
    volume: Volume, findings: Findings, segmentations: Sequence[Dataset], uids: ResultUids
) -> Dataset:
    """Measurements, probability and outlines of the largest lesions.

    Parameters
    ----------
    volume: Volume
    findings: Findings
    segmentations: Sequence[Dataset]
        Those of the same analysis; their segments are referenced by tracking identifier and UID.
    uids: ResultUids

    Returns
    -------
    Dataset
        TID 1500 with a group after TID 1411 for each segment, after TID 1410 for each outlined lesion and after
        TID 1501 for all else. Stone draws the TID 1410 groups, every reader shows the rest.
    """
    header = volume.headers[0]
    result = new_result(
        header,
        uids,
        NAME,
        sop_class_uid=ComprehensiveSRStorage,
        modality="SR",
        series_number=9004,
        series_description="COVID-19 CT: measurements (research use only)",
    )
    result.CompletionFlag = "COMPLETE"
    result.VerificationFlag = "UNVERIFIED"
    result.PreliminaryFlag = "PRELIMINARY"
    result.ReferencedPerformedProcedureStepSequence = []
    result.PerformedProcedureCodeSequence = []
    set_sequence(result, "CurrentRequestedProcedureEvidenceSequence", [_evidence(volume, segmentations)])
    groups = _Groups(volume, findings, segmentations, uids)
    root = container(
        _REPORT,
        [
            code(MODIFIER, _LANGUAGE, _ENGLISH),
            *_observer(uids),
            code(MODIFIER, _PROCEDURE, _CT),
            container(_MEASUREMENTS, [groups.probability(), *groups.structures(), *groups.lesions()]),
        ],
        template="1500",
    )
    del root.RelationshipType
    result.update(root)
    return result


def _evidence(volume: Volume, segmentations: Sequence[Dataset]) -> bytes:
    """Encoded item of the evidence sequence: every source image and segmentation once."""
    of_series = [volume.headers, *((segmentation,) for segmentation in segmentations)]
    series = [
        sequence("ReferencedSOPSequence", *map(reference, instances))
        + element("SeriesInstanceUID", str(instances[0].SeriesInstanceUID).encode())
        for instances in of_series
    ]
    return sequence("ReferencedSeriesSequence", *series) + element(
        "StudyInstanceUID", str(volume.headers[0].StudyInstanceUID).encode()
    )


def _observer(uids: ResultUids) -> list[Dataset]:
    """That a device observed, after TID 1004."""
    return [
        code(CONTEXT, _OBSERVER_TYPE, _DEVICE),
        uid_reference(CONTEXT, _DEVICE_UID, uids.derive("device")),
        text(CONTEXT, _DEVICE_NAME, f"{identity.MODEL_NAME} {__version__}"),
        text(CONTEXT, _DEVICE_MANUFACTURER, identity.MANUFACTURER),
        text(CONTEXT, _DEVICE_MODEL, identity.MODEL_NAME),
        text(CONTEXT, _DEVICE_SERIAL, identity.DEVICE_SERIAL_NUMBER),
    ]


class _Groups:
    """Makes the measurement groups of one report."""

    def __init__(self, volume: Volume, findings: Findings, segmentations: Sequence[Dataset], uids: ResultUids) -> None:
        self._volume = volume
        self._findings = findings
        self._uids = uids
        self._models: Mapping[str, ModelIdentity] = {model.role: model for model in findings.models}
        self._segments = {
            segment.SegmentLabel: (segmentation, int(segment.SegmentNumber))
            for segmentation in segmentations
            for segment in segmentation.SegmentSequence
        }

    def probability(self) -> Dataset:
        """Probability of the disease, with the warnings and that this is research."""
        comments = (RESEARCH_USE_ONLY, *self._findings.warnings)
        return self._group(
            "1501",
            self._tracked("COVID-19"),
            _COVID_19,
            [
                number(_PROBABILITY, self._findings.covid_probability, _NO_UNITS),
                *(text(CONTAINS, _COMMENT, comment) for comment in comments),
            ],
            role="covid",
        )

    def structures(self) -> list[Dataset]:
        """Volume, and share of the lung, of lungs and lesions: in total and for each lung."""
        measured = self._findings.measurements
        groups = self._by_side("Lungs", LUNG, "lungs", measured.lung_volume_ml, None)
        groups += self._by_side("Lesions", _LESION, "lesions", measured.lesion_volume_ml, measured.lesion_to_lung_ratio)
        for kind, volume, ratio in (
            (LesionKind.GROUND_GLASS, measured.ground_glass_volume_ml, measured.ground_glass_to_lung_ratio),
            (LesionKind.CONSOLIDATION, measured.consolidation_volume_ml, measured.consolidation_to_lung_ratio),
        ):
            structure = STRUCTURES_OF_LESIONS[kind]
            groups += self._by_side(structure.label, structure.type, "lesions", volume, ratio)
        return groups

    def lesions(self) -> list[Dataset]:
        """The largest lesions, outlined on the slices where they are largest."""
        largest = sorted(self._findings.measurements.lesions, key=lambda lesion: -lesion.volume_ml)[:OUTLINED_LESIONS]
        _, row_mm, column_mm = self._volume.spacing
        groups = []
        outlined: set[tuple[int, tuple[tuple[float, float], ...]]] = set()
        for rank, lesion in enumerate(largest, start=1):
            part = part_of_lesion(self._volume, self._findings, lesion)
            outline = outer_outline(part) if part.any() else []
            if not outline or (lesion.slice_index, tuple(outline)) in outlined:
                continue
            outlined.add((lesion.slice_index, tuple(outline)))
            source = image(SELECTED_FROM, _ORIGINAL_SOURCE, self._volume.headers[lesion.slice_index])
            values = [
                polyline(_IMAGE_REGION, outline, source),
                number(_VOLUME, lesion.volume_ml, _ML),
                number(_AREA, float(part.sum()) * row_mm * column_mm, _MM2),
            ]
            tracked, side = self._tracked(f"Lesion {rank}"), Side[lesion.side.upper()]
            groups.append(self._group("1410", tracked, _LESION, values, role="lesions", side=side))
        return groups

    def _by_side(self, label: str, finding: Code, role: str, volume: BySide, ratio: BySide | None) -> list[Dataset]:
        """Groups for both lungs, the right and the left one; those that are segments reference them."""
        groups = []
        for side, part in ((None, "total"), (Side.RIGHT, "right"), (Side.LEFT, "left")):
            values = [number(_VOLUME, getattr(volume, part), _ML)]
            if ratio is not None:
                values.append(number(_SHARE, getattr(ratio, part) * 100, _PERCENT))
            structure = self._structure(label, side)
            if structure is not None and structure.label in self._segments:
                template, tracked = "1411", tracking(self._uids, structure)
                values = [*self._segment_references(structure.label), *values]
            else:
                template, tracked = "1501", self._tracked(label if side is None else f"{label}, {part} lung")
            groups.append(self._group(template, tracked, finding, values, role=role, side=side))
        return groups

    @staticmethod
    def _structure(label: str, side: Side | None) -> Structure | None:
        """The structure that a group measures, where there is one: lungs by side, lesions by kind in total."""
        if label == "Lungs":
            return STRUCTURES_OF_LUNGS[side] if side is not None else None
        matching = [structure for structure in STRUCTURES_OF_LESIONS.values() if structure.label == label]
        return matching[0] if matching and side is None else None

    def _segment_references(self, label: str) -> list[Dataset]:
        """Content items that reference a segment and what it was made from."""
        segmentation, segment_number = self._segments[label]
        return [
            image(CONTAINS, _REFERENCED_SEGMENT, segmentation, segment_number),
            uid_reference(CONTAINS, _SOURCE_SERIES, self._volume.series_uid),
        ]

    def _group(
        self,
        template: str,
        tracked: tuple[str, str],
        finding: Code,
        values: Sequence[Dataset],
        *,
        role: str,
        side: Side | None = None,
    ) -> Dataset:
        """Measurement group with what all of them begin with; `tracked` is a tracking identifier and its UID."""
        model = self._models[role]
        laterality = [] if side is None else [code(MODIFIER, _LATERALITY, SIDES[side])]
        return container(
            _GROUP,
            [
                text(CONTEXT, _TRACKING_ID, tracked[0]),
                uid_reference(CONTEXT, _TRACKING_UID, tracked[1]),
                code(CONTAINS, _FINDING, finding),
                text(MODIFIER, _ALGORITHM_NAME, model.name),
                text(MODIFIER, _ALGORITHM_VERSION, model.version),
                text(MODIFIER, _ALGORITHM_PARAMETERS, f"sha256={model.sha256}"),
                code(MODIFIER, _FINDING_SITE, LUNG, laterality),
                *values,
            ],
            template,
        )

    def _tracked(self, label: str) -> tuple[str, str]:
        """Tracking identifier and UID of what is no segment."""
        return label, self._uids.derive("tracking", label)
