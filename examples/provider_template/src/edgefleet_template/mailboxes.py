"""Where things lie for devices: one mailbox each. A device's access is the folder it has mounted.

============================  ======================================================================
``groups/<group>/``           ``pointer.json``: the operators write it, devices read it
``mail/<device>/in/``         a link to that, and ``access.json`` while its access has run out
``mail/<device>/out/``        the device's own: ``report.json``, ``hot/``, ``segments/``
============================  ======================================================================
"""

from __future__ import annotations

import os
from pathlib import Path


class Mailboxes:
    """Paths below a fleet's folder.

    Args:
        home: the fleet's folder.
    """

    def __init__(self, home: Path) -> None:
        self._home = home

    def pointer(self, group: str) -> Path:
        """The group's channel."""
        return self._home / "groups" / group / "pointer.json"

    def incoming(self, device: str) -> Path:
        """What a device watches."""
        return self._home / "mail" / device / "in"

    def outgoing(self, device: str) -> Path:
        """What a device writes."""
        return self._home / "mail" / device / "out"

    def connect(self, device: str, group: str) -> None:
        """Make a device's mailbox and link the group's pointer into it."""
        folder = self.incoming(device)
        folder.mkdir(parents=True, exist_ok=True)
        self.outgoing(device).mkdir(exist_ok=True)
        link = folder / "pointer.json"
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(self.pointer(group), folder))

    def disconnect(self, device: str) -> None:
        """Take the pointer and the last report away; what the device recorded stays."""
        (self.incoming(device) / "pointer.json").unlink(missing_ok=True)
        (self.outgoing(device) / "report.json").unlink(missing_ok=True)
