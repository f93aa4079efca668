"""A gateway on loopback over TLS, before a fleet in a folder, and devices that speak with it."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgefleet.errors import UnavailableError
from edgefleet.interfaces.receiving import CanReceive
from edgefleet.interfaces.state import StateStore, Stored
from edgefleet.interfaces.wanted import WantedPointers
from edgefleet.protocol.event import Event
from edgefleet.protocol.gateway import Identity
from edgefleet.protocol.pointer import Pointer
from edgefleet.testing.waiting import TIMEOUT_S
from edgefleet_gateway.server.credentials import OwnCertificate
from edgefleet_gateway.server.gateway import Backends, Rates
from edgefleet_gateway.server.rates import Rate
from edgefleet_gateway.server.running import Options, Serving, serve_in_thread
from edgefleet_local.registry import DirectoryBlobStore
from providers.gateway.tests.joining_rig import FLEET, Machine, Rig

PLENTY = Rates(device=Rate(1000, 10_000), stranger=Rate(1000, 10_000))  # tests ask in a hurry
RELEASE = "sha256:" + "a" * 64


class Receiver(CanReceive):
    """Keeps what came, in memory."""

    provider = "test"
    role = "telemetry"

    def __init__(self) -> None:
        self.files: list[tuple[str, str, bytes]] = []
        self.events: list[Event] = []
        self.fails: Exception | None = None

    def _receive_file(self, device: str, path: str, file: Path) -> None:
        if self.fails is not None:
            raise self.fails
        self.files.append((device, path, file.read_bytes()))

    def _receive_hot(self, device: str, events: Sequence[Event]) -> None:
        if self.fails is not None:
            raise self.fails
        self.events += events


class Flaky(StateStore):
    """A state store that can be away, or slow to answer."""

    provider = "test"

    def __init__(self, inner: StateStore) -> None:
        self._inner = inner
        self.away = False
        self.reads: list[str] = []
        self.hold: threading.Event | None = None

    def _check(self) -> None:
        if self.hold is not None:
            self.hold.wait(60)
        if self.away:
            raise UnavailableError("the test took the state store away")

    def _read(self, key: str) -> Stored | None:
        self._check()
        self.reads.append(key)
        return self._inner.read(key)

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        self._check()
        return self._inner.write(key, data, expect=expect)

    def _delete(self, key: str, expect: str) -> None:
        self._check()
        self._inner.delete(key, expect=expect)

    def _keys(self, prefix: str) -> Iterator[str]:
        self._check()
        yield from self._inner.keys(prefix)


class Answer(NamedTuple):
    """An answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def problem(self) -> dict[str, Any]:
        """The problem document."""
        assert self.headers["content-type"] == "application/problem+json", self
        told: dict[str, Any] = json.loads(self.body)
        assert told["status"] == self.status
        return told


class Client:
    """Somebody who speaks with a gateway, with a certificate or without, on one connection."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.port, self.context = port, context
        self._connection = http.client.HTTPSConnection(
            "localhost", port, context=context, timeout=TIMEOUT_S
        )

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One exchange."""
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        told = {key.lower(): value for key, value in response.getheaders()}
        return Answer(response.status, told, content)

    def get(self, path: str, **headers: str) -> Answer:
        """A GET; underscores in names of headers are dashes."""
        return self.ask("GET", path, None, {k.replace("_", "-"): v for k, v in headers.items()})

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def raw(self) -> ssl.SSLSocket:
        """A connection of its own, for what no client of HTTP would send."""
        import socket

        plain = socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)
        return self.context.wrap_socket(plain, server_hostname="localhost")


class _Rig(Rig):
    """Its authority is years old, so that certificates may have ended."""

    begun = False

    def clock(self) -> datetime:
        return self.now if self.begun else datetime.now(UTC) - timedelta(days=1500)


class Fleet:
    """A fleet in a folder; gateways are started before it, and devices join it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        defaults = {"look_s": 0.05, "addresses": ("https://localhost:8443",)}
        self.rig = _Rig(folder, **{**defaults, **settings})
        self.rig.now, self.rig.begun = datetime.now(UTC), True
        self.state = Flaky(self.rig.state)
        self.blobs = DirectoryBlobStore(folder / "fleet")
        self.receiver = Receiver()
        self._clients: list[Client] = []
        self.wanted = WantedPointers(lambda: self.rig.state, deployer=self.rig.settings.prefix)

    @property
    def backends(self) -> Backends:
        """What gateways stand before."""
        return Backends(
            state=self.state,
            blobs=self.blobs,
            receiver=self.receiver,
            fleet=FLEET,
            joining=self.rig.joining,
        )

    @contextlib.contextmanager
    def gateway(
        self,
        change: Callable[[Options], Options] = lambda options: options,
        *,
        hang_up: bool = True,
        **parts: Any,
    ) -> Iterator[Serving]:
        """A gateway that serves as long as the block lasts; clients hang up first, or after it."""
        options = change(Options(scratch=self.folder / "scratch", rates=PLENTY))
        material = OwnCertificate(self.rig.authority, ("localhost", "127.0.0.1"))
        backends = replace(self.backends, **parts)
        self.rig.roster.ring()  # at the first bell a gateway answers whoever waits
        try:
            with serve_in_thread(backends, self.rig.settings, material, options) as serving:
                try:
                    yield serving
                finally:
                    if hang_up:
                        self.hang_up()
        finally:
            self.hang_up()

    def hang_up(self) -> None:
        """Close every client's connection."""
        for client in self._clients:
            client.close()

    def publish(self, number: int = 1, group: str = "line") -> Pointer:
        """Give a group a pointer."""
        pointer = Pointer(
            fleet=FLEET,
            epoch=0,
            number=number,
            current=RELEASE,
            sources=("https://localhost:8443/v1",),
            issued=datetime(2026, 11, 22, tzinfo=UTC),
        )
        self.wanted.raise_to(group, pointer)
        self.rig.roster.ring(f"pointer/{group}")
        return pointer

    def join(self, device: str, *, ago: timedelta = timedelta()) -> tuple[Machine, Identity]:
        """Make a machine a device, by a certificate that was given a while ago."""
        machine = Machine()
        self.rig.now = datetime.now(UTC) - ago
        try:
            enrolment = machine.enrolment(self.rig.invite(device))
            return machine, self.rig.joining.enroll(enrolment)
        finally:
            self.rig.now = datetime.now(UTC)

    def device(self, serving: Serving, device: str, *, ago: timedelta = timedelta()) -> Client:
        """A new device."""
        return self.client(serving, *self.join(device, ago=ago))

    def client(self, serving: Serving, machine: Machine, identity: Identity) -> Client:
        """A device with its identity."""
        context = self.context()
        file = self.folder / f"{identity.device}-{id(machine):x}.pem"
        _write(file, machine, identity)
        context.load_cert_chain(file)
        self._clients.append(Client(serving.port, context))
        return self._clients[-1]

    def identity_file(self, device: str) -> None:
        """Make a device, and write its key and certificate to the folder."""
        _write(self.folder / f"{device}.pem", *self.join(device))

    def stranger(self, serving: Serving) -> Client:
        """Somebody without a certificate."""
        self._clients.append(Client(serving.port, self.context()))
        return self._clients[-1]

    def context(self) -> ssl.SSLContext:
        """Believes this fleet's gateways alone."""
        return ssl.create_default_context(cadata=self.rig.authority.gateways_by)


def _write(file: Path, machine: Machine, identity: Identity) -> None:
    key = machine.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(key + identity.certificate.encode())
