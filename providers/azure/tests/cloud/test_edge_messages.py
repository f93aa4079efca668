"""Hot events of a device, from the runtime's channel by the vendor's own client to IoT Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise

from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.iotedge.channel import MAX_MESSAGE, UNIT_BYTES
from providers.azure.tests.cloud.edge_bench import MODULE, Bench, base_of, module_of

CAM = "cam-1"
# In a process of its own, as on a device: the client leaves sockets to the end of its process.
SENDER = """
import sys
from contextlib import closing
from edgefleet.protocol.event import Alarm, new_event
from edgefleet_runtime.channels.iotedge.channel import IotEdgeChannel

events = [
    new_event(Alarm(rule=f"rule-{number}", message="x" * int(size)))
    for number, size in enumerate(sys.argv[2:])
]
with closing(IotEdgeChannel.from_options({}, device=sys.argv[1])) as channel:
    channel.send_hot(events)
"""


def send(bench: Bench, *sizes: int) -> None:
    """Have a device's module send alarms of these sizes, in one go; no runtime runs there."""
    bench.deploy("base", base_of(module_of(status="stopped")), priority=1)
    bench.add(CAM, upload=False)
    bench.site.settle(CAM)
    environment = {**os.environ, **bench.site.device(CAM).environment(MODULE)}
    command = [sys.executable, "-c", SENDER, CAM, *map(str, sizes)]
    subprocess.run(command, env=environment, check=True)


def rules(bench: Bench) -> list[str]:
    """What the alarms that reached IoT Hub are about."""
    arrived = (event for message in bench.messages for event in json.loads(message.body)["events"])
    return [event["data"]["rule"] for event in arrived]


def test_hot_events_fill_messages_of_the_size_that_iot_hub_bills(bench: Bench) -> None:
    send(bench, *[200] * 800)
    eventually(lambda: len(rules(bench)) == 800)
    assert rules(bench) == [f"rule-{number}" for number in range(800)]
    sizes = [len(message.body) for message in bench.messages]
    assert max(sizes) <= MAX_MESSAGE
    assert all(one + other > MAX_MESSAGE for one, other in pairwise(sizes))
    units = sum(-(-size // UNIT_BYTES) for size in sizes)
    assert units <= -(-sum(sizes) // UNIT_BYTES) + len(sizes) - 1


def test_a_hot_event_that_no_message_holds_keeps_no_other_waiting(bench: Bench) -> None:
    send(bench, MAX_MESSAGE, 1)
    eventually(lambda: rules(bench))
    assert rules(bench) == ["rule-1"]
