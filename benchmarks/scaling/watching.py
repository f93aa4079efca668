"""How the benchmarks of growing fleets watch an operator: calls, seconds and memory by phase.

The mock cloud and its devices are in the process that watches; the operator is in one of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet.testing.mock import MockCloud

DEVICES = (1_000, 10_000, 100_000, 1_000_000)
HEAD = (
    "| devices | groups | calls: plan | launch | count | launch, s | groups/s | peak memory, MB |\n"
    + "|---" * 8
    + "|"
)


def tell(phase: str, seconds: float, **more: int) -> None:
    """Say, as the operator, that a phase is done, and wait until its calls were counted."""
    # Not ru_maxrss: that begins with what the process weighed that this one was forked from.
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    peak = int(line) * 1024
    print(json.dumps({"phase": phase, "seconds": seconds, "peak_bytes": peak, **more}), flush=True)
    sys.stdin.readline()


def watch(
    script: str,
    facts: Mapping[str, Any],
    cloud: MockCloud,
    row: dict[str, Any],
    ready: Callable[[], object] | None = None,
) -> None:
    """Run a script's operator to its end, and note each phase.

    Args:
        script: file of the benchmark, which is given ``--operate`` with the facts as JSON.
        facts: for the operator.
        cloud: that it works on.
        row: gets calls, how many of them were twin or fleet queries, and seconds of each phase,
            the operator's peak memory in bytes, and how many devices it counted.
        ready: called when the operator said that it is ready.
    """
    with subprocess.Popen(
        [sys.executable, script, "--operate", json.dumps(facts)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **cloud.environment},
    ) as operator:
        assert operator.stdin is not None
        assert operator.stdout is not None
        before = sum(1 for _ in cloud.seen())
        for line in operator.stdout:
            said = json.loads(line)
            if said["phase"] == "ready" and ready is not None:
                ready()
            seen = list(cloud.seen())
            new = seen[before:]
            before = len(seen)
            row[said["phase"]] = {
                "calls": len(new),
                "queries": sum("Query_" in one for one in new),
                "seconds": said["seconds"],
            }
            row["peak_bytes"] = said["peak_bytes"]
            row["counted"] = said.get("devices")
            operator.stdin.write("\n")
            operator.stdin.flush()
    if operator.returncode:
        sys.exit(f"error: the operator ended with {operator.returncode}")


def told(row: Mapping[str, Any]) -> str:
    """A row of the table."""
    rate = row["groups"] / row["launch"]["seconds"]
    cells = (
        f"{row['devices']:,}", row["groups"], row["plan"]["calls"], row["launch"]["calls"],
        row["count"]["calls"], f"{row['launch']['seconds']:.1f}", f"{rate:.1f}",
        f"{row['peak_bytes'] / 1e6:.0f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def lost(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in which the operator didn't count every device."""
    return [
        row for row in rows if row["counted"] != row["devices"] // row["groups"] * row["groups"]
    ]
