"""A deterministic thorax whose truth is known."""

from covid_ct.phantom.dicom import to_datasets, write_folder
from covid_ct.phantom.make import Phantom, PhantomTruth, make_phantom
from covid_ct.phantom.options import Lesions, PhantomOptions, Position

__all__ = [
    "Lesions",
    "Phantom",
    "PhantomOptions",
    "PhantomTruth",
    "Position",
    "make_phantom",
    "to_datasets",
    "write_folder",
]
