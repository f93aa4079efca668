"""Whether this Python can run the runtime of this archive: ``device_check.py MANIFEST DIR``.

Ends with 1 and a line that says what is wrong and what helps. Runs on a device, on whatever Python
is there, so it keeps to what Python 3.6 understands, and to the standard library.
"""

import importlib
import json
import os
import platform
import struct
import sys
from pathlib import Path

MODULES = ("ctypes", "hashlib", "sqlite3", "ssl", "zlib")
ROOM = 1.5  # times the files of the wheels: themselves, and compiled


def refused(manifest: "dict[str, object]", folder: Path) -> "str | None":
    """Give what keeps the runtime from being installed here; None for nothing."""
    pythons = [str(one) for one in manifest["pythons"]]  # type: ignore[attr-defined]
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    machine = str(manifest["platform"]).partition("-")[2]
    if platform.python_implementation() != "CPython" or here not in pythons:
        return (
            f"this is {platform.python_implementation()} {here}, and the archive is for CPython "
            f"{', '.join(pythons)}: install one of them, or build the archive with "
            f"--python {here} where EdgeFleet knows it"
        )
    if sys.platform != "linux" or platform.machine() != machine:
        return (
            f"this is {sys.platform} on {platform.machine()}, and the archive is for Linux on "
            f"{machine}: take the archive of this machine"
        )
    if struct.calcsize("P") != 8:
        return (
            "this is a 32-bit Python on a 64-bit kernel, and there are no wheels for it: "
            "install the 64-bit version of the operating system"
        )
    return lacks(manifest) or no_room(manifest, folder)


def lacks(manifest: "dict[str, object]") -> "str | None":
    """Give what the system lacks; None for nothing."""
    wanted = str(manifest["glibc"])
    library = glibc()
    if not library:
        return (
            "the C library of this Python isn't glibc (Alpine has musl), and the archive's wheels "
            "need glibc: run a distribution that has it, or the container image"
        )
    if number(library) < number(wanted):
        return (
            f"the C library here is glibc {library}, and the archive's wheels need {wanted}: build "
            f"the archive with --glibc {library}, or upgrade the operating system"
        )
    for name in MODULES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            return f"this Python lacks the module {name} ({error}): install all of Python"
    return None


def no_room(manifest: "dict[str, object]", folder: Path) -> "str | None":
    """Give whether the disk is too full; None if it isn't."""
    while not folder.is_dir():
        folder = folder.parent
    there = os.statvfs(folder)
    free = there.f_bavail * there.f_frsize
    due = int(int(str(manifest["unpacked_bytes"])) * ROOM)
    if free < due:
        return f"{folder} has {free >> 20} MiB free, and {due >> 20} MiB are needed: make room"
    return None


def glibc() -> str:
    """Give the version of glibc; empty for another C library."""
    try:
        said = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return ""
    name, _, version = said.partition(" ")
    return version if name == "glibc" else ""


def number(version: str) -> "tuple[int, ...]":
    """Give a version so that it can be compared."""
    return tuple(int(part) for part in version.split(".")[:2])


def main() -> None:
    """Exit with 1 and a reason, or with 0."""
    manifest = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.exit(refused(manifest, Path(sys.argv[2]).absolute()))


if __name__ == "__main__":
    main()
