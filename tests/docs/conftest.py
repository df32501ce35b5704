from collections.abc import Iterator
from pathlib import Path

import pytest

from covid_ct.phantom import PhantomOptions, make_phantom, write_folder
from tests.inference.tiny_models import write_all
from tests.orthanc.driving import upload
from tools.orthanc_server import OrthancServer

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def small_series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of a coarse phantom."""
    options = PhantomOptions(slices=20, spacing_mm=8.0, thickness_mm=8.0, matrix=129)
    return write_folder(make_phantom(options), tmp_path_factory.mktemp("ct"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancServer]:
    """An Orthanc whose address and credentials are those of the documentation, but for the port; one a file."""
    models = write_all(tmp_path_factory.mktemp("models"))
    changes = {
        "CovidCt": {"Automatic": False, "ModelsFolder": str(models), "Destinations": ["this-machine"]},
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"radiology": "a long password"},
    }
    with OrthancServer(tmp_path_factory.mktemp("orthanc"), changes=changes) as started:
        yield started


@pytest.fixture(scope="module")
def series(server: OrthancServer, small_series: list[Path]) -> str:
    """Orthanc id of the phantom's series."""
    return upload(server, small_series)
