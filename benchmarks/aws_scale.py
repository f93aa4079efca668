"""A rollout over many groups and a million devices on the mock of AWS: calls, seconds, memory.

The mock runs in this process, with devices as numbers; the operator runs in one of its own, whose
time and memory are measured. The number of calls must not depend on the number of devices.

    python benchmarks/aws_scale.py [--groups 100] [--devices 1000 10000 100000 1000000]
        [--per-second N] [--json FILE]

`--per-second` has the mock throttle CreateDeployment at that rate. Seconds are of a mock on
loopback, which does most of the work on the same machine: they say little of AWS.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.scaling.watching import DEVICES, HEAD, lost, tell, told, watch
from edgefleet.fleet import Fleet
from edgefleet.interfaces.policy import Faster, RolloutPolicy, StopAfter
from edgefleet.profile import Profile
from edgefleet.testing.cloud.rules import Rate
from edgefleet.testing.kit import samples
from edgefleet_aws.cloud.rollout import Crowd
from edgefleet_aws.mock import AwsMock

POLICY = RolloutPolicy(
    per_minute=100,
    faster=Faster(by=2, after=1000),
    stop_after=StopAfter(failed_percent=10, devices=100),
)


def operate(facts: dict[str, Any]) -> None:
    """The operator's side: plan, launch and count; a line of JSON for each, when it is done."""
    base = Path(facts["folder"])
    profile = Profile(name="bench", base=base, provider="aws", settings={"aws": facts["settings"]})
    with Fleet(profile) as fleet:
        fleet.push(samples.bundle(base, 1, size=400), "digits", progress=False)
        fleet.roll_out("digits:1", to="warm-up", progress=False)
        tell("ready", 0.0)
        start = time.perf_counter()
        plan = fleet.plan_rollout("digits:1", to="line-*", policy=POLICY, progress=True)
        tell("plan", time.perf_counter() - start)
        start = time.perf_counter()
        launch = fleet.roll_out("digits:1", to="line-*", policy=POLICY, progress=True)
        tell("launch", time.perf_counter() - start)
        deployer: Any = fleet.deployers["aws"]
        start = time.perf_counter()
        found = [deployer.progress(group.group.partition("/")[2]) for group in plan.groups]
        counted = sum(sum(one.devices.values()) for one in found)
        tell("count", time.perf_counter() - start, devices=counted, groups=len(launch.groups))


def measure(cloud: AwsMock, groups: int, devices: int, folder: Path) -> dict[str, Any]:
    """One row: a fresh fleet, its groups, and what an operator needed for them."""
    settings = {**cloud.settings, "prefix": f"b{devices}"}
    keys = {"aws_access_key_id": "mock", "aws_secret_access_key": "mock"}
    address = cloud.environment["AWS_ENDPOINT_URL"]
    iot = boto3.client("iot", region_name=settings["region"], endpoint_url=address, **keys)

    def populate(name: str, crowd: Crowd) -> None:
        made = iot.create_thing_group(thingGroupName=f"{settings['prefix']}:{name}")
        cloud.fleet.greengrass.populate(made["thingGroupArn"], crowd)

    populate("warm-up", Crowd())
    row: dict[str, Any] = {"devices": devices, "groups": groups}

    def grown() -> None:
        # Now only: a fleet's first release looks into each group for an earlier one's.
        for number in range(groups):
            populate(f"line-{number}", Crowd(devices // groups))

    watch(__file__, {"folder": str(folder), "settings": settings}, cloud, row, ready=grown)
    return row


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=100)
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES)
    parser.add_argument("--per-second", type=float)
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
            base = Path(folder) / str(devices)
            cloud = AwsMock(base / "cloud")
            cloud.start()
            try:
                if given.per_second is not None:
                    rate = Rate("greengrassv2.CreateDeployment", given.per_second, burst=5)
                    cloud.rules.limit(rate)
                rows.append(measure(cloud, given.groups, devices, base))
            finally:
                cloud.stop()
            print(told(rows[-1]), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    phases = ("plan", "count") if given.per_second is not None else ("plan", "launch", "count")
    differ = {phase for phase in phases if len({row[phase]["calls"] for row in rows}) > 1}
    missing = lost(rows)
    if differ or missing:
        sys.exit(f"error: calls depend on devices in {differ or 'nothing'}; lost in {len(missing)}")
    print("calls don't depend on the number of devices")


if __name__ == "__main__":
    main()
