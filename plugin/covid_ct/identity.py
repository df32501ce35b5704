"""What our own DICOM objects say about their maker, and how they are known again."""

MANUFACTURER = "covid-ct"
"""Manufacturer (0008,0070) of every object that we write."""

MODEL_NAME = "COVID-19 chest CT analysis"
"""ManufacturerModelName (0008,1090) of every result that we write."""

DEVICE_SERIAL_NUMBER = "1"
"""DeviceSerialNumber (0018,1000): required by enhanced equipment modules; software has no number of its own."""

DEVICE_UID = "2.25.113696657883311081560769868200704283531"
"""Device Observer UID of every structured report: one for the software, as the serial number is, not for its runs."""

PHANTOM_MODEL_NAME = "Thorax phantom"
"""ManufacturerModelName (0008,1090) of the phantom's images, which are input, not a result."""


def is_own_result(manufacturer: str, model_name: str) -> bool:
    """Whether an object with this Manufacturer and ManufacturerModelName is a result of ours.

    Parameters
    ----------
    manufacturer, model_name: str
        (0008,0070) and (0008,1090), empty where missing.

    Returns
    -------
    bool
        True for segmentations, reports and overlay series; False for the phantom and anyone else's objects.
    """
    return manufacturer.strip() == MANUFACTURER and model_name.strip() == MODEL_NAME
