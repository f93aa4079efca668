"""Cuts the power of a device at 1,000 random points of what it does.

In turn: between an old release and a new one beside it; where the old one has to be unloaded first;
where the new one breaks its budget and is taken back; while a further variant is tried; while an
engine is built.

    python benchmarks/kill.py [--kills N] [--seed TEXT]

After each cut, what is on the disk must start as the old release or the new one, as a whole and
without any source; every blob must be what its name says; and with the source back it must come to
the new one. The first that does not ends this with its log and exit code 1. Tests of every change
do 50.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from device_runtime.tests.node.cuts import GoingBack, Template, Unloading, cuts
from device_runtime.tests.node.improving import Building, Trying

PROGRESS = 100  # kills between two lines
KINDS = (Template, Unloading, GoingBack, Trying, Building)


def main() -> None:
    """Cut and check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", default="edgefleet")
    arguments = parser.parse_args()
    seed = random.Random(arguments.seed)  # noqa: S311 - the same cuts for the same seed
    start = time.monotonic()
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="edgefleet-kill-") as folder:
        number = 0
        for place, kind in enumerate(KINDS):
            root = Path(folder, kind.__name__)
            template = kind(root / "template")
            share = arguments.kills * (place + 1) // len(KINDS) - number
            for cut in cuts(template, root, seed, share):
                template.check(cut.device)
                number += 1
                seen[f"{kind.__name__}, {'at the end' if cut.converged else 'on the way'}"] += 1
                if number % PROGRESS == 0 or number == arguments.kills:
                    told = "; ".join(f"{when}: {count}" for when, count in sorted(seen.items()))
                    print(f"{number} kills, {time.monotonic() - start:.0f} s. {told}", flush=True)
    print("every one left the old release or the new one, whole, and converged")


if __name__ == "__main__":
    main()
