"""The kit's suite of channels over a gateway, a web server and a stick."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import pytest
import trustme
from msgspec.structs import replace

from device_runtime.tests.channels.pull.small_authority import SmallAuthority
from device_runtime.tests.channels.pull.standin import Enrolled, StandIn
from edgefleet.protocol.event import Event, read_event
from edgefleet.protocol.files import write_whole
from edgefleet.protocol.stick import FILES, FOLDER, HOT, POINTER, RECEIPT_SUFFIX, RECEIPTS, REPORT
from edgefleet.testing.kit.device_channel import DeviceChannelConformance
from edgefleet.testing.kit.gaps import Gap, never
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.channels.pull.channel import PullChannel
from edgefleet_runtime.channels.pull.from_gateway import GatewayChannel
from edgefleet_runtime.channels.pull.from_stick import StickChannel
from edgefleet_runtime.channels.pull.from_web import WebChannel
from edgefleet_runtime.channels.pull.identity import IdentityFolder

DEVICE = "cam-07"


def read(events: Sequence[object]) -> list[Event]:
    return [read_event(json.dumps(event).encode()) for event in events]


class Server:
    """The far end of a channel to a server, which goes without a word and comes back."""

    def __init__(self, server: StandIn) -> None:
        self.server = server

    def publish(self, pointer: bytes) -> None:
        self.server.point(pointer)

    def report(self) -> bytes | None:
        return self.server.reports[-1] if self.server.reports else None

    def events(self) -> Sequence[Event]:
        return read(self.server.events)

    def file(self, name: str) -> bytes | None:
        return self.server.files.get(quote(name))

    def cut(self) -> None:
        self.server.leave()

    def restore(self) -> None:
        self.server.away = False


class TestGatewayChannel(DeviceChannelConformance):
    @pytest.fixture
    def connect(self, enrolled: Enrolled, far_end: Server) -> Callable[[], GatewayChannel]:
        return lambda: GatewayChannel(enrolled, wait_s=90.0, timeout_s=20.0)

    @pytest.fixture
    def far_end(self, gateway: StandIn) -> Server:
        return Server(gateway)

    @pytest.fixture
    def from_options(
        self, tmp_path: Path, gateway: StandIn
    ) -> Callable[[Mapping[str, str]], Channel]:
        own, folder = SmallAuthority(), tmp_path / "identity"
        files = IdentityFolder(folder)
        files.take(replace(own.grant(files.request()), gateways=(gateway.address,)))
        return lambda more: PullChannel.from_options(
            {"identity": str(folder), **more}, device=DEVICE
        )


class TestWebChannel(DeviceChannelConformance):
    gaps: ClassVar[Mapping[str, Gap]] = dict.fromkeys(
        (
            "test_a_report_replaces_the_one_before",
            "test_hot_events_arrive",
            "test_as_many_events_as_a_message_holds_arrive",
            "test_a_file_arrives_and_stays_the_callers",
            "test_a_file_is_read_piece_by_piece_as_it_is_opened",
            "test_an_upload_that_may_not_go_on_leaves_nothing_half",
            "test_a_wait_keeps_nobody_waiting",
            "test_an_upload_keeps_nobody_waiting",
            "test_a_cut_link_loses_nothing_that_is_sent",
        ),
        never("a web server takes nothing: what the device has to say waits on its disk"),
    )

    @pytest.fixture
    def far_end(self, gateway: StandIn) -> Server:
        return Server(gateway)

    @pytest.fixture
    def connect(self, authority: trustme.CA, far_end: Server) -> Callable[[], WebChannel]:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        address = f"{far_end.server.address}/v1"
        return lambda: WebChannel(address, poll_s=0.01, timeout_s=20.0, context=context)

    @pytest.fixture
    def from_options(self, far_end: Server) -> Callable[[Mapping[str, str]], Channel]:
        own = {"url": f"{far_end.server.address}/v1"}
        return lambda more: PullChannel.from_options({**own, **more}, device=DEVICE)


class Carried:
    """A stick that is put in and pulled out; what lies on it is elsewhere meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.mount, self._pocket = folder / "usb", folder / "pocket"
        self.mount.mkdir()
        self._pocket.mkdir()
        (self.mount / FOLDER).mkdir()

    @property
    def _root(self) -> Path:
        away = self._pocket / FOLDER
        return away if away.exists() else self.mount / FOLDER

    @property
    def _own(self) -> Path:
        return self._root / RECEIPTS / DEVICE

    def publish(self, pointer: bytes) -> None:
        write_whole(self._root / POINTER, pointer)

    def report(self) -> bytes | None:
        return self._sealed(self._own / REPORT)

    def events(self) -> Sequence[Event]:
        files = [path for path in (self._own / HOT).glob("*.json") if self._sealed(path)]
        return read([event for path in files for event in json.loads(path.read_bytes())])

    def file(self, name: str) -> bytes | None:
        return self._sealed(self._own / FILES / name)

    def _sealed(self, path: Path) -> bytes | None:
        """What an operator's import takes: a file with its receipt."""
        there = path.with_name(path.name + RECEIPT_SUFFIX).exists()
        return path.read_bytes() if there else None

    def cut(self) -> None:
        if not (self._pocket / FOLDER).exists():
            (self.mount / FOLDER).rename(self._pocket / FOLDER)

    def restore(self) -> None:
        if (self._pocket / FOLDER).exists():
            (self._pocket / FOLDER).rename(self.mount / FOLDER)


class TestStickChannel(DeviceChannelConformance):
    @pytest.fixture
    def far_end(self, tmp_path: Path) -> Carried:
        return Carried(tmp_path)

    @pytest.fixture
    def connect(self, far_end: Carried) -> Callable[[], StickChannel]:
        return lambda: StickChannel(DEVICE, far_end.mount, interval_s=0.005)

    @pytest.fixture
    def from_options(self, far_end: Carried) -> Callable[[Mapping[str, str]], Channel]:
        own = {"media": str(far_end.mount)}
        return lambda more: PullChannel.from_options({**own, **more}, device=DEVICE)
