"""Uploads that a channel goes on with: what was sent before takes no more of the link."""

from __future__ import annotations

from pathlib import Path

from device_runtime.tests.support import MemoryChannel
from device_runtime.tests.sync.rig import Rig


class Resuming(MemoryChannel):
    """Its other side has the first bytes of everything."""

    paced = True

    def upload(self, name: str, path: Path) -> None:
        with self.opened(path) as stream:
            stream.seek(15_000)
            self.segments[name] = stream.read(8192)


def test_an_upload_that_goes_on_counts_what_it_sends_now(tmp_path: Path) -> None:
    channel = Resuming()
    rig = Rig(tmp_path, channel=channel)
    rig.follow(max_bytes_per_s=1000)
    rig.samples.put(bytes(20_000))
    before = rig.clock.now
    rig.turn(2)
    assert len(channel.segments) == 1
    assert rig.clock.now - before < 6
