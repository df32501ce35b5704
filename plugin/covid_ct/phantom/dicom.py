"""The phantom as a proper DICOM series."""

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

from covid_ct import __version__
from covid_ct.identity import MANUFACTURER, PHANTOM_MODEL_NAME
from covid_ct.phantom.fields import FIELD_OF_VIEW_MM
from covid_ct.phantom.make import Phantom

PATIENT_NAME = "Phantom^Thorax"
PATIENT_ID = "COVID-CT-PHANTOM"

RESCALE_INTERCEPT = -1024
"""HU of a stored 0, as scanners with 12 bits have it."""


def to_datasets(phantom: Phantom) -> list[Dataset]:
    """CT Image Storage objects of a phantom.

    Parameters
    ----------
    phantom: Phantom

    Returns
    -------
    list[Dataset]
        With file meta information and pixel data (Explicit VR Little Endian), by instance number. The UIDs depend on
        the phantom's options and on this package's version alone.
    """
    stored = (phantom.hu.astype(np.int32) - RESCALE_INTERCEPT).astype("<u2")
    order = range(len(stored) - 1, -1, -1) if phantom.options.reversed_order else range(len(stored))
    datasets = []
    for number, index in enumerate(order, start=1):
        dataset = _series_header(phantom)
        _add_image_header(dataset, phantom)
        position = phantom.affine @ np.array([index, 0, 0, 1.0])
        dataset.SOPInstanceUID = _uid(phantom, f"instance {index}")
        dataset.InstanceNumber = number
        dataset.ImagePositionPatient = [_number(value) for value in position[:3]]
        dataset.SliceLocation = _number(position[2])
        dataset.PixelData = stored[index].tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        datasets.append(dataset)
    return datasets


def write_folder(phantom: Phantom, folder: Path) -> list[Path]:
    """Write a phantom's series as DICOM files, IM00001.dcm and so on by instance number.

    Parameters
    ----------
    phantom: Phantom
    folder: Path
        Made where it is missing.

    Returns
    -------
    list[Path]
        The files, by instance number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for dataset in to_datasets(phantom):
        path = folder / f"IM{dataset.InstanceNumber:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _uid(phantom: Phantom, what: str) -> str:
    return str(generate_uid(entropy_srcs=[f"covid-ct {__version__} {phantom.options!r} {what}"]))


def _number(value: float) -> str:
    # Rounded, since the last binary digits of a sum are no part of a position.
    return format_number_as_ds(round(float(value), 6) + 0.0)


def _series_header(phantom: Phantom) -> Dataset:
    """What all images of the series say of patient, study, series and scanner."""
    options = phantom.options
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID = CTImageStorage
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20200401"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = "120000"
    dataset.AccessionNumber = ""
    dataset.Modality = "CT"
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = PHANTOM_MODEL_NAME
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Chest phantom"
    dataset.SeriesDescription = f"Thorax {options.spacing_mm:g} mm, lesions {options.lesions}"
    dataset.PatientName = PATIENT_NAME
    dataset.PatientID = PATIENT_ID
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "O"
    dataset.BodyPartExamined = "CHEST"
    dataset.SliceThickness = _number(options.slab_mm)
    dataset.KVP = "120"
    dataset.DataCollectionDiameter = "500"
    dataset.ReconstructionDiameter = _number(FIELD_OF_VIEW_MM)
    dataset.GantryDetectorTilt = "0"
    dataset.TableHeight = "150"
    dataset.RotationDirection = "CW"
    dataset.ExposureTime = "500"
    dataset.XRayTubeCurrent = "150"
    dataset.Exposure = "75"
    dataset.FilterType = "BODY"
    dataset.SoftwareVersions = __version__
    dataset.ConvolutionKernel = "STANDARD"
    dataset.PatientPosition = str(options.position)
    dataset.StudyInstanceUID = _uid(phantom, "study")
    dataset.SeriesInstanceUID = _uid(phantom, "series")
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.AcquisitionNumber = 1
    return dataset


def _add_image_header(dataset: Dataset, phantom: Phantom) -> None:
    """Add what all images of the series say of their geometry and pixels."""
    row_cosine, column_cosine = phantom.affine[:3, 2], phantom.affine[:3, 1]
    dataset.ImageOrientationPatient = [
        _number(value) for cosine in (row_cosine, column_cosine) for value in cosine / np.linalg.norm(cosine)
    ]
    dataset.FrameOfReferenceUID = _uid(phantom, "frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Rows, dataset.Columns = phantom.hu.shape[1:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelSpacing = [_number(FIELD_OF_VIEW_MM / phantom.options.matrix)] * 2
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter = "-600"
    dataset.WindowWidth = "1500"
    dataset.RescaleIntercept = str(RESCALE_INTERCEPT)
    dataset.RescaleSlope = "1"
    dataset.RescaleType = "HU"
