import re
from pathlib import Path
from typing import Any

import pytest

from covid_ct.server.configuration import KEYS, REPOSITORY, ConfigurationError, read_configuration
from tools.orthanc_configuration import read_json_with_comments
from tools.orthanc_server import CONFIGURATION


def test_defaults() -> None:
    read = read_configuration({})
    assert read.automatic
    assert read.aet_titles == ("COVIDAET",)
    assert read.models_folder == REPOSITORY / "models"
    assert read.state_folder == Path("OrthancStorage/covid-ct")


def test_the_shipped_configuration_is_right_and_safe() -> None:
    shipped = read_json_with_comments(CONFIGURATION)
    assert read_configuration(shipped).series_rules.min_slices == 16
    assert shipped["RemoteAccessAllowed"] is False
    assert shipped["DicomCheckModalityHost"] is True
    assert not any(shipped[f"DicomAlwaysAllow{what}"] for what in ("Echo", "Store", "Find", "Get"))


def test_what_is_commented_out_needs_no_more_than_its_slashes_removed(tmp_path: Path) -> None:
    whole = tmp_path / "orthanc.json"
    whole.write_text(re.sub(r'^( *)// (?=")', r"\1", CONFIGURATION.read_text(), flags=re.MULTILINE))
    configured = read_json_with_comments(whole)
    read = read_configuration(configured)
    assert read.destinations == ("pacs",)
    assert set(read.destinations) <= set(configured["DicomModalities"])
    assert set(configured["CovidCt"]) == KEYS, "every key is shown"
    assert {"OHIF", "StoneWebViewer"} <= set(configured)


def test_all_keys() -> None:
    section = {
        "Automatic": False, "AETitles": [], "Destinations": ["pacs"], "SeriesRules": {"MinSlices": 30}, "Workers": 2,
        "Threads": 4, "Providers": ["CUDA", "CPU"], "ModelTimeout": 5, "ModelsFolder": "/m", "StateFolder": "/s",
    }  # fmt: skip
    read = read_configuration({"CovidCt": section, "StorageDirectory": "/x"})
    assert (read.workers, read.threads, read.model_timeout, read.series_rules.min_slices) == (2, 4, 5, 30)
    assert read.providers == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert (read.models_folder, read.state_folder) == (Path("/m"), Path("/s"))


@pytest.mark.parametrize(
    ("section", "settings"),
    [
        ({}, None),
        ({"EnableIndex": False, "Host": "db"}, None),
        ({"EnableIndex": True}, {"host": "localhost"}),
        (
            {
                "EnableIndex": True, "Host": "db", "Port": 5433, "Database": "o", "Username": "u", "Password": "p",
                "EnableSsl": True,
            },
            {"host": "db", "port": "5433", "dbname": "o", "user": "u", "password": "p", "sslmode": "require"},
        ),
        ({"EnableIndex": True, "Host": "db", "ConnectionUri": "postgresql://db/o"}, {"dsn": "postgresql://db/o"}),
    ],
)  # fmt: skip
def test_postgresql_is_where_orthancs_index_is(section: dict[str, Any], settings: dict[str, str] | None) -> None:
    assert read_configuration({"PostgreSQL": section}).postgresql == settings


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ([], "must be an object"),
        ({"Automatik": True}, "Automatik"),
        ({"Automatic": "yes"}, "true or false"),
        ({"AETitles": "COVIDAET"}, "list of texts"),
        ({"Destinations": [""]}, "list of texts"),
        ({"Workers": 0}, "1 to 16"),
        ({"Workers": True}, "1 to 16"),
        ({"Providers": ["GPU"]}, "TensorRT"),
        ({"ModelTimeout": 0}, "1 to 86400"),
        ({"SeriesRules": {"MinSlice": 3}}, "MinSlices"),
        ({"SeriesRules": {"MinSlices": -3}}, "positive"),
        ({"ModelsFolder": 3}, "text"),
    ],
)
def test_wrong_values_are_named(section: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_configuration({"CovidCt": section})
