"""Telemetry that takes what devices sent from somebody who received it for them, such as a gateway.

Elsewhere a device writes below its own name with its own access. Where devices know no cloud,
whoever they speak with knows them by their certificates, and writes for them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, final

from edgefleet.interfaces.service import Service
from edgefleet.protocol.names import check_name, check_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefleet.protocol.event import Event


class CanReceive(Service):
    """Segments, samples and hot events of a device can be written here in its name."""

    @final
    def receive_file(self, device: str, path: str, file: Path) -> None:
        """Keep a file below a device's own prefix. The same again changes nothing.

        It appears whole or not at all, and is durable when this returns.

        Args:
            device: who sent it, as its certificate says.
            path: below the device's prefix: ``segments/…``, ``samples/sha256/…``.
            file: its content, which stays the caller's.
        """
        check_name("device", device)
        check_path(path, what="path of a device's file")
        with self._boundary("receive_file"):
            self._receive_file(device, path, file)

    @final
    def receive_hot(self, device: str, events: Sequence[Event]) -> None:
        """Keep hot events of a device; they are durable when this returns.

        The same may come again: a query gives each event once, by its id.
        """
        check_name("device", device)
        if not events:
            return
        with self._boundary("receive_hot"):
            self._receive_hot(device, events)

    @abstractmethod
    def _receive_file(self, device: str, path: str, file: Path) -> None: ...

    @abstractmethod
    def _receive_hot(self, device: str, events: Sequence[Event]) -> None: ...
