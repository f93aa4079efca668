"""The kit's suite of deployers over manifests in a folder, brought into a cluster as Flux does.

The site's part is played: whatever asks for a device's end finds the folder applied first. To enrol
devices and to send them requests are no abilities of this deployer, so the suite skips these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.api_writes import Write
from edgefleet_kubernetes.gitops import GitDeployer
from providers.kubernetes.tests.deployer_rig import Rig
from providers.kubernetes.tests.test_deployer_conformance import SECRET, OnCluster, PlayedDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from edgefleet.interfaces.state import StateStore
    from edgefleet.testing.kit.devices import AddDevice, DeviceEnd

THEIRS = "objects/theirs.yaml"


class Site:
    """A folder and the cluster that it is brought into."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig, self.folder = rig, folder

    def sync(self) -> None:
        """Apply what ``kustomization.yaml`` lists, in its order."""
        listing = yaml.safe_load((self.folder / "kustomization.yaml").read_bytes())
        how = Write(manager="kustomize-controller")
        for path in listing["resources"]:
            document = yaml.safe_load((self.folder / path).read_bytes())
            metadata = document["metadata"]
            self.rig.store().patch(
                document["kind"],
                metadata["name"],
                document,
                metadata.get("namespace", ""),
                type="apply",
                how=how,
            )


class TestGitDeployer(OnCluster):
    @pytest.fixture
    def rig(self, tmp_path: Path, state: Callable[[], StateStore]) -> Iterator[Rig]:
        made = Rig(tmp_path / "cloud", state)
        made.put(SECRET)
        yield made
        made.close()

    @pytest.fixture
    def site(self, rig: Rig, tmp_path: Path) -> Site:
        return Site(rig, tmp_path / "site")

    @pytest.fixture
    def deployer(self, rig: Rig, site: Site) -> Iterator[GitDeployer]:
        settings = rig.settings.model_copy(update={"delivery": "git", "git_dir": site.folder})
        made = GitDeployer(Clients(settings), settings, base=site.folder.parent)
        made.install()
        site.sync()
        yield made
        made.close()

    @pytest.fixture
    def add_device(self, rig: Rig, site: Site, deployer: GitDeployer) -> AddDevice:
        """Enrols a node at the site, which is where that is done."""

        def add(name: str, /, *, group: str, labels: Mapping[str, str] | None = None) -> None:
            deployer.install(group=group)
            site.sync()
            rig.deployer.enroll(name, group=group, labels=labels)

        return add

    @pytest.fixture
    def device_end(self, rig: Rig, site: Site) -> Callable[[str], DeviceEnd]:
        def end(name: str) -> DeviceEnd:
            site.sync()
            return PlayedDevice(rig, name)

        return end

    @pytest.fixture
    def foreign(self, site: Site) -> tuple[Callable[[str], None], Callable[[], None]]:
        theirs = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: theirs, namespace: default}\n"

        def plant(_: str) -> None:
            (site.folder / THEIRS).write_bytes(theirs)
            listing = site.folder / "kustomization.yaml"
            found = yaml.safe_load(listing.read_bytes())
            found["resources"].append(THEIRS)
            listing.write_text(yaml.safe_dump({**found, "namePrefix": ""}), encoding="utf-8")

        def check() -> None:
            assert (site.folder / THEIRS).read_bytes() == theirs
            listing = yaml.safe_load((site.folder / "kustomization.yaml").read_bytes())
            assert THEIRS in listing["resources"]
            assert listing["namePrefix"] == ""

        return plant, check
