"""Feeds every reader of outside bytes with what atheris finds, for some time each.

    pip install atheris
    python benchmarks/fuzzing.py [--seconds 20] [--json OUT] [TARGET …]

Each target of `tests/fuzz/targets.py` runs in a process of its own with at most so much memory. One
that gives anything but a value or an error of ours, or grows over that, fails; the others run all
the same. Tests of every change feed the same targets from hypothesis instead.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fuzz.targets import TARGETS

SCRIPT = Path(__file__).with_name("fuzz") / "atheris_run.py"
MAX_MB = 512
_DONE = re.compile(r"Done (\d+) runs")


def main() -> None:
    """Fuzz."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20, help="of each (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write how many inputs each target took here")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("skipped: atheris is not installed; pip install atheris")
        return
    took: dict[str, int] = {}
    failed = []
    for name in given.targets or TARGETS:
        limits = [f"-max_total_time={given.seconds}", f"-rss_limit_mb={MAX_MB}"]
        command = [sys.executable, str(SCRIPT), name, *limits]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        found = _DONE.search(said)
        if done.returncode or found is None:
            failed.append(name)
            print(f"  {name:<16} FAILED\n{said[-4000:]}", flush=True)
        else:
            took[name] = int(found[1])
            print(f"  {name:<16} {took[name]:9,} inputs", flush=True)
    if given.json is not None:
        told = {"seconds": given.seconds, "inputs": took, "failed": failed}
        given.json.write_text(json.dumps(told, indent=2) + "\n")
    if failed:
        sys.exit(f"error: {', '.join(failed)}")


if __name__ == "__main__":
    main()
