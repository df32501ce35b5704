import json
import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from covid_ct.analysis.findings import LesionKind, Side
from covid_ct.results.terms import STRUCTURES_OF_LESIONS, STRUCTURES_OF_LUNGS
from covid_ct.series.volume import Volume

from .conftest import BIN, Case, Geometry, dciodvfy, make_case


def segment_masks(segmentation: Dataset, volume: Volume) -> dict[str, NDArray[np.bool_]]:
    """Masks on the volume's grid, put there by each frame's own position in the patient."""
    shape = (segmentation.NumberOfFrames, segmentation.Rows, segmentation.Columns)
    bits = np.unpackbits(np.frombuffer(segmentation.PixelData, np.uint8), bitorder="little")[: np.prod(shape)]
    names = {segment.SegmentNumber: segment.SegmentLabel for segment in segmentation.SegmentSequence}
    masks = {name: np.zeros(volume.hu.shape, bool) for name in names.values()}
    inverse = np.linalg.inv(volume.affine)
    for frame, groups in zip(bits.reshape(shape), segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        index = inverse @ [*map(float, groups.PlanePositionSequence[0].ImagePositionPatient), 1]
        assert np.allclose(index[1:3], 0, atol=1e-3)
        assert index[0] == pytest.approx(round(index[0]), abs=1e-3)
        assert frame.any()
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == volume.headers[round(index[0])].SOPInstanceUID
        name = names[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        masks[name][round(index[0])] = frame
    return masks


def read_nrrd(path: Path) -> tuple[NDArray[np.int16], dict[str, str]]:
    """Voxels (slices, rows, columns) and header of a file that dcmqi wrote uncompressed or gzipped."""
    import gzip

    head, _, body = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    data = gzip.decompress(body) if fields["encoding"] == "gzip" else body
    shape = [int(size) for size in fields["sizes"].split()]
    assert fields["type"] == "short"
    return np.frombuffer(data, "<i2").reshape(shape[::-1]), fields


def dcmqi_label_map(path: Path, volume: Volume, folder: Path) -> tuple[NDArray[np.int16], list[dict]]:
    """Label map as dcmqi reads it, put on the volume's grid by its own origin and directions."""
    folder.mkdir()
    subprocess.run(
        [BIN / "segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "--mergeSegments", "-t", "nrrd"],
        check=True,
        capture_output=True,
    )
    voxels, fields = read_nrrd(folder / "1.nrrd")
    vectors = [
        [float(v) for v in part.strip("()").split(",")]
        for part in [*fields["space directions"].split(), fields["space origin"]]
    ]
    columns, rows, slices, origin = vectors
    theirs = np.eye(4)
    theirs[:3] = np.array([slices, rows, columns, origin]).T
    to_ours = np.linalg.inv(volume.affine) @ theirs
    found = np.argwhere(voxels)
    indices = np.rint(found @ to_ours[:3, :3].T + to_ours[:3, 3]).astype(int)
    label_map = np.zeros(volume.hu.shape, np.int16)
    label_map[tuple(indices.T)] = voxels[tuple(found.T)]
    assert np.count_nonzero(label_map) == len(found)
    (segments,) = json.loads((folder / "meta.json").read_text())["segmentAttributes"]
    return label_map, segments


def test_masks_return_by_position(case: Case) -> None:
    for name, labels, structures in (
        ("lungs.seg.dcm", case.findings.lungs, STRUCTURES_OF_LUNGS),
        ("lesions.seg.dcm", case.findings.lesions, STRUCTURES_OF_LESIONS),
    ):
        masks = segment_masks(case.results[name], case.volume)
        assert list(masks) == [structure.label for structure in structures.values()]
        for label, structure in structures.items():
            assert np.array_equal(masks[structure.label], labels == label)


def test_dcmqi_reads_every_voxel(case: Case, tmp_path: Path) -> None:
    paths = case.written(tmp_path)
    for name, labels, structures in (
        ("lungs.seg.dcm", case.findings.lungs, STRUCTURES_OF_LUNGS),
        ("lesions.seg.dcm", case.findings.lesions, STRUCTURES_OF_LESIONS),
    ):
        label_map, segments = dcmqi_label_map(paths[name], case.volume, tmp_path / name[:4])
        assert np.array_equal(label_map, labels)
        assert [segment["SegmentLabel"] for segment in segments] == [s.label for s in structures.values()]
        for segment, structure in zip(segments, structures.values(), strict=True):
            assert segment["recommendedDisplayRGBValue"] == pytest.approx(structure.color, abs=1)


def test_right_is_the_patients_right(case: Case) -> None:
    dataset = case.results["lungs.seg.dcm"]
    masks = segment_masks(dataset, case.volume)
    x = {name: (case.volume.affine[0] @ [*np.argwhere(mask).mean(axis=0), 1]) for name, mask in masks.items()}
    assert x["Right lung"] < x["Left lung"]


def test_what_validators_miss(upright: Case) -> None:
    for name in ("lungs.seg.dcm", "lesions.seg.dcm"):
        dataset = upright.results[name]
        header = upright.volume.headers[0]
        assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert (dataset.Modality, dataset.SegmentationType, dataset.BitsAllocated) == ("SEG", "BINARY", 1)
        assert dataset.FrameOfReferenceUID == header.FrameOfReferenceUID
        assert dataset.StudyInstanceUID == header.StudyInstanceUID
        assert dataset.SeriesInstanceUID != header.SeriesInstanceUID
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        assert float(measures.SpacingBetweenSlices) == pytest.approx(2.0)
        (series,) = dataset.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == header.SeriesInstanceUID
        assert len(series.ReferencedInstanceSequence) == len(upright.volume.headers)
        dimensions = [
            tuple(g.FrameContentSequence[0].DimensionIndexValues) for g in dataset.PerFrameFunctionalGroupsSequence
        ]
        assert len(set(dimensions)) == len(dimensions)
        positions = {}
        for (_, rank), groups in zip(dimensions, dataset.PerFrameFunctionalGroupsSequence, strict=True):
            positions.setdefault(rank, set()).add(tuple(groups.PlanePositionSequence[0].ImagePositionPatient))
        assert all(len(values) == 1 for values in positions.values())
        for segment in dataset.SegmentSequence:
            (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
            assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (segment.SegmentAlgorithmName, "1.0")
            assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == codes.DCM.ArtificialIntelligence.value


def test_a_models_name_that_dicom_does_not_allow_is_fitted(tmp_path: Path) -> None:
    """Whoever brings a model names it; an LO holds 64 characters, and a backslash would part it in two."""
    case = make_case(Geometry())
    case.findings = replace(
        case.findings,
        models=tuple(replace(model, name=f"U\\Net\n{'x' * 80}", version="1\\2") for model in case.findings.models),
    )
    path = case.written(tmp_path)["lungs.seg.dcm"]
    assert "Error" not in dciodvfy(path)
    for segment in dcmread(path).SegmentSequence:
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == segment.SegmentAlgorithmName == f"U Net {'x' * 58}"
        assert algorithm.AlgorithmVersion == "1 2"


def test_one_image_that_lost_something_is_enough() -> None:
    case = make_case(Geometry())
    last = case.volume.headers[-1]
    last.LossyImageCompression, last.LossyImageCompressionRatio = "01", "10"
    last.LossyImageCompressionMethod = "ISO_10918_1"
    for name in ("lungs.seg.dcm", "lesions.seg.dcm"):
        result = case.results[name]
        assert (result.LossyImageCompression, result.LossyImageCompressionRatio) == ("01", 10)
        assert result.LossyImageCompressionMethod == "ISO_10918_1"


def test_terms_are_the_standards_own() -> None:
    lungs, lesions = STRUCTURES_OF_LUNGS, STRUCTURES_OF_LESIONS
    assert lungs[Side.RIGHT].type == lungs[Side.LEFT].type == codes.SCT.Lung
    assert (lungs[Side.RIGHT].modifier, lungs[Side.LEFT].modifier) == (codes.SCT.Right, codes.SCT.Left)
    assert lesions[LesionKind.GROUND_GLASS].type == codes.DCM.GroundGlassOpacity
    assert lesions[LesionKind.CONSOLIDATION].type == codes.DCM.Infiltrate
    assert all(structure.region == codes.SCT.Lung for structure in lesions.values())


@pytest.mark.parametrize(
    ("kinds", "labels"),
    [
        ({"ground_glass": False}, ["Consolidation"]),
        ({"consolidation": False}, ["Ground glass"]),
    ],
)
def test_an_empty_segment_is_never_described(kinds: dict[str, bool], labels: list[str], tmp_path: Path) -> None:
    case = make_case(Geometry(), **kinds)
    path = case.written(tmp_path)["lesions.seg.dcm"]
    dataset = dcmread(path)
    assert [segment.SegmentLabel for segment in dataset.SegmentSequence] == labels
    assert [segment.SegmentNumber for segment in dataset.SegmentSequence] == [1]
    label_map, _ = dcmqi_label_map(path, case.volume, tmp_path / "out")
    assert np.array_equal(label_map > 0, case.findings.lesions > 0)


def test_a_lung_that_is_missing_is_not_described(tmp_path: Path) -> None:
    case = make_case(Geometry())
    gone = case.findings.lungs == Side.RIGHT
    case.findings.lungs[gone] = 0
    case.findings.lesions[gone] = 0
    path = case.written(tmp_path)["lungs.seg.dcm"]
    assert [segment.SegmentLabel for segment in dcmread(path).SegmentSequence] == ["Left lung"]
    label_map, _ = dcmqi_label_map(path, case.volume, tmp_path / "out")
    assert np.array_equal(label_map > 0, case.findings.lungs == Side.LEFT)


def test_no_lesion_no_segmentation_of_lesions() -> None:
    case = make_case(Geometry(), ground_glass=False, consolidation=False)
    assert "lungs.seg.dcm" in case.results
    assert "lesions.seg.dcm" not in case.results


def test_a_single_lesion_slice(tmp_path: Path) -> None:
    case = make_case(Geometry(), ground_glass=False, consolidation=False)
    case.findings.lesions[7, 40:50, 30:41] = LesionKind.GROUND_GLASS
    path = case.written(tmp_path)["lesions.seg.dcm"]
    label_map, _ = dcmqi_label_map(path, case.volume, tmp_path / "out")
    assert np.array_equal(label_map, case.findings.lesions)


def test_lesions_far_apart_keep_their_slices(tmp_path: Path) -> None:
    case = make_case(Geometry(), ground_glass=False, consolidation=False)
    case.findings.lesions[[2, 20], 40:50, 30:41] = LesionKind.CONSOLIDATION
    path = case.written(tmp_path)["lesions.seg.dcm"]
    assert dcmread(path).NumberOfFrames == 2
    label_map, _ = dcmqi_label_map(path, case.volume, tmp_path / "out")
    assert np.array_equal(label_map > 0, case.findings.lesions > 0)


def test_highdicom_reads_the_same_masks(case: Case, tmp_path: Path) -> None:
    labels = case.findings.lungs
    volume = highdicom.seg.segread(case.written(tmp_path)["lungs.seg.dcm"]).get_volume(combine_segments=True)
    to_ours = np.linalg.inv(case.volume.affine) @ volume.affine
    found = np.argwhere(volume.array)
    indices = np.rint(found @ to_ours[:3, :3].T + to_ours[:3, 3]).astype(int)
    assert np.array_equal(labels[tuple(indices.T)], volume.array[tuple(found.T)])
    assert len(found) == np.count_nonzero(labels)
