"""The pull channel: which of its three ways a device goes is what its options say.

- ``identity=DIR``: the gateways of the fleet that the device was enrolled in; all it has to say
  goes there, too.
- ``url=https://…``: any web server that holds a pointer and blobs as files; the device only reads.
- ``media=DIR``: sticks that come and go; with ``identity`` its receipts are signed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.channels.pull.from_gateway import GatewayChannel
from edgefleet_runtime.channels.pull.from_stick import StickChannel
from edgefleet_runtime.channels.pull.from_web import WebChannel
from edgefleet_runtime.channels.pull.identity import IdentityFolder
from edgefleet_runtime.channels.pull.settings import OPTIONS, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping


class PullChannel(Channel):
    """What the options of the channel come to."""

    options = OPTIONS

    @classmethod
    def from_options(  # type: ignore[override] # one of its ways
        cls, options: Mapping[str, str], *, device: str
    ) -> Channel:
        settings = read_settings(options)
        way: type[Channel] = GatewayChannel
        if settings.url is not None:
            way = WebChannel
        elif settings.media is not None:
            way = StickChannel
        return way.from_options(options, device=device)

    @classmethod
    def device_of(cls, options: Mapping[str, str]) -> str | None:
        """The name that the device was enrolled with."""
        folder = options.get("identity")
        return IdentityFolder(Path(folder)).held().device if folder else None

    @classmethod
    def fleet_of(cls, options: Mapping[str, str]) -> str | None:
        """The fleet that the device was enrolled in."""
        folder = options.get("identity")
        return IdentityFolder(Path(folder)).held().fleet if folder else None
