"""What an installation takes on the disk beyond onnxruntime and numpy."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.serving.figures import Figure, Goal
from tests.wheels.smoke import ROOT, build, run

if TYPE_CHECKING:
    from benchmarks.serving.bench import Bench

MB = 1e6
BASE = ("onnxruntime", "numpy")
LARGEST = 4  # packages that are named


def installed(bench: Bench) -> list[Figure]:
    """The wheels of this tree with all they need, installed as pip does, compiled modules too."""
    wheels = [
        build(ROOT / place, bench.folder / f"wheel-{number}").path
        for number, place in enumerate((".", "device_runtime"))
    ]
    found = []
    base = _sizes(bench.folder / "base", BASE)
    for more, what in (("", ""), (",grpc", ", with gRPC")):
        given = (str(wheels[0]), f"{wheels[1]}[cpu{more}]")
        ours = _sizes(bench.folder / f"ours{more}", given)
        note = ", ".join(
            f"{name} {size / MB:.0f} MB" for name, size in (ours - base).most_common(LARGEST)
        )
        found.append(
            Figure(
                f"installed size{what}: over onnxruntime and numpy with their needs",
                "MB",
                [base.total() / MB],
                [ours.total() / MB],
                Goal(40),
                difference=True,
                note=f"the largest: {note}",
            )
        )
    return found


def _sizes(folder: Path, requirements: tuple[str, ...]) -> Counter[str]:
    """Bytes of what pip installs for these, in a folder of its own, by package."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    pins = ROOT / "constraints.txt"
    run(*pip, "--target", folder, "-c", pins, *requirements, cwd=folder.parent)
    sizes: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            sizes[path.relative_to(folder).parts[0]] += path.stat().st_size
    return sizes
