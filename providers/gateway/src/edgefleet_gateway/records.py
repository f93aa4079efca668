"""What operators and gateways tell each other, as documents of the profile's state store.

One document a device, so that two who write rarely meet. Who changes one writes it first, and rings
the bell after: a gateway reads that one small document at each look, and drops what it holds of
whatever the bell names. A bell that was never rung, because the writer was killed, is made up for
by gateways, which believe nothing for longer than `BELIEVED_S`, and by repeating the operation.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from edgefleet.protocol.documents import Document
from edgefleet.protocol.gateway import Pem, RuntimeOffer, WaitingRequest
from edgefleet.protocol.names import DeviceName, GroupName
from edgefleet.protocol.pointer import Timestamp

BELIEVED_S = 300.0
KEPT_CHANGES = 1000  # that a bell remembers; a gateway that missed more forgets all it holds
SEEN_EVERY_S = 10.0  # a gateway writes at least so often whom it saw, were it nobody


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that a device holds.

    Attributes:
        serial: its serial number, in hexadecimal.
        ends: when it ends.
    """

    serial: str
    ends: Timestamp


class DeviceRecord(Document, frozen=True, kw_only=True):
    """A device of the fleet, at `Keys.device`.

    Attributes:
        group: its group.
        labels: what operators say of it.
        since: when it was enrolled.
        certificates: what it may show, newest last; none before it has come. The one before the
            newest counts until the newest was shown, because a device may lose an answer.
        revoked: whether it was told to sync no more.
        said: labels that the device gave of itself when it came.
        token: SHA-256 of the token of its newest invitation, in hexadecimal; no other makes it
            this device.
        invited: whether that token is still to be used.
        machine: serial number of the certificate that it came with: another machine that takes the
            name has another.
    """

    group: GroupName
    since: Timestamp
    labels: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    certificates: Annotated[tuple[Certificate, ...], msgspec.Meta(max_length=4)] = ()
    revoked: bool = False
    said: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    token: str = ""
    invited: bool = False
    machine: str = ""

    def allows(self, serial: str) -> bool:
        """Whether a certificate with that serial number speaks for this device."""
        return not self.revoked and any(one.serial == serial for one in self.certificates)

    def own(self, said: ReportRecord | None) -> ReportRecord | None:
        """A report of this name, if the machine that has the name now sent it."""
        return said if said is not None and said.machine == self.machine else None


class GroupRecord(Document, frozen=True, kw_only=True):
    """A group that a device was enrolled into, at `Keys.group`.

    Groups are listed by it, and by their pointers: a fleet's devices are too many to be asked.

    Attributes:
        since: when the first device came into it.
    """

    since: Timestamp


class TokenRecord(Document, frozen=True, kw_only=True):
    """A token that invites a device, at `Keys.token`; the token itself is nowhere.

    Attributes:
        device: who may use it.
        ends: when it ends.
        used: when it was used; None before that.
        key: SHA-256 of the public key that it was used for: the same device may repeat what it
            asked, when the answer was lost.
        certificate: what it was given, PEM.
    """

    device: DeviceName
    ends: Timestamp
    used: Timestamp | None = None
    key: str | None = None
    certificate: Pem | None = None


class AuthorityRecord(Document, frozen=True, kw_only=True):
    """The public side of the fleet's authority, at `Keys.authority`.

    Attributes:
        certificates: PEM; the one that signs now first, then those still believed.
        pins: base64 of the SHA-256 of the public keys that gateways serve with, for the first
            contact of a device that knows no authority yet.
        others: PEM; what gateways are verified against beside those, and no device; newest first.
        home: HOST:FOLDER where the key was made that signs now.
    """

    certificates: Pem
    pins: tuple[str, ...] = ()
    others: str = ""
    home: str = ""


class ReportRecord(Document, frozen=True, kw_only=True):
    """The newest report of a device, at `Keys.report`.

    Attributes:
        report: its bytes, as they came.
        came: when, by the gateway's clock.
        machine: as of the device's record, whoever sent it.
    """

    report: bytes
    came: Timestamp
    machine: str = ""


class SeenRecord(Document, frozen=True, kw_only=True):
    """When devices last asked one gateway for anything, at `Keys.seen`.

    Attributes:
        written: when this was written.
        devices: seconds since 1970, by device.
    """

    written: Timestamp
    devices: dict[str, int]


class Bell(Document, frozen=True, kw_only=True):
    """What has changed lately, at `Keys.bell`.

    Attributes:
        number: rises with each change.
        changes: (number, what): ``device/NAME``, ``pointer/GROUP``, ``runtime/GROUP``; oldest
            first, at most `KEPT_CHANGES`.
        waiting: ids of requests that wait, by device, oldest first.
    """

    number: int = 0
    changes: tuple[tuple[int, str], ...] = ()
    waiting: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - msgspec copies it


class RequestRecord(Document, frozen=True, kw_only=True):
    """A request of an operator, at `Keys.request`.

    Attributes:
        request: itself.
        ends: when the operator gives up; nobody answers it afterwards.
    """

    request: WaitingRequest
    ends: Timestamp


class AnswerRecord(Document, frozen=True, kw_only=True):
    """A device's answer, at `Keys.answer`; whoever asked deletes it.

    Attributes:
        answer: as the runtime's `channels.requests.Answer` is on the wire.
        came: when.
    """

    answer: bytes
    came: Timestamp


class RuntimeRecord(Document, frozen=True, kw_only=True):
    """A runtime that was ordered.

    At `Keys.runtime` for a group; at `Keys.first_runtime` for devices that only come.
    """

    offer: RuntimeOffer
    ordered: datetime


class Keys:
    """Where the documents of one deployer lie.

    Args:
        prefix: of the settings.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.authority = f"{prefix}/authority.json"
        self.bell = f"{prefix}/bell.json"
        self.devices = f"{prefix}/devices/"
        self.reports = f"{prefix}/reports/"
        self.seen_all = f"{prefix}/seen/"
        self.groups = f"{prefix}/pointers/"
        self.named = f"{prefix}/groups/"
        self.tokens = f"{prefix}/tokens/"
        self.runtimes = f"{prefix}/runtimes/"
        self.first_runtime = f"{prefix}/first-runtime.json"
        self.requests = f"{prefix}/requests/"
        self.answers = f"{prefix}/answers/"

    def device(self, name: str) -> str:
        """A `DeviceRecord`."""
        return f"{self.devices}{name}.json"

    def group(self, name: str) -> str:
        """A `GroupRecord`."""
        return f"{self.named}{name}.json"

    def report(self, device: str) -> str:
        """A `ReportRecord`."""
        return f"{self.reports}{device}.json"

    def seen(self, gateway: str, part: int) -> str:
        """A `SeenRecord` of one gateway process; it has as many parts as it needs."""
        return f"{self.seen_all}{gateway}/{part}.json"

    def token(self, digest: str) -> str:
        """A `TokenRecord`; by the SHA-256 of the token, in hexadecimal."""
        return f"{self.tokens}{digest}.json"

    def request(self, device: str, request: str) -> str:
        """A `RequestRecord`."""
        return f"{self.requests}{device}/{request}.json"

    def answer(self, device: str, request: str) -> str:
        """An `AnswerRecord`."""
        return f"{self.answers}{device}/{request}.json"

    def runtime(self, group: str) -> str:
        """A `RuntimeRecord`."""
        return f"{self.runtimes}{group}.json"
