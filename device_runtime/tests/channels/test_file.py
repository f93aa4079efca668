from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    StorageFullError,
    UnavailableError,
)
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Event, HealthEvent, new_event, read_event
from edgefleet.protocol.report import AccessReport
from edgefleet_runtime.channels.file import FileChannel


@pytest.fixture
def channel(tmp_path: Path) -> FileChannel:
    return FileChannel(tmp_path / "pointer.json", tmp_path / "outbox", interval_s=0.005)


def settled(channel: FileChannel) -> FileChannel:
    channel.pointer()
    channel.access()
    assert not channel.wait(0)
    return channel


def event(message: str) -> Event:
    return new_event(HealthEvent(what="started", message=message))


# ------------------------------------------------------------------------------------- the pointer


def test_without_a_file_there_is_no_pointer(channel: FileChannel) -> None:
    assert channel.pointer() is None
    assert channel.access().state == "ok"
    assert not channel.wait(0)


def test_a_pointer_that_appears_wakes_the_waiting(channel: FileChannel, tmp_path: Path) -> None:
    settled(channel)
    (tmp_path / "whole").write_bytes(b"{}")
    writer = threading.Timer(0.02, (tmp_path / "whole").replace, [tmp_path / "pointer.json"])
    writer.start()
    assert channel.wait(90)
    assert channel.pointer() == b"{}"
    writer.join()
    assert not channel.wait(0)


@pytest.mark.parametrize("change", ["rewritten", "replaced", "touched", "removed", "link moved"])
def test_whatever_happens_to_the_file_is_seen(
    channel: FileChannel, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "pointer.json"
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    if change == "link moved":
        path.symlink_to(one)
    else:
        path.write_bytes(b"one")
    settled(channel)
    match change:
        case "rewritten":
            path.write_bytes(b"other")
        case "replaced":
            two.replace(path)
        case "touched":
            os.utime(path, ns=(0, time.time_ns() + 1))
        case "removed":
            path.unlink()
        case _:
            (tmp_path / "link").symlink_to(two)
            (tmp_path / "link").replace(path)
    assert channel.wait(0)
    settled(channel)


def test_wake_ends_a_wait_now_or_later(channel: FileChannel) -> None:
    settled(channel)
    channel.wake()
    assert channel.wait(90)
    assert not channel.wait(0)
    waker = threading.Timer(0.02, channel.wake)
    waker.start()
    assert channel.wait(90)
    waker.join()


def test_a_wait_without_a_change_ends(channel: FileChannel) -> None:
    assert not settled(channel).wait(0.01)


def test_a_huge_file_is_cut_and_a_pipe_does_not_hang(channel: FileChannel, tmp_path: Path) -> None:
    (tmp_path / "pointer.json").write_bytes(b"x" * 10_000)
    assert len(channel.pointer() or b"") == 1025
    (tmp_path / "pointer.json").unlink()
    os.mkfifo(tmp_path / "pointer.json")
    assert channel.pointer() == b""


# -------------------------------------------------------------------------------------- the access


def test_access_is_what_the_file_beside_the_pointer_says(
    channel: FileChannel, tmp_path: Path
) -> None:
    settled(channel)
    (tmp_path / "access.json").write_bytes(encode(AccessReport(state="expired", detail="May")))
    assert channel.wait(0)
    assert channel.access() == AccessReport(state="expired", detail="May")
    (tmp_path / "access.json").unlink()
    assert channel.wait(0)
    assert channel.access() == AccessReport(state="ok")


def test_an_unreadable_access_file_is_unknown(channel: FileChannel, tmp_path: Path) -> None:
    (tmp_path / "access.json").write_bytes(b"{")
    assert channel.access().state == "unknown"


def test_an_outbox_that_takes_no_files_is_denied(channel: FileChannel, tmp_path: Path) -> None:
    (tmp_path / "outbox").write_bytes(b"a file")
    assert channel.access().state == "denied"
    with pytest.raises(AccessDeniedError):
        channel.send_report(b"{}")
    with pytest.raises(AccessDeniedError):
        channel.send_hot([event("one")])
    with pytest.raises(AccessDeniedError):
        channel.upload("segments/a", tmp_path / "outbox")


# -------------------------------------------------------------------------------------- the outbox


def test_a_report_replaces_the_one_before(channel: FileChannel, tmp_path: Path) -> None:
    channel.send_report(b"one")
    channel.send_report(b"two")
    assert [path.name for path in (tmp_path / "outbox").iterdir()] == ["report.json"]
    assert (tmp_path / "outbox" / "report.json").read_bytes() == b"two"


def hot_lines(tmp_path: Path) -> list[bytes]:
    (path,) = (tmp_path / "outbox" / "hot").iterdir()
    assert path.suffix == ".ndjson"
    return path.read_bytes().splitlines()


def test_hot_events_are_appended_in_order(channel: FileChannel, tmp_path: Path) -> None:
    sent = [event("one"), event("two"), event("three")]
    channel.send_hot(sent[:1])
    channel.send_hot(sent[1:])
    assert [read_event(line) for line in hot_lines(tmp_path)] == sent


def test_a_torn_line_does_not_harm_the_next(channel: FileChannel, tmp_path: Path) -> None:
    channel.send_hot([event("one")])
    (path,) = (tmp_path / "outbox" / "hot").iterdir()
    path.write_bytes(path.read_bytes() + b'{"torn')
    last = event("two")
    channel.send_hot([last])
    lines = hot_lines(tmp_path)
    assert lines[1] == b'{"torn'
    assert read_event(lines[2]) == last


def test_a_segment_arrives_whole_and_may_come_again(channel: FileChannel, tmp_path: Path) -> None:
    segment = tmp_path / "segment"
    segment.write_bytes(b"zstd")
    name = "segments/date=2026-11-21/model=digits/a.ndjson.zst"
    channel.upload(name, segment)
    channel.upload(name, segment)
    target = tmp_path / "outbox" / name
    assert target.read_bytes() == b"zstd"
    assert list(target.parent.iterdir()) == [target]
    assert segment.exists()


def test_an_outbox_that_went_away_is_not_made_again(channel: FileChannel, tmp_path: Path) -> None:
    """Its share isn't mounted: what would be written now must not count as sent."""
    segment = tmp_path / "segment"
    segment.write_bytes(b"zstd")
    assert channel.access().state == "ok"
    (tmp_path / "outbox").rename(tmp_path / "elsewhere")
    assert channel.access().state == "unknown"
    sends: list[Callable[[], None]] = [
        partial(channel.send_report, b"{}"),
        partial(channel.send_hot, [event("one")]),
        partial(channel.upload, "segments/a", segment),
    ]
    for send in sends:
        with pytest.raises(UnavailableError, match="away"):
            send()
    assert not (tmp_path / "outbox").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "outbox")
    assert channel.access().state == "ok"
    channel.send_report(b"{}")


def test_a_full_disk_is_told_and_leaves_nothing_half(channel: FileChannel, tmp_path: Path) -> None:
    channel.send_report(b"one")
    (tmp_path / "outbox" / ".report.json.partial").symlink_to("/dev/full")
    with pytest.raises(StorageFullError):
        channel.send_report(b"two")
    assert (tmp_path / "outbox" / "report.json").read_bytes() == b"one"


# ------------------------------------------------------------------------------------- the options


@pytest.mark.parametrize(
    "options", [{}, {"pointer": "p"}, {"pointer": "p", "outbox": "o", "speed": "fast"}]
)
def test_wrong_options_are_refused_by_name(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"outbox|speed"):
        FileChannel.from_options(options, device="cam-07")


def test_right_options_make_a_channel(tmp_path: Path) -> None:
    made = FileChannel.from_options(
        {"pointer": str(tmp_path / "p"), "outbox": str(tmp_path / "o")}, device="cam-07"
    )
    made.send_report(b"{}")
    assert (tmp_path / "o" / "report.json").exists()
    made.close()
