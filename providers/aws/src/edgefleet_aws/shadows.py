"""A device's named shadow: its report, written by itself, and its labels, written by operators."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgefleet.errors import EdgeFleetError, LimitExceededError
from edgefleet.protocol.report import read_report
from edgefleet_aws.errors import code_of
from edgefleet_aws.names import SHADOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.protocol.report import Report
    from edgefleet_aws.clients import Clients

MAX_LABELS = 512  # bytes as JSON; the rest of the shadow's 8 KB is the report's
_MISSING = "ResourceNotFoundException"


class Shadow(NamedTuple):
    """What one holds.

    Attributes:
        problem: why a report that is there can't be read.
        came: when the report did, by AWS's clock.
    """

    labels: dict[str, str]
    report: Report | None = None
    problem: str | None = None
    came: datetime | None = None


class Shadows:
    """The shadows of a fleet's things."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def read(self, thing: str) -> Shadow:
        """What a thing's shadow holds; nothing where there is none."""
        try:
            reply = self._clients.iot_data.get_thing_shadow(thingName=thing, shadowName=SHADOW)
        except Exception as error:
            if code_of(error) == _MISSING:
                return Shadow({})
            raise
        with reply["payload"] as body:
            return read_shadow(body.read())

    def label(self, thing: str, labels: Mapping[str, str | None]) -> None:
        """Set labels; None removes one.

        Raises:
            LimitExceededError: they would take the report's room.
        """
        there: dict[str, str | None] = {**self.read(thing).labels, **labels}
        left = {key: value for key, value in there.items() if value is not None}
        size = len(json.dumps(left).encode())
        if size > MAX_LABELS:
            raise LimitExceededError(
                f"labels of {size} bytes, {MAX_LABELS} are allowed",
                cure="use fewer or shorter ones",
            )
        content = {"state": {"desired": {"labels": dict(labels)}}}
        self._clients.iot_data.update_thing_shadow(
            thingName=thing, shadowName=SHADOW, payload=json.dumps(content).encode()
        )

    def forget(self, thing: str) -> None:
        """Delete a shadow; no error when there is none."""
        try:
            self._clients.iot_data.delete_thing_shadow(thingName=thing, shadowName=SHADOW)
        except Exception as error:
            if code_of(error) != _MISSING:
                raise


def read_shadow(data: bytes) -> Shadow:
    """A shadow's document, read; whatever a device wrote into it, nothing is raised."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        return Shadow({}, problem=f"the shadow is no JSON: {error}")
    labels = _at(content, "state", "desired", "labels")
    found = {str(key): str(value) for key, value in labels.items()} if _is(labels) else {}
    reported = _at(content, "state", "reported", "report")
    if not (isinstance(reported, list) and len(reported) == 1):
        return Shadow(found)
    seconds = _at(content, "metadata", "reported", "state", "timestamp")
    came = datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, int) else None
    try:
        report = read_report(msgspec.json.encode(reported[0]))
    except EdgeFleetError as error:
        return Shadow(found, problem=error.message, came=came)
    return Shadow(found, report, came=came)


def _at(content: Any, *keys: str) -> Any:  # noqa: ANN401 - JSON
    for key in keys:
        content = content.get(key) if _is(content) else None
    return content


def _is(content: object) -> bool:
    return isinstance(content, dict)
