"""Runs every benchmark, one after the other, each in a process of its own, and sums them up.

    python benchmarks/run.py [NAME …] [--output DIR]

A benchmark is a script of this folder, or ``run`` of a package in it. What each prints, and the
figures of those that write them, are kept in the output folder. Exits with 1 when one of them fails
or misses a goal; the others run all the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
# Those that write what they measured, and how they are told where.
WRITES = {
    "serving": ("--json", "serving.json", "--markdown", "serving.md"),
    "optimization": ("--json", "optimization.json", "--markdown", "optimization.md"),
    "soak": ("--json", "soak.json"),
    "aws_scale": ("--json", "aws_scale.json"),
    "azure_scale": ("--json", "azure_scale.json"),
    "gateway": ("--json", "gateway.json"),
    "kill": ("--json", "kill.json"),
    "fuzzing": ("--json", "fuzzing.json"),
    "vessel": ("--json", "vessel.json", "--markdown", "vessel.md"),
    "alarm_latency": ("--json", "alarm_latency.json"),
}


class Ended(NamedTuple):
    """How a benchmark ended."""

    name: str
    code: int
    minutes: float
    last: str


def found() -> dict[str, list[str]]:
    """Every benchmark, and what Python is to run for it."""
    scripts = {path.stem: [str(path)] for path in FOLDER.glob("*.py") if path.name != "run.py"}
    packages = {
        path.parent.name: ["-m", f"benchmarks.{path.parent.name}.run"]
        for path in FOLDER.glob("*/run.py")
    }
    return dict(sorted({**scripts, **packages}.items()))


def run(name: str, arguments: list[str], output: Path) -> Ended:
    """Run one, showing and keeping what it prints."""
    writes = [
        word if word.startswith("--") else str(output / word) for word in WRITES.get(name, ())
    ]
    for word in writes:
        if not word.startswith("--"):
            Path(word).unlink(missing_ok=True)  # or kills would go on where the last run ended
    began = time.monotonic()
    last = ""
    with (
        (output / f"{name}.log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-u", *arguments, *writes],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line)
            last = line.strip() or last
    return Ended(name, process.returncode, (time.monotonic() - began) / 60, last)


def main() -> None:
    """Run them."""
    benchmarks = found()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(benchmarks)}")
    parser.add_argument(
        "--output", type=Path, default=FOLDER / "out", help="(default: %(default)s)"
    )
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in benchmarks]
    if unknown:
        sys.exit(f"error: no benchmark {unknown[0]!r}\n  cure: one of {', '.join(benchmarks)}")
    output: Path = given.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    ended = []
    for name in given.names or benchmarks:
        print(f"== {name}", flush=True)
        ended.append(run(name, benchmarks[name], output))
    lines = ["| benchmark | | minutes | its last line |", "|---|---|---|---|"]
    for one in ended:
        verdict = "failed" if one.code else "ok"
        lines.append(f"| {one.name} | {verdict} | {one.minutes:.1f} | {one.last[:100]} |")
    summary = "\n".join(lines) + "\n"
    (output / "summary.md").write_text(summary)
    print(f"\n{summary}\nmore in {output}")
    if any(one.code for one in ended):
        sys.exit(1)


if __name__ == "__main__":
    main()
