"""Optimizes one model in this process and measures what came of it beside others' files.

    python -m benchmarks.optimization.child MODEL.onnx PEERS.json [--rounds 5] [--budget 0.5]

Prints one JSON document. What the process sees of the CPU is its parent's to decide.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.optimization import peers
from benchmarks.optimization.models import MAX_ACCURACY_DROP, MAX_DROP, Subject
from benchmarks.optimization.processors import saturated_sum
from edgefleet.optimization import optimize
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.samples import calibration_samples
from edgefleet.optimization.session import compare_latency
from edgefleet.optimization.sessions import session_of
from edgefleet.protocol.target import HardwareTarget, find_target

if TYPE_CHECKING:
    from edgefleet.optimization.session import Session

Files = dict[str, tuple[Path | None, str, str]]
"""Name -> path, engine, and what is to be said of it."""

HERE = "x86-cpu"
# Another architecture: what passes the gate is in the bundle for it, however slow it is here.
ELSEWHERE = HardwareTarget(
    name="elsewhere", about="", arch="aarch64", precisions=("int8", "fp32"), status="untested"
)


def measured(subject: Subject, given: list[peers.Peer], *, rounds: int, budget_s: float) -> Any:  # noqa: ANN401 - plain data
    """What `optimize` found, and times of every file in paired rounds."""
    with tempfile.TemporaryDirectory(prefix="edgefleet-bench-") as folder:
        bundle = optimize(
            subject.path,
            targets=[find_target(HERE), ELSEWHERE],
            calibration=subject.calibration,
            evaluate=subject.accuracy,
            max_accuracy_drop=MAX_DROP.get(subject.name, MAX_ACCURACY_DROP),
            name=subject.name,
            output=Path(folder) / "bundle",
            progress=False,
        )
        chosen, elsewhere = (row.variant for row in bundle.report.targets)
        files: Files = {"fp32": (subject.path, peers.ONNX, "")}
        if elsewhere not in {None, "fp32"}:
            row = bundle.report.row(str(elsewhere))
            path = bundle.materialize(row.variant, Path(folder) / "variant")
            files[row.variant] = (path, peers.ONNX, "chosen" if chosen == row.variant else row.why)
            files[f"{row.variant} in OpenVINO"] = (path, peers.OPENVINO, "")
        files |= {peer.name: (peer.path, peer.engine, peer.why) for peer in given}
        rows = _measured(subject, files, rounds, budget_s)
    return {
        "model": subject.name,
        "sum": saturated_sum(),
        "chosen": chosen,
        "rows": rows,
        "report": str(bundle.report),
    }


def _measured(
    subject: Subject,
    files: Files,
    rounds: int,
    budget_s: float,
) -> list[dict[str, Any]]:
    interface = inspect(subject.path).interface
    feed = calibration_samples(subject.calibration, interface).smallest(0)
    sessions: dict[str, Session] = {}
    rows = []
    for name, (path, engine, why) in files.items():
        row: dict[str, Any] = {"candidate": name, "why": why}
        rows.append(row)
        if path is None:
            continue
        try:
            session = session_of(engine)(path, interface)
            row |= {"accuracy": subject.accuracy(session.predict), "bytes": peers.size(path)}
        except Exception as error:  # noqa: BLE001 - a plain call may make what no engine runs
            row["why"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:120]
            continue
        sessions[name] = session
        row |= {"p50_s": [], "p99_s": []}
    for _ in range(rounds):
        found = compare_latency(sessions, feed, budget_s=budget_s)
        for row in rows:
            if row["candidate"] in found:
                row["p50_s"].append(found[row["candidate"]].p50_s)
                row["p99_s"].append(found[row["candidate"]].p99_s)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("peers", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=0.5, help="seconds a file and round")
    given = parser.parse_args()
    others = [
        peers.Peer(name, engine, None if path is None else Path(path), why)
        for name, engine, path, why in json.loads(given.peers.read_text())
    ]
    subject = Subject.load(given.model)
    print(json.dumps(measured(subject, others, rounds=given.rounds, budget_s=given.budget)))


if __name__ == "__main__":
    main()
