"""The five lines that an engineer reads first."""

import doctest
import re
from pathlib import Path

import pytest

from covid_ct import library
from covid_ct.results.objects import FILES
from tests.docs.conftest import REPOSITORY
from tests.inference.tiny_models import write_all


def test_the_example_works(small_series: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ct").symlink_to(small_series[0].parent)
    (tmp_path / "models").symlink_to(REPOSITORY / "models")
    monkeypatch.chdir(tmp_path)
    tried = doctest.testmod(library)
    assert tried.attempted >= 5
    assert tried.failed == 0
    assert (tmp_path / "results" / library.FINDINGS_FILE).is_file()


def test_nothing_of_an_earlier_patient_stays(small_series: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "results"
    output.mkdir()
    analyzer = library.Analyzer(write_all(tmp_path / "models"))
    library.analyze_folder(analyzer, small_series[0].parent, output)
    made = {path.name for path in output.iterdir()}
    assert made - {library.FINDINGS_FILE} == {path.name for pattern in FILES for path in output.glob(pattern)}
    others = [output / "overlay.sc.99.dcm", output / "lesions.seg.dcm"]
    for path in (*others, output / "notes.txt"):
        path.write_bytes(b"of another patient")
    library.analyze_folder(analyzer, small_series[0].parent, output)
    assert {path.name for path in output.iterdir()} == {*made, "notes.txt"}
    assert b"of another" not in (output / "lesions.seg.dcm").read_bytes()


def test_the_readme_shows_the_same_five_lines() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    examples = doctest.DocTestParser().get_examples(library.__doc__ or "")
    lines = [line for line in program.splitlines() if line]
    assert lines == [example.source.partition("  #")[0].strip() for example in examples[:5]]


def test_types_are_for_others_too() -> None:
    assert (Path(library.__file__).parent / "py.typed").is_file()
