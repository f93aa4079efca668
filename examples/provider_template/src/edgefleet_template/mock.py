"""The mock: the shared folder on this machine, and a real device runtime a device.

There is no vendor to stand in for here. A mock of a cloud also starts the cloud's stand-in, and
`environment` gives what the vendor's own SDK reads to find it.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from edgefleet.plugins.provider import Role
from edgefleet.testing.mock import MockCloud
from edgefleet_template.database import Database
from edgefleet_template.deployer import MailboxDeployer
from edgefleet_template.mailboxes import Mailboxes
from edgefleet_template.plugin import TemplateProvider
from edgefleet_template.settings import TemplateSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

STOP_S = 10.0  # a runtime gives itself 8 s to end


class TemplateMock(MockCloud):
    """A shared folder and the machines that mount it."""

    name: ClassVar[str] = TemplateProvider.name
    roles: ClassVar[frozenset[Role]] = TemplateProvider.roles

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self._home = TemplateSettings(root=state).home(state)
        self._deployer = MailboxDeployer(self._home, name=self.name)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for device in self._deployer.devices():
            self.start_device(device.name)

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
            process.communicate()
        self._running.clear()

    @property
    def environment(self) -> dict[str, str]:
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        return {"root": str(self.state.absolute())}

    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        self._deployer.enroll(name, group=group, labels=labels)
        self.start_device(name)

    def kill_device(self, name: str) -> None:
        process = self._running.pop(name)
        process.kill()
        process.communicate()

    def start_device(self, name: str) -> None:
        mail, disk = Mailboxes(self._home), self.state / "disks" / name
        disk.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", "edgefleet_runtime", "run", "--exit-with-parent"]
        command += ["--root", str(disk), "--device", name, "--channel", "file"]
        command += ["-o", f"pointer={mail.incoming(name) / 'pointer.json'}"]
        command += ["-o", f"outbox={mail.outgoing(name)}"]
        for key, value in self._deployer.device(name).labels.items():
            command += ["--label", f"{key}={value}"]
        with (disk / "runtime.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )

    def seen(self) -> Iterator[str]:
        query = "SELECT line FROM journal ORDER BY id"
        yield from (row[0] for row in Database(self._home).rows(query))
