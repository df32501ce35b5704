"""A thorax whose truth is known, as a proper DICOM series."""
