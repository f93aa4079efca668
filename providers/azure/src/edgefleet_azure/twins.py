"""What a twin of IoT Hub takes, looked at before anything is sent. Pure.

- Tags have at most 8 KB, desired and reported properties 32 KB each; a value at most 4,096 bytes;
  names at most 1,024 bytes, without control characters, ``.``, ``$`` and blanks; ten levels.
- Integers lie between -4503599627370496 and 4503599627370495.

https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-device-twins#tags-and-properties-format
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from edgefleet.errors import LimitExceededError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_TAGS, MAX_PROPERTIES = 8 << 10, 32 << 10  # bytes
MAX_VALUE = 4096  # bytes of a value, as JSON
MAX_NAME = 1024  # bytes
MAX_DEPTH = 10
_LEAST, _MOST = -4503599627370496, 4503599627370495
_FORBIDDEN = re.compile(r"[\x00-\x1f\x80-\x9f.$ ]")
_CURE = "write less into the twin, or under other names"


def check(content: Mapping[str, Any]) -> None:
    """Refuse properties that no twin takes.

    Raises:
        LimitExceededError: with the place and the reason.
    """
    for problem in _problems(content, (), 1):
        raise LimitExceededError(problem, cure=_CURE)


def check_size(content: Mapping[str, Any], most: int) -> None:
    """Refuse a section that is too large.

    Raises:
        LimitExceededError: with its size.
    """
    size = size_of(content)
    if size > most:
        raise LimitExceededError(f"the section has {size} bytes, {most} are allowed", cure=_CURE)


def size_of(value: Any) -> int:  # noqa: ANN401 - JSON
    """Bytes that IoT Hub counts: names and values, without JSON's punctuation.

    A text counts with its UTF-8 bytes, a number with 8, a boolean with 4.
    https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-device-twins#device-twin-size
    """
    if isinstance(value, dict):
        return sum(len(key.encode()) + size_of(inner) for key, inner in value.items())
    if isinstance(value, list):
        return sum(map(size_of, value))
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bool):
        return 4
    return 0 if value is None else 8


def _problems(content: Mapping[str, Any], at: tuple[str, ...], depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield f"{'.'.join(at)} lies deeper than {MAX_DEPTH} levels"
        return
    for key, value in content.items():
        place = (*at, key)
        name = ".".join(place)[:80]
        if not key or _FORBIDDEN.search(key) or len(key.encode()) > MAX_NAME:
            yield f"{name!r} is no name of a property"
        if isinstance(value, dict):
            yield from _problems(value, place, depth + 1)
        else:
            yield from _of_value(value, name, place, depth)


def _of_value(
    value: Any,  # noqa: ANN401 - JSON
    name: str,
    place: tuple[str, ...],
    depth: int,
) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            if inner is None:
                yield f"{name} holds null in an array"
            elif isinstance(inner, dict):
                yield from _problems(inner, place, depth + 1)
    elif isinstance(value, int) and not _LEAST <= value <= _MOST:
        yield f"{name} is no integer that a twin takes"
    size = len(value.encode()) if isinstance(value, str) else len(json.dumps(value).encode())
    if size > MAX_VALUE:
        yield f"{name} has {size} bytes, a value has at most {MAX_VALUE}"
