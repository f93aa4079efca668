"""Twins of IoT Hub: tags, desired and reported properties, their versions and what limits them.

Pure: nothing here knows of devices. Rules kept here, each in ``mock_rules.md``:

- Tags have at most 8 KB, desired and reported properties 32 KB each; a value at most 4,096 bytes;
  names at most 1,024 bytes, without control characters, ``.``, ``$`` and blanks; at most
  ten levels.
- null takes a property away, and a patch that changes nothing raises the version all the same.
- Integers lie between -4503599627370496 and 4503599627370495.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgefleet_azure.twins import MAX_PROPERTIES, MAX_TAGS, check, check_size

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class Section:
    """Desired or reported properties.

    Attributes:
        content: the properties.
        times: ``$metadata``, as long as it is not asked for: when each was last set.
        version: ``$version``.
    """

    content: dict[str, Any] = field(default_factory=dict)
    times: dict[str, Any] = field(default_factory=dict)
    version: int = 1

    def patch(self, patch: Mapping[str, Any], now: str) -> None:
        """Merge a patch in.

        Raises:
            LimitExceededError: it can't be, and nothing changed.
        """
        content = merged(self.content, patch)
        check(patch)
        check_size(content, MAX_PROPERTIES)
        self._set(content, patch, now)

    def replace(self, content: Mapping[str, Any], now: str) -> dict[str, Any]:
        """Have exactly this; what changed, as a patch."""
        patch = difference(self.content, content)
        check(content)
        check_size(content, MAX_PROPERTIES)
        self._set(merged({}, content), patch, now)
        return patch

    def _set(self, content: dict[str, Any], patch: Mapping[str, Any], now: str) -> None:
        self.content = content
        self.version += 1
        self.times = _stamped(self.times, patch, now, self.version)

    def document(self) -> dict[str, Any]:
        """As the service shows it."""
        return {**self.content, "$metadata": self.times, "$version": self.version}

    def told(self) -> dict[str, Any]:
        """As a device is told."""
        return {**self.content, "$version": self.version}


@dataclass
class Twin:
    """A device's or a module's; modules have tags too, though no client of ours sets them."""

    tags: dict[str, Any] = field(default_factory=dict)
    desired: Section = field(default_factory=Section)
    reported: Section = field(default_factory=Section)
    version: int = 1

    def tag(self, tags: Mapping[str, Any], *, replace: bool) -> None:
        """Change tags.

        Raises:
            LimitExceededError: they can't be so, and nothing changed.
        """
        content = merged({} if replace else self.tags, tags)
        check(tags)
        check_size(content, MAX_TAGS)
        self.tags = content


def merged(content: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Content with a patch merged in: objects by key, null takes away, all else replaces."""
    result = dict(content)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            inner = result.get(key)
            result[key] = merged(inner if isinstance(inner, dict) else {}, value)
        else:
            result[key] = value
    return result


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The patch that makes ``after`` of ``before``; empty where they are equal."""
    patch: dict[str, Any] = dict.fromkeys(before.keys() - after.keys())
    for key, value in after.items():
        there = before.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            inner = difference(there, value)
            if inner:
                patch[key] = inner
        elif key not in before or _differ(there, value):
            patch[key] = value
    return patch


def _differ(one: object, other: object) -> bool:
    return type(one) is not type(other) or one != other  # true is not 1


def _stamped(
    times: Mapping[str, Any], patch: Mapping[str, Any], now: str, version: int
) -> dict[str, Any]:
    result = {**times, "$lastUpdated": now, "$lastUpdatedVersion": version}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            inner = value if isinstance(value, dict) else {}
            result[key] = _stamped(times.get(key, {}), inner, now, version)
    return result
