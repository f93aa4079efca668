"""What thousands of polling devices cost a gateway: processor, memory, and how long a poll takes.

    python benchmarks/gateway.py [--devices 100 1000 10000] [--seconds N] [--settle N]
        [--round-robin] [--json FILE]

For each number of devices, `edgefleet gateway serve` runs before a fleet in a temporary folder, and
the devices, in another process, speak the protocol with it: TLS, with a certificate each of the
fleet's authority, a poll for the pointer each minute, a report now and then. Three ways in turns:

    poll       a device keeps its connection for a minute, then resumes its session, as the channel
               of the runtime does; so about half the polls come over a new connection
    reconnect  each poll over a new connection, with the session resumed
    wait       long polls, each of fifty seconds; at the end every group is given a pointer

"of a core" is the processor time of the gateway's whole process over the time of the window. With
``--round-robin`` both processes run at a real-time priority (``chrt``, as root), so that others on
the machine don't count. Exits with 1 where a poll of 10,000 devices costs half a core or more, or
where any request fails.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.pulling.devices import VARIANTS, simulate
from benchmarks.pulling.fleet import BenchFleet
from edgefleet_gateway.commands import SPARE_FILES

if TYPE_CHECKING:
    from collections.abc import Sequence

DEVICES = (100, 1_000, 10_000)
GOAL_DEVICES, GOAL_CORE = 10_000, 0.5
BELIEVED_S = 300.0  # after which a gateway has begun to read devices' records anew
SWITCH_S = 75.0  # until every device has taken up another way to ask: a pause, or a wait
NEWS_S = 60.0
ROUND_ROBIN = ("chrt", "--rr", "10")
HEAD = (
    "| devices | way | of a core | polls/s | p50, ms | p99, ms | gateway's memory, MB "
    "| connections/s | resumed |\n" + "|---" * 9 + "|"
)


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, nargs="+", default=DEVICES)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each window")
    parser.add_argument(
        "--settle", type=float, default=BELIEVED_S, help="seconds before the first window"
    )
    parser.add_argument("--poll-s", type=float, default=60.0, help="between two polls of a device")
    parser.add_argument("--report-s", type=float, default=900.0, help="between two reports of it")
    parser.add_argument("--per-s", type=float, default=150.0, help="devices that come a second")
    parser.add_argument("--ways", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--round-robin", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--simulate", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.simulate is not None:
        simulate(json.loads(given.simulate.read_text(encoding="utf-8")))
        return
    allowed = _raise_files()
    most = allowed - SPARE_FILES
    print(f"open files of a process: {allowed}, so at most {most} devices", flush=True)
    if max(given.devices) > most:
        sys.exit(f"error: {max(given.devices)} devices need more\n  cure: raise ulimit -Hn")
    print(HEAD, flush=True)
    rows: list[dict[str, Any]] = []
    for count in given.devices:
        with tempfile.TemporaryDirectory(prefix="edgefleet-gateway-") as folder:
            rows += measure(Path(folder) / "fleet", count, given)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    _judge(rows)


def measure(folder: Path, count: int, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one number of devices."""
    before = ROUND_ROBIN if given.round_robin else ()
    fleet = BenchFleet(folder, poll_s=given.poll_s)
    try:
        fleet.publish()
        files = fleet.join(count)
        with fleet.gateway(before) as pid:
            facts = {
                "port": fleet.port,
                "pid": pid,
                "poll_s": given.poll_s,
                "report_s": given.report_s,
                "authorities": fleet.authorities,
                "devices": files,
            }
            with _Simulator(folder / "facts.json", facts, before) as simulator:
                return _windows(fleet, simulator, count, given)
    finally:
        fleet.close()


def _windows(
    fleet: BenchFleet, simulator: _Simulator, count: int, given: argparse.Namespace
) -> list[dict[str, Any]]:
    came = simulator.ask(do="come", per_s=given.per_s)
    print(f"{count} came: {came['core_s'] / count * 1000:.2f} ms of a core each", flush=True)
    rows: list[dict[str, Any]] = []
    for way in given.ways:
        pause = SWITCH_S * given.poll_s / 60 if rows else given.settle
        simulator.ask(do="be", variant=way, seconds=pause)
        row = {"devices": count, **simulator.ask(do="measure", seconds=given.seconds)}
        row["came_ms"] = came["core_s"] / count * 1000
        row["failed"] += came["failed"]
        rows.append(row)
        print(told(row), flush=True)
        if way == "wait":
            fleet.publish()
            row |= simulator.ask(do="news", seconds=NEWS_S)
            print(
                f"{row['told']} of {count} were told of a pointer: half within "
                f"{row['news_p50_s'] or 0:.2f} s, the last after {row['news_last_s'] or 0:.2f} s",
                flush=True,
            )
    return rows


def told(row: dict[str, Any]) -> str:
    """A row as a line of the table."""
    waits = row["variant"] == "wait"
    took = ("", "") if waits else (f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}")
    cells = (
        f"{row['devices']:,}",
        row["variant"],
        f"{row['core']:.3f}",
        f"{row['polls_per_s']:.1f}",
        *took,
        f"{row['memory_bytes'] / 1e6:.0f}",
        f"{row['connect'] / row['seconds']:.1f}",
        f"{row['resume'] / row['connect']:.0%}" if row["connect"] else "",
    )
    return f"| {' | '.join(cells)} |"


def _judge(rows: list[dict[str, Any]]) -> None:
    failed = sum(row["failed"] for row in rows)
    deaf = [row for row in rows if row.get("told", row["devices"]) < row["devices"]]
    if failed or deaf:
        sys.exit(f"error: {failed} requests failed; {len(deaf)} times not all heard the news")
    goal = [r for r in rows if r["devices"] == GOAL_DEVICES and r["variant"] == "poll"]
    for row in goal:
        verdict = "kept" if row["core"] < GOAL_CORE else "missed"
        print(f"goal, less than {GOAL_CORE} of a core: {verdict} with {row['core']:.3f}")
        if verdict == "missed":
            sys.exit(1)
    if not goal:
        print(f"no goal for other numbers than {GOAL_DEVICES}")


class _Simulator:
    """The process of the devices."""

    def __init__(self, file: Path, facts: dict[str, Any], before: Sequence[str]) -> None:
        file.write_text(json.dumps(facts), encoding="utf-8")
        self._process = subprocess.Popen(
            [*before, sys.executable, __file__, "--simulate", str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **asked: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Have it do something; what it says when that is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("error: the simulated devices ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def _raise_files() -> int:
    """Have this process and its children open as many files as they may; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


if __name__ == "__main__":
    main()
