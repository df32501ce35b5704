import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement

from covid_ct.results import wording


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0, "0.0 %"), (0.0004, "< 0.1 %"), (0.0345, "3.5 %"), (0.1, "10.0 %"), (1, "100.0 %")],
)
def test_percent(ratio: float, text: str) -> None:
    assert wording.percent(ratio) == text


@pytest.mark.parametrize(
    ("volume", "text"), [(0, "0.0 ml"), (0.04, "< 0.1 ml"), (0.26, "0.3 ml"), (9.94, "9.9 ml"), (4280.6, "4281 ml")]
)
def test_milliliters(volume: float, text: str) -> None:
    assert wording.milliliters(volume) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.001, "< 0.01"), (0.0, "< 0.01"), (0.812, "0.81"), (0.996, "> 0.99"), (1.0, "> 0.99")]
)
def test_probability_is_never_a_certainty(value: float, text: str) -> None:
    assert wording.probability(value) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Doe^Jane^Ann^Dr.^MD", "Doe, Dr. Jane Ann MD"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou\n山田, 太郎\nやまだ, たろう"),
        ("=山田^太郎", "山田, 太郎"),
        ("Anonymous", "Anonymous"),
        ("^", ""),
    ],
)
def test_person_names(name: str, text: str) -> None:
    assert wording.person_name(name) == text


@pytest.mark.parametrize(("value", "text"), [("039Y", "39 years"), ("006M", "6 months"), ("forty", "forty"), ("", "")])
def test_age(value: str, text: str) -> None:
    assert wording.age(value) == text


@given(
    st.fixed_dictionaries(
        {
            keyword: st.text(max_size=80)
            for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientAge", "PatientSex", "StudyDate")
        }
    )
)
def test_no_header_stops_the_patient_line(values: dict[str, str]) -> None:
    header = Dataset()
    for keyword, value in values.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        header[tag] = DataElement(tag, dictionary_VR(keyword), value, validation_mode=config.IGNORE)
    cells = wording.patient_cells(header)
    assert len(cells) == 5
    assert all(label and value for label, value in cells)
