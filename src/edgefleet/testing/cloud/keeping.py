"""What the mock cloud keeps between two runs: one JSON file that its parts fill.

Rules kept here:

- The file is written when the mock has stopped in order, whole or not at all. A mock that is killed
  goes on next time from what was kept before.
- A file that another version of the mock wrote is refused, never half read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet.errors import ConfigurationError
from edgefleet.protocol.files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VERSION = 1


class Part(Protocol):
    """Something of the mock that goes on where it was."""

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """What it is made of, as JSON has it."""

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Become what `kept` told."""


class Place:
    """Where a mock is found: a script that was given its addresses finds them again.

    Args:
        told: names and ports, as JSON has them.

    Attributes:
        told: what was kept, once that is restored.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told

    def kept(self) -> dict[str, Any]:
        """Names and ports."""
        return self.told

    def restore(self, kept: dict[str, Any]) -> None:
        """Take those that were kept."""
        self.told = kept


class Keeper:
    """The file.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def save(self, parts: Mapping[str, Part]) -> None:
        """Write down what all parts are made of."""
        content = {name: part.kept() for name, part in parts.items()}
        write_whole(self._path, json.dumps({"version": VERSION, "parts": content}).encode())

    def restore(self, parts: Mapping[str, Part]) -> None:
        """Give each part what was kept of it, in the parts' order; nothing where none was.

        Raises:
            ConfigurationError: the file can't be read, or another version wrote it.
        """
        content = self._read()
        for name, part in parts.items():
            if name in content:
                part.restore(content[name])

    def _read(self) -> dict[str, Any]:
        cure = "start the mock on an empty folder, or with the version that it was kept by"
        try:
            found = json.loads(self._path.read_bytes())
            version, parts = found["version"], found["parts"]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{self._path} is not what a mock kept: {error}", cure=cure
            ) from error
        if version != VERSION or not isinstance(parts, dict):
            raise ConfigurationError(
                f"{self._path} was kept by another version of the mock", cure=cure
            )
        return parts
