"""COVID-19 chest-CT analysis inside Orthanc. For research and teaching, not for diagnosis."""

__version__ = "0.1.0"
RESEARCH_USE_ONLY = "For research and teaching use only. Not for diagnosis."
