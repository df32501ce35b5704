"""The README's commands, as a person types them."""

import json
import subprocess
from pathlib import Path

from covid_ct.phantom import PhantomOptions, make_phantom, write_folder

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)


def test_demo_prints_truth_beside_measurement_and_ends() -> None:
    done = run("make", "demo", "ARGS=--once")
    assert done.returncode == 0, done.stderr
    for word in ("Lung volume (ml)", "truth", "COVID-19 probability", "lesions.seg", "report", "/app/explorer.html"):
        assert word in done.stdout
    assert "For research and teaching use only. Not for diagnosis." in done.stdout


def test_demo_says_why_a_folder_cannot_be_analysed(tmp_path: Path) -> None:
    write_folder(make_phantom(PhantomOptions(slices=4, spacing_mm=8.0, thickness_mm=8.0)), tmp_path)
    done = run("make", "demo", "ARGS=--once", f"CT={tmp_path}")
    assert done.returncode != 0
    assert "has 4 slices" in done.stderr


def test_demo_of_an_empty_folder_fails_with_a_sentence(tmp_path: Path) -> None:
    done = run("make", "demo", "ARGS=--once", f"CT={tmp_path}")
    assert done.returncode != 0
    assert "holds no DICOM files" in done.stderr


def test_analyze_writes_the_same_results_twice(tmp_path: Path) -> None:
    options = PhantomOptions(slices=40, spacing_mm=6.0, thickness_mm=6.0)
    write_folder(make_phantom(options), tmp_path / "ct")
    for output in ("first", "second"):
        done = run("make", "analyze", f"CT={tmp_path / 'ct'}", f"OUTPUT={tmp_path / output}")
        assert done.returncode == 0, done.stderr
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert {"lungs.seg.dcm", "lesions.seg.dcm", "findings.json"} <= set(first)
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    findings = json.loads(first["findings.json"])
    for name in ("lung_volume_ml", "lesion_volume_ml", "lesion_to_lung_ratio"):
        assert set(findings[name]) == {"total", "right", "left"}


def test_analyze_without_a_folder_says_what_to_give() -> None:
    done = run("make", "analyze")
    assert done.returncode != 0
    assert "make analyze CT=folder" in done.stdout
