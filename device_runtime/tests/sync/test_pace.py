from __future__ import annotations

from pathlib import Path

import pytest

from device_runtime.tests.support import Clock
from edgefleet.errors import CancelledError
from edgefleet_runtime.sync.pace import Pace


class Bench:
    def __init__(self, root: Path, size: int = 100_000) -> None:
        self.clock, self.refusal = Clock(), ""
        self.pauses: list[float] = []
        self.path = root / "file"
        self.path.write_bytes(bytes(size))
        self.pace = Pace(self.clock, self._pause, lambda: self.refusal or None)

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds

    def read(self) -> int:
        count = 0
        with self.pace.open(self.path) as stream:
            while data := stream.read(8192):
                count += len(data)
        return count


def test_a_file_takes_as_long_as_the_limit_says(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.pace.limit(10_000)
    before = bench.clock.now
    assert bench.read() == 100_000
    assert bench.clock.now - before == pytest.approx(10.0)
    assert bench.pace.taken == 100_000


def test_without_a_limit_nothing_pauses(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.read()
    bench.pace.limit(10_000)
    bench.pace.limit(None)
    bench.read()
    assert bench.pauses == []


def test_the_same_limit_again_forgives_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 50_000)
    before = bench.clock.now
    for _ in range(2):
        bench.pace.limit(10_000)
        bench.read()
    assert bench.clock.now - before == pytest.approx(10.0)


def test_pieces_of_a_slow_link_are_small_enough_for_servers_that_wait_for_the_next(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, 5000)
    bench.pace.limit(100)
    with bench.pace.open(bench.path) as stream:
        stream.read(8192)
        assert sum(bench.pauses) <= 11


def test_a_long_pause_is_broken_off_soon(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.pace.limit(100)
    with bench.pace.open(bench.path) as stream:
        stream.read(8192)
        bench.refusal = "the link has become a metered one"
        before = bench.clock.now
        with pytest.raises(CancelledError, match="metered"):
            stream.read(8192)
    assert bench.clock.now - before <= 1.0


def test_the_whole_file_is_read_by_pieces_when_asked_for_all(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 3000)
    with bench.pace.open(bench.path) as stream:
        assert len(stream.read()) == 3000
        assert stream.read() == b""
