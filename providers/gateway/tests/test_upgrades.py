"""Ordering a runtime for a group: what devices are offered, and what they say of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from edgefleet.cli.app import cli
from edgefleet.errors import IntegrityError, InvalidInputError, NotFoundError
from edgefleet.fleet import Fleet
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.gateway import RuntimeOffer
from edgefleet.protocol.report import RevertedRuntime
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.upgrading import runtime_archive as archive
from edgefleet_gateway.records import ReportRecord, RuntimeRecord
from providers.gateway.tests.stick_rig import Field


@pytest.fixture
def field(tmp_path: Path) -> Field:
    field = Field(tmp_path)
    for device in ("cam-1", "cam-2"):
        field.rig.roster.enroll(device, "line", {})
    return field


@pytest.fixture
def fleet(field: Field) -> Iterator[Fleet]:
    with field.connect() as opened:
        yield opened


def ordered(field: Field, group: str = "line") -> RuntimeOffer:
    stored = field.rig.state.read(field.rig.keys.runtime(group))
    assert stored is not None
    return decode(RuntimeRecord, stored.data).offer


def says(field: Field, device: str, runtime: str, reverted: RevertedRuntime | None = None) -> None:
    """What a device reports."""
    report = msgspec.structs.replace(samples.report(), runtime=runtime, reverted=reverted)
    record = ReportRecord(report=report.encoded(), came=field.rig.now)
    field.rig.state.update(field.rig.keys.report(device), lambda _: encode(record))


def test_archives_lie_in_the_registry_before_anybody_hears_of_them(
    field: Field, fleet: Fleet
) -> None:
    paths = [
        archive(field.folder, "0.2.0"),
        archive(field.folder, "0.2.0", "linux-aarch64"),
    ]
    found = fleet.runtime.upgrade("line", paths, permille=50)
    offer = ordered(field)
    assert found.offer == offer
    assert (offer.runtime, offer.permille) == ("0.2.0", 50)
    assert set(offer.archives) == {"linux-x86_64", "linux-aarch64"}
    for path, platform in zip(paths, ("linux-x86_64", "linux-aarch64"), strict=True):
        digest = offer.archives[platform].digest
        assert digest == digest_of(path.read_bytes())
        assert fleet.registry.blobs.size(digest) == path.stat().st_size
    assert field.rig.roster.bell().changes[-1][1] == "runtime/line"


def test_a_larger_cohort_keeps_the_salt_and_other_archives_get_a_new_one(
    field: Field, fleet: Fleet
) -> None:
    first = archive(field.folder, "0.2.0")
    fleet.runtime.upgrade("line", [first], permille=50)
    salt = ordered(field).salt
    fleet.runtime.upgrade("line", permille=500)
    assert (ordered(field).salt, ordered(field).permille) == (salt, 500)
    fleet.runtime.upgrade("line", [first])
    assert (ordered(field).salt, ordered(field).permille) == (salt, 1000)
    fleet.runtime.upgrade("line", [archive(field.folder, "0.3.0")])
    assert ordered(field).salt != salt


def test_the_same_again_leaves_the_order_as_it_is(field: Field, fleet: Fleet) -> None:
    paths = [archive(field.folder, "0.2.0")]
    fleet.runtime.upgrade("line", paths)
    before = field.rig.state.read(field.rig.keys.runtime("line"))
    field.rig.now = field.rig.now.replace(year=2027)
    fleet.runtime.upgrade("line", paths)
    assert field.rig.state.read(field.rig.keys.runtime("line")) == before


def test_a_version_that_one_group_has_is_ordered_for_another(field: Field, fleet: Fleet) -> None:
    field.rig.roster.enroll("cam-9", "other", {})
    fleet.runtime.upgrade("line", [archive(field.folder, "0.2.0")])
    fleet.runtime.upgrade("other", "0.2.0")
    assert ordered(field, "other").archives == ordered(field).archives
    with pytest.raises(NotFoundError, match=r"'0\.9\.0' was ordered for no group") as refused:
        fleet.runtime.upgrade("other", "0.9.0")
    assert "versions there are: 0.2.0" in str(refused.value.cure)


def test_the_status_is_what_devices_report(field: Field, fleet: Fleet) -> None:
    assert fleet.runtime.status("line").offer is None
    fleet.runtime.upgrade("line", [archive(field.folder, "0.2.0")])
    says(field, "cam-1", "0.2.0")
    says(field, "cam-2", "0.1.0", RevertedRuntime(runtime="0.2.0", reason="it died"))
    field.rig.roster.enroll("cam-3", "line", {})
    found = fleet.runtime.status("line")
    assert found.devices == {"cam-1": "0.2.0", "cam-2": "0.1.0", "cam-3": None}
    assert found.reverted == {"cam-2": "it died"}
    fleet.runtime.upgrade("line", [archive(field.folder, "0.3.0")])
    assert fleet.runtime.status("line").reverted == {}


def test_what_can_t_be_ordered_is_refused(field: Field, fleet: Fleet, tmp_path: Path) -> None:
    one, other = archive(field.folder, "0.2.0"), archive(field.folder, "0.3.0", "linux-aarch64")
    with pytest.raises(InvalidInputError, match="several versions"):
        fleet.runtime.upgrade("line", [one, other])
    with pytest.raises(InvalidInputError, match="two archives are for linux-x86_64"):
        fleet.runtime.upgrade("line", [one, one])
    with pytest.raises(InvalidInputError, match="1001"):
        fleet.runtime.upgrade("line", [one], permille=1001)
    (tmp_path / "none.tar.gz").write_bytes(b"none")
    with pytest.raises(IntegrityError, match="no archive of the runtime"):
        fleet.runtime.upgrade("line", [tmp_path / "none.tar.gz"])
    with pytest.raises(InvalidInputError, match="there are no archives"):
        fleet.runtime.upgrade("line", tmp_path.glob("*.none"))
    with pytest.raises(NotFoundError, match="no runtime was ordered"):
        fleet.runtime.upgrade("line")
    with pytest.raises(NotFoundError, match="no group 'nowhere'"):
        fleet.runtime.upgrade("nowhere", [one])
    assert fleet.runtime.status("line").offer is None


def test_the_commands_order_and_show(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(field.folder)
    path = str(archive(field.folder, "0.2.0"))

    def run(*arguments: str, expect: int = 0) -> str:
        done = CliRunner().invoke(cli, ("runtime", *arguments, "--profile", "field"))
        assert done.exit_code == expect, done.output
        return done.stdout

    told = json.loads(run("upgrade", path, "--group", "line", "--permille", "10", "--json"))
    assert (told["version"], told["permille"]) == ("0.2.0", 10)
    told = json.loads(run("upgrade", "--group", "line", "--permille", "20", "--json"))
    assert (told["version"], told["permille"]) == ("0.2.0", 20)
    run("upgrade", path, "--group", "line", "--version", "0.2.0", expect=2)
    says(field, "cam-2", "0.1.0", RevertedRuntime(runtime="0.2.0", reason="it died"))
    shown = run("status", "line")
    assert "0.2.0 for 20 of a thousand devices" in shown
    assert "it died" in shown
