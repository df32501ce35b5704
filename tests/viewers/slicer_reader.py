"""Runs in the Python of 3D Slicer's core libraries: opens a study as Slicer does and writes down what it got.

Usage: slicer_reader.py FOLDER_OF_CT FOLDER_FOR_OUTPUT FOLDER_OF_SEGMENTATION...

Slicer's DICOM module opens a segmentation with dcmqi's segimage2itkimage; a FOLDER_OF_SEGMENTATION holds what that
wrote, 1.nrrd and meta.json.
"""

import json
import sys
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy


def array_of(image):
    """Voxels of a VTK image, shape (slices, rows, columns)."""
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def matrix_of(vtk_matrix):
    return [[vtk_matrix.GetElement(row, column) for column in range(4)] for row in range(4)]


class Scene:
    """Slicer's scene with the modules that take part."""

    def __init__(self):
        self.scene = slicer.vtkMRMLScene()
        self.application = slicer.vtkMRMLApplicationLogic()
        self.application.SetMRMLScene(self.scene)
        self.colors = slicer.vtkSlicerColorLogic()
        self.volumes = slicer.vtkSlicerVolumesLogic()
        self.terminologies = slicer.vtkSlicerTerminologiesModuleLogic()
        self.segmentations = slicer.vtkSlicerSegmentationsModuleLogic()
        self.application.SetModuleLogic("Colors", self.colors)
        for logic in (self.colors, self.volumes, self.terminologies, self.segmentations):
            logic.SetMRMLApplicationLogic(self.application)
            logic.SetMRMLScene(self.scene)

    def open_ct(self, folder):
        first = min(path for path in folder.iterdir() if path.is_file())
        return self.volumes.AddArchetypeVolume(str(first), "CT", 0)

    def open_segmentation(self, folder, ct):
        label_map_option, single_file_option = 1, 8
        label_map = self.volumes.AddArchetypeVolume(
            str(folder / "1.nrrd"), "labels", label_map_option | single_file_option
        )
        node = self.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.SetReferenceImageGeometryParameterFromVolumeNode(ct)
        assert self.segmentations.ImportLabelmapToSegmentationNode(label_map, node)
        (attributes,) = json.loads((folder / "meta.json").read_text())["segmentAttributes"]
        segmentation = node.GetSegmentation()
        assert segmentation.GetNumberOfSegments() == len(attributes)
        assert self.terminologies.LoadTerminologyFromSegmentDescriptorFile("ours", str(folder / "meta.json"))
        for index, attribute in enumerate(attributes):
            segment = segmentation.GetNthSegment(index)
            segment.SetName(attribute["SegmentLabel"])
            segment.SetColor([value / 255 for value in attribute["recommendedDisplayRGBValue"]])
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), self.terminology(attribute))
        return node

    def terminology(self, attribute):
        def code(name):
            item = attribute.get(name, {})
            return item.get("CodeValue", ""), item.get("CodingSchemeDesignator", ""), item.get("CodeMeaning", "")

        return self.terminologies.SerializeTerminologyEntry(
            "ours", *code("SegmentedPropertyCategoryCodeSequence"), *code("SegmentedPropertyTypeCodeSequence"),
            *code("SegmentedPropertyTypeModifierCodeSequence"),
            "ours", *code("AnatomicRegionSequence"), *code("AnatomicRegionModifierSequence"),
        )  # fmt: skip


def mask_of(scene, node, segment_id, ct):
    """Mask of a segment on the CT's grid, as Slicer itself lays it there."""
    ids, label_map = vtk.vtkStringArray(), scene.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    ids.InsertNextValue(segment_id)
    assert scene.segmentations.ExportSegmentsToLabelmapNode(node, ids, label_map, ct)
    matrix = vtk.vtkMatrix4x4()
    label_map.GetIJKToRASMatrix(matrix)
    return array_of(label_map.GetImageData()) > 0, matrix_of(matrix)


def main(ct_folder, output, segmentation_folders):
    scene = Scene()
    ct = scene.open_ct(ct_folder)
    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    arrays = {"ct": array_of(ct.GetImageData())}
    report = {"ijk_to_ras": matrix_of(matrix), "segments": []}
    for folder in segmentation_folders:
        node = scene.open_segmentation(folder, ct)
        segmentation = node.GetSegmentation()
        for index in range(segmentation.GetNumberOfSegments()):
            segment = segmentation.GetNthSegment(index)
            mask, mask_matrix = mask_of(scene, node, segmentation.GetNthSegmentID(index), ct)
            entry = slicer.vtkSlicerTerminologyEntry()
            tag = vtk.reference("")
            assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag)
            assert scene.terminologies.DeserializeTerminologyEntry(str(tag), entry)
            arrays[segment.GetName()] = mask
            report["segments"].append(
                {
                    "name": segment.GetName(),
                    "color": [round(255 * value) for value in segment.GetColor()],
                    "ijk_to_ras": mask_matrix,
                    "category": entry.GetCategoryObject().GetCodeMeaning(),
                    "type": entry.GetTypeObject().GetCodeMeaning(),
                    "modifier": entry.GetTypeModifierObject().GetCodeMeaning(),
                    "region": entry.GetRegionObject().GetCodeMeaning(),
                }
            )
    np.savez(output / "slicer.npz", **arrays)
    (output / "slicer.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(argument) for argument in sys.argv[3:]])
