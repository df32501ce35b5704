"""Series for tests that need many of them, made from one phantom's files."""

import copy
import io
from collections.abc import Sequence
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from tools.orthanc_server import OrthancServer

COARSER = 4
"""Every so many rows and columns of the phantom are kept."""


def coarse(files: Sequence[Path]) -> list[Dataset]:
    """The images of a series with a sixteenth of their pixels."""
    images = []
    for path in files:
        image = dcmread(path)
        pixels = image.pixel_array[::COARSER, ::COARSER]
        image.Rows, image.Columns = pixels.shape
        image.PixelSpacing = [f"{COARSER * spacing:.6g}" for spacing in image.PixelSpacing]
        image.PixelData = pixels.tobytes()
        images.append(image)
    return images


def renamed(images: Sequence[Dataset], name: object) -> list[Dataset]:
    """The same images as another series of another study."""
    new = [copy.deepcopy(image) for image in images]
    for image in new:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(image, keyword, generate_uid(entropy_srcs=[image[keyword].value, str(name)]))
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return new


def encode(image: Dataset) -> bytes:
    """An image as a DICOM file."""
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def upload_images(server: OrthancServer, images: Sequence[Dataset]) -> str:
    """Send images by REST; the Orthanc id of their series."""
    answers = [server.upload(encode(image)) for image in images]
    return answers[0]["ParentSeries"]
