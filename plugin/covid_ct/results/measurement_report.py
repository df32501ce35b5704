"""The findings as a DICOM structured report: Comprehensive SR after TID 1500.

highdicom makes the content tree, not the object around it: its `ComprehensiveSR` refuses sources without type 2
attributes.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    ReferencedSegment,
    RelationshipTypeValues,
    ScoordContentItem,
    SourceImageForRegion,
    SourceSeriesForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ComprehensiveSRStorage

from covid_ct import RESEARCH_USE_ONLY, __version__, identity
from covid_ct.analysis.findings import BySide, Findings, LesionKind, ModelIdentity, Side
from covid_ct.results.explicit_vr import element, sequence, set_sequence
from covid_ct.results.outlines import outer_outline, part_of_lesion
from covid_ct.results.segmentation import tracking
from covid_ct.results.source import in_ascii, new_result, reference
from covid_ct.results.terms import LUNG, SIDES, STRUCTURES_OF_LESIONS, STRUCTURES_OF_LUNGS, Structure
from covid_ct.results.uids import ResultUids
from covid_ct.series.volume import Volume

NAME = "measurements.sr"
OUTLINED_LESIONS = 10
"""How many lesions are outlined: the largest."""

_ENGLISH = Code("en", "RFC5646", "English")
# The one name that Stone's reader looks for under a region; highdicom writes another.
_ORIGINAL_SOURCE = Code("111040", "DCM", "Original Source")
_IMAGE_REGION = Code("111030", "DCM", "Image Region")
_COVID_19 = Code("840539006", "SCT", "Disease caused by SARS-CoV-2")
_VOLUME = codes.SCT.Volume
_ML = Code("ml", "UCUM", "Milliliter")

_Group: TypeAlias = (
    MeasurementsAndQualitativeEvaluations
    | PlanarROIMeasurementsAndQualitativeEvaluations
    | VolumetricROIMeasurementsAndQualitativeEvaluations
)
_AnyGroup = TypeVar("_AnyGroup", bound=_Group)


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
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer()),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        imaging_measurements=[groups.probability(), *groups.structures(), *groups.lesions()],
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(CodedConcept.from_code(_ENGLISH)),
    )
    result.update(report[0])
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


def _observer() -> ObserverContext:
    """That a device observed."""
    device = DeviceObserverIdentifyingAttributes(
        uid=identity.DEVICE_UID,
        name=f"{identity.MODEL_NAME} {__version__}",
        manufacturer_name=identity.MANUFACTURER,
        model_name=identity.MODEL_NAME,
        serial_number=identity.DEVICE_SERIAL_NUMBER,
    )
    return ObserverContext(CodedConcept.from_code(codes.DCM.Device), device)


def _algorithm(model: ModelIdentity) -> AlgorithmIdentification:
    """Which model made a finding."""
    return AlgorithmIdentification(in_ascii(model.name), in_ascii(model.version), [f"sha256={model.sha256}"])


def _measurement(name: Code, value: float, unit: Code) -> Measurement:
    """Measurement with as many decimals as mean anything."""
    return Measurement(name, round(float(value), 6), unit)


def _share_of_lung(ratio: float) -> Measurement:
    """Ratio of volumes. DICOM's (113288, DCM, "Volume Ratio") is another thing: an index of diffusion (CID 7271)."""
    share = _measurement(codes.SCT.Ratio, ratio * 100, codes.UCUM.Percent)
    meaning = TextContentItem(
        codes.DCM.EquivalentMeaningOfConceptName, "Share of lung volume", RelationshipTypeValues.HAS_CONCEPT_MOD
    )
    share[0].ContentSequence = ContentSequence([meaning])
    return share


class _Groups:
    """Makes the measurement groups of one report."""

    def __init__(self, volume: Volume, findings: Findings, segmentations: Sequence[Dataset], uids: ResultUids) -> None:
        self._volume = volume
        self._findings = findings
        self._uids = uids
        # Content items take their time in pydicom; these are the same in many groups.
        self._algorithms = {model.role: _algorithm(model) for model in findings.models}
        self._sites = {side: FindingSite(LUNG, SIDES.get(side)) for side in (None, *Side)}
        self._segments = {
            segment.SegmentLabel: (segmentation, int(segment.SegmentNumber))
            for segmentation in segmentations
            for segment in segmentation.SegmentSequence
        }

    def probability(self) -> MeasurementsAndQualitativeEvaluations:
        """Probability of the disease, with the warnings and that this is research."""
        group = self._group(
            MeasurementsAndQualitativeEvaluations,
            self._tracked("COVID-19"),
            _COVID_19,
            [_measurement(codes.DCM.Probability, self._findings.covid_probability, codes.UCUM.NoUnits)],
            role="covid",
        )
        group[0].ContentSequence.extend(
            TextContentItem(codes.DCM.Comment, in_ascii(comment), RelationshipTypeValues.CONTAINS)
            for comment in (RESEARCH_USE_ONLY, *self._findings.warnings)
        )
        return group

    def structures(self) -> list[_Group]:
        """Volume, and share of the lung, of lungs and lesions: in total and for each lung."""
        measured = self._findings.measurements
        groups = self._by_side("Lungs", LUNG, "lungs", measured.lung_volume_ml, None)
        groups += self._by_side(
            "Lesions", codes.SCT.Lesion, "lesions", measured.lesion_volume_ml, measured.lesion_to_lung_ratio
        )
        for kind, volume, ratio in (
            (LesionKind.GROUND_GLASS, measured.ground_glass_volume_ml, measured.ground_glass_to_lung_ratio),
            (LesionKind.CONSOLIDATION, measured.consolidation_volume_ml, measured.consolidation_to_lung_ratio),
        ):
            structure = STRUCTURES_OF_LESIONS[kind]
            groups += self._by_side(structure.label, structure.type, "lesions", volume, ratio)
        return groups

    def lesions(self) -> list[PlanarROIMeasurementsAndQualitativeEvaluations]:
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
            values = [
                _measurement(_VOLUME, lesion.volume_ml, _ML),
                _measurement(codes.SCT.Area, part.sum() * row_mm * column_mm, codes.UCUM.SquareMillimeter),
            ]
            groups.append(
                self._group(
                    PlanarROIMeasurementsAndQualitativeEvaluations,
                    self._tracked(f"Lesion {rank}"),
                    codes.SCT.Lesion,
                    values,
                    role="lesions",
                    side=Side[lesion.side.upper()],
                    referenced_region=self._region(lesion.slice_index, outline),
                )
            )
        return groups

    def _region(self, slice_index: int, outline: Sequence[tuple[float, float]]) -> ImageRegion:
        """An outline on its source image."""
        header = self._volume.headers[slice_index]
        source = SourceImageForRegion(header.SOPClassUID, header.SOPInstanceUID)
        source.ConceptNameCodeSequence = [CodedConcept.from_code(_ORIGINAL_SOURCE)]
        region = ScoordContentItem(
            _IMAGE_REGION,
            GraphicTypeValues.POLYLINE,
            np.array(outline),
            relationship_type=RelationshipTypeValues.CONTAINS,
        )
        region.ContentSequence = ContentSequence([source])
        # The class itself would ask whether CT images have frames, and for that read the attributes of all IODs into
        # 100 MB, which it keeps, and hold Python's lock meanwhile.
        return ImageRegion.from_dataset(region, copy=False)

    def _by_side(self, label: str, finding: Code, role: str, volume: BySide, ratio: BySide | None) -> list[_Group]:
        """Groups for both lungs, the right and the left one; those that are segments reference them."""
        groups: list[_Group] = []
        for side, part in ((None, "total"), (Side.RIGHT, "right"), (Side.LEFT, "left")):
            values = [_measurement(_VOLUME, getattr(volume, part), _ML)]
            if ratio is not None:
                values.append(_share_of_lung(getattr(ratio, part)))
            structure = self._structure(label, side)
            if structure is not None and structure.label in self._segments:
                groups.append(
                    self._group(
                        VolumetricROIMeasurementsAndQualitativeEvaluations,
                        tracking(self._uids, structure),
                        finding,
                        values,
                        role=role,
                        side=side,
                        referenced_segment=self._segment(structure.label),
                    )
                )
            else:
                tracked = self._tracked(label if side is None else f"{label}, {part} lung")
                groups.append(
                    self._group(MeasurementsAndQualitativeEvaluations, tracked, finding, values, role=role, side=side)
                )
        return groups

    @staticmethod
    def _structure(label: str, side: Side | None) -> Structure | None:
        """The structure that a group measures, where there is one: lungs by side, lesions by kind in total."""
        if label == "Lungs":
            return STRUCTURES_OF_LUNGS[side] if side is not None else None
        matching = [structure for structure in STRUCTURES_OF_LESIONS.values() if structure.label == label]
        return matching[0] if matching and side is None else None

    def _segment(self, label: str) -> ReferencedSegment:
        """A segment and what it was made from."""
        segmentation, segment_number = self._segments[label]
        return ReferencedSegment(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            segment_number,
            source_series=SourceSeriesForSegmentation(self._volume.series_uid),
        )

    def _group(
        self,
        template: Callable[..., _AnyGroup],
        tracked: tuple[str, str],
        finding: Code,
        measurements: Sequence[Measurement],
        *,
        role: str,
        side: Side | None = None,
        **region: ImageRegion | ReferencedSegment,
    ) -> _AnyGroup:
        """Measurement group after a template; `tracked` is a tracking identifier and its UID."""
        identifier, uid = tracked
        return template(
            tracking_identifier=TrackingIdentifier(uid, identifier),
            finding_type=finding,
            algorithm_id=self._algorithms[role],
            finding_sites=[self._sites[side]],
            measurements=measurements,
            **region,
        )

    def _tracked(self, label: str) -> tuple[str, str]:
        """Tracking identifier and UID of what is no segment."""
        return label, self._uids.derive("tracking", label)
