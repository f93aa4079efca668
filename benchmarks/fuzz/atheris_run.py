"""Feeds one reader of outside bytes with what atheris finds, guided by the branches it reaches.

    pip install atheris
    python benchmarks/fuzz/atheris_run.py TARGET [-max_total_time=60 …]

TARGET is a name in `tests/fuzz/targets.py`; what follows goes to libFuzzer. Ends at the first input
that gives anything but a value or an error of ours.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))


def main() -> None:
    """Fuzz."""
    try:
        import atheris
    except ImportError:
        sys.exit("error: atheris is not installed\n  cure: pip install atheris")
    with atheris.instrument_imports(include=["edgefleet", "edgefleet_runtime"]):
        from tests.fuzz.targets import TARGETS, run
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"error: no target {name!r}\n  cure: one of {', '.join(TARGETS)}")
    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="edgefleet-fuzz-") as corpus:
        for number, seed in enumerate(target.seeds):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], corpus, *sys.argv[2:]], lambda data: run(target, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
