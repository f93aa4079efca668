"""A device's folder of runtimes, what starts them, and archives of small fakes of a runtime."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from edgefleet.protocol.digest import blob_path, digest_of, hex_of
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import Archive, RuntimeOffer
from edgefleet.protocol.report import RevertedRuntime
from edgefleet.runtime_archive import script
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.faults import VARIABLE
from edgefleet_runtime.upgrade.offers import own_platform
from edgefleet_runtime.upgrade.places import Kept
from edgefleet_runtime.upgrade.upgrader import RESTART

LAUNCHER = Path(str(script.__file__)).with_name("launcher.sh")
REPOSITORY = Path(__file__).parents[3]
FAKE = Path(__file__).with_name("fake_runtime.py")
INSTALL = """#!/bin/sh
set -eu
{first}
mkdir -p "$1/bin"
printf '%s' '{mood}' >"$1/mood"
cat >"$1/bin/edgefleet-runtime" <<END
#!/bin/sh
exec '{python}' '{fake}' '{version}' '{home}' "$(basename "$1")" "\\$1"
END
chmod 755 "$1/bin/edgefleet-runtime"
cp "$(dirname "$0")/manifest.json" "$1/manifest.json"
"""


class Device:
    """One device; ``0.1.0`` is installed, well, and serves."""

    def __init__(self, folder: Path) -> None:
        self.home = folder
        self.fleet = folder / "fleet"
        (self.fleet / "blobs" / "sha256").mkdir(parents=True)
        (folder / "versions").mkdir()
        install = folder / "first.sh"
        install.write_text(self._install("0.1.0", "well", ""))
        (folder / "manifest.json").write_text("{}")
        subprocess.run(["sh", str(install), str(folder / "versions" / "old")], check=True)
        (folder / "current").symlink_to("versions/old")

    def archive(
        self, version: str, *, mood: str = "well", first: str = "", says: str | None = None
    ) -> bytes:
        """The archive of a fake; ``first`` is what its install script does first."""
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz") as packed:
            for name, text in (
                ("manifest.json", "{}"),
                ("install.sh", self._install(says or version, mood, first)),
                ("wheels/one.whl", "x" * 100),
            ):
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(text), 0o644
                packed.addfile(info, io.BytesIO(text.encode()))
        return made.getvalue()

    def offer(self, version: str, archive: bytes, **more: object) -> str:
        """Offer it to the device; gives the name that it will have there."""
        digest = digest_of(archive)
        (self.fleet / blob_path(digest)).write_bytes(archive)
        told = {
            "runtime": version,
            "archives": {own_platform(): Archive(digest=digest, size=len(archive))},
        }
        offer = RuntimeOffer(**(told | more))  # type: ignore[arg-type]
        (self.fleet / "offer.json").write_bytes(encode(offer))
        return f"{version}-{hex_of(digest)[:12]}"

    def start(self, fault: str = "", *, until: Callable[[], bool] | None = None) -> int:
        """Start what the start script chooses; gives its exit status.

        Args:
            fault: where it is killed, see `edgefleet_runtime.faults`.
            until: kill it, and not what it started, when this becomes true.
        """
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "EDGEFLEET_RUNTIMES": str(self.home),
            VARIABLE: fault,
        }
        with subprocess.Popen(["sh", str(LAUNCHER), "run"], env=environment) as process:
            if until is not None:
                eventually(until)
                process.kill()
            status = process.wait()
        assert status in {0, 1, RESTART, -9}
        return status

    def settle(self) -> list[int]:
        """Start again and again, as a service manager does, until it has nothing left to do."""
        ends = [self.start()]
        while ends[-1]:
            assert len(ends) < 12
            ends.append(self.start())
        return ends

    @property
    def current(self) -> str:
        """The runtime that is started when none is on trial; it is whole."""
        found = (self.home / "current").resolve()
        assert (found / "manifest.json").exists()
        assert os.access(found / "bin" / "edgefleet-runtime", os.X_OK)
        return found.name

    @property
    def reverted(self) -> RevertedRuntime | None:
        """What its report says."""
        path = self.home / "upgrade.json"
        return decode(Kept, path.read_bytes()).reverted if path.exists() else None

    def _install(self, version: str, mood: str, first: str) -> str:
        return INSTALL.format(
            first=first,
            mood=mood,
            python=sys.executable,
            fake=FAKE,
            version=version,
            home=self.home,
        )
