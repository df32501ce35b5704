"""COVID-19 chest-CT analysis inside Orthanc. For research and teaching, not for diagnosis."""

import os

__version__ = "0.1.0"
RESEARCH_USE_ONLY = "For research and teaching use only. Not for diagnosis."

# NumPy reads it when it is imported. Of its pages of 2 MB an analysis of 300 slices took 70 MB more, for maps of which
# little is written to, and 0.1 s longer, for these have to be filled with zeros.
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
