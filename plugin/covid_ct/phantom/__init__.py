"""A deterministic thorax whose truth is known."""

from covid_ct.phantom.anatomy import Anatomy, build_anatomy
from covid_ct.phantom.dicom import to_datasets, write_folder
from covid_ct.phantom.make import Phantom, PhantomTruth, make_phantom, scan
from covid_ct.phantom.options import Lesions, PhantomOptions, Position

__all__ = [
    "Anatomy",
    "Lesions",
    "Phantom",
    "PhantomOptions",
    "PhantomTruth",
    "Position",
    "build_anatomy",
    "make_phantom",
    "scan",
    "to_datasets",
    "write_folder",
]
