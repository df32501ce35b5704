"""The section `CovidCt` of Orthanc's configuration."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from covid_ct.errors import CovidCtError
from covid_ct.inference.session import RUN_LIMIT_S
from covid_ct.series.headers import SeriesRules

SECTION = "CovidCt"
"""Name of the section, as Orthanc's plugins name theirs."""

REPOSITORY = Path(__file__).resolve().parents[3]
"""Folder that holds `plugin/` and `models/`."""

KEYS = frozenset({
    "Automatic", "AETitles", "Destinations", "SeriesRules", "Workers", "Threads", "Providers",
    "Gpu", "ModelTimeout", "ModelsFolder", "StateFolder",
})  # fmt: skip
"""Keys of the section."""

STORAGE_DEFAULT = "OrthancStorage"
"""Orthanc's own default of `StorageDirectory`."""

STABLE_AGE_DEFAULT_S = 60
"""Orthanc's own default of `StableAge`."""

AE_TITLE = re.compile(r"(?! )[ -\[\]-~]{1,16}(?<! )")
"""DICOM's application entity titles (PS3.5, value representation AE), without the outer blanks that do not count."""

JOBS_HISTORY_LEAST = 10
"""Fewest ended jobs that Orthanc has to remember: its own default of `JobsHistorySize`."""

POSTGRESQL_KEYS = {"Host": "host", "Port": "port", "Database": "dbname", "Username": "user", "Password": "password"}
"""Keys of the section `PostgreSQL` of Orthanc's plugin, and libpq's keywords of the same."""


class ConfigurationError(CovidCtError):
    """Raised if the section `CovidCt` holds what it should not."""


@dataclass(frozen=True)
class Configuration:
    """Settings of the plugin; the keys of orthanc.json are these names in PascalCase.

    Attributes
    ----------
    models_folder: Path
        Holds lungs/, lesions/ and covid/. Default: `models` beside `plugin`.
    state_folder: Path
        Jobs and finished results that are not stored yet. Default: `covid-ct` in Orthanc's StorageDirectory.
    automatic: bool
        Analyse every CT series that becomes stable and that its headers allow. Default: true.
    aet_titles: tuple[str, ...]
        Called AE titles that ask for an analysis, automatic or not. Default: COVIDAET.
    destinations: tuple[str, ...]
        Names in Orthanc's DicomModalities that get the results of every analysis. Default: none.
    series_rules: SeriesRules
        Which series may be analysed.
    workers: int
        Analyses at the same time. Default: 1.
    threads: int
        CPU threads of an analysis' networks; 0 takes one for each core. Default: 0.
    providers: tuple[str, ...]
        TensorRT, CUDA, CPU, in the order to be tried; empty takes what the installed ONNX Runtime has, in this order.
    gpu: int
        Number of the GPU to be used, as CUDA counts. Default: 0.
    model_timeout: int
        Longest time in seconds that one run of a network may take before the analysis fails. Default: 300.
    stable_age: int
        Orthanc's own StableAge: seconds without a new image after which a series counts as complete.
    postgresql: Mapping[str, str] | None
        How Orthanc connects to PostgreSQL, in libpq's keywords, where its index is there; from Orthanc's own section.
    """

    models_folder: Path
    state_folder: Path
    automatic: bool = True
    aet_titles: tuple[str, ...] = ("COVIDAET",)
    destinations: tuple[str, ...] = ()
    series_rules: SeriesRules = field(default_factory=SeriesRules)
    workers: int = 1
    threads: int = 0
    providers: tuple[str, ...] = ()
    gpu: int = 0
    model_timeout: int = int(RUN_LIMIT_S)
    stable_age: int = STABLE_AGE_DEFAULT_S
    postgresql: Mapping[str, str] | None = None


PROVIDERS = {
    "TensorRT": "TensorrtExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "CPU": "CPUExecutionProvider",
}
"""Names in the configuration and ONNX Runtime's names of the same."""


def configuration_folder(path: Path) -> Path | None:
    """Where relative paths of Orthanc's configuration start.

    Parameters
    ----------
    path: Path
        What `orthanc.GetConfigurationPath()` gives. Where Orthanc reads a folder of files, that is the folder above it
        (1.10.1), so that nothing is known.
    """
    return path.parent.absolute() if path.is_file() else None


def read_configuration(orthanc: Mapping[str, Any], folder: Path | None) -> Configuration:
    """Settings from Orthanc's whole configuration.

    Parameters
    ----------
    orthanc: Mapping
        What `orthanc.GetConfiguration()` gives, parsed.
    folder: Path | None
        Where relative paths start, or None where nobody knows.

    Raises
    ------
    ConfigurationError
        If a key is unknown, a value has the wrong type, or a path starts nobody knows where; the sentence names it.
    """
    section = orthanc.get(SECTION, {})
    if not isinstance(section, Mapping):
        raise ConfigurationError(f'"{SECTION}" in the configuration must be an object {{…}}.')
    if orthanc.get("CheckRevisions", False):
        # The plugin's API cannot say which revision of the findings it renews.
        raise ConfigurationError('"CheckRevisions" in Orthanc\'s configuration must be false for this plugin.')
    if orthanc.get("JobsHistorySize", JOBS_HISTORY_LEAST) < JOBS_HISTORY_LEAST:
        # How a transfer ended, and what Orthanc sent to one of our AE titles, is known from there only.
        raise ConfigurationError(
            f'"JobsHistorySize" in Orthanc\'s configuration must be {JOBS_HISTORY_LEAST} (its default) or more for '
            "this plugin, which looks there whether results have arrived."
        )
    state_folder = _text(section, "StateFolder")
    models_folder = _text(section, "ModelsFolder")
    if unknown := sorted(set(section) - KEYS):
        raise ConfigurationError(
            f'"{SECTION}" in the configuration has no key "{unknown[0]}"; it has {", ".join(sorted(KEYS))}.'
        )
    return Configuration(
        models_folder=(
            _path(models_folder, f"{SECTION}.ModelsFolder", folder) if models_folder else REPOSITORY / "models"
        ),
        state_folder=(
            _path(state_folder, f"{SECTION}.StateFolder", folder)
            if state_folder
            else _path(orthanc.get("StorageDirectory", STORAGE_DEFAULT), "StorageDirectory", folder) / "covid-ct"
        ),
        automatic=_flag(section, "Automatic", default=True),
        aet_titles=tuple(_ae_title(title) for title in _texts(section, "AETitles", ("COVIDAET",))),
        destinations=_texts(section, "Destinations", ()),
        series_rules=_series_rules(section.get("SeriesRules", {})),
        workers=_number(section, "Workers", default=1, low=1, high=16),
        threads=_number(section, "Threads", default=0, low=0, high=256),
        providers=tuple(_provider(name) for name in _texts(section, "Providers", ())),
        gpu=_number(section, "Gpu", default=0, low=0, high=63),
        model_timeout=_number(section, "ModelTimeout", default=int(RUN_LIMIT_S), low=1, high=86_400),
        stable_age=int(orthanc.get("StableAge", STABLE_AGE_DEFAULT_S)),
        postgresql=_postgresql(orthanc.get("PostgreSQL", {})),
    )


def _postgresql(section: Mapping[str, Any]) -> dict[str, str] | None:
    if not section.get("EnableIndex", False):
        return None
    if uri := section.get("ConnectionUri"):
        return {"dsn": str(uri)}
    settings = {"host": "localhost"} | {
        keyword: str(section[key]) for key, keyword in POSTGRESQL_KEYS.items() if section.get(key)
    }
    return settings | ({"sslmode": "require"} if section.get("EnableSsl", False) else {})


def _wrong(key: str, value: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(f'"{SECTION}.{key}" in the configuration must be {wanted}, not {value!r}.')


def _text(section: Mapping[str, Any], key: str) -> str:
    value = section.get(key, "")
    if not isinstance(value, str):
        raise _wrong(key, value, "a text")
    return value


def _path(text: str, key: str, folder: Path | None) -> Path:
    if folder is None and not Path(text).is_absolute():
        raise ConfigurationError(
            f'"{key}" must be an absolute path where Orthanc reads a folder of configuration files, not {text!r}.'
        )
    return (folder or Path()) / text


def _texts(section: Mapping[str, Any], key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = section.get(key, list(default))
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise _wrong(key, value, "a list of texts, none of them empty")
    return tuple(value)


def _flag(section: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = section.get(key, default)
    if not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    return value


def _number(section: Mapping[str, Any], key: str, *, default: int, low: int, high: int) -> int:
    value = section.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wrong(key, value, f"a whole number from {low} to {high}")
    return value


def _ae_title(title: str) -> str:
    if not AE_TITLE.fullmatch(title):
        raise _wrong("AETitles", title, "a list of AE titles: 1 to 16 ASCII characters, no backslash, no outer blanks")
    return title


def _provider(name: str) -> str:
    if name not in PROVIDERS:
        raise _wrong("Providers", name, f"a list of {', '.join(PROVIDERS)}")
    return PROVIDERS[name]


def _series_rules(value: object) -> SeriesRules:
    if not isinstance(value, Mapping):
        raise _wrong("SeriesRules", value, "an object {…}")
    names = {_pascal(item.name): item for item in fields(SeriesRules)}
    given: dict[str, Any] = {}
    for key, number in value.items():
        if key not in names:
            raise _wrong("SeriesRules", key, f"an object with the keys {', '.join(names)}")
        whole = names[key].type is int
        is_number = isinstance(number, int if whole else int | float) and not isinstance(number, bool)
        if not is_number or not 0 < number < math.inf:
            raise _wrong(f"SeriesRules.{key}", number, f"a positive {'whole ' if whole else ''}number")
        given[names[key].name] = number
    rules = SeriesRules(**given)
    if rules.min_slices > rules.max_slices:
        raise _wrong("SeriesRules.MinSlices", rules.min_slices, f"at most MaxSlices, {rules.max_slices}")
    return rules


def _pascal(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
