"""The pieces of the benchmark run, on small series; their figures are not looked at."""

import pytest

from tests.benchmarks import gpu, job, limit, machine, page, peers, quiet, report, service, throughput
from tests.benchmarks.series import phantom_series

SLICES, MATRIX = 50, 128

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The page and the figures of a real run stay."""
    monkeypatch.setattr(report, "MEASURED", tmp_path / "measured.json")


@pytest.fixture(scope="module")
def measured():
    return job.measure((SLICES,), MATRIX, repeats=1)


def test_the_whole_job_adds_up(measured):
    ours = measured.jobs[SLICES]
    assert set(ours.stages) == {"reading", "analysing", "writing", "storing"}
    assert 0 < ours.networks < ours.total
    assert sum(ours.stages.values()) <= ours.total + 0.05
    assert ours.runs["lesions"] > 0
    assert ours.decoding == 0 < measured.compressed.decoding
    assert ours.peak_mb > 0


def test_the_limit_is_less_than_what_was_measured(measured):
    text = limit.section(measured.jobs[SLICES]).text
    assert "networks" in text
    assert machine.copy_rate() > 0


def test_multiplications_of_one_convolution(tmp_path):
    network = tmp_path / "network.onnx"
    for quantized in (False, True):
        network.write_bytes(machine._convolutions(4, 8, 3, quantized=quantized))
        assert machine.multiplications(network) == 3 * 4 * 4 * 9 * 8 * 8
        assert machine.is_quantized(network) == quantized


def test_a_service_outside_takes_the_same_steps():
    ways = service.measure(SLICES, MATRIX, repeats=0)
    assert set(ways) == {"in Orthanc", "service over HTTP", "service over DIMSE"}
    assert len({tuple(steps) for steps in ways.values()}) == 1


def test_the_first_picture():
    found = page.measure((SLICES,), MATRIX, loads=1)
    assert [one.analysing for one in found] == [False, True]
    assert all(len(one.seconds) == 1 and one.seconds[0] > 0 for one in found)


def test_throughput():
    assert throughput.measure(2, 2, SLICES, MATRIX) > 0


@pytest.mark.skipif(not peers.PYTHON.exists(), reason="make benchmark installs the peers")
def test_peers():
    found = peers.measure(phantom_series(SLICES, MATRIX), lung_slices=1, windows=1, filters=8)
    assert {"lungs: lungmask R231", "lesions: SegResNet"} <= {step["name"] for step in found["steps"]}


@pytest.mark.skipif(not quiet.PYTHON.exists(), reason="make benchmark installs pynetdicom")
def test_quiet():
    idle, beside, busy, _ = quiet.measure(2.0, 1, SLICES, MATRIX)
    assert set(idle) == set(beside) == set(busy) == {"GET /system", "POST /instances", "C-ECHO", "C-STORE"}
    assert all(idle.values())


def test_providers_side_by_side():
    text = gpu.section(SLICES, MATRIX).text
    assert "| CPU " in text
    assert text.count("1.00000") >= 2, "the CPU's masks agree with themselves"


def test_the_page_says_what_was_not_run(tmp_path):
    report.keep("job", report.new_section("The whole job", report.table(["s"], [[1.234]]), load_before=0.5))
    report.write_page(("job", "gpu"), tmp_path / "performance.md")
    page = (tmp_path / "performance.md").read_text()
    assert "1.23" in page
    assert "load before it began: 0.5" in page
    assert "## gpu\nNot run." in page
