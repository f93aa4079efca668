"""The real runtime becomes another version of itself over a real gateway, or goes back."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgefleet_runtime
from edgefleet.runtime_archive import script
from edgefleet.runtime_archive.packing import Member
from edgefleet.testing.kit.upgrading import runtime_archive
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.cloud.machine import Machine
from edgefleet_runtime.upgrade.offers import own_platform
from providers.gateway.tests.fleet_rig import FleetRig

LAUNCHER = Path(str(script.__file__)).with_name("launcher.sh")
CODE = Path(str(edgefleet_runtime.__file__)).parent
INSTALL = """#!/bin/sh
set -eu
mkdir -p "$1/bin" "$1/site"
cp -r {code} "$1/site/edgefleet_runtime"
sed -i 's/^__version__ = .*/__version__ = "{version}"/' "$1/site/edgefleet_runtime/__init__.py"
{last}
cat >"$1/bin/edgefleet-runtime" <<END
#!/bin/sh
PYTHONPATH='$1/site' exec {python} -m edgefleet_runtime "\\$@"
END
chmod 755 "$1/bin/edgefleet-runtime"
printf '{{}}' >"$1/manifest.json"
"""
DIES = """echo 'raise SystemExit(3)' >>"$1/site/edgefleet_runtime/node.py" """


def install_script(version: str, last: str = "") -> str:
    """What puts a version of this very runtime into a folder."""
    return INSTALL.format(
        code=shlex.quote(str(CODE)), version=version, last=last, python=shlex.quote(sys.executable)
    )


class Installed(Machine):
    """A machine whose runtime is started by the start script."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.disk.parent, machine.name)
        self.home = self.disk / "runtime"

    def install(self, version: str) -> None:
        """What the install script does on the first evening."""
        folder = self.home / "versions" / version
        folder.mkdir(parents=True)
        put = self.home / "first.sh"
        put.write_text(install_script(version))
        subprocess.run(["sh", str(put), str(folder)], check=True)
        (self.home / "current").symlink_to(f"versions/{version}")

    def _command(self) -> list[str]:
        words = super()._command()
        words = words[words.index("run") :]
        home = f"EDGEFLEET_RUNTIMES={self.home}"
        return ["env", home, "sh", str(LAUNCHER), *words, "--healthy-after", "0.2"]


def archive(folder: Path, version: str, last: str = "") -> Path:
    """An archive of this runtime as another version."""
    installs = Member("install.sh", install_script(version, last).encode())
    return runtime_archive(folder, version, own_platform(), more=[installs])  # type: ignore[arg-type] # tests run on one of them


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[FleetRig]:
    made = FleetRig(tmp_path)
    yield made
    made.close()


def test_a_device_takes_a_runtime_and_goes_back_from_one_that_dies(
    rig: FleetRig, tmp_path: Path
) -> None:
    rig.cloud.join("cam-1", group="line")
    machine = Installed(rig.cloud.machine("cam-1"))
    machine.install("0.1.0")
    machine.start()
    runtime = rig.fleet.runtime
    try:
        eventually(lambda: runtime.status("line").devices == {"cam-1": "0.1.0"}, "the old one")

        runtime.upgrade("line", [archive(tmp_path, "0.2.0")])
        eventually(lambda: runtime.status("line").devices == {"cam-1": "0.2.0"}, "the new one")
        current = machine.home / "current"
        eventually(lambda: current.resolve().name.startswith("0.2.0-"), "it to stay")

        runtime.upgrade("line", [archive(tmp_path, "0.3.0", DIES)])
        eventually(lambda: "cam-1" in runtime.status("line").reverted, "it to go back")
        found = runtime.status("line")
        assert found.devices == {"cam-1": "0.2.0"}
        assert found.reverted == {"cam-1": "it ended 3 times before it was well"}
        assert current.resolve().name.startswith("0.2.0-")
    finally:
        machine.cut()
        log = machine.log.read_text(errors="replace")
    assert "Traceback" not in log, log[-4000:]
