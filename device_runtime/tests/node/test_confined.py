"""A runtime as a container has it: not root, nothing writable but its folder, no network out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_runtime.tests.namespaces import NOBODY, REACHABLE, missing, unshared
from device_runtime.tests.node.device import RECORD, Device, publish
from device_runtime.tests.support import Repository

# A network and a mount namespace of its own: loopback only, everything read-only but one folder,
# then a user without any privilege.
CONFINE = f"""
set -eu
writable=$1 prefix=$2 kept=$1/prefix
shift 2
ip link set lo up
mount --bind "$writable" "$writable"
{REACHABLE}
mount -o remount,bind,ro /
for apart in /dev/shm /tmp; do
  if mountpoint -q "$apart"; then mount -o remount,bind,ro "$apart"; fi
done
if $as_nobody touch /tmp/probe-of-edgefleet 2>/dev/null; then exit 9; fi
exec $as_nobody --no-new-privs --inh-caps=-all "$@"
"""
ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1] + '/v2/health/ready').status)"


WHY_NOT = missing(["nsenter", "ip", "mountpoint"])
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
