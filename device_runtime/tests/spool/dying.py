"""A device that puts and sends until it is killed: run as a process, with a folder and a seed.

It writes a line, ``KIND:ID``, of each event that is safe.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from device_runtime.tests.spool.rig import MIB, Device, alarm, prediction, reading, window
from edgefleet.protocol.event import EventData
from edgefleet_runtime.sync.outgoing import Segment


class Sender(Device):
    """Keeps what it uploads in a folder, and says what is safe."""

    def __init__(self, root: Path, cloud: Path, seed: int) -> None:
        self.cloud = cloud
        super().__init__(root, MIB, seed=seed)

    def upload(self, segment: Segment) -> None:
        target = self.cloud / segment.path.name
        data = segment.path.read_bytes()
        assert not target.exists() or target.read_bytes() == data, "another file of that name"
        target.write_bytes(data)


def main(root: Path, seed: int) -> None:
    device = Sender(root / "device", root / "cloud", seed)
    chance = random.Random(seed)
    for number in range(60):
        some = [prediction(chance.randrange(10), chance.random(), filler=800) for _ in range(40)]
        data: list[EventData] = [*some, reading(), window(number), alarm(str(number))]
        events = [device.event(each) for each in data]
        kept = device.put_events(events)
        safe = [event for event, is_kept in zip(events, kept, strict=True) if is_kept]
        sys.stdout.write("".join(f"{event.kind}:{event.id}\n" for event in safe))
        sys.stdout.flush()
        device.turn(20)
        if chance.random() < 0.2:
            device.send(segments=chance.randrange(3))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
