"""A fleet whose devices only a stick reaches, with their real channel."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import edgefleet
from edgefleet.identity import IDENTITY_KEY, Identity
from edgefleet.protocol.bundle import Details, Interface
from edgefleet.protocol.documents import encode
from edgefleet.protocol.gateway import Enrolment
from edgefleet.protocol.layout import BundleLayout, BundleWriter
from edgefleet.protocol.stick import FOLDER
from edgefleet_runtime.channels.pull.from_stick import StickChannel
from edgefleet_runtime.channels.pull.identity import DeviceIdentity, IdentityFolder
from providers.gateway.tests.joining_rig import FLEET, Rig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.fleet import Fleet

PROFILE = """
[profiles.field]
registry = "local"
telemetry = "local"
state = "local"
deployers = ["gateway"]
[profiles.field.local]
root = "."
"""


class Field:
    """A fleet, its authority, and one mount point."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rig = Rig(folder)
        self.rig.state.update(IDENTITY_KEY, lambda _: encode(Identity(fleet=FLEET)))
        self.mount = folder / "usb"
        self.mount.mkdir()
        self.config = folder / "edgefleet.toml"
        self.config.write_text(PROFILE)

    @property
    def root(self) -> Path:
        """Our folder on the stick."""
        return self.mount / FOLDER

    def connect(self) -> Fleet:
        """The operator's side."""
        return edgefleet.connect("field", config=self.config)

    def join(self, device: str, *, group: str = "line") -> DeviceIdentity:
        """Make a device of the fleet, with a key and certificate of its own."""
        kept = IdentityFolder(self.folder / device)
        asked = self.rig.joining.enroll(
            Enrolment(token=self.rig.invite(device, group=group), request=kept.request())
        )
        kept.take(asked)
        return DeviceIdentity(self.folder / device)

    def channel(self, device: str, identity: DeviceIdentity | None) -> StickChannel:
        """A device's end of the stick."""
        self.root.mkdir(exist_ok=True)
        return StickChannel(device, self.mount, identity)


def bundle(folder: Path, variants: Mapping[str, tuple[bytes, tuple[str, ...]]]) -> BundleLayout:
    """A bundle of files that nobody runs: content and targets by variant."""
    made = folder / f"bundle-{len(list(folder.glob('bundle-*')))}"
    with BundleWriter(made) as writer:
        for name, (content, targets) in variants.items():
            file = folder / f"{name}.onnx"
            file.write_bytes(content)
            writer.add_variant(
                Details(variant=name, entry=file.name, interface=Interface(inputs=(), outputs=())),
                {file.name: file},
                model_name="m",
                model_format="onnx",
                precision="fp32",
                targets=targets,
                opset=17,
            )
        return writer.finish()


def tree(root: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of change of all plain files below a folder."""
    return {
        path.relative_to(root).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
