"""What an edgeHub keeps on its device's disk: messages, twins, reports and keys, over power cuts.

One file, written whole: a power cut leaves the state before or after a change.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgefleet.protocol.files import write_whole
from edgefleet_azure.cloud.hub_twins import merged

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class EdgeStore:
    """The file, and what is in it.

    Args:
        path: of the file; nothing is there on a new device.

    Attributes:
        messages: that wait for the network, each with its priority and the time when it ends.
        twins: as IoT Hub last told them, by module.
        reports: changes of reported properties that IoT Hub hasn't seen, by module.
        keys: of identities, by module.
        sessions: what modules subscribed to, by module.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.messages: list[dict[str, Any]] = []
        self.twins: dict[str, dict[str, Any]] = {}
        self.reports: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, list[str]] = {}
        self.sessions: dict[str, list[str]] = {}
        try:
            kept = json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        self.messages, self.twins = kept["messages"], kept["twins"]
        self.reports, self.keys = kept["reports"], kept["keys"]
        self.sessions = kept["sessions"]

    def save(self) -> None:
        """Write it."""
        kept = {
            "messages": self.messages,
            "twins": self.twins,
            "reports": self.reports,
            "keys": self.keys,
            "sessions": self.sessions,
        }
        write_whole(self._path, json.dumps(kept).encode())

    def report(self, module: str, patch: Mapping[str, Any]) -> None:
        """Keep a change of reported properties for later."""
        self.reports[module] = _joined(self.reports.get(module, {}), patch)
        twin = self.twins.get(module)
        if twin is not None:
            twin["reported"] = merged(twin["reported"], patch)
        self.save()


def _joined(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """One patch for two; a null stays, because it takes something away on the other side."""
    result = dict(first)
    for key, value in then.items():
        there = result.get(key)
        both = isinstance(value, dict) and isinstance(there, dict)
        result[key] = _joined(there, value) if both else value  # type: ignore[arg-type]
    return result
