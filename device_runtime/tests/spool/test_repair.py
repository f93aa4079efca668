"""What a repair finds besides damaged pages: counts, texts and files that can't be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from device_runtime.tests.spool.rig import MIB, Device, alarm, prediction
from edgefleet.errors import IntegrityError
from edgefleet_runtime.sync.outgoing import Segment


def test_no_segments_name_is_given_twice_whatever_a_repair_lost(tmp_path: Path) -> None:
    device = Device(tmp_path)
    names: list[str] = []
    upload: Callable[[Segment], None] = device.upload

    def noted(segment: Segment) -> None:
        names.append(segment.name)
        upload(segment)

    device.upload = noted  # type: ignore[method-assign]
    for count in (10, 9, 8):
        device.put(*(prediction() for _ in range(count)))
        device.drain()
        device.store.trouble(IntegrityError("a page that was empty"))
        device.outgoing.recover()
        device.killed()
    assert len(names) == 6
    assert len(set(names)) == 6
    assert device.arrived("prediction") == 27


def test_an_id_that_was_told_means_no_other_event_after_a_repair(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.put(*(alarm(str(n)) for n in range(3)))
    on_the_way = [number for number, _ in device.outgoing.hot(10, MIB)]
    assert device.store.database is not None
    device.store.database.read.execute("DELETE FROM at_alarms_0")
    device.store.database.read.execute("DELETE FROM meta")
    device.store.trouble(IntegrityError("a page of alarms"))
    device.put(*(alarm(f"later {n}") for n in range(3)))
    device.outgoing.hot_sent(on_the_way)
    assert len(device.send_hot()) == 3
