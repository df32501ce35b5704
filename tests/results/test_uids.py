import re

import pytest

from covid_ct.results import uids
from covid_ct.results.uids import ResultUids

SOURCES, MODELS, SETTINGS = ["1.2.3", "1.2.4"], ["a" * 64, "b" * 64], {"Precision": "fp32"}


def test_a_second_analysis_has_the_same_uids() -> None:
    first = ResultUids.of_analysis(SOURCES, MODELS, SETTINGS)
    second = ResultUids.of_analysis(reversed(SOURCES), reversed(MODELS), dict(SETTINGS))
    assert first.derive("report") == second.derive("report")


@pytest.mark.parametrize(
    ("sources", "models", "settings"),
    [
        (["1.2.3"], MODELS, SETTINGS),
        (["1.2.3", "1.2.5"], MODELS, SETTINGS),
        (SOURCES, ["a" * 64, "c" * 64], SETTINGS),
        (SOURCES, MODELS, {"Precision": "fp16"}),
        (SOURCES, MODELS, {}),
    ],
)
def test_whatever_changes_content_changes_uids(sources: list[str], models: list[str], settings: dict[str, str]) -> None:
    assert ResultUids.of_analysis(sources, models, settings) != ResultUids.of_analysis(SOURCES, MODELS, SETTINGS)


def test_another_version_has_other_uids(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ResultUids.of_analysis(SOURCES, MODELS, SETTINGS)
    monkeypatch.setattr(uids, "__version__", "99.0")
    assert ResultUids.of_analysis(SOURCES, MODELS, SETTINGS) != before


def test_roles_differ_and_are_valid() -> None:
    one = ResultUids.of_analysis(SOURCES, MODELS, SETTINGS)
    roles = [("lungs.seg", "series"), ("lungs.seg", "instance"), ("lungs", "seg.series"), ("lungs.segseries",)]
    derived = [one.derive(*role) for role in roles]
    assert len(set(derived)) == len(roles)
    assert all(uid.is_valid and len(uid) <= 64 and re.fullmatch(r"2\.25\.[1-9]\d*", uid) for uid in derived)
