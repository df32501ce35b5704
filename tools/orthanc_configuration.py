"""Orthanc's configuration on disk: one file, or a folder of files whose keys must not overlap."""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VARIABLE = re.compile(r"\$\{([^:}]*)(?::-([^}]*))?\}")
"""An environment variable, with what stands for it where it is not set."""

COMMENTED_JSON = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
"""Texts and comments of Orthanc's JSON."""

LAST_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')
"""Texts, and commas behind which nothing follows."""


class ConfigurationFilesError(Exception):
    """Raised if Orthanc could not read its configuration either; the sentence names the file."""


@dataclass(frozen=True)
class ConfigurationFiles:
    """What Orthanc reads at its start.

    Attributes
    ----------
    path: Path
        The file, or the folder of files.
    values: dict
        The configuration as a whole.
    origins: dict
        The file in which each key of the top level stands.
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, Path] = field(default_factory=dict)

    def resolve(self, name: str) -> Path:
        """A path of the configuration; a relative one starts from the configuration's folder."""
        folder = self.path if self.path.is_dir() else self.path.parent
        return folder.resolve() / name


def read_json_with_comments(path: Path) -> dict[str, Any]:
    """Orthanc's kind of JSON: with comments in the manner of C++, last commas, tabs in texts, and `${NAME:-default}`.

    Variables have the values of this environment, which may be another one than that of Orthanc's service.

    Raises
    ------
    ConfigurationFilesError
        Raised if it cannot be read, or is no JSON object.
    """
    unset: list[str] = []

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name not in os.environ and default is None:
            unset.append(name)
        return os.environ.get(name, (default or "").strip("'\""))

    try:
        # Any bytes are well in comments, so in Latin-1.
        text = VARIABLE.sub(value, path.read_text(encoding="utf-8-sig", errors="replace"))
        for left_out in (COMMENTED_JSON, LAST_COMMA):
            text = left_out.sub(lambda match: match[1] or "", text)
        document = json.loads(text, strict=False)
    except (OSError, ValueError) as error:
        hint = f" It names variables that are not set here: {', '.join(unset)}." if unset else ""
        raise ConfigurationFilesError(f"{path} cannot be read: {error}.{hint}") from error
    if not isinstance(document, dict):
        raise ConfigurationFilesError(f"{path} holds no JSON object {{…}}.")
    return document


def read_configuration_files(path: Path) -> ConfigurationFiles:
    """Orthanc's whole configuration, as it would read it.

    Parameters
    ----------
    path: Path
        A file, or a folder of which Orthanc reads all `*.json`.

    Raises
    ------
    ConfigurationFilesError
        Raised if there is none, a file cannot be read, or a key stands in two files, on which Orthanc does not start.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise ConfigurationFilesError(f"There is no configuration of Orthanc in {path}.")
    read = ConfigurationFiles(path)
    for file in files:
        for key, value in read_json_with_comments(file).items():
            if key in read.origins:
                raise ConfigurationFilesError(
                    f'The key "{key}" stands both in {read.origins[key]} and in {file}; Orthanc does not start. '
                    "Remove one of the two."
                )
            read.values[key] = value
            read.origins[key] = file
    return read
