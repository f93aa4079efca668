"""What a device allows actions to do; said on the device, never by a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec


class ActionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What actions may reach.

    Attributes:
        folder: existing folder in which alarms may write files; None for none.
        file_max_bytes: of each file and of the one before it.
        hosts: names of hosts that webhooks and brokers may be at, wherever those are; without them
            only on this machine and its local networks.
        registered: ``MODULE:FUNCTION`` by the name under which a policy may run it, beside the
            entry points of the group ``edgefleet_runtime.actions``.
        timeout_s: for a webhook or a broker to answer.
    """

    folder: Path | None = None
    file_max_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 16 << 20
    hosts: tuple[str, ...] = ()
    registered: dict[str, str] = {}
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0
