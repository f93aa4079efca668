"""Builds every distribution of the workspace as a wheel and tries each in its own environment.

A workspace hides undeclared dependencies: everything is installed and importable there. So each
wheel is installed as a user would, alone, in a fresh environment without pip or setuptools, and
`probe.py` runs there from an empty folder. Needs the workspace's `.venv` (pip, hatchling); prints
one line a distribution.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).with_name("probe.py")

# What a user types, where it is more than the distribution's name.
INSTALL_AS = {
    "edgefleet-local": "edgefleet[local]",  # must bring all three
    "edgefleet-runtime": "edgefleet-runtime[cpu]",
}


class SmokeError(Exception):
    """A distribution can't be built, installed or used alone; the message quotes the tool."""


@dataclass(frozen=True)
class Wheel:
    """A built distribution."""

    name: str
    path: Path


def run(*command: str | Path, cwd: Path) -> str:
    """Gives the output of `command`; raises SmokeError with that output when it fails."""
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        words = " ".join(str(word) for word in command)
        msg = f"{words}: exit status {done.returncode}\n{done.stdout}"
        raise SmokeError(msg)
    return done.stdout


def build(source: Path, scratch: Path) -> Wheel:
    """Builds the distribution in `source` with this environment's hatchling."""
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    out = scratch / "wheels" / project["name"]
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out, cwd=source)
    (path,) = out.glob("*.whl")
    return Wheel(project["name"], path)


def try_alone(wheel: Wheel, pins: Path, scratch: Path) -> float:
    """Installs `wheel` in a fresh environment and probes it there; gives the seconds that took."""
    start = time.monotonic()
    home = scratch / "envs" / wheel.name
    venv.create(home, with_pip=False, symlinks=sys.platform != "win32")
    scripts = home / ("Scripts" if sys.platform == "win32" else "bin")
    python = scripts / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python]
    pip.append("--disable-pip-version-check")
    requirement = INSTALL_AS.get(wheel.name, wheel.name)
    # --no-compile: a few modules are imported once
    install = ["install", "--quiet", "--no-compile", "--only-binary=:all:"]
    run(*pip, *install, "-c", ROOT / "constraints.txt", "-c", pins, requirement, cwd=scratch)
    run(*pip, "check", cwd=scratch)
    elsewhere = scratch / "elsewhere" / wheel.name
    elsewhere.mkdir(parents=True)
    run(python, "-I", PROBE, wheel.name, cwd=elsewhere)
    shutil.rmtree(home)
    return time.monotonic() - start


def main() -> None:
    """Builds and tries all distributions, two at a time; exits with 1 when one fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the wheels in DIR")
    arguments = parser.parse_args()
    projects = [
        path
        for pattern in ("", "device_runtime/", "providers/*/", "examples/*/")
        for path in sorted(ROOT.glob(f"{pattern}pyproject.toml"))
    ]
    failed = False
    with (
        tempfile.TemporaryDirectory(prefix="edgefleet-wheels-") as folder,
        ThreadPoolExecutor(2) as pool,
    ):
        scratch = Path(folder)
        wheels = list(pool.map(lambda path: build(path.parent, scratch), projects))
        # Constraints, not requirements: a wheel comes along only where another declares its need.
        pins = scratch / "pins.txt"
        pins.write_text(
            "".join(f"{w.name} @ {w.path.as_uri()}\n" for w in wheels), encoding="utf-8"
        )
        tries = [(wheel, pool.submit(try_alone, wheel, pins, scratch)) for wheel in wheels]
        for wheel, future in tries:
            try:
                print(f"{wheel.path.name}: works alone, {future.result():.0f} s")
            except SmokeError as error:
                failed = True
                print(f"{wheel.path.name}: FAILED\n{error}", file=sys.stderr)
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for wheel in wheels:
                shutil.copy2(wheel.path, arguments.keep)
    sys.exit(failed)


if __name__ == "__main__":
    main()
