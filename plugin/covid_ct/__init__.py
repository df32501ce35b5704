"""COVID-19 chest-CT analysis inside Orthanc. For research and teaching, not for diagnosis."""

import os

__version__ = "0.1.0"
RESEARCH_USE_ONLY = "For research and teaching use only. Not for diagnosis."

# NumPy reads it when it is imported, and otherwise asks Linux for pages of 2 MB. With these an analysis took more
# memory, for maps of which little is written to (70 MB of 640 at 300 slices, 260 MB of 1630 at 1200), and no less time.
os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")

# ONNX Runtime reads it when it is imported; since 1.29 it otherwise sends reports to its maker, and keeps an
# identifier of the machine and what it has not sent yet in the home folder of Orthanc's user.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
