"""Takes a stick, and is stopped at each thing that it does with files, in a process each.

``python -m … FOLDER killed|interrupted|pulled`` says how often it was stopped, and fails where what
is kept then isn't whole, or where the same call doesn't bring the rest.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import edgefleet
from edgefleet.errors import NotFoundError, UnavailableError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.segment import SegmentName, write_segment
from edgefleet.testing.kit import samples
from providers.gateway.tests.stick_rig import Field

OPERATIONS = {"open", "os.remove", "os.rename", "os.mkdir", "os.link", "os.scandir", "os.listdir"}
SEGMENT = SegmentName(
    day=datetime(2026, 11, 22, tzinfo=UTC).date(), device="cam-1", model="digits", id="a"
)
PIXELS = b"pixels"
STOPPED = 3


def written(folder: Path) -> Field:
    """A stick that a device wrote."""
    field = Field(folder)
    channel = field.channel("cam-1", field.join("cam-1"))
    channel.send_report(samples.report(sequence=3).encoded())
    channel.send_hot([samples.alarm(1), samples.alarm(2)])
    content = folder / "content"
    for number in range(2):
        with content.open("wb") as stream:
            write_segment([samples.prediction(number)], stream)
        channel.upload(msgspec.structs.replace(SEGMENT, id=f"a{number}").below_device, content)
    content.write_bytes(PIXELS)
    channel.upload(f"samples/{digest_of(PIXELS).replace(':', '/')}", content)
    return field


def take(folder: Path) -> None:
    with edgefleet.connect("field", config=folder / "edgefleet.toml") as fleet:
        fleet.take_receipts(folder / "usb")


def stopped_at(number: int, folder: Path, how: str) -> int:
    """Take, stopped at that operation; the exit status of a process of its own."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    seen = 0

    def stop(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event not in OPERATIONS or not str(args[0]).startswith(str(folder)):
            return
        seen += 1
        if seen == number and how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if seen == number and how == "interrupted":
            raise KeyboardInterrupt
        if seen >= number and how == "pulled" and str(args[0]).startswith(str(folder / "usb")):
            raise OSError(errno.EIO, os.strerror(errno.EIO), args[0])

    status = 1
    try:
        sys.addaudithook(stop)
        take(folder)
        status = 0
    except (KeyboardInterrupt, UnavailableError):
        status = STOPPED
    finally:
        os._exit(status)


def kept(folder: Path) -> tuple[int, int, int]:
    """How many reports, events and samples are kept; each can be read, and is there once."""
    with edgefleet.connect("field", config=folder / "edgefleet.toml") as fleet:
        report = fleet.device("cam-1").info.report
        assert report is None or report.sequence == 3
        events = [event.id for event in fleet.events()]
        assert len(set(events)) == len(events)
        there = 0
        with suppress(NotFoundError):
            assert fleet.telemetry.sample("cam-1", digest_of(PIXELS)) == PIXELS
            there = 1
        return (int(report is not None), len(events), there)


def main(folder: Path, how: str) -> None:
    written(folder / "first")
    number = 0
    while True:
        number += 1
        copy = folder / str(number)
        shutil.copytree(folder / "first", copy)
        status = stopped_at(number, copy, how)
        before = kept(copy)
        assert all(one <= whole for one, whole in zip(before, (1, 4, 1), strict=True))
        if status == 0:
            assert before == (1, 4, 1)
            break
        assert status == (-signal.SIGKILL if how == "killed" else STOPPED), (number, status)
        take(copy)
        assert kept(copy) == (1, 4, 1), number
        left = [path for path in (copy / "usb").rglob("*") if path.is_file()]
        assert left == [], (number, left)
        shutil.rmtree(copy)
    sys.stdout.write(f"{number - 1}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
