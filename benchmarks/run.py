"""Runs every benchmark of this folder, one after the other, each in a process of its own.

    python benchmarks/run.py [NAME …]

Exits with 1 when one of them fails; the others run all the same.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Run them."""
    found = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path.name != "run.py"}
    names = sys.argv[1:] or [*found]
    unknown = [name for name in names if name not in found]
    if unknown:
        sys.exit(f"error: no benchmark {unknown[0]!r}\n  cure: one of {', '.join(found)}")
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, found[name]], check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
