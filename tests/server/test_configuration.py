import re
from pathlib import Path
from typing import Any

import pytest

from covid_ct.server.configuration import KEYS, REPOSITORY, ConfigurationError, configuration_folder, read_configuration
from tools.orthanc_configuration import read_json_with_comments
from tools.orthanc_server import CONFIGURATION


def test_defaults() -> None:
    read = read_configuration({}, Path("/etc/orthanc"))
    assert read.automatic
    assert read.aet_titles == ("COVIDAET",)
    assert read.models_folder == REPOSITORY / "models"
    assert read.state_folder == Path("/etc/orthanc/OrthancStorage/covid-ct")


def test_the_shipped_configuration_is_right_and_safe() -> None:
    shipped = read_json_with_comments(CONFIGURATION)
    assert read_configuration(shipped, CONFIGURATION.parent).series_rules.min_slices == 16
    assert shipped["RemoteAccessAllowed"] is False
    assert shipped["DicomCheckModalityHost"] is True
    assert not any(shipped[f"DicomAlwaysAllow{what}"] for what in ("Echo", "Store", "Find", "Get"))


def test_what_is_commented_out_needs_no_more_than_its_slashes_removed(tmp_path: Path) -> None:
    whole = tmp_path / "orthanc.json"
    whole.write_text(re.sub(r'^( *)// (?=")', r"\1", CONFIGURATION.read_text(), flags=re.MULTILINE))
    configured = read_json_with_comments(whole)
    read = read_configuration(configured, CONFIGURATION.parent)
    assert read.destinations == ("pacs",)
    assert set(read.destinations) <= set(configured["DicomModalities"])
    assert set(configured["CovidCt"]) == KEYS, "every key is shown"
    assert {"OHIF", "StoneWebViewer"} <= set(configured)


def test_all_keys() -> None:
    section = {
        "Automatic": False, "AETitles": ["SIXTEEN LETTERS."], "Destinations": ["pacs"],
        "SeriesRules": {"MinSlices": 30}, "Workers": 2,
        "Threads": 4, "Providers": ["CUDA", "CPU"], "Gpu": 1, "ModelTimeout": 5, "ModelsFolder": "/m",
        "StateFolder": "/s",
    }  # fmt: skip
    assert set(section) == KEYS
    read = read_configuration({"CovidCt": section, "StorageDirectory": "/x", "StableAge": 7}, None)
    assert (read.automatic, read.aet_titles, read.destinations) == (False, ("SIXTEEN LETTERS.",), ("pacs",))
    assert (read.gpu, read.stable_age) == (1, 7)
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
    assert read_configuration({"PostgreSQL": section}, Path("/x")).postgresql == settings


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ([], "must be an object"),
        ({"Automatik": True}, "Automatik"),
        ({"Automatic": "yes"}, "true or false"),
        ({"AETitles": "COVIDAET"}, "list of texts"),
        ({"Destinations": [""]}, "none of them empty"),
        *(({"AETitles": [one]}, "1 to 16 ASCII") for one in ("SEVENTEEN_LETTERS", " A", "A ", " ", "A\\B", "A\n", "É")),
        ({"Workers": 0}, "1 to 16"),
        ({"Workers": True}, "1 to 16"),
        ({"Providers": ["GPU"]}, "TensorRT"),
        ({"ModelTimeout": 0}, "1 to 86400"),
        ({"SeriesRules": {"MinSlice": 3}}, "MinSlices"),
        ({"SeriesRules": {"MinSlices": -3}}, "positive"),
        ({"SeriesRules": {"MaxSlices": 1e3}}, "whole number"),
        ({"SeriesRules": {"MinSlices": 3001}}, "at most MaxSlices, 3000"),
        ({"SeriesRules": {"MaxSpacingMm": float("inf")}}, "positive number"),
        ({"SeriesRules": {"MaxSpacingMm": float("nan")}}, "positive number"),
        ({"SeriesRules": {"MaxVoxels": 4e7}}, "whole number"),
        ({"ModelsFolder": 3}, "text"),
    ],
)
def test_wrong_values_are_named(section: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_configuration({"CovidCt": section}, Path("/x"))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "StorageDirectory"),
        ({"StorageDirectory": "db"}, "StorageDirectory"),
        ({"StorageDirectory": "/x", "CovidCt": {"ModelsFolder": "m"}}, "CovidCt.ModelsFolder"),
        ({"StorageDirectory": "/x", "CovidCt": {"StateFolder": "s"}}, "CovidCt.StateFolder"),
    ],
)
def test_a_path_that_starts_nobody_knows_where_is_named(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=f'"{key}" must be an absolute path'):
        read_configuration(changes, None)


def test_relative_paths_start_from_the_folder_of_the_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "orthanc.json"
    file.touch()
    folder = configuration_folder(file)
    read = read_configuration({"StorageDirectory": "db", "CovidCt": {"ModelsFolder": "m"}}, folder)
    assert (read.models_folder, read.state_folder) == (tmp_path / "m", tmp_path / "db/covid-ct")
    assert configuration_folder(tmp_path) is None


@pytest.mark.parametrize("setting", [{"CheckRevisions": True}, {"JobsHistorySize": 0}, {"JobsHistorySize": 9}])
def test_settings_of_orthanc_that_this_plugin_cannot_live_with(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        read_configuration(setting, Path("/x"))
