"""Refuses what must never be in the tree: prints `file:line: what`, exits with 1 if it finds any.

- lock files and index addresses: they name the machine's package index, which is nobody else's;
- absolute paths of the machine that the checkout lies on;
- files over 1 MiB: a script should make them;
- Python files over 500 lines: look for the second subject in each;
- a LICENSE that differs from the root's: every distribution carries the same one.

Looks at what git tracks and at what it would add; ignored files are not its business.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MAX_FILE_BYTES = 1024 * 1024
MAX_PYTHON_LINES = 500

LOCK_FILES = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"}
# An option that names an index, or the address of the public one or of a mirror laid out like it.
INDEX = re.compile(
    r"(?:extra-)?index[-_]url[ =:\"']|find-links[ =:\"']|files\.pythonhosted\.org|pypi\.org/simple",
    re.IGNORECASE,
)
# Folders that every Unix machine has (Filesystem Hierarchy Standard 3.0): they tell nothing of it.
STANDARD_FOLDERS = {
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "media",
    "mnt",
    "opt",
    "proc",
    "run",
    "sbin",
    "srv",
    "sys",
    "tmp",
    "usr",
    "var",
}


def machine_paths() -> re.Pattern[str]:
    """Gives a pattern for paths into the home folders and the top folder of the checkout."""
    checkout = ROOT.parts[1]
    roots = {"/root", "/work", str(Path.home())}
    if checkout not in STANDARD_FOLDERS | {"home", "Users"}:
        roots.add(f"/{checkout}")
    return re.compile(rf"(?<![\w./-])(?:{'|'.join(map(re.escape, roots - {'/'}))})/[\w.-]+")


def files() -> list[Path]:
    """Lists what git tracks or would add, without links and without what is deleted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = (ROOT / name.decode() for name in listed.stdout.split(b"\0") if name)
    return sorted({path for path in paths if path.is_file() and not path.is_symlink()})


def findings(path: Path, here: re.Pattern[str]) -> Iterator[str]:
    """Yields what is wrong with the file at `path`, if anything."""
    name = path.relative_to(ROOT).as_posix()
    if path.name in LOCK_FILES:
        yield f"{name}:1: a lock file records index addresses; pins belong in constraints.txt"
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        yield f"{name}:1: {size} bytes; let a script make files over {MAX_FILE_BYTES}"
        return
    if path.name == "LICENSE" and path.read_bytes() != (ROOT / "LICENSE").read_bytes():
        yield f"{name}:1: differs from the LICENSE in the root"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return
    if path.suffix == ".py" and len(lines) > MAX_PYTHON_LINES:
        yield f"{name}:1: {len(lines)} lines; look for the second subject in it"
    if path == Path(__file__).resolve():
        return
    for number, line in enumerate(lines, 1):
        if INDEX.search(line):
            yield f"{name}:{number}: names a package index; leave that to the machine"
        if found := here.search(line):
            yield f"{name}:{number}: a path of this machine: {found.group()}"


def main() -> None:
    """Checks the whole tree."""
    here = machine_paths()
    found = [finding for path in files() for finding in findings(path, here)]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
