"""A runtime as a container has it: not root, nothing writable but its folder, no network out."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_runtime.tests.node.device import RECORD, Device, publish
from device_runtime.tests.support import Repository

NOBODY = 65534
# A network and a mount namespace of its own: loopback only, everything read-only but one folder,
# then a user without any privilege. An interpreter below a folder that only root may enter is
# mounted again below one that all may.
CONFINE = f"""
set -eu
writable=$1 prefix=$2 as_nobody="setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups"
shift 2
ip link set lo up
mount --bind "$writable" "$writable"
if ! $as_nobody test -x "$prefix/bin"; then
  kept=$writable/prefix top=/$(echo "$prefix" | cut -d/ -f2)
  mkdir -p "$kept"
  mount --bind "$prefix" "$kept"
  mount -t tmpfs -o mode=755 tmpfs "$top"
  mkdir -p "$prefix"
  mount --bind "$kept" "$prefix"
  mount -o remount,bind,ro "$prefix"
  mount -o remount,ro "$top"
fi
mount -o remount,bind,ro /
for apart in /dev/shm /tmp; do
  if mountpoint -q "$apart"; then mount -o remount,bind,ro "$apart"; fi
done
if $as_nobody touch /tmp/probe-of-edgefleet 2>/dev/null; then exit 9; fi
exec $as_nobody --no-new-privs --inh-caps=-all "$@"
"""
ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1] + '/v2/health/ready').status)"


def unshared(*command: str) -> list[str]:
    return ["unshare", "--mount", "--net", "--propagation", "slave", *command]


def missing() -> str | None:
    """What this machine lacks for confining a process."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root on Linux may give a process namespaces and another user"
    for tool in ("unshare", "setpriv", "nsenter", "ip", "mount", "mountpoint"):
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


WHY_NOT = missing()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


class Confined(Device):
    """A device's process, confined."""

    def command(self) -> list[str]:
        mounts = (str(self.root.parent), sys.base_prefix)
        clean = ["env", "HOME=/nonexistent", "TMPDIR=/nonexistent", "PYTHONDONTWRITEBYTECODE=1"]
        return unshared("sh", "-c", CONFINE, "sh", *mounts, *clean, *super().command())

    def facts(self, *names: str) -> list[str]:
        """What the kernel says of the process."""
        assert self.process is not None
        lines = Path("/proc", str(self.process.pid), "status").read_text().splitlines()
        said = dict(line.split(":", 1) for line in lines)
        return [said[name].split()[0] for name in names]

    def inside(self, *command: str) -> str:
        """What a command says that has the process's network."""
        assert self.process is not None
        enter = ["nsenter", "--net", "--target", str(self.process.pid), *command]
        return subprocess.run(enter, capture_output=True, check=True, text=True).stdout


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own, which only root may enter."""
    made = Path(tempfile.mkdtemp(prefix="edgefleet-confined-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_a_runtime_needs_no_root_no_writable_root_and_no_network(folder: Path) -> None:
    repository = Repository(folder / "fleet")
    root = folder / "cam-07"
    root.mkdir()
    os.chown(root, NOBODY, NOBODY)
    with Confined(root, repository) as device:
        first = repository.release({"digits": publish(repository, 2)}, telemetry=RECORD)
        repository.point(first)
        device.active(first)
        assert device.facts("Uid", "CapEff", "NoNewPrivs") == [str(NOBODY), "0" * 16, "1"]
        assert device.inside("ip", "-brief", "link").split()[0] == "lo"
        second = repository.release({"digits": publish(repository, 3)}, telemetry=RECORD)
        repository.point(second)
        endpoint = device.active(second).endpoint
        assert endpoint is not None
        assert device.inside(sys.executable, "-c", ASK, endpoint).strip() == "200"
        assert "Traceback" not in device.log
    owned = {path.stat().st_uid for path in root.rglob("*") if path.name != "log"}
    assert owned == {NOBODY}
