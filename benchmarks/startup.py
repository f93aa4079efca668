"""What starting costs: `import edgefleet`, `edgefleet --help`, `connect()`, each over bare Python.

Every round starts all of them in turn, bare Python first, so that a difference is between
processes that ran within the same second. A first round, which compiles modules, isn't counted.

    python benchmarks/startup.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

BARE = "bare Python"
# What is started, and what it may take over bare Python in seconds.
CASES: dict[str, tuple[list[str], float]] = {
    BARE: (["-c", "pass"], 0.0),
    "import edgefleet": (["-c", "import edgefleet"], 0.100),
    "edgefleet --help": (["-c", "from edgefleet.cli import main; main()", "--help"], 0.250),
    "edgefleet.connect()": (["-c", "import edgefleet; edgefleet.connect()"], 0.500),
}


def seconds(arguments: list[str], folder: str) -> float:
    """Wall time of one Python process."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDGEFLEET_")}
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, cwd=folder, env=environment
    )
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    over: dict[str, list[float]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory(prefix="edgefleet-bench-") as folder:
        for number in range(rounds + 1):
            taken = {name: seconds(arguments, folder) for name, (arguments, _) in CASES.items()}
            if number:
                for name, found in taken.items():
                    over[name].append(found if name == BARE else found - taken[BARE])
    print(f"start-up over {BARE} ({statistics.median(over[BARE]) * 1000:.0f} ms), {rounds} rounds")
    for name, (_, goal) in CASES.items():
        if name != BARE:
            median = statistics.median(over[name])
            verdict = "" if median <= goal else "  OVER ITS GOAL"
            print(f"  {name:<20} {median * 1000:4.0f} ms, at most {goal * 1000:.0f}{verdict}")


if __name__ == "__main__":
    main()
