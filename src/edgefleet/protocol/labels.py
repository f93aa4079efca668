"""Labels of devices: how long they are, and how many, on every backend and in the runtime.

Two kinds: what operators and joining devices say is kept by the backend, and what a runtime is told
of its own device goes into each of its reports, where there is less room. A backend whose vendor
takes less than the first refuses the rest by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_KEY_CHARACTERS = 63  # a Kubernetes label value holds as many
MAX_VALUE_CHARACTERS = 255
MAX_GIVEN = 32
"""Labels that a joining device says."""
MAX_REPORTED = 24
"""Labels that a runtime is told, and their characters (names and values): a report has 7 KB."""
MAX_REPORTED_CHARACTERS = 63


def check_labels(labels: Mapping[str, str | None]) -> None:
    """Refuse labels that a fleet doesn't keep; a value of None takes a label away.

    Raises:
        InvalidInputError: one is too long, or isn't as ``KEY=VALUE`` of a command line.
    """
    for key, value in labels.items():
        text = value or ""
        fits = 0 < len(key) <= MAX_KEY_CHARACTERS and len(text) <= MAX_VALUE_CHARACTERS
        if not fits or "=" in key or not f"{key}{text}".isprintable():
            raise InvalidInputError(
                f"label {key[:MAX_KEY_CHARACTERS]!r} is unusable",
                cure=f"use keys of up to {MAX_KEY_CHARACTERS} characters without =, values of up "
                f"to {MAX_VALUE_CHARACTERS}, all printable",
            )


def check_given(labels: Mapping[str, str]) -> None:
    """Likewise of a device that nobody knows yet, which may say anything.

    Raises:
        InvalidInputError: there are too many, or one is unusable.
    """
    if len(labels) > MAX_GIVEN:
        msg = f"{len(labels)} labels are too many"
        raise InvalidInputError(msg, cure=f"give at most {MAX_GIVEN}")
    check_labels(labels)


def check_reported(labels: Mapping[str, str]) -> None:
    """Refuse labels that a report has no room for.

    Raises:
        InvalidInputError: there are too many, or one is too long.
    """
    longest = max((len(text) for pair in labels.items() for text in pair), default=0)
    if len(labels) > MAX_REPORTED or longest > MAX_REPORTED_CHARACTERS:
        raise InvalidInputError(
            f"{len(labels)} labels of up to {longest} characters are too much",
            cure=f"give at most {MAX_REPORTED}, names and values of {MAX_REPORTED_CHARACTERS} "
            "characters",
        )
