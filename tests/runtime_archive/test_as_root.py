"""The script as root runs it, with the real tools, in places of its own: all but systemd."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime.tests.namespaces import REACHABLE, missing, unshared
from edgefleet.protocol.digest import hex_of
from edgefleet.protocol.gateway import Archive
from edgefleet.runtime_archive.builder import Built
from edgefleet.runtime_archive.script import install_script

WHY_NOT = missing(["useradd", "runuser", "getent"])
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

USER, STATE = "edgefleet-of-a-test", "/var/lib/edgefleet"
# A copy of /etc takes the user and the unit; what is installed goes to memory.
MACHINE = f"""
set -eu
folder=$1 python=$2 prefix=$3 kept=/var/lib/prefix
shift 3
for one in /opt /var/lib; do mount -t tmpfs -o mode=755 tmpfs "$one"; done
cp -a /etc "$folder/etc"
mount --bind "$folder/etc" /etc
mkdir -p /etc/systemd/system /opt/tools
{REACHABLE}
ln -s "$python" /opt/tools/python3
printf '#!/bin/sh\\n' >/opt/tools/systemctl
chmod 755 /opt/tools/systemctl
export PATH=/opt/tools:/usr/sbin:/usr/bin:/sbin:/bin
eval "$@"
"""


def does(script: str, built: Built, folder: Path, what: str) -> subprocess.CompletedProcess[str]:
    """What a machine says where ``install`` is our script, and then what is given is done."""
    path = folder / "install.sh"
    path.write_text(script)
    install = (
        f"install() {{ sh {path} --user {USER} --archive {built.path} "
        "-- --device cam-07 --channel file </dev/null; }\n"
    )
    python = Path(sys.executable).resolve()
    mounts = [str(folder), str(python), sys.base_prefix]
    return subprocess.run(
        unshared("sh", "-c", MACHINE, "sh", *mounts, install + what),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def script(small: Built) -> str:
    return install_script(
        "0.1.0", {small.manifest.platform: Archive(digest=small.digest, size=small.size)}
    )


def test_it_makes_a_user_who_owns_the_runtime_and_not_what_starts_it(
    script: str, small: Built, tmp_path: Path
) -> None:
    done = does(
        script,
        small,
        tmp_path,
        f"""
        install; install
        getent passwd {USER} | cut -d: -f6,7
        stat -c '%U:%G %a' {STATE}
        find {STATE} ! -user {USER}
        find /opt/edgefleet /etc/systemd/system/edgefleet-runtime.service ! -user root
        runuser -u {USER} -- /opt/edgefleet/bin/edgefleet-runtime doctor
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{STATE}:/usr/sbin/nologin",
        f"{USER}:{USER} 750",
        "edgefleet-runtime 0.1.0",
    ]
    assert done.stderr.count(f"made the user {USER}") == 1


@pytest.mark.parametrize("name", ["runtime", "runtime/versions", "runtime/current.new"])
def test_a_link_that_a_runtime_left_leads_root_nowhere(
    script: str, small: Built, tmp_path: Path, name: str
) -> None:
    own = f"runtime/versions/0.1.0-{hex_of(small.digest)[:12]}"
    done = does(
        script,
        small,
        tmp_path,
        f"""
        install
        mkdir /etc/of-root
        as_it="runuser -u {USER} --"
        $as_it rm -rf {STATE}/{own} {STATE}/runtime/current {STATE}/{name}
        $as_it ln -s /etc/of-root {STATE}/{name}
        install || echo refused
        find /etc/of-root -mindepth 1
        stat -c %U /etc/of-root
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "root"
    assert "/etc/of-root/" not in done.stdout
