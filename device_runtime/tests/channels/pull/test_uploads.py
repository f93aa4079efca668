"""Files that go on where they stopped, whatever broke off when."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path
from typing import BinaryIO

import pytest

from device_runtime.tests.channels.pull.conftest import Make
from device_runtime.tests.channels.pull.standin import Enrolled, StandIn, serving
from device_runtime.tests.support import Clock
from edgefleet.errors import (
    CancelledError,
    InvalidInputError,
    LimitExceededError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import digest_of_file
from edgefleet.protocol.gateway import FILES, MAX_FILE_BYTES, MAX_PART_BYTES, digest_field
from edgefleet_runtime.store.bandwidth import PacedFile

NAME = "segments/2026-11-22/model=digits/0001.ndjson.zst"
PATH = f"{FILES}/segments/2026-11-22/model%3Ddigits/0001.ndjson.zst"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "segment"
    path.write_bytes(random.Random(3).randbytes(1_500_000))
    return path


def stored(gateway: StandIn) -> bytes:
    return gateway.files[PATH.removeprefix(f"{FILES}/")]


def sent(gateway: StandIn) -> int:
    """Bytes of file that the gateway was sent and read."""
    return sum(len(one.body) for one in gateway.asked if one.method == "PATCH")


def test_a_file_arrives_whole_in_parts(gateway: StandIn, make: Make, file: Path) -> None:
    make().upload(NAME, file)
    assert stored(gateway) == file.read_bytes()
    sizes = [len(one.body) for one in gateway.asked if one.method == "PATCH"]
    assert len(sizes) > 2
    assert max(sizes) <= MAX_PART_BYTES
    assert sorted(sizes[:-1]) == sizes[:-1]  # they grow


def test_an_empty_file_arrives(gateway: StandIn, make: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    make().upload(NAME, tmp_path / "empty")
    assert stored(gateway) == b""


def test_what_is_there_is_not_sent_again(gateway: StandIn, make: Make, file: Path) -> None:
    channel = make()
    channel.upload(NAME, file)
    before = sent(gateway)
    channel.upload(NAME, file)
    assert sent(gateway) == before
    assert gateway.kept == 1


@pytest.mark.parametrize("step", ["drop", "mute", "deaf:1000", "deaf:0"])
@pytest.mark.parametrize("at", range(1, 6))
def test_a_break_in_any_part_is_made_up_for(
    gateway: StandIn, make: Make, file: Path, step: str, at: int
) -> None:
    channel = make()
    gateway.only = ("PATCH", FILES)
    # Twice, because a kept connection that was lost is replaced once before anybody hears of it.
    gateway.script[:] = [""] * (at - 1) + [step, step]
    for _ in range(4):  # as the runtime comes again
        try:
            channel.upload(NAME, file)
        except UnavailableError:
            continue
        break
    assert not gateway.script
    assert stored(gateway) == file.read_bytes()
    assert gateway.kept == 1


@pytest.mark.parametrize("step", ["drop", "mute", "half", "500"])
def test_a_break_while_it_asks_how_much_is_there(
    gateway: StandIn, make: Make, file: Path, step: str
) -> None:
    channel = make()
    gateway.only = ("HEAD", FILES)
    gateway.script[:] = [step]
    with pytest.raises(UnavailableError) if step != "half" else pytest.MonkeyPatch.context():
        channel.upload(NAME, file)
    channel.upload(NAME, file)
    assert stored(gateway) == file.read_bytes()


def test_it_goes_on_where_the_gateway_says(gateway: StandIn, make: Make, file: Path) -> None:
    channel = make()
    gateway.only = ("PATCH", FILES)
    gateway.script[:] = ["", "", "500", "500"]
    with pytest.raises(UnavailableError):
        channel.upload(NAME, file)
    (part,) = gateway.partial.values()
    there, before = len(part), sent(gateway)
    assert there > 0
    channel.upload(NAME, file)
    assert stored(gateway) == file.read_bytes()
    assert sent(gateway) - before == file.stat().st_size - there


def test_a_file_that_is_there_and_was_not_kept_is_ended(
    gateway: StandIn, make: Make, file: Path
) -> None:
    key = f"{PATH.removeprefix(f'{FILES}/')} {digest_field(digest_of_file(file)[0])}"
    gateway.partial[key] = bytearray(file.read_bytes())  # as one that was killed leaves it
    make().upload(NAME, file)
    assert sent(gateway) == 0
    assert stored(gateway) == file.read_bytes()


def test_an_offset_that_is_not_the_gateways_is_asked_for_again(
    gateway: StandIn, make: Make, file: Path
) -> None:
    channel = make()
    gateway.only = ("PATCH", FILES)
    gateway.script[:] = ["", "409"]
    channel.upload(NAME, file)
    assert stored(gateway) == file.read_bytes()


@pytest.mark.parametrize("status", ["404", "410"])
def test_an_upload_that_the_gateway_forgot_begins_again(
    gateway: StandIn, make: Make, file: Path, status: str
) -> None:
    channel = make()
    gateway.only = ("PATCH", FILES)
    gateway.script[:] = ["", "", status]
    channel.upload(NAME, file)
    assert stored(gateway) == file.read_bytes()


@pytest.mark.parametrize("status", ["429;7", "503;7", "507;7"])
def test_a_busy_gateway_is_left_alone(
    gateway: StandIn, make: Make, file: Path, status: str
) -> None:
    channel = make()
    gateway.only = ("PATCH", FILES)
    gateway.script[:] = ["", status]
    with pytest.raises(ThrottledError) as caught:
        channel.upload(NAME, file)
    assert caught.value.retry_after_s == 7
    assert len(gateway.paths("PATCH")) == 2


def test_what_is_refused_for_good_is_not_repeated(gateway: StandIn, make: Make, file: Path) -> None:
    gateway.only = ("PATCH", FILES)
    gateway.script[:] = ["problem:422:malformed"]
    with pytest.raises(InvalidInputError):
        make().upload(NAME, file)
    assert len(gateway.paths("PATCH")) == 1


def test_no_progress_ends_in_an_error_and_not_in_a_loop(
    gateway: StandIn, make: Make, file: Path
) -> None:
    gateway.only = ("PATCH", FILES)
    gateway.script[:] = ["409"] * 50
    with pytest.raises(UnavailableError):
        make().upload(NAME, file)
    assert len(gateway.paths("PATCH")) <= 2


def test_another_gateway_begins_at_its_own_beginning(
    authority: object, gateway: StandIn, make: Make, enrolled: Enrolled, file: Path
) -> None:
    with serving(StandIn(enrolled.authority)) as second:
        channel = make(Enrolled(enrolled.authority, gateway.address, second.address))
        gateway.only = ("PATCH", FILES)
        gateway.script[:] = ["", "500", "500"]
        with pytest.raises(UnavailableError):
            channel.upload(NAME, file)
        gateway.only = ("HEAD", FILES)
        gateway.script[:] = ["500"] * 2
        channel.upload(NAME, file)
        assert second.files[PATH.removeprefix(f"{FILES}/")] == file.read_bytes()
        assert not gateway.files


def test_parts_shrink_on_a_slow_link(gateway: StandIn, make: Make, file: Path) -> None:
    clock = Clock()

    def slow() -> float:
        clock.now += 20.0
        return clock.now

    channel = make(clock=slow)
    channel.upload(NAME, file)
    assert max(len(one.body) for one in gateway.asked if one.method == "PATCH") <= 64 << 10


def test_the_file_is_read_as_the_policy_allows(gateway: StandIn, make: Make, file: Path) -> None:
    taken: list[int] = []
    channel = make()
    channel.opened = lambda path: PacedFile(path, 10_000, taken.append)
    channel.upload(NAME, file)
    assert sum(taken) == file.stat().st_size
    assert max(taken) <= 10_000


def test_under_a_limit_of_bandwidth_parts_stay_short(
    gateway: StandIn, make: Make, file: Path
) -> None:
    clock = Clock()

    def taken(count: int) -> None:
        clock.now += count / 15_000

    channel = make(clock=clock)
    channel.opened = lambda path: PacedFile(path, 10_000, taken)
    channel.upload(NAME, file)
    assert max(len(one.body) for one in gateway.asked if one.method == "PATCH") <= 64 << 10
    assert stored(gateway) == file.read_bytes()


@pytest.mark.parametrize("at", [0, 2])
def test_a_part_that_is_taken_by_half_goes_on_from_there(
    gateway: StandIn, make: Make, file: Path, at: int
) -> None:
    gateway.only = ("PATCH", FILES)
    gateway.script[:] = [""] * at + ["short"]
    make().upload(NAME, file)
    assert stored(gateway) == file.read_bytes()


def test_a_file_that_becomes_shorter_ends_in_an_error_and_not_in_a_loop(
    gateway: StandIn, make: Make, file: Path
) -> None:
    channel, data = make(), file.read_bytes()[:100_000]
    channel.opened = lambda _: io.BytesIO(data)
    with pytest.raises(UnavailableError, match="has become shorter"):
        channel.upload(NAME, file)
    assert len(gateway.paths("PATCH")) < 5


def test_an_upload_may_be_broken_off_and_goes_on_later(
    gateway: StandIn, make: Make, file: Path
) -> None:
    class Broken(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 500_000:
                raise CancelledError("the link has become a metered one")
            return super().read(size) or b""

    def opened(path: Path) -> BinaryIO:
        return Broken(path, "rb")

    channel, plain = make(), make().opened
    channel.opened = opened
    with pytest.raises(CancelledError):
        channel.upload(NAME, file)
    before = sent(gateway)
    assert before > 0
    channel.opened = plain
    channel.upload(NAME, file)
    assert stored(gateway) == file.read_bytes()
    assert sent(gateway) == file.stat().st_size


def test_what_no_gateway_takes_is_not_sent(gateway: StandIn, make: Make, tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as stream:
        os.truncate(stream.fileno(), MAX_FILE_BYTES + 1)
    with pytest.raises(LimitExceededError):
        make().upload(NAME, path)
    assert not gateway.asked
