"""Cuts the power of a device at 1,000 random points of what it does.

In turn: between an old release and a new one beside it; where the old one has to be unloaded first;
where the new one breaks its budget and is taken back; while a further variant is tried; while an
engine is built.

    python benchmarks/kill.py [--kills N] [--seed TEXT] [--json FILE]

After each cut, what is on the disk must start as the old release or the new one, as a whole and
without any source; every blob must be what its name says; and with the source back it must come to
the new one. The first that does not ends this with its log and exit code 1. Tests of every change
do 50.

With a file, each hundred is added to it, and a later call with the same seed goes on where the last
one ended.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from device_runtime.tests.node.cuts import GoingBack, Template, Unloading, cuts
from device_runtime.tests.node.improving import Building, Trying

PART = 20  # kills of one kind in a row
KINDS = (Template, Unloading, GoingBack, Trying, Building)


class Part(NamedTuple):
    """Some kills of one kind, and how many of them came after the end of what went on."""

    kills: int
    at_the_end: int
    took_s: float


def main() -> None:
    """Cut and check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", default="edgefleet")
    parser.add_argument("--json", type=Path, help="add what was seen here, and go on from there")
    given = parser.parse_args()
    done = read(given.json, given.seed)
    with tempfile.TemporaryDirectory(prefix="edgefleet-kill-") as folder:
        templates = {kind.__name__: kind(Path(folder, kind.__name__)) for kind in KINDS}
        while (number := sum(part.kills for part in done)) < given.kills:
            # A seed of its own for each part, so that a later call needn't repeat this one's.
            seed = random.Random(f"{given.seed} {number}")  # noqa: S311 - the same cuts again
            name = KINDS[len(done) % len(KINDS)].__name__
            count = min(PART, given.kills - number)
            done.append(killed(templates[name], Path(folder, str(number)), seed, count))
            if given.json is not None:
                told = {"seed": given.seed, "parts": [part._asdict() for part in done]}
                given.json.write_text(json.dumps(told, indent=2) + "\n")
            ends = sum(part.at_the_end for part in done)
            print(
                f"{number + count} kills, {ends} after the end of what went on; the last {count}, "
                f"{name}: {done[-1].took_s:.0f} s",
                flush=True,
            )
    print("every one left the old release or the new one, whole, and converged")


def killed(template: Template, folder: Path, seed: random.Random, count: int) -> Part:
    """So many cuts, each checked."""
    began = time.monotonic()
    ends = 0
    for cut in cuts(template, folder, seed, count):
        template.check(cut.device)
        ends += cut.converged
    return Part(count, ends, time.monotonic() - began)


def read(path: Path | None, seed: str) -> list[Part]:
    """What earlier calls did with this seed."""
    if path is None or not path.exists():
        return []
    told = json.loads(path.read_bytes())
    if told["seed"] != seed:
        sys.exit(
            f"error: {path} is of the seed {told['seed']!r}\n  cure: another file, or its seed"
        )
    return [Part(**part) for part in told["parts"]]


if __name__ == "__main__":
    main()
