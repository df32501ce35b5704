"""The shipped models answer the same on every processor, though they calculate in 8 bits."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from covid_ct.analysis.analyzer import ROLES
from covid_ct.inference.drawn_chest import drawn_chest
from covid_ct.inference.manifest import load_manifest
from covid_ct.inference.providers import CPU, open_session
from tests.models.shipped import MODELS

ANSWER = """
import sys
import numpy as np
from pathlib import Path
from covid_ct.inference.providers import CPU, open_session
content, chest = Path(sys.argv[1]).read_bytes(), np.load(sys.argv[2])
session = open_session(content, CPU, threads=1, gpu=0, engines=None)
np.save(sys.argv[3], session.run(None, {"image": chest})[0])
"""


def answer(role, **options):
    session = open_session((MODELS / role / "model.onnx").read_bytes(), CPU, threads=1, gpu=0, engines=None, **options)
    return session.run(None, {"image": chest_for(role)})[0]


def chest_for(role):
    return drawn_chest(load_manifest(MODELS / role, role).input)[:, np.newaxis]


@pytest.mark.parametrize("role", ROLES)
def test_weights_leave_room_for_sums_in_16_bits(role):
    """A processor with AVX2 but without VNNI adds two products of a byte and a weight there."""
    graph = onnx.load(MODELS / role / "model.onnx").graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    weights = [constant for constant in constants.values() if constant.dtype == np.int8 and constant.ndim == 4]
    assert len(weights) > 50
    assert max(np.abs(constant.astype(int)).max() for constant in weights) * 255 * 2 <= np.iinfo(np.int16).max


@pytest.mark.parametrize("role", ROLES)
def test_floats_answer_the_same(role):
    """As a GPU calculates; but for the ends of the network, which are in floats anyway, to the last bit."""
    np.testing.assert_allclose(answer(role), answer(role, in_floats=True), atol=2e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("processor", ["Nehalem", "Haswell"])
def test_processors_without_vnni_answer_the_same(tmp_path, role, processor):
    """Haswell has AVX2, Nehalem has not; emulated, since the next server's processor is not to be had here."""
    assert shutil.which("qemu-x86_64"), "Debian's package qemu-user is missing"
    np.save(tmp_path / "chest.npy", chest_for(role))
    files = [MODELS / role / "model.onnx", tmp_path / "chest.npy", tmp_path / "answer.npy"]
    subprocess.run(
        ["qemu-x86_64", "-cpu", processor, sys.executable, "-c", ANSWER, *map(str, files)],
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "plugin")},
        check=True,
        timeout=500,
    )
    np.testing.assert_allclose(np.load(tmp_path / "answer.npy"), answer(role), atol=2e-4, rtol=0)
