"""Preconditions of Cloud Storage's JSON API, which the emulator ignores.

https://cloud.google.com/storage/docs/request-preconditions
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES = ("ifGenerationMatch", "ifMetagenerationMatch")
_NOT_NAMES = ("ifGenerationNotMatch", "ifMetagenerationNotMatch")


def read(query: Mapping[str, str]) -> dict[str, int]:
    """The preconditions of a request.

    Raises:
        Refused: one is no number.
    """
    found = {}
    for name in (*_NAMES, *_NOT_NAMES):
        if name in query:
            if not query[name].isdecimal():
                raise Refused(400, "invalid", f"Invalid value for {name}: {query[name]!r}")
            found[name] = int(query[name])
    return found


def check(wanted: Mapping[str, int], there: Mapping[str, Any] | None, *, reading: bool) -> None:
    """Nothing where all are met.

    Args:
        wanted: preconditions, from `read`.
        there: resource of the live object; None for none, which has generation 0.
        reading: whether the request only reads.

    Raises:
        Refused: one isn't.
    """
    for name, value in wanted.items():
        part = "generation" if "Generation" in name.replace("Meta", "") else "metageneration"
        part = "metageneration" if "Metageneration" in name else part
        have = 0 if there is None else int(there[part])
        met = have == value if "NotMatch" not in name else have != value
        if met:
            continue
        if reading and "NotMatch" in name:
            raise Refused(304, "notModified")
        raise Refused(
            412,
            "conditionNotMet",
            "At least one of the pre-conditions you specified did not hold.",
            detail={"locationType": "header", "location": "If-Match"},
        )
