"""What telemetry must do that takes what devices sent from a gateway: be the same to readers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgefleet.capabilities import require
from edgefleet.errors import InvalidInputError
from edgefleet.interfaces.receiving import CanReceive
from edgefleet.interfaces.telemetry import SAMPLES
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.report import AccessReport
from edgefleet.protocol.segment import SegmentName, write_segment
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.telemetry import DAY, TelemetryConformance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet.interfaces.telemetry import Telemetry
    from edgefleet.protocol.event import Event
    from edgefleet.testing.kit.devices import AddDevice, DeviceEnd


class _Received:
    """A device whose channel is a gateway's: what it sends is received in its name."""

    def __init__(self, telemetry: CanReceive, device: str) -> None:
        self._telemetry, self._device = telemetry, device

    def pointer(self) -> bytes | None:
        return None

    def access(self) -> AccessReport:
        return AccessReport(state="ok")

    def send_report(self, report: bytes, /) -> None:
        raise NotImplementedError

    def send_hot(self, events: Sequence[Event], /) -> None:
        self._telemetry.receive_hot(self._device, events)

    def upload(self, name: str, path: Path, /) -> None:
        self._telemetry.receive_file(self._device, name, path)


class ReceivingConformance(TelemetryConformance):
    """Fixture: ``telemetry`` without events, one that `CanReceive`. Needs no devices."""

    @pytest.fixture
    def add_device(self) -> AddDevice:
        """Whose a file is, a gateway knows by a certificate: nothing to enrol here."""

        def add(name: str, /, *, group: str, labels: Mapping[str, str] | None = None) -> None:
            del name, group, labels

        return add

    @pytest.fixture
    def device_end(self, telemetry: Telemetry) -> Callable[[str], DeviceEnd]:
        """A device as a gateway knows it."""
        received = require(telemetry, CanReceive)
        return lambda device: _Received(received, device)

    def test_a_file_that_comes_again_changes_nothing(
        self, telemetry: Telemetry, tmp_path: Path
    ) -> None:
        """If this fails, a gateway that repeats after a fault makes events count twice."""
        received = require(telemetry, CanReceive)
        file = tmp_path / "segment"
        with file.open("wb") as stream:
            write_segment([samples.prediction(1)], stream)
        name = SegmentName(day=DAY, device="cam-1", model="digits", id="1")
        for _ in range(2):
            received.receive_file("cam-1", name.below_device, file)
        assert [event.device for event in telemetry.query()] == ["cam-1"]
        assert file.exists()

    def test_hot_events_that_come_again_are_given_once(self, telemetry: Telemetry) -> None:
        """If this fails, a device that repeats what was taken rings an alarm twice."""
        received = require(telemetry, CanReceive)
        sent = [samples.alarm(1), samples.alarm(2)]
        received.receive_hot("cam-1", sent)
        received.receive_hot("cam-1", sent[:1])
        assert {e.id for e in telemetry.query(kind="alarm")} == {event.id for event in sent}
        assert len(list(telemetry.query(kind="alarm"))) == 2
        assert {event.device for event in telemetry.query(kind="alarm")} == {"cam-1"}

    def test_what_comes_at_once_from_several_devices_is_all_kept(
        self, telemetry: Telemetry, tmp_path: Path
    ) -> None:
        """If this fails, a backend's client isn't safe in the threads that a gateway calls from."""
        received = require(telemetry, CanReceive)
        alarms = [samples.alarm(number) for number in range(6)]

        def send(number: int) -> None:
            device = f"cam-{number // 2}"  # two at once of each
            name = SegmentName(day=DAY, device=device, model="digits", id=str(number))
            file = tmp_path / str(number)
            with file.open("wb") as stream:
                write_segment([samples.prediction(number)], stream)
            received.receive_file(device, name.below_device, file)
            received.receive_hot(device, alarms[number : number + 1])

        samples.at_once([partial(send, number) for number in range(6)])
        assert {(e.device, e.id) for e in telemetry.query(kind="alarm")} == {
            (f"cam-{number // 2}", alarm.id) for number, alarm in enumerate(alarms)
        }
        assert len(list(telemetry.query(kind="prediction"))) == 6

    def test_a_large_file_is_kept_whole(self, telemetry: Telemetry, tmp_path: Path) -> None:
        """If this fails, files that a backend takes in parts are cut or mixed up."""
        received = require(telemetry, CanReceive)
        data = samples.noise(9 << 20, 5)
        file = tmp_path / "sample"
        file.write_bytes(data)
        digest = digest_of(data)
        received.receive_file("cam-1", f"{SAMPLES}/{hex_of(digest)}", file)
        read = telemetry.sample("cam-1", digest)
        assert samples.Content.of(read) == samples.Content.of(data)

    @pytest.mark.parametrize(
        "device, path", [("..", "segments/a"), ("cam-1", "../cam-2/a"), ("cam-1", "/etc/passwd")]
    )
    def test_nothing_is_written_outside_of_a_device_s_prefix(
        self, telemetry: Telemetry, tmp_path: Path, device: str, path: str
    ) -> None:
        """If this fails, one device writes what another is believed to have written."""
        file = tmp_path / "file"
        file.write_bytes(b"x")
        with pytest.raises(InvalidInputError):
            require(telemetry, CanReceive).receive_file(device, path, file)
