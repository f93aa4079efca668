"""What `optimize` gains and refuses, on real architectures and several CPUs, beside other tools.

    python -m benchmarks.optimization.run [MODEL …] [--rounds 5] [--alone] [--json FILE]

For each CPU that this one can pass for (`processors`) a child process optimizes each model,
and then runs every file on the same picture in turns. Told are ratios to the model as given of the
same round: their median over the rounds. Exits with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.optimization import peers
from benchmarks.optimization.models import MAX_ACCURACY_DROP, SUBJECTS
from benchmarks.optimization.processors import (
    AVX2,
    DUE,
    PROCESSORS,
    NotHereError,
    built,
    environment,
)
from benchmarks.serving.figures import Figure, Goal, short, table

if TYPE_CHECKING:
    from benchmarks.optimization.processors import Processor

ROOT = Path(__file__).parents[2]
GOAL_TIME = Goal(0.7)
GOAL_SIZE = Goal(0.3)
HELD = ("squeezenet", "resnet50")
"""Models that the goals are about."""
SLOWER = "shufflenet"
"""The model that int8 slows down: its own file is what must be chosen."""
LIBRARIES = ("edgefleet", "onnx", "onnxruntime", "openvino", "nncf", "numpy", "scikit-learn")
HEAD = (
    "| CPU | model | candidate | size | p50 | p99 | accuracy | verdict |\n"
    "|---|---|---|---|---|---|---|---|"
)


def rows_of(processor: str, found: dict[str, Any]) -> list[str]:
    """The lines of one child, sizes and times as ratios to the model as given."""
    base = found["rows"][0]
    lines = []
    for row in found["rows"]:
        cells = [processor, found["model"], row["candidate"]]
        if "p50_s" not in row:
            cells += [*["-"] * 4, row["why"]]
            lines.append(f"| {' | '.join(cells)} |")
            continue
        lost = base["accuracy"] - row["accuracy"]
        verdict = row["why"] or ("fails the gate" if lost > MAX_ACCURACY_DROP else "")
        if row is base:
            verdict = "chosen" if found["chosen"] == row["candidate"] else ""
            cells += [f"{row['bytes'] / 1e6:.2f} MB"]
            cells += [f"{statistics.median(row[key]) * 1e3:.3g} ms" for key in ("p50_s", "p99_s")]
        else:
            cells += [short(row["bytes"] / base["bytes"])]
            cells += [short(_ratio(row, base, key)) for key in ("p50_s", "p99_s")]
        cells += [f"{row['accuracy']:.3f}", verdict]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ratio(row: dict[str, Any], base: dict[str, Any], key: str) -> float:
    pairs: list[tuple[float, float]] = list(zip(row[key], base[key], strict=True))
    return statistics.median(ours / other for ours, other in pairs)


def figures_of(processor: Processor, found: dict[str, Any]) -> list[Figure]:
    """What the goals say of one child."""
    model, base = found["model"], found["rows"][0]
    chosen = next((r for r in found["rows"] if r["candidate"] == found["chosen"]), base)
    where = f"{model}, {processor.name}"
    if model == SLOWER:
        kept = Goal(1.0)  # a ratio of 1: the model as given, by its own time
        name = f"{where}: time of what is chosen ({found['chosen']})"
        return [Figure(name, "ms", _ms(base), _ms(chosen), kept)]
    if model not in HELD:
        return []
    time_goal = GOAL_TIME if processor == AVX2 else None
    return [
        Figure(f"{where}: time of {found['chosen']}", "ms", _ms(base), _ms(chosen), time_goal),
        Figure(
            f"{where}: size of {found['chosen']}",
            "MB",
            [base["bytes"] / 1e6],
            [chosen["bytes"] / 1e6],
            GOAL_SIZE,
        ),
        Figure(
            f"{where}: accuracy of {found['chosen']}",
            "",
            [base["accuracy"]],
            [chosen["accuracy"]],
            Goal(-MAX_ACCURACY_DROP, at_most=False),
            difference=True,
        ),
    ]


def _ms(row: dict[str, Any]) -> list[float]:
    return [seconds * 1e3 for seconds in row["p50_s"]]


def run_child(
    processor: Processor, library: Path | None, model: Path, given: Path, rounds: int
) -> dict[str, Any]:
    """What one child found.

    Raises:
        CalledProcessError: it failed; what it said is on this process's own standard error.
    """
    command = [sys.executable, "-m", "benchmarks.optimization.child", str(model), str(given)]
    done = subprocess.run(
        [*command, "--rounds", str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env=environment(processor, library),
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "began": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "load": os.getloadavg(),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", action="store_true", help="leave out what other tools make")
    parser.add_argument("--json", type=Path, help="write all that was measured")
    parser.add_argument("--markdown", type=Path, help="write the tables")
    given = parser.parse_args()
    told: dict[str, Any] = {"machine": machine(), "found": []}
    print(json.dumps(told["machine"]), flush=True)
    lines, figures = [HEAD], []
    print(HEAD)
    with tempfile.TemporaryDirectory(prefix="edgefleet-bench-") as name:
        folder = Path(name)
        library = None
        try:
            library = built(folder)
        except NotHereError as reason:
            print(f"\nonly this CPU as it is: {reason}", flush=True)
        for model in given.models or SUBJECTS:
            subject = SUBJECTS[model](folder)
            subject.save()
            others = folder / f"{model}.json"
            made = [] if given.alone else peers.made(subject, folder)
            others.write_text(json.dumps(made, default=str))
            for processor in PROCESSORS if library else PROCESSORS[:1]:
                try:
                    found = run_child(processor, library, subject.path, others, given.rounds)
                except subprocess.CalledProcessError as error:
                    if not processor.without:
                        raise
                    # A library that doesn't ask before it uses an instruction: others still count.
                    print(f"{processor.name}, {model}: not measured: {error}", flush=True)
                    continue
                label = processor.name + ("" if found["sum"] == DUE else ", 16-bit sums")
                found_lines = rows_of(label, found)
                print(*found_lines, sep="\n", flush=True)
                lines += found_lines
                figures += figures_of(processor, found)
                told["found"].append({"processor": processor.name, **found})
            subject.path.unlink()
    text = "\n".join(lines) + "\n\n" + table(figures)
    print("\n" + table(figures))
    if given.json is not None:
        given.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    if given.markdown is not None:
        given.markdown.write_text(text)
    missed = [figure.name for figure in figures if figure.reached is False]
    if missed:
        sys.exit("error: missed\n  " + "\n  ".join(missed))


if __name__ == "__main__":
    main()
