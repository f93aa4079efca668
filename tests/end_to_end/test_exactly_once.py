"""What a spool kept arrives once, whatever happens on the way; read by a provider's Telemetry."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgefleet.errors import UnavailableError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.event import (
    Account,
    Alarm,
    Event,
    HealthEvent,
    OutputSummary,
    Prediction,
    Sample,
    new_event,
)
from edgefleet_local.telemetry import LocalTelemetry
from edgefleet_runtime.channels.file import FileChannel
from edgefleet_runtime.spool.spool import Spool
from tests.end_to_end.spool_cuts import MAX_BYTES

BUNDLE = digest_of(b"bundle")
DATA = b"the input of a sample"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def prediction(number: int, model: str) -> Event:
    output = OutputSummary(name="y", shape=(1, 2), top=(number % 2,), score=(0.5,))
    data = Prediction(
        model=model,
        model_version="1",
        bundle=BUNDLE,
        variant="fp32",
        outputs=(output,),
        latency_us=1.0,
    )
    return new_event(data, time=NOON, identity=f"{model}-{number}")


def filled(root: Path) -> set[str]:
    """Fill a spool with a link that is away; returns the ids of what it holds."""
    spool = Spool(root, Away(root, root), device="cam-07", max_bytes=MAX_BYTES)
    sample = Sample(
        model="digits", model_version="1", reason="r", inputs={"x": spool.samples.put(DATA)}
    )
    events = [
        *(prediction(number, "digits") for number in range(40)),
        *(prediction(number, "faces") for number in range(10)),
        new_event(sample, time=NOON, identity="sample"),
    ]
    spool.put(events)
    for number in range(3):
        spool.tell(Alarm(rule=f"rule-{number}", message="too warm"))
    spool.tell(HealthEvent(what="started", message="so"))
    spool.turn()
    hot = {event.id for _, event in spool.outgoing.hot(100, 1 << 20)}
    spool.close()
    assert len(hot) == 4
    return hot | {event.id for event in events}


class Away(FileChannel):
    def send_hot(self, events: Sequence[Event]) -> None:
        raise UnavailableError("away")

    def upload(self, name: str, path: Path) -> None:
        raise UnavailableError("away")


class Repeating(FileChannel):
    """Delivers everything, says at first that it didn't, and the files in another order."""

    def __init__(self, pointer: Path, outbox: Path) -> None:
        super().__init__(pointer, outbox)
        self.told: list[str] = []
        self.held: list[tuple[str, bytes]] = []

    def send_hot(self, events: Sequence[Event]) -> None:
        super().send_hot(events)
        self._once("hot")

    def upload(self, name: str, path: Path) -> None:
        if not name.startswith("samples/"):
            self.held.append((name, path.read_bytes()))
        super().upload(name, path)
        self._once(name)

    def deliver_again(self, scratch: Path) -> None:
        for name, data in reversed(self.held):
            scratch.write_bytes(data)
            super().upload(name, scratch)

    def _once(self, name: str) -> None:
        if name not in self.told:
            self.told.append(name)
            raise UnavailableError("the answer got lost")


def received(home: Path) -> list[str]:
    query = LocalTelemetry(home).query()
    ids = [event.id for event in query if event.kind != "account"]
    assert query.unreadable == {}
    return sorted(ids)


def test_a_power_cut_at_any_point_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    expected = filled(tmp_path / "spool")
    command = [sys.executable, "-m", "tests.end_to_end.spool_cuts"]
    told = subprocess.run(
        [*command, str(tmp_path / "spool"), str(tmp_path / "work")],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ).stdout
    kills = int(told)
    assert kills > 20
    for cut in range(1, kills + 2):
        home = tmp_path / "work" / str(cut)
        assert received(home) == sorted(expected), f"killed at point {cut}"
        sample = home / "devices/cam-07/samples/sha256" / digest_of(DATA).partition(":")[2]
        assert sample.read_bytes() == DATA


def test_repeated_and_reordered_uploads_give_each_event_once(tmp_path: Path) -> None:
    expected = filled(tmp_path / "spool")
    outbox = tmp_path / "devices" / "cam-07"
    channel = Repeating(tmp_path / "pointer.json", outbox)
    spool = Spool(tmp_path / "spool", channel, device="cam-07", max_bytes=MAX_BYTES)
    while spool.pending:
        spool.finish()
    spool.close()
    channel.deliver_again(tmp_path / "scratch")
    lines = [line for path in outbox.glob("hot/*") for line in path.read_bytes().splitlines()]
    assert len(lines) == 2 * 4
    assert received(tmp_path) == sorted(expected)


def test_an_account_of_what_was_seen_goes_with_what_is_sent(tmp_path: Path) -> None:
    filled(tmp_path / "spool")
    channel = FileChannel(tmp_path / "pointer.json", tmp_path / "devices" / "cam-07")
    spool = Spool(tmp_path / "spool", channel, device="cam-07", max_bytes=MAX_BYTES)
    spool.finish()
    spool.close()
    accounts = [event.payload() for event in LocalTelemetry(tmp_path).query(kind="account")]
    tallies = [
        (tally.model, tally.seen, tally.dropped)
        for account in accounts
        if isinstance(account, Account) and account.day == f"{NOON:%Y-%m-%d}"
        for tally in account.tallies
        if tally.kind == "prediction"
    ]
    digits = [tally for tally in tallies if tally[0] == "digits"]
    assert sum(seen for _, seen, _ in tallies) == 50
    assert sum(seen for _, seen, _ in digits) == 40
    assert not any(dropped for *_, dropped in tallies)


def test_what_can_not_be_read_is_counted_and_the_rest_is_given(tmp_path: Path) -> None:
    expected = filled(tmp_path / "spool")
    outbox = tmp_path / "devices" / "cam-07"
    channel = FileChannel(tmp_path / "pointer.json", outbox)
    spool = Spool(tmp_path / "spool", channel, device="cam-07", max_bytes=MAX_BYTES)
    spool.finish()
    spool.close()
    (damaged,) = outbox.glob("segments/*/model=faces/*")
    damaged.write_bytes(b"torn")
    query = LocalTelemetry(tmp_path).query()
    with pytest.warns(RuntimeWarning, match="set aside"):
        found = {event.id for event in query if event.kind != "account"}
    assert found == {identity for identity in expected if not identity.startswith("faces")}
    assert len(query.unreadable) == 1
