"""Finished DICOM objects from a `Volume` and its `Findings`."""
