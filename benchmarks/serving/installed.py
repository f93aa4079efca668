"""What an installation takes on the disk beyond onnxruntime and numpy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.serving.figures import Figure, Goal
from tests.wheels.smoke import ROOT, build, run

if TYPE_CHECKING:
    from benchmarks.serving.bench import Bench

MB = 1e6
BASE = ("onnxruntime", "numpy")


def installed(bench: Bench) -> list[Figure]:
    """The wheels of this tree with all they need, installed as pip does, compiled modules too."""
    wheels = [
        build(ROOT / place, bench.folder / f"wheel-{number}").path
        for number, place in enumerate((".", "device_runtime"))
    ]
    found = []
    base = _size(bench.folder / "base", BASE)
    for more, what in (("", ""), (",grpc", ", with gRPC")):
        given = (str(wheels[0]), f"{wheels[1]}[cpu{more}]")
        ours = _size(bench.folder / f"ours{more}", given)
        name = f"installed size{what}: over onnxruntime and numpy with their needs"
        found.append(Figure(name, "MB", [base], [ours], Goal(40), difference=True))
    return found


def _size(folder: Path, requirements: tuple[str, ...]) -> float:
    """Megabytes of what pip installs for these, in a folder of its own."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
    pins = ROOT / "constraints.txt"
    run(*pip, "--target", folder, "-c", pins, *requirements, cwd=folder.parent)
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_size for path in files) / MB
