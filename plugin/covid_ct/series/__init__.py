"""Which series may be analysed and why not; DICOM to `Volume`."""
