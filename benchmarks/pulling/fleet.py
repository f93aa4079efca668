"""A fleet in a folder, whose devices have joined already, and the gateway process before it."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgefleet.interfaces.wanted import WantedPointers
from edgefleet.profile import load_profile
from edgefleet.protocol.documents import encode
from edgefleet.protocol.pointer import Pointer
from edgefleet.services import Services
from edgefleet.testing.cloud.ports import HeldPort
from edgefleet_gateway.fleet_folder import profile_of_folder
from edgefleet_gateway.records import DeviceRecord, Keys
from edgefleet_gateway.roster import Roster
from edgefleet_gateway.server.assembly import assemble

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

GROUPS = 20
STARTS_S = 60.0  # that a gateway is given to start on a busy machine


class BenchFleet:
    """The fleet.

    Args:
        folder: for everything.
        poll_s: of its settings.
    """

    def __init__(self, folder: Path, *, poll_s: float) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._held = HeldPort()
        self.port = self._held.number
        profile = profile_of_folder(f"https://localhost:{self.port}", poll_s=poll_s)
        (folder / "edgefleet.toml").write_text(profile)
        self._services = Services(load_profile(config=folder / "edgefleet.toml"))
        self._parts = assemble(self._services)
        self._number = 0

    @property
    def authorities(self) -> str:
        """What devices verify gateways by, PEM."""
        return self._parts.authority.gateways_by

    def join(self, count: int) -> list[str]:
        """Make devices; of each, the file with its key and certificate.

        They share one key, which no gateway minds: it makes them faster.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        keys, now = Keys(self._parts.settings.prefix), datetime.now(UTC)
        files = self.folder / "devices"
        files.mkdir()
        made = []
        for number in range(count):
            name = f"cam-{number:05}"
            issued = self._parts.authority.issue(name, key.public_key(), lasts=timedelta(days=90))
            record = DeviceRecord(
                group=f"line-{number % GROUPS}", since=now, certificates=(issued.certificate,)
            )
            self._services.state.write(keys.device(name), encode(record), expect=None)
            file = files / f"{name}.pem"
            file.write_bytes(private + issued.pem.encode())
            made.append(str(file))
        return made

    def publish(self) -> None:
        """Give every group its next pointer, and ring for them."""
        prefix = self._parts.settings.prefix
        wanted = WantedPointers(lambda: self._services.state, deployer=prefix)
        self._number += 1
        pointer = Pointer(
            fleet=self._parts.backends.fleet,
            epoch=0,
            number=self._number,
            current="sha256:" + "a" * 64,
            sources=(f"https://localhost:{self.port}/v1",),
            issued=datetime.now(UTC),
        )
        groups = [f"line-{number}" for number in range(GROUPS)]
        for group in groups:
            wanted.raise_to(group, pointer)
        roster = Roster(lambda: self._services.state, Keys(prefix))
        roster.ring(*(f"pointer/{group}" for group in groups))

    @contextlib.contextmanager
    def gateway(self, before: Sequence[str] = ()) -> Iterator[int]:
        """`edgefleet gateway serve` as long as the block lasts; its process.

        Args:
            before: words that the command is run by, and which it replaces.
        """
        words = ["gateway", "serve", "--root", str(self.folder), "--port", str(self.port)]
        with (self.folder / "gateway.log").open("wb") as log:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "edgefleet.cli", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "EDGEFLEET_CONFIG": ""},
            )
        try:
            self._await(process)
            yield process.pid
        finally:
            process.terminate()
            process.wait(30)

    def _await(self, process: subprocess.Popen[bytes]) -> None:
        context = ssl.create_default_context(cadata=self.authorities)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        ends = time.monotonic() + STARTS_S
        while True:
            if process.poll() is not None or time.monotonic() > ends:
                said = (self.folder / "gateway.log").read_text(errors="replace")[-2000:]
                raise SystemExit(f"error: the gateway didn't start\n{said}")
            try:
                with opener.open(f"https://localhost:{self.port}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.1)

    def close(self) -> None:
        """Let go of the stores and the port."""
        self._services.close()
        self._held.close()
