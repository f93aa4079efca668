"""The deployer: a pointer a group, a mailbox a device."""

from __future__ import annotations

import http.client
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.errors import ConflictError, EdgeFleetError, NotFoundError, UnavailableError
from edgefleet.interfaces.abilities import CanEnroll, CanInvoke, Reply
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.values import Action, DeviceInfo, Group, Rendered
from edgefleet.protocol.files import read_small, write_whole
from edgefleet.protocol.pointer import MAX_BYTES as MAX_POINTER_BYTES
from edgefleet.protocol.pointer import Pointer, read_pointer
from edgefleet.protocol.report import MAX_BYTES as MAX_REPORT_BYTES
from edgefleet.protocol.report import Report, read_report
from edgefleet_template.database import Database
from edgefleet_template.errors import translate
from edgefleet_template.mailboxes import Mailboxes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


class MailboxDeployer(CanEnroll, CanInvoke, Deployer):
    """Groups and devices in a table, pointers and reports in files.

    Args:
        home: the fleet's folder.
        name: of this deployer in the profile.
    """

    provider = "template"

    def __init__(self, home: Path, *, name: str) -> None:
        self.name = name
        self._database = Database(home)
        self._mail = Mailboxes(home)

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        if isinstance(error, http.client.HTTPException):
            return UnavailableError(f"the device's answer is no HTTP: {error!r}")
        return translate(error)

    # Groups and devices

    def _groups(self) -> Iterator[Group]:
        query = 'SELECT "group", count(*) FROM devices GROUP BY "group"'
        for name, count in self._database.rows(query):
            yield Group(name=name, deployer=self.name, devices=int(count))

    def _devices(self, group: str | None) -> Iterator[DeviceInfo]:
        query = 'SELECT name, "group", labels FROM devices ORDER BY name'
        for name, its_group, labels in self._database.rows(query):
            if group in (None, its_group):
                report, came = self._report(name)
                yield DeviceInfo(
                    name=name,
                    group=its_group,
                    labels=json.loads(labels),
                    report=report,
                    last_seen=came,
                )

    def _report(self, device: str) -> tuple[Report | None, datetime | None]:
        """A device's report and when it came. What makes no sense counts as none."""
        path = self._mail.outgoing(device) / "report.json"
        try:
            came = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
            return read_report(read_small(path, MAX_REPORT_BYTES)), came
        except (OSError, EdgeFleetError):
            return None, None

    def _label(self, device: str, labels: Mapping[str, str | None]) -> None:
        with self._database.transaction(f"label {device}") as connection:
            query = "SELECT labels FROM devices WHERE name = ?"
            (there,) = connection.execute(query, (device,)).fetchone()
            merged = {**json.loads(there), **labels}
            kept = json.dumps({key: value for key, value in merged.items() if value is not None})
            connection.execute("UPDATE devices SET labels = ? WHERE name = ?", (kept, device))

    # Pointers

    def _pointer(self, group: str) -> Pointer | None:
        try:
            return read_pointer(read_small(self._mail.pointer(group), MAX_POINTER_BYTES))
        except FileNotFoundError:
            return None

    def _render(self, group: str, pointer: Pointer) -> Iterator[Rendered]:
        there = self._pointer(group)
        action = Action.CREATE if there is None else Action.UPDATE
        yield Rendered(
            path=f"groups/{group}/pointer.json",
            content=pointer.encoded(),
            action=Action.UNCHANGED if there == pointer else action,
        )

    def _publish(self, group: str, pointer: Pointer) -> None:
        path = self._mail.pointer(group)
        path.parent.mkdir(parents=True, exist_ok=True)
        line = f"publish {group} {pointer.epoch}.{pointer.number}"
        with self._database.transaction(line):  # nobody else publishes meanwhile
            there = self._pointer(group)
            if there is not None and there.pair >= pointer.pair:
                msg = f"{group} holds pointer {there.pair}, which is not below {pointer.pair}"
                raise ConflictError(msg, cure="read the group again and repeat")
            write_whole(path, pointer.encoded())

    # Enrolment

    def _enrolled_group(self, device: str) -> str | None:
        rows = self._database.rows('SELECT "group" FROM devices WHERE name = ?', device)
        return rows[0][0] if rows else None

    def _enroll(self, device: str, group: str, labels: dict[str, str]) -> DeviceInfo:
        with self._database.transaction(f"enroll {device} {group}") as connection:
            connection.execute(
                "INSERT INTO devices VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (device, group, json.dumps(labels)),
            )
            query = 'SELECT "group" FROM devices WHERE name = ?'
            if connection.execute(query, (device,)).fetchone() != (group,):
                raise ConflictError(f"somebody else has just enrolled {device!r}", retryable=False)
            self._mail.connect(device, group)
        return self.device(device)

    def _retire(self, device: str) -> None:
        with self._database.transaction(f"retire {device}") as connection:
            connection.execute("DELETE FROM devices WHERE name = ?", (device,))
            self._mail.disconnect(device)

    # Requests

    def _invoke(
        self, device: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Reply:
        if self._enrolled_group(device) is None:
            raise NotFoundError(f"no device {device!r} on {self.name}")
        report, _ = self._report(device)
        address = urlsplit(report.endpoint or "" if report is not None else "")
        if address.scheme != "http" or not address.hostname or not address.port:
            msg = f"device {device!r} reports no address that it serves on"
            raise UnavailableError(msg, cure="start its runtime, with an address for --http")
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=timeout_s)
        try:
            connection.request("GET" if body is None else "POST", path, body, headers)
            answer = connection.getresponse()
            found = {key.lower(): value for key, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()
