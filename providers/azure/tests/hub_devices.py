"""Devices of a hub that the kit plays: what a runtime's channel does, on the hub's side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgefleet.protocol.report import AccessReport
from edgefleet_azure.cloud.hub_values import Message
from edgefleet_azure.manifests import MODULE, WANTED, Grant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet_azure.cloud.hub_state import HubState

PIECE = 4000  # characters; the reports of the kit are ASCII


class PlayedDevice:
    """A device's end, with the access of its own module and no other."""

    def __init__(self, hub: HubState, name: str, grants: Granted) -> None:
        self._hub, self._name, self._grants = hub, name, grants

    def _wanted(self) -> dict[str, Any]:
        found = self._hub.twin(self._name, MODULE)["desired"].get(WANTED, {})
        assert isinstance(found, dict)
        return found

    def pointer(self) -> bytes | None:
        text = self._wanted().get("pointer")
        return None if text is None else str(text).encode()

    def access(self) -> AccessReport:
        wanted = self._wanted().get("access", {})
        ended = wanted.get("read") in self._grants.ended
        return AccessReport(state="expired" if ended else "ok")

    def send_report(self, report: bytes) -> None:
        text = report.decode()
        try:
            content = dict(json.loads(text))
        except (ValueError, TypeError, RecursionError):  # a runtime that is broken
            content = {}
        summary = {key: content.get(key) for key in ("epoch", "number", "state")}
        pieces = {str(n): text[n * PIECE : (n + 1) * PIECE] or None for n in range(3)}
        self._hub.report(self._name, MODULE, {WANTED: {"summary": summary, "report": pieces}})

    def send_hot(self, events: Sequence[Event]) -> None:
        for _ in events:
            self._hub.send(Message(self._name, MODULE, b"{}"))

    def upload(self, name: str, path: Path) -> None:
        raise NotImplementedError


class Granted:
    """Gives access that ends when a test says so."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.generation = 1

    def current(self, group: str) -> Grant:
        return Grant({"read": f"sig={group}-{self.generation}"}, self.generation)

    def upload(self, device: str) -> Mapping[str, Any]:
        return {"address": f"https://x/devices/{device}", "write": f"sig={device}"}

    def expire(self, group: str) -> None:
        """Have what a group's devices were given end."""
        self.ended.add(str(self.current(group).content["read"]))

    def renew(self) -> None:
        """Give another one from now on."""
        self.generation += 1
