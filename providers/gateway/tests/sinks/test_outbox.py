"""The file of events that wait for one sink."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgefleet.protocol.documents import encode
from edgefleet.testing.kit import samples
from edgefleet_gateway.sinks.outbox import MAX_ASIDE, Entry, Outbox

MIB = 1 << 20


def entry(device: str = "cam-1") -> Entry:
    event = samples.alarm(1)
    return Entry(device, event, encode(event))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sinks" / "plant.sqlite"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    with closing(Outbox(path, max_bytes=MIB)) as outbox:
        yield outbox


def test_nobody_else_reads_it(outbox: Outbox, path: Path) -> None:
    outbox.put([entry()])
    assert {one.stat().st_mode & 0o077 for one in path.parent.iterdir()} == {0}
    assert path.parent.stat().st_mode & 0o077 == 0


def test_counts_are_those_of_the_file(outbox: Outbox, path: Path) -> None:
    outbox.put([entry() for _ in range(5)])
    first, second, *_ = outbox.oldest(5)
    outbox.done([first.number], {second.number: "no"})
    with closing(Outbox(path, max_bytes=MIB)) as again:
        assert (again.count, again.bytes) == (outbox.count, outbox.bytes)
        assert again.count == 3


def test_what_is_set_aside_is_bounded(outbox: Outbox) -> None:
    outbox.put([entry() for _ in range(MAX_ASIDE + 10)])
    numbers = [one.number for one in outbox.oldest(MAX_ASIDE + 10)]
    outbox.done([], {number: f"reason {number}" for number in numbers})
    assert [reason for _, _, reason in outbox.aside()] == [f"reason {n}" for n in numbers[10:]]
    assert (outbox.count, outbox.bytes) == (0, 0)


def test_an_event_that_is_longer_than_the_outbox_goes_alone(path: Path) -> None:
    with closing(Outbox(path, max_bytes=1000)) as outbox:
        kept = entry()
        assert outbox.put([kept]) == 0
        assert outbox.put([Entry("cam-1", samples.alarm(2), b"x" * 2000)]) == 1
        assert [one.data for one in outbox.oldest(5)] == [kept.data]


@pytest.mark.parametrize("damage", ["head", "middle"])
def test_a_damaged_file_keeps_no_gateway_from_starting(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(Outbox(path, max_bytes=MIB)) as outbox:
        outbox.put([entry() for _ in range(500)])
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.seek(0 if damage == "head" else 4096)
        stream.write(os.urandom(4096 if damage == "head" else size - 8192))
    with closing(Outbox(path, max_bytes=MIB)) as outbox:
        assert outbox.count == 0
        outbox.put([entry()])
        assert outbox.count == 1
    assert "damaged" in caplog.text
    assert path.with_name("plant.sqlite.damaged").exists()
