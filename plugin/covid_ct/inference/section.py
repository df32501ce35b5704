"""Reading a JSON object strictly: every wrong, missing or unknown key is a sentence that names it and its file."""

import json
import math
from pathlib import Path
from typing import Any, cast

from covid_ct.errors import ModelError


class Section:
    """One object of the manifest, which knows where it stands and which keys were asked for."""

    def __init__(self, path: Path, name: str, content: object) -> None:
        self._path = path
        self._name = name
        if not isinstance(content, dict):
            raise ModelError(f"{name or 'The top level'} of the manifest {path} has to be a JSON object.")
        self._content: dict[str, Any] = content
        self._asked: set[str] = set()

    def wrong(self, key: str, why: str) -> ModelError:
        """The error for a value."""
        return ModelError(f'In the manifest {self._path}, "{self._label(key)}" {why}.')

    def get(self, key: str) -> Any:
        """The value, None where there is none."""
        self._asked.add(key)
        return self._content.get(key)

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def __getitem__(self, key: str) -> Any:
        if key not in self._content:
            raise self.wrong(key, "is missing; see models/README.md for what it means")
        return self.get(key)

    def section(self, key: str) -> "Section":
        """An object inside this one."""
        return Section(self._path, self._label(key), self[key])

    def text(self, key: str) -> str:
        """A string that is not empty."""
        value = self[key]
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "has to be a text that is not empty")
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of several strings."""
        value = self[key]
        if value not in allowed:
            raise self.wrong(key, "has to be " + " or ".join(json.dumps(word) for word in allowed))
        return cast(str, value)

    def names(self, key: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
        """A list of different strings out of several."""
        value = self[key]
        if not isinstance(value, list) or any(name not in allowed for name in value) or len(set(value)) < len(value):
            raise self.wrong(key, f"has to be a list of different names out of {', '.join(dict.fromkeys(allowed))}")
        return tuple(value)

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self[key]
        if not isinstance(value, bool):
            raise self.wrong(key, "has to be true or false")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """A number in a range."""
        value = self[key]
        if not _is_number(value) or not low <= value <= high:
            raise self.wrong(key, f"has to be a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number in a range."""
        value = self.number(key, low, high)
        if not value.is_integer():
            raise self.wrong(key, f"has to be a whole number from {low} to {high}")
        return int(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """So many numbers."""
        value = self[key]
        if not isinstance(value, list) or len(value) != count or not all(_is_number(number) for number in value):
            raise self.wrong(key, f"has to be a list of {count} numbers")
        return tuple(float(number) for number in value)

    def sizes(self, key: str, count: int) -> tuple[int, ...]:
        """So many numbers of voxels."""
        value = self.numbers(key, count)
        if not all(number.is_integer() and 1 <= number <= 4096 for number in value):
            raise self.wrong(key, f"has to be a list of {count} whole numbers from 1 to 4096")
        return tuple(int(number) for number in value)

    def finish(self) -> None:
        """Refuse keys that nobody asked for."""
        unknown = sorted(set(self._content) - self._asked)
        if unknown:
            raise self.wrong(unknown[0], "is no key of a manifest; correct or remove it")

    def _label(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
