"""The pages, and the script for Orthanc Explorer, as they are served."""

from dataclasses import dataclass
from importlib import resources

MIME_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
"""Content types of the files by the end of their names."""


@dataclass(frozen=True)
class File:
    """A file and its content type."""

    text: str
    mime: str


FILES = {
    file.name: File(file.read_text(encoding="utf-8"), kind)
    for file in (resources.files("covid_ct.server") / "app").iterdir()
    if (kind := MIME_TYPES.get(file.name.rpartition(".")[2]))
}
"""All files by name, in memory: reading lets go of Python's lock, and waits for it while an analysis computes."""
