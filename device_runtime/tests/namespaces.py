"""Mounts, networks and users of a test's own, where the machine allows them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

NOBODY = 65534
# An interpreter at $prefix, below a folder that only root may enter, is mounted again below one
# that all may; $kept is a new folder for that.
REACHABLE = f"""
as_nobody="setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups"
if ! $as_nobody test -x "$prefix/bin"; then
  top=/$(echo "$prefix" | cut -d/ -f2)
  mkdir -p "$kept"
  mount --bind "$prefix" "$kept"
  mount -t tmpfs -o mode=755 tmpfs "$top"
  mkdir -p "$prefix"
  mount --bind "$kept" "$prefix"
  mount -o remount,bind,ro "$prefix"
  mount -o remount,ro "$top"
fi
"""


def unshared(*command: str) -> list[str]:
    """A command with a network and mounts of its own: loopback only."""
    return ["unshare", "--mount", "--net", "--propagation", "slave", *command]


def missing(tools: Sequence[str]) -> str | None:
    """What this machine lacks for such a command, and these tools in it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux may give a process namespaces and another user"
    for tool in ("unshare", "setpriv", "mount", *tools):
        if shutil.which(tool) is None:
            return f"there is no {tool} here"
    for what, place in (("environment", sys.prefix), ("folder for tests", tempfile.gettempdir())):
        for folder in (Path(place), *Path(place).parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                return f"the {what} lies below {folder}, which only its owner may enter"
    try_out = unshared("mount", "-o", "remount,bind,ro", "/")
    if subprocess.run(try_out, capture_output=True, check=False).returncode:
        return "namespaces and mounts are not allowed here"
    return None
