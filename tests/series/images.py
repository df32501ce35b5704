"""Small CT series, made here so that each test can break one thing."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SERIES_UID = "1.2.826.0.1.3680043.8.498.1"
ROWS, COLUMNS = 64, 80


def make_series(count: int = 20, spacing: float = 5.0) -> list[Dataset]:
    """Images feet to head whose pixel (row, column) of slice s holds 1000 + 40 s + row (HU -24 on)."""
    series = []
    for index in range(count):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{SERIES_UID}.2.{index + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = Dataset()
        image.file_meta = meta
        image.SOPClassUID = CTImageStorage
        image.SOPInstanceUID = f"{SERIES_UID}.2.{index + 1}"
        image.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.9"
        image.SeriesInstanceUID = SERIES_UID
        image.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.8"
        image.PatientID = "SECRET-ID"
        image.PatientName = "Secret^Name"
        image.Modality = "CT"
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.InstanceNumber = index + 1
        image.SliceThickness = 5
        image.ImagePositionPatient = [-20, -30, -100 + spacing * index]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.PixelSpacing = [0.5, 0.75]
        image.Rows, image.Columns = ROWS, COLUMNS
        image.SamplesPerPixel = 1
        image.PhotometricInterpretation = "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
        image.PixelRepresentation = 0
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        image.PixelData = pixels(np.full((ROWS, COLUMNS), 1000 + 40 * index) + np.arange(ROWS)[:, None])
        series.append(image)
    return series


def pixels(values: Any, kind: str = "<u2") -> bytes:
    """Pixel data of stored values."""
    return np.asarray(values).astype(kind).tobytes()


def encode(images: Iterable[Dataset]) -> list[bytes]:
    """DICOM files of images."""
    files = []
    for image in images:
        buffer = io.BytesIO()
        image.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


def never_decode(content: bytes) -> np.ndarray:
    raise AssertionError("nothing here is compressed")
