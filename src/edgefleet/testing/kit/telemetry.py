"""What telemetry must do: give each event once, under the device whose channel brought it."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import msgspec
import pytest

from edgefleet.errors import (
    EdgeFleetError,
    IntegrityError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)
from edgefleet.interfaces.telemetry import SAMPLES, Telemetry
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.segment import NO_MODEL, SegmentName, write_segment
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import AddDevice, ChannelConformance, DeviceEnd
from edgefleet.testing.waiting import TIMEOUT_S, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from edgefleet.protocol.event import Event

DAY = samples.MOMENT.date()
SECOND = timedelta(seconds=1)


class Upload(Protocol):
    """Uploads one segment over a device's channel."""

    def __call__(
        self, device: str, events: Iterable[Event], *, model: str = "digits", name: str = "0"
    ) -> None: ...


class Capture(Protocol):
    """Delivers a sample's file over a device's channel."""

    def __call__(self, device: str, data: bytes, *, digest: str | None = None) -> str: ...


class TelemetryConformance(ChannelConformance):
    """Fixtures: ``telemetry`` without events, ``add_device``, ``device_end``."""

    @pytest.fixture
    def telemetry(self) -> Telemetry:
        """Telemetry without events."""
        return self.lacks("telemetry", "telemetry without events for each test")

    @pytest.fixture
    def add_device(self) -> AddDevice:
        """Makes a device part of the fleet."""
        return self.lacks("add_device", "makes a device part of the fleet")

    @pytest.fixture
    def upload(
        self,
        add_device: AddDevice,
        device_end: Callable[[str], DeviceEnd],
        tmp_path: Path,
    ) -> Upload:
        """Uploads one segment as a device of group line-3 does."""
        known: set[str] = set()

        def upload(
            device: str, events: Iterable[Event], *, model: str = "digits", name: str = "0"
        ) -> None:
            if device not in known:
                add_device(device, group="line-3")
                known.add(device)
            file = tmp_path / "segment"
            with file.open("wb") as stream:
                write_segment(events, stream)
            device_end(device).upload(_below(name, model), file)

        return upload

    # What a query gives

    def test_nothing_recorded_gives_nothing(self, telemetry: Telemetry) -> None:
        """If this fails, a listing of a place that doesn't exist yet isn't an empty one."""
        assert list(telemetry.query()) == []

    def test_events_read_back_as_recorded(self, telemetry: Telemetry, upload: Upload) -> None:
        """If this fails, segments are recoded, or some of their pages or folders are not listed."""
        sent = [samples.prediction(second) for second in range(20)]
        upload("a", sent[:10], name="0")
        upload("a", sent[10:], name="1")
        seen = list(telemetry.query())
        assert [event.id for event in sorted(seen, key=_time)] == [event.id for event in sent]
        assert {bytes(event.data) for event in seen} == {bytes(event.data) for event in sent}
        assert {event.device for event in seen} == {"a"}

    def test_a_query_keeps_to_what_it_was_asked(self, telemetry: Telemetry, upload: Upload) -> None:
        """If this fails, segments are left out by their path that hold what was asked for."""
        digits, letters = samples.prediction(0), samples.prediction(1, model="letters")
        upload("a", [digits], model="digits")
        upload("a", [letters], model="letters")
        upload("a", [figure := samples.metric(2, 21.5)], model=NO_MODEL)
        upload("b", [other := samples.prediction(3)], model="digits")
        assert _ids(telemetry.query()) == _ids([digits, letters, figure, other])
        assert _ids(telemetry.query(kind="prediction")) == _ids([digits, letters, other])
        assert _ids(telemetry.query(kind="metric")) == _ids([figure])
        assert _ids(telemetry.query(model="letters")) == _ids([letters])
        assert _ids(telemetry.query(device="b")) == _ids([other])
        assert _ids(telemetry.query(device="b", model="letters")) == set()
        assert _ids(telemetry.query(device="nobody")) == set()

    def test_times_bound_a_query(self, telemetry: Telemetry, upload: Upload) -> None:
        """If this fails, days are compared in local time, or an end is off by one."""
        events = [samples.prediction(second) for second in range(3)]
        upload("a", events)
        start = samples.MOMENT
        assert _ids(telemetry.query(since=start + SECOND)) == _ids(events[1:])
        assert _ids(telemetry.query(until=start + SECOND)) == _ids(events[:1])
        assert _ids(telemetry.query(since=start + SECOND, until=start + 2 * SECOND)) == _ids(
            events[1:2]
        )
        assert _ids(telemetry.query(since=start + timedelta(days=30))) == set()

    def test_an_event_sent_twice_is_given_once(self, telemetry: Telemetry, upload: Upload) -> None:
        """If this fails, a device that repeats an upload after a lost answer counts double."""
        events = [samples.prediction(second) for second in range(4)]
        upload("a", events[:3], name="0")
        upload("a", events[1:], name="1")
        upload("a", events[1:], name="1")
        assert sorted(event.id for event in telemetry.query()) == sorted(e.id for e in events)

    def test_alarms_are_read_with_the_rest(
        self,
        telemetry: Telemetry,
        upload: Upload,
        device_end: Callable[[str], DeviceEnd],
    ) -> None:
        """If this fails, hot events, which come by messaging, are not kept or not read."""
        upload("a", [cold := samples.prediction(0)])
        hot = [samples.alarm(1), samples.alarm(2, model="letters")]
        device_end("a").send_hot(hot)
        device_end("a").send_hot(hot[:1])
        assert _ids(telemetry.query(kind="alarm")) == _ids(hot)
        assert _ids(telemetry.query(kind="alarm", model="letters")) == _ids(hot[1:])
        assert sorted(event.id for event in telemetry.query()) == sorted(
            event.id for event in (cold, *hot)
        )
        assert {event.device for event in telemetry.query(kind="alarm")} == {"a"}
        assert _ids(telemetry.query(kind="alarm", device="b")) == set()

    def test_alarms_that_arrive_are_followed(
        self,
        telemetry: Telemetry,
        upload: Upload,
        device_end: Callable[[str], DeviceEnd],
    ) -> None:
        """If this fails, following goes by when an event happened, or reads a cached listing.

        A device that was offline brings alarms that are days old, in the order in which it likes.
        """
        upload("a", [samples.prediction(0)])
        device_end("a").send_hot([before := samples.alarm(3)])
        eventually(lambda: list(telemetry.query(kind="alarm")), "the alarm that was there before")
        following = telemetry.follow(kind="alarm", poll_s=0.01, timeout_s=TIMEOUT_S)
        old = msgspec.structs.replace(samples.alarm(1), time=samples.MOMENT - timedelta(days=90))
        late, new = samples.alarm(2), samples.alarm(4)
        for event in (late, old, new):
            device_end("a").send_hot([event, before])
            assert next(following).id == event.id

    def test_segments_that_arrive_are_followed(self, telemetry: Telemetry, upload: Upload) -> None:
        """If this fails, what is recorded comes again while it is followed, or old days don't."""
        upload("a", [samples.prediction(0)], name="0")
        following = telemetry.follow(poll_s=0.01, timeout_s=TIMEOUT_S)
        for name in (1, 2):
            upload("a", [event := samples.prediction(name)], name=str(name))
            found = next(following)
            assert (found.device, found.id) == ("a", event.id)

    # Whom and what to believe

    def test_the_channel_tells_whose_an_event_is(
        self, telemetry: Telemetry, upload: Upload
    ) -> None:
        """If this fails, the device's name is taken from what the device wrote."""
        forged = msgspec.structs.replace(samples.prediction(0), source="/devices/victim")
        upload("thief", [forged])
        assert [event.device for event in telemetry.query()] == ["thief"]
        assert list(telemetry.query(device="victim")) == []

    def test_a_device_cannot_write_below_another(
        self,
        telemetry: Telemetry,
        upload: Upload,
        device_end: Callable[[str], DeviceEnd],
        tmp_path: Path,
    ) -> None:
        """If this fails, a device's access reaches beyond its own prefix."""
        upload("victim", [honest := samples.prediction(0)])
        upload("thief", [samples.prediction(1)])
        with (tmp_path / "forged").open("wb") as stream:
            write_segment([samples.prediction(2)], stream)
        for prefix in ("../victim/", "../../devices/victim/", "/devices/victim/"):
            with suppress(EdgeFleetError):
                device_end("thief").upload(prefix + _below("1", "digits"), tmp_path / "forged")
        assert _ids(telemetry.query(device="victim")) == _ids([honest])

    @pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
    def test_a_segment_that_cannot_be_read_is_set_aside(
        self,
        telemetry: Telemetry,
        upload: Upload,
        device_end: Callable[[str], DeviceEnd],
        tmp_path: Path,
        damage: str,
    ) -> None:
        """If this fails, one torn upload hides all that its fleet has recorded."""
        upload("a", [good := samples.prediction(0)], name="0")
        whole = io.BytesIO()
        write_segment([samples.prediction(second) for second in range(1, 50)], whole)
        content = {
            "cut": whole.getvalue()[:-20],
            "noise": samples.noise(500, 1),
            "empty": b"",
        }
        (tmp_path / "damaged").write_bytes(content[damage])
        device_end("a").upload(_below("1", "digits"), tmp_path / "damaged")
        query = telemetry.query()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            seen = _ids(query)
        assert seen >= _ids([good])
        if damage != "empty":
            assert [path.rpartition("/")[2] for path in query.unreadable] == [
                "segment-1.ndjson.zst"
            ]
            assert told

    def test_what_is_no_segment_is_passed_over(
        self,
        telemetry: Telemetry,
        upload: Upload,
        device_end: Callable[[str], DeviceEnd],
        tmp_path: Path,
    ) -> None:
        """If this fails, any file that a device leaves breaks the listing of all."""
        upload("a", [good := samples.prediction(0)])
        (tmp_path / "notes").write_text("not a segment")
        for name in ("segments/notes.txt", "segments/date=never/model=digits/0.ndjson.zst"):
            with suppress(EdgeFleetError):
                device_end("a").upload(name, tmp_path / "notes")
        assert _ids(telemetry.query()) == _ids([good])

    # Samples

    @pytest.fixture
    def capture(
        self,
        add_device: AddDevice,
        device_end: Callable[[str], DeviceEnd],
        tmp_path: Path,
    ) -> Capture:
        """Delivers a sample's file as a device of group line-3 does; gives its digest."""
        known: set[str] = set()

        def capture(device: str, data: bytes, *, digest: str | None = None) -> str:
            if device not in known:
                add_device(device, group="line-3")
                known.add(device)
            digest = digest or digest_of(data)
            file = tmp_path / "sample"
            file.write_bytes(data)
            device_end(device).upload(f"{SAMPLES}/{hex_of(digest)}", file)
            return digest

        return capture

    def test_a_captured_sample_reads_back(self, telemetry: Telemetry, capture: Capture) -> None:
        """If this fails, files beside the segments are kept elsewhere, or recoded."""
        for data in (samples.noise(300_000, 3), b"", b"x"):
            digest = capture("a", data)
            read = telemetry.sample("a", digest)
            assert samples.Content.of(read) == samples.Content.of(data)

    def test_a_sample_that_has_not_come_is_not_found(
        self, telemetry: Telemetry, capture: Capture
    ) -> None:
        """If this fails, what is on its way can't be told from what is broken."""
        capture("a", b"here")
        with pytest.raises(NotFoundError):
            telemetry.sample("a", digest_of(b"elsewhere"))
        with pytest.raises(NotFoundError):
            telemetry.sample("nobody", digest_of(b"here"))

    def test_a_sample_is_its_own_devices(self, telemetry: Telemetry, capture: Capture) -> None:
        """If this fails, a device's name reaches what another one captured."""
        theirs = capture("a", b"of a")
        capture("b", b"of b")
        with pytest.raises(NotFoundError):
            telemetry.sample("b", theirs)
        for name in ("b/../a", "../devices/a", "", "a/"):
            with pytest.raises(EdgeFleetError):
                telemetry.sample(name, theirs)

    def test_a_damaged_sample_is_refused(self, telemetry: Telemetry, capture: Capture) -> None:
        """If this fails, your telemetry overrides what `Telemetry.sample` checks."""
        claimed = digest_of(samples.noise(1000, 5))
        capture("a", samples.noise(1000, 5)[:-1], digest=claimed)
        with pytest.raises(IntegrityError):
            telemetry.sample("a", claimed)

    def test_a_sample_is_bounded(self, telemetry: Telemetry, capture: Capture) -> None:
        """If this fails, a device may fill the memory of whoever reads its samples."""
        digest = capture("a", samples.noise(1001, 6))
        with pytest.raises(LimitExceededError):
            telemetry.sample("a", digest, max_bytes=1000)
        assert len(telemetry.sample("a", digest, max_bytes=1001)) == 1001

    # Other forms

    def test_events_become_a_data_frame(self, telemetry: Telemetry, upload: Upload) -> None:
        """If this fails, your telemetry overrides what `EventQuery` does."""
        pytest.importorskip("pandas")
        assert telemetry.query().to_pandas().empty
        upload("a", [samples.prediction(second) for second in range(3)])
        frame = telemetry.query(kind="prediction").to_pandas()
        assert list(frame["device"]) == ["a"] * 3
        assert list(frame["latency_us"]) == [120.0] * 3

    def test_events_become_an_arrow_table(self, telemetry: Telemetry, upload: Upload) -> None:
        """If this fails, your telemetry overrides what `EventQuery` does."""
        pytest.importorskip("pyarrow")
        assert telemetry.query().to_arrow().num_rows == 0
        upload("a", [samples.prediction(second) for second in range(3)])
        table = telemetry.query(kind="prediction").to_arrow()
        assert table.column("device").to_pylist() == ["a"] * 3
        assert table.column("model").to_pylist() == ["digits"] * 3

    def test_events_become_an_ibis_table(
        self,
        telemetry: Telemetry,
        upload: Upload,
        device_end: Callable[[str], DeviceEnd],
    ) -> None:
        """If this fails, `_segment_file` gives a path that isn't the segment's."""
        pytest.importorskip("ibis")
        pytest.importorskip("duckdb")
        assert telemetry.query().to_ibis().to_pyarrow().num_rows == 0
        cold = [samples.prediction(second) for second in range(3)]
        upload("a", cold, name="0")
        upload("a", cold[1:], name="1")
        upload("b", cold[:1])
        device_end("a").send_hot([samples.alarm(4)])
        query = telemetry.query()
        table = query.to_ibis().to_pyarrow()
        seen = sorted(zip(table["device"].to_pylist(), table["id"].to_pylist(), strict=True))
        assert seen == sorted({(event.device, event.id) for event in query})
        assert len(seen) == 5
        narrow = telemetry.query(kind="prediction", device="b").to_ibis().to_pyarrow()
        assert narrow["latency_us"].to_pylist() == [120.0]

    def test_what_makes_no_query_is_refused(self, telemetry: Telemetry) -> None:
        """If this fails, your telemetry overrides a check that `Telemetry` makes."""
        with pytest.raises(InvalidInputError):
            telemetry.query(kind="predictions")
        with pytest.raises(InvalidInputError):
            telemetry.query(since=datetime(2026, 11, 21))  # noqa: DTZ001 - that is the point

    def test_closing_twice_is_no_error(self, telemetry: Telemetry) -> None:
        """If this fails, `close` gives something back that it has given back before."""
        telemetry.close()
        telemetry.close()


def _below(name: str, model: str) -> str:
    return SegmentName(day=DAY, device="a", model=model, id=f"segment-{name}").below_device


def _ids(events: Iterable[Event]) -> set[str]:
    return {event.id for event in events}


def _time(event: Event) -> datetime:
    return event.time
