"""Pointers for many groups and a million devices on the mock of Azure: calls, seconds, memory.

The mock runs in this process, with devices as numbers; the operator runs in one of its own, whose
time and memory are measured. The number of calls must not depend on the number of devices.

    python benchmarks/azure_scale.py [--groups 98] [--hubs 2]
        [--devices 1000 10000 100000 1000000] [--units N] [--json FILE]

A hub holds 49 groups. `--units` has each hub throttle as an S1 hub of so many units does. Seconds
are of a mock on loopback, which does most of the work on the same machine: they say little of
Azure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edgefleet.testing.kit import samples
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.hub_values import Identity
from edgefleet_azure.deployer import IotEdgeDeployer
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.state import BlobStateStore

DEVICES = (1_000, 10_000, 100_000, 1_000_000)
HEAD = (
    "| devices | groups | calls: plan | launch | count | launch, s | groups/s | peak memory, MB |"
)
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
        _tell("ready", 0.0)
        start = time.perf_counter()
        for name in names:
            deployer.render(name, samples.pointer(2))
        _tell("plan", time.perf_counter() - start)
        start = time.perf_counter()
        for name in names:
            deployer.publish(name, samples.pointer(2))
        _tell("launch", time.perf_counter() - start)
        start = time.perf_counter()
        found = [deployer.progress(name) for name in names]
        counted = sum(sum(one.devices.values()) for one in found if one is not None)
        _tell("count", time.perf_counter() - start, devices=counted)
    finally:
        deployer.close()


def _tell(phase: str, seconds: float, **more: int) -> None:
    # Not ru_maxrss: that begins with what the process weighed that this one was forked from.
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    peak = int(line) * 1024
    print(json.dumps({"phase": phase, "seconds": seconds, "peak_bytes": peak, **more}), flush=True)
    sys.stdin.readline()  # until the calls of this phase were counted


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
    with subprocess.Popen(
        [sys.executable, __file__, "--operate", json.dumps({"settings": settings})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **cloud.environment},
    ) as operator:
        assert operator.stdin is not None
        assert operator.stdout is not None
        before = list(cloud.seen())
        for line in operator.stdout:
            said = json.loads(line)
            seen = list(cloud.seen())
            new = seen[len(before) :]
            # Groups are listed anew after some seconds, so how many queries there are is chance.
            fixed = sum("Query_GetTwins" not in one for one in new)
            row[said["phase"]] = {"calls": len(new), "fixed": fixed, "seconds": said["seconds"]}
            before = seen
            row["peak_bytes"] = said["peak_bytes"]
            row["counted"] = said.get("devices")
            operator.stdin.write("\n")
            operator.stdin.flush()
    if operator.returncode:
        sys.exit(f"error: the operator ended with {operator.returncode}")
    return row


def told(row: dict[str, Any]) -> str:
    """A row of the table."""
    rate = row["groups"] / row["launch"]["seconds"]
    cells = (
        f"{row['devices']:,}", row["groups"], row["plan"]["calls"], row["launch"]["calls"],
        row["count"]["calls"], f"{row['launch']['seconds']:.1f}", f"{rate:.1f}",
        f"{row['peak_bytes'] / 1e6:.0f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


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
    print(HEAD + "\n" + "|---" * 8 + "|", flush=True)
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
    differ = {phase for phase in phases if len({row[phase]["fixed"] for row in rows}) > 1}
    lost = [row for row in rows if row["counted"] != row["devices"] // given.groups * given.groups]
    if differ or lost:
        sys.exit(f"error: calls depend on devices in {differ or 'nothing'}; lost in {len(lost)}")
    print("calls don't depend on the number of devices")


if __name__ == "__main__":
    main()
