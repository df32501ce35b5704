"""Where the shipped models are, what their cards promise, and how a phantom becomes a volume."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from covid_ct.phantom import Phantom
from covid_ct.series.volume import Volume
from models.training.accuracy import CROSS_VALIDATION
from models.training.data import TUMOURS

MODELS = Path(__file__).resolve().parents[2] / "models"
DATA = Path(__file__).resolve().parents[2] / "../shared/data"

needs_tumours = pytest.mark.skipif(not (TUMOURS / "ready").exists(), reason="needs `make tumours`")


def volume_of(phantom: Phantom) -> Volume:
    header = Dataset()
    header.SeriesInstanceUID = generate_uid(entropy_srcs=["phantom"])
    return Volume(phantom.hu, phantom.affine, (header,) * len(phantom.hu))


def figures_of_classifier() -> dict[str, Any]:
    """What the training of the classifier measured on what its units had not seen."""
    figures: dict[str, Any] = json.loads((MODELS / "covid" / CROSS_VALIDATION).read_text())
    return figures


def card_figure(role: str, measure: str, data: str) -> float:
    """The figure in the row of a card's table that starts with a measure and names the data."""
    card = (MODELS / role / "README.md").read_text()
    match = re.search(rf"^\| {re.escape(measure)} \| {re.escape(data)}[^|]*\| ([0-9.]+) \|", card, re.MULTILINE)
    assert match, f"the card of {role} has no row for {measure} on {data}"
    return float(match.group(1))
