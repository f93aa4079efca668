"""What a deployer must do that brings other runtimes to devices: order them, and say what came."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgefleet.capabilities import require
from edgefleet.errors import IntegrityError, InvalidInputError, NotFoundError
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.upgrading import CanUpgradeRuntime, UpgradeStatus
from edgefleet.protocol.digest import digest_of_file
from edgefleet.protocol.documents import encode
from edgefleet.protocol.gateway import Archive
from edgefleet.protocol.report import RevertedRuntime
from edgefleet.runtime_archive.manifest import Manifest
from edgefleet.runtime_archive.packing import Member, pack_tar
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import AddDevice, ChannelConformance, DeviceEnd, enrolling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgefleet.protocol.gateway import Platform


class UpgradingConformance(ChannelConformance):
    """Fixtures: ``deployer`` without groups, one that `CanUpgradeRuntime`, and ``device_end``; and
    ``add_device`` where the deployer lacks `CanEnroll`.
    """

    @pytest.fixture
    def deployer(self) -> Deployer:
        """A deployer without groups that can bring runtimes to devices."""
        return self.lacks("deployer", "a deployer without groups, one that CanUpgradeRuntime")

    @pytest.fixture
    def add_device(self, deployer: Deployer) -> AddDevice:
        """Makes a device part of the fleet."""
        return enrolling(self, deployer)

    @pytest.fixture
    def upgrading(self, deployer: Deployer, add_device: AddDevice) -> CanUpgradeRuntime:
        """The same, as one that can, with two devices in the group line-3."""
        for name in ("a", "b"):
            add_device(name, group="line-3")
        return require(deployer, CanUpgradeRuntime)

    def test_before_an_order_there_is_none(self, upgrading: CanUpgradeRuntime) -> None:
        """If this fails, a group that nobody upgraded says that it was, or has no devices."""
        assert upgrading.runtime_status("line-3") == UpgradeStatus(
            group="line-3", offer=None, devices={"a": None, "b": None}, reverted={}
        )

    def test_an_order_is_of_the_archives_given(
        self, upgrading: CanUpgradeRuntime, tmp_path: Path
    ) -> None:
        """If this fails, devices are offered another version, platform or content."""
        paths = {
            platform: runtime_archive(tmp_path, "0.2.0", platform)
            for platform in ("linux-x86_64", "linux-aarch64")
        }
        ordered = upgrading.upgrade_runtime("line-3", list(paths.values()), permille=50)
        assert ordered.offer is not None
        assert (ordered.offer.runtime, ordered.offer.permille) == ("0.2.0", 50)
        assert ordered.offer.archives == {
            platform: Archive(digest=digest, size=size)
            for platform, path in paths.items()
            for digest, size in (digest_of_file(path),)
        }
        assert upgrading.runtime_status("line-3") == ordered

    def test_the_same_order_again_changes_nothing(
        self, upgrading: CanUpgradeRuntime, tmp_path: Path
    ) -> None:
        """If this fails, an order that is repeated after a fault draws another cohort."""
        archives = [runtime_archive(tmp_path, "0.2.0")]
        first = upgrading.upgrade_runtime("line-3", archives, permille=500)
        assert upgrading.upgrade_runtime("line-3", archives, permille=500) == first

    def test_a_larger_cohort_has_the_devices_of_a_smaller(
        self, upgrading: CanUpgradeRuntime, tmp_path: Path
    ) -> None:
        """If this fails, to widen an order takes the runtime from devices that have it."""
        archives = [runtime_archive(tmp_path, "0.2.0")]
        small = upgrading.upgrade_runtime("line-3", archives, permille=50).offer
        assert small is not None
        for given in ((), archives):
            for permille in (1000, 0, 500):
                wider = upgrading.upgrade_runtime("line-3", given, permille=permille).offer
                assert wider == msgspec.structs.replace(small, permille=permille)

    def test_a_version_of_one_group_can_be_ordered_for_another(
        self, upgrading: CanUpgradeRuntime, add_device: AddDevice, tmp_path: Path
    ) -> None:
        """If this fails, the archives must be at hand for each group, or the first loses its
        order.
        """
        add_device("c", group="line-4")
        first = upgrading.upgrade_runtime("line-3", [runtime_archive(tmp_path, "0.2.0")])
        assert first.offer is not None
        other = upgrading.upgrade_runtime("line-4", version="0.2.0", permille=10)
        assert other.offer is not None
        assert (other.offer.runtime, other.offer.permille) == ("0.2.0", 10)
        assert other.offer.archives == first.offer.archives
        assert list(other.devices) == ["c"]
        assert upgrading.runtime_status("line-3") == first

    def test_what_can_not_be_ordered_leaves_things_as_they_are(
        self, upgrading: CanUpgradeRuntime, tmp_path: Path
    ) -> None:
        """If this fails, devices are offered what isn't there or can't be meant."""
        one, other = (runtime_archive(tmp_path, version) for version in ("0.2.0", "0.3.0"))
        (damaged := tmp_path / "damaged.tar.gz").write_bytes(one.read_bytes()[:40])
        order = partial(upgrading.upgrade_runtime, "line-3")
        refused: tuple[tuple[type[Exception], Callable[[], object]], ...] = (
            (NotFoundError, order),
            (NotFoundError, lambda: order(version="0.9.0")),
            (NotFoundError, lambda: upgrading.upgrade_runtime("nowhere", [one])),
            (NotFoundError, lambda: upgrading.runtime_status("nowhere")),
            (IntegrityError, lambda: order([damaged])),
            (InvalidInputError, lambda: order([one, other])),
            (InvalidInputError, lambda: order([one, one])),
            (InvalidInputError, lambda: order([one], version="0.2.0")),
            (InvalidInputError, lambda: order([one], permille=1001)),
        )
        for kind, work in refused:
            with pytest.raises(kind):
                work()
        assert upgrading.runtime_status("line-3").offer is None

    def test_of_orders_at_once_one_holds_as_a_whole(
        self, upgrading: CanUpgradeRuntime, tmp_path: Path
    ) -> None:
        """If this fails, two operators at once make an order that neither gave."""
        given = {
            version: (runtime_archive(tmp_path, version), permille)
            for version, permille in (("0.2.0", 20), ("0.3.0", 30), ("0.4.0", 40))
        }
        samples.at_once(
            [
                partial(upgrading.upgrade_runtime, "line-3", [path], permille=permille)
                for path, permille in given.values()
            ]
        )
        offer = upgrading.runtime_status("line-3").offer
        assert offer is not None
        path, permille = given[offer.runtime]
        assert offer.permille == permille
        assert [one.digest for one in offer.archives.values()] == [digest_of_file(path)[0]]

    def test_devices_say_what_they_run_and_what_they_went_back_from(
        self,
        upgrading: CanUpgradeRuntime,
        device_end: Callable[[str], DeviceEnd],
        tmp_path: Path,
    ) -> None:
        """If this fails, an operator widens an order that devices went back from."""
        upgrading.upgrade_runtime("line-3", [runtime_archive(tmp_path, "0.2.0")])
        device_end("a").send_report(
            msgspec.structs.replace(samples.report(), runtime="0.2.0").encoded()
        )
        back = RevertedRuntime(runtime="0.2.0", reason="it died")
        device_end("b").send_report(
            msgspec.structs.replace(samples.report(), runtime="0.1.0", reverted=back).encoded()
        )
        found = upgrading.runtime_status("line-3")
        assert found.devices == {"a": "0.2.0", "b": "0.1.0"}
        assert found.reverted == {"b": "it died"}
        newer = upgrading.upgrade_runtime("line-3", [runtime_archive(tmp_path, "0.3.0")])
        assert newer.reverted == {}, "it went back from another one"


def runtime_archive(
    folder: Path,
    version: str,
    platform: Platform = "linux-x86_64",
    *,
    more: Sequence[Member] = (),
) -> Path:
    """An archive that says what it is, and holds nothing but what is given."""
    about = Manifest(
        runtime=version,
        platform=platform,
        pythons=("3.11",),
        glibc="2.28",
        extras=(),
        more=(),
        installer="pip.whl",
        unpacked_bytes=1,
        wheels=(),
    )
    path = folder / f"{version}-{platform}.tar.gz"
    pack_tar([Member("manifest.json", encode(about)), *more], path)
    return path
