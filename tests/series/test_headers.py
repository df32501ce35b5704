from dataclasses import replace

import pytest

from covid_ct.errors import Reason, SeriesRefused
from covid_ct.identity import MANUFACTURER, MODEL_NAME, PHANTOM_MODEL_NAME
from covid_ct.series.headers import SeriesHeader, SeriesRules, check_series

CT = "1.2.840.10008.5.1.4.1.1.2"
GOOD = SeriesHeader("1.2.3", "CT", CT, "SIEMENS", "Scanner", ("ORIGINAL", "PRIMARY", "AXIAL"), 100)


def test_a_chest_ct_passes() -> None:
    check_series(GOOD, SeriesRules())
    check_series(replace(GOOD, manufacturer=MANUFACTURER, model_name=PHANTOM_MODEL_NAME), SeriesRules())
    # Averages and reformats have the values of tissue.
    check_series(replace(GOOD, image_type=("DERIVED", "SECONDARY", "MPR", "AVERAGE", "CHIP")), SeriesRules())


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"modality": "MR"}, Reason.NOT_CT, "MR"),
        ({"modality": ""}, Reason.NOT_CT, "missing"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, Reason.NOT_CT, "images are Secondary Capture Image Storage;"),
        ({"sop_class_uid": ""}, Reason.NOT_CT, "of no SOP class"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2.1"}, Reason.MULTI_FRAME, "multi-frame"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2.2"}, Reason.MULTI_FRAME, "multi-frame"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, Reason.LOCALIZER, "scout"),
        ({"image_type": ("ORIGINAL", "PRIMARY", " localizer")}, Reason.LOCALIZER, "scout"),
        ({"image_type": ("DERIVED", "SECONDARY", "MIP")}, Reason.NOT_CT, r"ImageType MIP\)"),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP")}, Reason.NOT_CT, "projection"),
        ({"image_type": ("DERIVED", "SECONDARY", "REFORMATTED", "MINIP")}, Reason.NOT_CT, "projection"),
        ({"image_type": ("DERIVED", "SECONDARY", "AXIAL", "MIN_IP")}, Reason.NOT_CT, "projection"),
        ({"image_type": ("DERIVED", "SECONDARY", "PROJECTION IMAGE")}, Reason.NOT_CT, "projection"),
        ({"slices": 15}, Reason.TOO_FEW_SLICES, "15 slices, at least 16"),
        ({"slices": 0}, Reason.TOO_FEW_SLICES, "0 slices"),
        ({"slices": 20_000}, Reason.TOO_MANY_SLICES, "20000 slices, at most 3000"),
        ({"manufacturer": MANUFACTURER, "model_name": MODEL_NAME}, Reason.OWN_RESULT, "itself a result"),
        ({"manufacturer": MANUFACTURER, "model_name": MODEL_NAME, "modality": "SEG"}, Reason.OWN_RESULT, "itself"),
    ],
)
def test_others_are_refused_with_the_reason(change: dict[str, object], reason: Reason, said: str) -> None:
    with pytest.raises(SeriesRefused, match=said) as refusal:
        check_series(replace(GOOD, **change), SeriesRules())
    assert refusal.value.reason is reason
    assert "1.2.3" in str(refusal.value)


def test_rules_set_the_limits() -> None:
    check_series(replace(GOOD, slices=4), SeriesRules(min_slices=4))
    with pytest.raises(SeriesRefused, match="at least 2"):
        check_series(replace(GOOD, slices=1), SeriesRules(min_slices=1))
    with pytest.raises(SeriesRefused, match="at most 50"):
        check_series(GOOD, SeriesRules(max_slices=50))
