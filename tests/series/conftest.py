from copy import deepcopy

import pytest
from pydicom import Dataset

from tests.series.images import make_series


@pytest.fixture(scope="session")
def _series() -> list[Dataset]:
    return make_series()


@pytest.fixture
def series(_series: list[Dataset]) -> list[Dataset]:
    """A good series of 20 slices, to be broken."""
    return deepcopy(_series)
