"""Fills the goals' table of serving on this machine.

    python -m benchmarks.serving.run [--rounds N] [--only GROUP …] [--peers [DIR]]
                                     [--json OUT] [--markdown OUT]

At the root of the tree, on a machine that does nothing else; needs h2load. What is compared runs at
the same time and is asked in turn, so that what else the machine does falls on each alike. A group
that fails is named at the end and doesn't stop the others. Exits with 1 if one failed or a goal was
missed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.serving import heavy, installed, load, peers, process, small, swap
from benchmarks.serving.bench import Bench
from benchmarks.serving.figures import Figure, table
from benchmarks.serving.raw import CORES

if TYPE_CHECKING:
    from collections.abc import Callable

GROUPS: dict[str, Callable[[Bench], list[Figure]]] = {
    "rest": small.rest,
    "grpc": small.grpc,
    "squeezenet": heavy.squeezenet,
    "resnet50": heavy.resnet,
    "in-process": process.in_process,
    "footprint": process.footprint,
    "swap": swap.swap,
    "installed": installed.installed,
}
LIBRARIES = ("onnxruntime", "numpy", "uvloop", "httptools", "grpcio", "protobuf")


def options() -> argparse.ArgumentParser:
    """What may be asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="(default: %(default)s)")
    parser.add_argument(
        "--requests", type=int, default=4000, help="of one client in a round (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=[*GROUPS], metavar="GROUP",
                        help=f"of {', '.join(GROUPS)}")  # fmt: skip
    parser.add_argument("--peers", type=Path, nargs="?", const=peers.FOLDER, metavar="DIR",
                        help="the servers in DIR as well, where `benchmarks.serving.peers "
                        "install` put them (default: %(const)s)")  # fmt: skip
    parser.add_argument("--json", type=Path, help="write all that was measured here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    return parser


def main() -> None:
    """Measure, print, write."""
    given = options().parse_args()
    if load.H2LOAD is None:
        sys.exit("error: h2load is missing\n  cure: apt install nghttp2-client")
    # As Ctrl-C does: blocks end, and with them every process.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    told: dict[str, Any] = {"machine": machine(given.peers), "rounds": given.rounds}
    figures: list[Figure] = []
    failed: dict[str, str] = {}
    for group in given.only:
        began = time.monotonic()
        try:
            # A folder with a short name: a Unix socket's path has 107 characters.
            with tempfile.TemporaryDirectory(prefix="ef") as name:
                bench = Bench(Path(name), given.rounds, given.requests, given.peers)
                found = GROUPS[group](bench)
        except Exception as error:  # noqa: BLE001 - the other groups are wanted all the same
            traceback.print_exc()
            failed[group] = f"{type(error).__name__}: {error}"[:500]
            found = []
        figures += found
        took = time.monotonic() - began
        print(
            f"== {group}: {took:.0f} s", *(figure.told() for figure in found), sep="\n", flush=True
        )
        told |= {"figures": [figure.plain() for figure in figures], "failed": failed}
        told["machine"]["load at the end"] = os.getloadavg()
        if given.json is not None:
            given.json.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        if given.markdown is not None:
            given.markdown.write_text(table(figures))
    print("\n" + table(figures))
    missed = [figure.name for figure in figures if figure.reached is False]
    if failed or missed:
        sys.exit("error: " + "\n  ".join([*(f"{k}: {v}" for k, v in failed.items()), *missed]))


def machine(peers_folder: Path | None) -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": CORES,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "peers": {} if peers_folder is None else peers.installed(peers_folder),
        "began": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "load at the start": os.getloadavg(),
    }


if __name__ == "__main__":
    main()
