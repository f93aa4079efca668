"""Pointers for many groups and a million devices on the mock of Azure: calls, seconds, memory.

The mock runs in this process, with devices as numbers; the operator runs in one of its own, whose
time and memory are measured. The number of calls must not depend on the number of devices; only
the listings of groups, which are good for ten seconds, depend on how long a phase takes.

    python benchmarks/azure_scale.py [--groups 98] [--hubs 2]
        [--devices 1000 10000 100000 1000000] [--units N] [--json FILE]

A hub holds 49 groups. `--units` has each hub throttle as an S1 hub of so many units does. Seconds
are of a mock on loopback, which does most of the work on the same machine: they say little of
Azure.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.scaling.watching import DEVICES, HEAD, lost, tell, told, watch
from edgefleet.testing.kit import samples
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.hub_values import Identity
from edgefleet_azure.deployer import IotEdgeDeployer
from edgefleet_azure.groups import LISTING_S
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.state import BlobStateStore

PREFIX = "bench"


def operate(facts: dict[str, Any]) -> None:
    """The operator's side: plan, launch and count; a line of JSON for each, when it is done."""
    settings = AzureSettings(**facts["settings"])
    clients = Clients(settings)
    clients.container("state").create_container()
    store = BlobStateStore(clients, settings)
    deployer = IotEdgeDeployer(clients, settings, state=lambda: store)
    try:
        names = [group.name for group in deployer.groups()]
        for name in names:  # a fleet's first release makes the base deployment as well
            deployer.publish(name, samples.pointer(1))
        tell("ready", 0.0)
        start = time.perf_counter()
        for name in names:
            deployer.render(name, samples.pointer(2))
        tell("plan", time.perf_counter() - start)
        start = time.perf_counter()
        for name in names:
            deployer.publish(name, samples.pointer(2))
        tell("launch", time.perf_counter() - start)
        start = time.perf_counter()
        found = [deployer.progress(name) for name in names]
        counted = sum(sum(one.devices.values()) for one in found if one is not None)
        tell("count", time.perf_counter() - start, devices=counted)
    finally:
        deployer.close()


def populate(cloud: AzureMock, groups: int, devices: int) -> None:
    """Give each hub its groups, each with one twin that stands for many."""
    hubs = list(cloud.stage.iot_hubs.values())
    for number in range(groups):
        state = hubs[number % len(hubs)].state
        name = f"crowd-{number}"
        state.add(Identity(name, None, {"type": "none"}, edge=True, count=devices // groups))
        tags = {"edgefleet": {"fleet": PREFIX, "group": f"line-{number}"}}
        state.change_twin(name, None, tags=tags, desired=None, replace=False)


def measure(cloud: AzureMock, groups: int, devices: int) -> dict[str, Any]:
    """One row: a fresh fleet, its groups, and what an operator needed for them."""
    populate(cloud, groups, devices)
    settings = {**cloud.settings, "prefix": PREFIX, "runtime_image": "example.com/runtime:1"}
    row: dict[str, Any] = {"devices": devices, "groups": groups}
    watch(__file__, {"settings": settings}, cloud, row)
    return row


def _alike(rows: list[dict[str, Any]], hubs: int) -> bool:
    """Whether a phase took the same calls in all rows, but for listings.

    Groups are listed anew when a listing has grown old, one query a hub: how often, is a matter of
    seconds, and of nothing else.
    """
    listings = hubs * (1 + math.ceil(max(row["seconds"] for row in rows) / LISTING_S))
    queries = [row["queries"] for row in rows]
    others = {row["calls"] - row["queries"] for row in rows}
    return len(others) == 1 and max(queries) - min(queries) <= listings


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=98)
    parser.add_argument("--hubs", type=int, default=2)
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES)
    parser.add_argument("--units", type=int)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--operate", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.operate is not None:
        operate(given.operate)
        return
    rows = []
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="edgefleet-scale-") as folder:
        for devices in given.devices:
            cloud = AzureMock(Path(folder) / str(devices), hubs=given.hubs)
            cloud.start()
            try:
                for hub in cloud.stage.iot_hubs.values():
                    hub.throttle.units = given.units or hub.throttle.units
                rows.append(measure(cloud, given.groups, devices))
            finally:
                cloud.stop()
            print(told(rows[-1]), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    phases = ("plan", "launch", "count") if given.units is None else ()
    differ = {phase for phase in phases if not _alike([row[phase] for row in rows], given.hubs)}
    missing = lost(rows)
    if differ or missing:
        sys.exit(f"error: calls depend on devices in {differ or 'nothing'}; lost in {len(missing)}")
    print("calls don't depend on the number of devices")


if __name__ == "__main__":
    main()
