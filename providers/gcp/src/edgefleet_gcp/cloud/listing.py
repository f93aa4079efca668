"""Pages of a listing, which the emulator gives in one.

https://cloud.google.com/storage/docs/json_api/v1/objects/list
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_RESULTS = 1000


def page_of(
    everything: Mapping[str, Any], query: Mapping[str, str], *, most: int = MAX_RESULTS
) -> dict[str, Any]:
    """A page of objects and prefixes in the order of their names.

    Args:
        everything: the listing without pages.
        query: of the request: ``maxResults``, ``pageToken``.
        most: entries that are given at once, whatever is asked for.

    Raises:
        Refused: a parameter is none.
    """
    most = min(most, _most(query.get("maxResults")))
    after = _after(query.get("pageToken"))
    names: list[tuple[str, Any]] = [(one["name"], one) for one in everything.get("items", ())]
    names += [(one, None) for one in everything.get("prefixes", ())]
    left = sorted((one for one in names if one[0] > after), key=lambda one: one[0])
    found: dict[str, Any] = {"kind": "storage#objects"}
    for name, item in left[:most]:
        if item is None:
            found.setdefault("prefixes", []).append(name)
        else:
            found.setdefault("items", []).append(item)
    if len(left) > most:
        token = base64.urlsafe_b64encode(left[most - 1][0].encode()).decode()
        found["nextPageToken"] = token
    return found


def _most(told: str | None) -> int:
    if told is None:
        return MAX_RESULTS
    if not told.isdecimal() or told == "0":
        raise Refused(400, "invalidParameter", f"Invalid maxResults: {told!r}")
    return min(int(told), MAX_RESULTS)


def _after(token: str | None) -> str:
    if not token:
        return ""
    try:
        return base64.urlsafe_b64decode(token).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise Refused(400, "invalidParameter", "Invalid pageToken.") from error
