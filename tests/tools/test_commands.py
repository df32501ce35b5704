"""The README's commands, as a person types them."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from covid_ct.phantom import PhantomOptions, make_phantom, write_folder

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)


@contextmanager
def running(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A command that stays up, and all that it started, until the block ends."""
    with subprocess.Popen(
        ["make", "--no-print-directory", *command], cwd=REPOSITORY, text=True, start_new_session=True, **options
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C; make itself then tells of the interruption."""
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) in (0, 2, 130, -signal.SIGINT)


def test_demo_prints_truth_beside_measurement_and_ends() -> None:
    done = run("make", "demo", "ARGS=--once")
    assert done.returncode == 0, done.stderr
    for word in ("measured", "truth", "COVID-19 probability", "lesions.seg", "report", "/app/explorer.html"):
        assert word in done.stdout
    for name, nearness in (("Lung volume (ml)", {"rel": 0.03}), ("Lesion to lung (%)", {"abs": 1.5})):
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(name))
        numbers = [float(number) for number in line.removeprefix(name).split()]
        assert numbers[:3] == pytest.approx(numbers[3:], **nearness), name
    assert "For research and teaching use only. Not for diagnosis." in done.stdout


def test_demo_shows_how_far_it_is_and_stays_up_until_it_is_interrupted(tmp_path: Path) -> None:
    write_folder(make_phantom(PhantomOptions(slices=40, spacing_mm=6.0, thickness_mm=6.0)), tmp_path)
    ours, its = os.openpty()
    with running("demo", f"CT={tmp_path}", stdout=its, stderr=its) as demo:
        os.close(its)
        shown = ""
        while "Ctrl-C ends the demo" not in shown:
            shown += os.read(ours, 4096).decode()
        assert re.search(r"\[#+ *\] +\d+ %", shown)
        assert "took" in shown
        assert demo.poll() is None
        interrupt(demo)
    os.close(ours)


def test_serve_takes_ports_and_storage_and_keeps_the_images(tmp_path: Path) -> None:
    (image, *_) = write_folder(
        make_phantom(PhantomOptions(slices=4, spacing_mm=8.0, thickness_mm=8.0)), tmp_path / "ct"
    )
    # Below the ports that the kernel gives out, so that no test beside this one has them.
    http, dicom = 18042, 14242
    chosen = [f"HTTP_PORT={http}", f"DICOM_PORT={dicom}", f"STORAGE={tmp_path / 'storage'}"]
    for start in range(2):
        with running("serve", *chosen, stdout=subprocess.PIPE) as serve:
            assert serve.stdout is not None
            assert f"http://127.0.0.1:{http}/app/explorer.html" in serve.stdout.readline()
            with urllib.request.urlopen(f"http://127.0.0.1:{http}/instances") as answer:
                assert len(json.load(answer)) == start
            if start == 0:
                taken = run("make", "serve", *chosen)
                assert taken.returncode != 0
                assert f"Port {http} is in use" in taken.stderr
                send = ["storescu", "-aec", "ORTHANC", "127.0.0.1", str(dicom), str(image)]
                subprocess.run(send, check=True, capture_output=True)
            interrupt(serve)
    assert any((tmp_path / "storage").iterdir())


def test_demo_says_why_a_folder_cannot_be_analysed(tmp_path: Path) -> None:
    write_folder(make_phantom(PhantomOptions(slices=4, spacing_mm=8.0, thickness_mm=8.0)), tmp_path)
    done = run("make", "demo", "ARGS=--once", f"CT={tmp_path}")
    assert done.returncode != 0
    assert "has 4 slices" in done.stderr


def test_demo_of_an_empty_folder_fails_with_a_sentence(tmp_path: Path) -> None:
    done = run("make", "demo", "ARGS=--once", f"CT={tmp_path}")
    assert done.returncode != 0
    assert "holds no DICOM files" in done.stderr


def test_analyze_writes_the_same_results_twice_and_beside_another_series(tmp_path: Path) -> None:
    options = PhantomOptions(slices=40, spacing_mm=6.0, thickness_mm=6.0)
    image, *_ = write_folder(make_phantom(options), tmp_path / "ct")
    for output, chosen in (("first", []), ("second", [f"SERIES={dcmread(image).SeriesInstanceUID}"])):
        done = run("make", "analyze", f"CT={tmp_path / 'ct'}", f"OUTPUT={tmp_path / output}", *chosen)
        assert done.returncode == 0, done.stderr
        write_folder(make_phantom(replace(options, seed=2)), tmp_path / "ct/other")
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert {"lungs.seg.dcm", "lesions.seg.dcm", "findings.json"} <= set(first)
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()}
    findings = json.loads(first["findings.json"])
    for name in ("lung_volume_ml", "lesion_volume_ml", "lesion_to_lung_ratio"):
        assert set(findings[name]) == {"total", "right", "left"}


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ([sys.executable, "-m", "tools.serve", "--http-port", "99999"], "99999 is no port; ports go from 1 to 65535."),
        (["tools/orthanc-version.sh", "", "nowhere"], "make test-orthanc VERSION=1.10.1"),
    ],
)
def test_a_slip_gets_a_sentence(command: list[str], sentence: str) -> None:
    done = run(*command)
    assert (done.returncode, sentence in done.stderr, done.stderr.count("\n")) == (1, True, 1)


def test_analyze_without_a_folder_says_what_to_give() -> None:
    done = run("make", "analyze")
    assert done.returncode != 0
    assert "make analyze CT=folder" in done.stdout
