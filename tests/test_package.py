import json
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]

ALLOCATE = """
import {first}, numpy
kept = numpy.empty(64 << 20, numpy.uint8)
print(open("/proc/self/smaps").read())
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this Linux has pages of one size only"
)
@pytest.mark.parametrize(("first", "large"), [("covid_ct", False), ("sys", True)])
def test_numpy_asks_for_no_large_pages(first: str, large: bool) -> None:
    """By itself it does; then a map takes memory where nothing is written to as well."""
    environment = {"PYTHONPATH": str(REPOSITORY / "plugin")}
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE.format(first=first)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    flags = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("VmFlags:")]
    assert any("hg" in mapping for mapping in flags) == large


LOAD = """
import {first}
import onnx, onnxruntime
from onnx import TensorProto, helper
value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
graph = helper.make_graph([helper.make_node("Neg", ["a"], ["b"])], "negation", value[:1], value[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize(("first", "reports"), [("covid_ct", False), ("sys", True)])
def test_onnx_runtime_keeps_no_reports_for_its_maker(tmp_path: Path, first: str, reports: bool) -> None:
    """By itself it does; a newer one that never does will make the second case fail."""
    environment = {"PYTHONPATH": str(Path(__file__).parents[1] / "plugin"), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", LOAD.format(first=first)], env=environment, check=True)
    assert any(tmp_path.rglob("onnxruntime*")) == reports


def test_all_that_runs_is_pinned() -> None:
    pinned: dict[str, Requirement] = {}
    for name in ("requirements-base.txt", "requirements.txt", "requirements-no-deps.txt"):
        for line in (REPOSITORY / name).read_text().splitlines():
            if not line.startswith(("#", "-r")):
                one = Requirement(line)
                pinned[canonicalize_name(one.name)] = one
    needed = {
        canonicalize_name(requirement.name)
        for name, one in pinned.items()
        for requirement in map(Requirement, requires(name) or [])
        if requirement.marker is None
        or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *one.extras))
    }
    # requirements-no-deps.txt says why that one is not installed.
    assert needed - {"pyjpegls"} <= set(pinned)


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        ({"name": "a", "skip_reason": "not found"}, "nothing of requirements.txt was checked"),
        ({"name": "a", "version": "1", "vulns": []}, "1 packages of requirements.txt asked about, 0 known weaknesses"),
    ],
)
def test_an_audit_that_was_not_answered_does_not_pass_for_one(
    package: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "answer.json").write_text(json.dumps({"dependencies": [package]}))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = - ] && exec {sys.executable} "$@"\ncat {tmp_path}/answer.json\n')
    python.chmod(0o755)
    done = subprocess.run(["tools/pip-audit.sh", python], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert sentence in done.stdout
