"""The deployer: groups and devices of a folder, each device a real runtime on this machine.

Looking never starts a device. Enrolling, publishing and sending requests do: from then on this
process runs the devices of the folder, unless another one does already, until it is closed or ends.
"""

from __future__ import annotations

import http.client
import os
import signal
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.errors import (
    EdgeFleetError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.interfaces.abilities import (
    CanEnroll,
    CanInvoke,
    CanRemoveGroups,
    CanRunDevices,
    CanStreamLogs,
    Reply,
)
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.values import Action, DeviceInfo, Group, Rendered
from edgefleet.protocol.orders import PREFIX
from edgefleet_local.devices import Devices
from edgefleet_local.errors import translate
from edgefleet_local.journal import Journal
from edgefleet_local.processes import signal_process
from edgefleet_local.requests import ask
from edgefleet_local.supervisor import END_S, Supervisor

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefleet.protocol.pointer import Pointer

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_MAX_LOG_BYTES = 4 << 20  # read from the end of a log
_POLL_S = 0.05


class LocalDeployer(CanEnroll, CanRemoveGroups, CanInvoke, CanStreamLogs, CanRunDevices, Deployer):
    """Devices as processes of this machine, fed over the file channel.

    Args:
        home: the fleet's folder.
        name: of this deployer in the profile.
        supervise: whether this process may run devices.
    """

    provider = "local"

    def __init__(self, home: Path, *, name: str = "local", supervise: bool = True) -> None:
        self.name = name
        self._devices_of = Devices(home)
        self._journal = Journal(home)
        self._supervisor = Supervisor(home)
        self._supervise = supervise

    def close(self) -> None:
        self._supervisor.close()

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        if isinstance(error, http.client.HTTPException):
            return UnavailableError(
                f"the device's answer is no HTTP: {error!r}", cure="look at its log"
            )
        return translate(error)

    def _run_devices(self) -> None:
        if self._supervise:
            self._supervisor.start()
            self._supervisor.wake()

    def serve_devices(self, stop: threading.Event) -> None:
        """Run the devices until ``stop`` is set or Ctrl-C comes; nothing is left running then."""
        try:
            self.run_devices()
            while not stop.wait(1.0):  # a signal doesn't end a wait that begins after it came
                continue
        finally:
            self.close()

    # Groups and devices

    def _groups(self) -> Iterator[Group]:
        members: dict[str, int] = dict.fromkeys(self._devices_of.group_names(), 0)
        for name in self._devices_of.names():
            enrolment = self._devices_of.enrolment(name)
            if enrolment is not None:
                members[enrolment.group] = members.get(enrolment.group, 0) + 1
        for name, count in members.items():
            yield Group(name=name, deployer=self.name, devices=count)

    def _devices(self, group: str | None) -> Iterator[DeviceInfo]:
        for name in self._devices_of.names():
            info = self._device(name)
            if info is not None and group in (None, info.group):
                yield info

    def _device(self, name: str) -> DeviceInfo | None:
        enrolment = self._devices_of.enrolment(name)
        if enrolment is None:
            return None
        running = self._devices_of.running(name)
        report, came, unreadable = self._devices_of.report(name)
        evidence = {
            "process": f"{running.pid}" if running.now else "none",
            "starts": str(running.starts),
        }
        if running.last_exit is not None:
            evidence["the process before ended with"] = running.last_exit
        if self._devices_of.is_off(name):
            evidence["power"] = "off"
        if unreadable is not None:
            evidence["report"] = unreadable
        return DeviceInfo(
            name=name,
            group=enrolment.group,
            labels=enrolment.labels,
            connected=running.now,
            last_seen=came,
            report=report,
            evidence=evidence,
        )

    def _label(self, device: str, labels: Mapping[str, str | None]) -> None:
        """Set labels of the record. The runtime itself learns of them when it starts next."""
        self._devices_of.label(device, labels)
        self._journal.write("deployer.label", device, *sorted(labels))

    # Pointers

    def _pointer(self, group: str) -> Pointer | None:
        return self._devices_of.pointer(group)

    def _render(self, group: str, pointer: Pointer) -> Iterator[Rendered]:
        there, content = self._pointer(group), pointer.encoded()
        if there is None:
            action = Action.CREATE
        else:
            action = Action.UNCHANGED if there.encoded() == content else Action.UPDATE
        yield Rendered(path=f"groups/{group}/pointer.json", content=content, action=action)

    def _publish(self, group: str, pointer: Pointer) -> None:
        self._devices_of.publish(group, pointer)
        self._journal.write(
            "deployer.publish", group, f"{pointer.epoch}.{pointer.number}", pointer.current
        )
        self._run_devices()

    # Enrolment

    def _enrolled_group(self, device: str) -> str | None:
        enrolment = self._devices_of.enrolment(device)
        return None if enrolment is None else enrolment.group

    def _enroll(self, device: str, group: str, labels: dict[str, str]) -> DeviceInfo:
        self._devices_of.enroll(device, group, labels)
        self._journal.write("deployer.enroll", device, group)
        self._run_devices()
        info = self._device(device)
        if info is None:
            raise NotFoundError(f"device {device!r} was retired meanwhile")
        return info

    def _retire(self, device: str) -> None:
        """Stop the device and remove its disk and report. What it recorded stays."""
        if not self._devices_of.retire(device):
            return
        self._journal.write("deployer.retire", device)
        self._supervisor.wake()
        self._await_end(device, END_S + 2)
        self._devices_of.forget(device)

    def _remove_group(self, group: str) -> tuple[str, ...]:
        left = self._devices_of.remove_group(group)
        if not left:
            self._journal.write("deployer.remove_group", group)
        return left

    def _await_end(self, device: str, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while (running := self._devices_of.running(device)).now:
            if time.monotonic() > deadline and running.pid and running.born:
                signal_process(running.pid, running.born, signal.SIGKILL)
            time.sleep(_POLL_S)

    def switch(self, device: str, *, on: bool) -> None:
        """Turn a device's power on or off, as pulling and plugging its cable would.

        Off: its runtime was killed when this returns, and stays so until it is switched on.

        Raises:
            NotFoundError: no such device.
        """
        self.device(device)
        with self._boundary("switch"):
            self._devices_of.switch(device, on=on)
            self._journal.write("deployer.switch", device, "on" if on else "off")
            if on:
                self._run_devices()
            else:
                self._supervisor.wake()
                self._await_end(device, 0)

    # Requests and logs

    def _invoke(
        self, device: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Reply:
        if not path.startswith("/"):
            raise InvalidInputError(f"a path on a device begins with a slash: {path[:200]!r}")
        self._run_devices()
        deadline = time.monotonic() + timeout_s
        host, port = self._endpoint(device, deadline)
        if path.startswith(PREFIX):
            return ask(self._devices_of.outbox(device), path, body, deadline)
        left = max(_POLL_S, deadline - time.monotonic())
        connection = http.client.HTTPConnection(host, port, timeout=left)
        try:
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            found = {key.lower(): value for key, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def _endpoint(self, device: str, deadline: float) -> tuple[str, int]:
        """Where the device's process of now serves, waiting for it to say so."""
        while True:
            if self._enrolled_group(device) is None:
                raise NotFoundError(
                    f"no device {device!r} on {self.name}",
                    cure="list the devices with: edgefleet devices",
                )
            if self._devices_of.is_off(device):
                raise UnavailableError(f"device {device!r} is switched off", cure="switch it on")
            running = self._devices_of.running(device)
            report, _, _ = self._devices_of.report(device)
            if running.now and report is not None and report.health.pid == running.pid:
                address = urlsplit(report.endpoint or "")
                if address.hostname in _LOOPBACK and address.port:
                    return address.hostname, address.port
            if time.monotonic() >= deadline:
                how = f"; it ended with {running.last_exit}" if running.last_exit else ""
                raise UnavailableError(
                    f"device {device!r} doesn't serve" + ("" if running.now else how),
                    cure=f"look at its log: {self._devices_of.log(device)}",
                )
            time.sleep(_POLL_S)

    def _device_log(self, device: str, last: int) -> Iterator[str]:
        if self._enrolled_group(device) is None:
            raise NotFoundError(f"no device {device!r} on {self.name}")
        try:
            with self._devices_of.log(device).open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(0, size - _MAX_LOG_BYTES))
                lines = stream.read(_MAX_LOG_BYTES).decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return
        yield from lines[-last:] if last > 0 else ()
