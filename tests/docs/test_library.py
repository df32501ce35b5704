"""The five lines that an engineer reads first."""

import doctest
from pathlib import Path

import pytest

from covid_ct import library
from tests.docs.conftest import REPOSITORY


def test_the_example_works(small_series: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ct").symlink_to(small_series[0].parent)
    (tmp_path / "models").symlink_to(REPOSITORY / "models")
    monkeypatch.chdir(tmp_path)
    tried = doctest.testmod(library)
    assert tried.attempted >= 5
    assert tried.failed == 0
    assert (tmp_path / "results" / library.FINDINGS_FILE).is_file()


def test_types_are_for_others_too() -> None:
    assert (Path(library.__file__).parent / "py.typed").is_file()
