"""A group's release on a stick: whole or the old one, whatever happens to the stick."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from edgefleet.cli.app import cli
from edgefleet.errors import (
    InvalidInputError,
    NotFoundError,
    StorageFullError,
    UnavailableError,
)
from edgefleet.fleet import Fleet
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.pointer import Pointer, read_pointer
from edgefleet.sticks import exported
from edgefleet.sticks.exported import export, needed, releases_of
from edgefleet.sticks.folder import replace
from edgefleet.testing.kit import samples
from edgefleet_runtime.channels.pull.from_stick import StickChannel
from edgefleet_runtime.channels.pull.identity import DeviceIdentity
from providers.gateway.tests.stick_rig import Field, bundle, tree

FIRST = {"fp32": (b"first weights " * 900, ()), "int8": (b"small " * 99, ("jetson-orin",))}
SECOND = {"fp32": (b"second weights" * 900, ()), "int8": (b"other " * 99, ("jetson-orin",))}


class Opened(NamedTuple):
    field: Field
    fleet: Fleet


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Opened]:
    field = Field(tmp_path)
    field.join("cam-1")
    with field.connect() as fleet:
        fleet.push(bundle(tmp_path, FIRST), "m", version="1", progress=False)
        fleet.push(bundle(tmp_path, SECOND), "m", version="2", progress=False)
        yield Opened(field, fleet)


def on_device(field: Field) -> Pointer:
    """What a device finds on the stick: each blob of the release is there, and right."""
    channel = StickChannel("cam-1", field.mount, DeviceIdentity(field.folder / "cam-1"))
    read = channel.pointer()
    assert read is not None
    pointer = read_pointer(read)
    (address,) = channel.addresses()
    source = channel.source(address)
    assert source is not None
    with field.connect() as fleet:
        wanted = needed(fleet.registry.blobs, pointer)
    assert {one.digest for one in wanted} >= set(releases_of(pointer))
    for one in wanted:
        with source.open(one.digest, 0) as stream:
            assert digest_of(b"".join(iter(lambda: stream.read(1 << 20), b""))) == one.digest
    return pointer


def test_a_device_finds_its_release_and_the_cohort_s_on_the_stick(at: Opened) -> None:
    at.fleet.deploy("m:1", to="line")
    at.fleet.deploy("m:2", to="line", cohort_permille=100)
    done = at.fleet.export_group("line", at.field.mount)
    assert on_device(at.field).pair == done.pair
    assert len(done.releases) == 2
    assert done.group == "gateway/line"


def test_the_same_again_changes_nothing(at: Opened) -> None:
    at.fleet.deploy("m:1", to="line", cohort_permille=100)  # beside the empty release
    at.fleet.export_group("line", at.field.mount)
    before = tree(at.field.mount)
    again = at.fleet.export_group("line", at.field.mount)
    assert (again.copied, again.removed) == (0, 0)
    assert tree(at.field.mount) == before


def test_what_the_new_release_doesn_t_need_goes(at: Opened) -> None:
    at.fleet.deploy("m:1", to="line")
    at.fleet.export_group("line", at.field.mount)
    (at.field.root / "blobs" / "sha256" / "notes.txt").write_text("of somebody")
    at.fleet.deploy("m:2", to="line")
    done = at.fleet.export_group("line", at.field.mount)
    assert done.removed == done.copied > 0
    left = {path.name for path in (at.field.root / "blobs" / "sha256").iterdir()}
    assert left - {"notes.txt"} == {
        one.digest.removeprefix("sha256:")
        for one in needed(at.fleet.registry.blobs, on_device(at.field))
    }
    assert "notes.txt" in left


def test_a_stick_pulled_out_at_any_step_holds_the_old_release_or_the_new(at: Opened) -> None:
    at.fleet.deploy("m:1", to="line")
    old = at.fleet.export_group("line", at.field.mount)
    at.fleet.deploy("m:2", to="line")
    pointer = at.fleet.deployers["gateway"].pointer("line")
    assert pointer is not None
    blobs = at.fleet.registry.blobs
    wanted = needed(blobs, pointer)
    for steps in range(100):
        left = steps

        def pulled(_bytes: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

        try:
            export(
                blobs,
                pointer,
                wanted,
                at.field.mount,
                group="line",
                devices=["cam-1"],
                progress=pulled,
            )
        except UnavailableError:
            found = on_device(at.field)
        else:
            break
        assert found.pair == old.pair
    assert steps > len(wanted) // 2
    assert on_device(at.field).pair == pointer.pair


@pytest.mark.parametrize("written", [0, 1])
def test_a_stick_pulled_out_before_a_small_file_holds_the_old_release(
    at: Opened, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Whose the release is comes before the pointer that it is told of."""
    at.fleet.deploy("m:1", to="line")
    old = at.fleet.export_group("line", at.field.mount)
    at.fleet.deploy("m:2", to="line")
    left = written

    def pulled(path: Path, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise UnavailableError("pulled out")
        replace(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(exported, "replace", pulled)
        with pytest.raises(UnavailableError, match="pulled out"):
            at.fleet.export_group("line", at.field.mount)
    assert on_device(at.field).pair == old.pair
    new = at.fleet.export_group("line", at.field.mount)
    assert on_device(at.field).pair == new.pair > old.pair


def test_a_device_takes_the_stick_of_its_own_group_alone(at: Opened) -> None:
    elsewhere = at.field.join("cam-2", group="other")
    at.fleet.deploy("m:1", to="line")
    at.fleet.deploy("m:2", to="other")
    of_line = StickChannel("cam-1", at.field.mount, DeviceIdentity(at.field.folder / "cam-1"))
    of_other = StickChannel("cam-2", at.field.mount, elsewhere)
    at.fleet.export_group("line", at.field.mount)
    assert (of_line.pointer() is None, of_other.pointer() is None) == (False, True)
    at.fleet.export_group("other", at.field.mount)
    assert (of_line.pointer() is None, of_other.pointer() is None) == (True, False)
    assert "gateway/other, which cam-1 is not in" in str(of_line.access().detail)
    assert len(list((at.field.root / "members").iterdir())) == 1


def test_a_device_that_joined_since_takes_the_stick_when_it_is_exported_again(at: Opened) -> None:
    at.fleet.deploy("m:1", to="line")
    at.fleet.export_group("line", at.field.mount)
    late = StickChannel("cam-2", at.field.mount, at.field.join("cam-2"))
    assert late.pointer() is None
    assert at.fleet.export_group("line", at.field.mount).copied == 0
    assert late.pointer() is not None


def test_an_export_goes_on_where_it_stopped(at: Opened) -> None:
    at.fleet.deploy("m:1", to="line")
    at.fleet.export_group("line", at.field.mount)
    weights = digest_of(FIRST["fp32"][0]).removeprefix("sha256:")
    whole = at.field.root / "blobs" / "sha256" / weights
    part = whole.with_name(whole.name + ".partial")
    part.write_bytes(whole.read_bytes()[:5000])
    whole.unlink()
    steps: list[int] = []
    pointer = at.fleet.deployers["gateway"].pointer("line")
    assert pointer is not None
    (wanted,) = (
        one for one in needed(at.fleet.registry.blobs, pointer) if one.digest.endswith(weights)
    )
    export(
        at.fleet.registry.blobs,
        pointer,
        [wanted],
        at.field.mount,
        group="line",
        devices=["cam-1"],
        progress=steps.append,
    )
    assert steps == [5000, wanted.size - 5000]


def test_a_blob_that_the_stick_spoiled_is_written_anew(at: Opened) -> None:
    at.fleet.deploy("m:1", to="line")
    at.fleet.export_group("line", at.field.mount)
    weights = digest_of(FIRST["fp32"][0]).removeprefix("sha256:")
    path = at.field.root / "blobs" / "sha256" / weights
    path.write_bytes(b"x" * path.stat().st_size)
    assert at.fleet.export_group("line", at.field.mount).copied == 1
    on_device(at.field)


def test_without_room_nothing_is_written(at: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    at.fleet.deploy("m:1", to="line")
    at.fleet.export_group("line", at.field.mount)
    before = tree(at.field.mount)
    at.fleet.deploy("m:2", to="line")
    usage = shutil.disk_usage(at.field.mount)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(StorageFullError, match="1048576 bytes free"):
        at.fleet.export_group("line", at.field.mount)
    assert tree(at.field.mount) == before


def test_only_the_variants_of_a_target_go_on_the_stick(at: Opened) -> None:
    at.fleet.deploy("m:1", to="line")
    every = at.fleet.export_group("line", at.field.mount)
    some = at.fleet.export_group("line", at.field.mount, targets=["raspberry-pi-5"])
    assert some.size == every.size - len(FIRST["int8"][0]) - _about(at, "int8")
    assert some.removed == 4
    assert at.fleet.export_group("line", at.field.mount, targets=["jetson-orin"]).copied == 4


def _about(at: Opened, variant: str) -> int:
    """Bytes of a variant's documents."""
    version = at.fleet.registry.get("m:1")
    layout = at.fleet.registry.pull("m:1", at.field.folder / "pulled")
    assert version.digest == layout.digest
    manifest = layout.manifest(variant)
    sizes = [one.size for one in (manifest.config, *manifest.layers)]
    return sum(sizes) + layout.variant(variant).manifest.size - layout.variant(variant).bytes


def test_no_variant_for_a_target_is_told_before_anything_is_written(at: Opened) -> None:
    at.fleet.push(
        bundle(at.field.folder, {"int8": (b"w", ("jetson-orin",))}),
        "n",
        version="1",
        progress=False,
    )
    at.fleet.deploy("n:1", to="line")
    with pytest.raises(InvalidInputError, match="no variant of n is for x86-cpu") as refused:
        at.fleet.export_group("line", at.field.mount, targets=["x86-cpu"])
    assert refused.value.cure == "targets that it has: jetson-orin"
    assert not at.field.root.exists()


def test_what_devices_of_another_fleet_wrote_stays_with_a_warning(
    at: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    at.fleet.deploy("m:1", to="line")
    at.fleet.export_group("line", at.field.mount)
    theirs = samples.pointer(1)
    (at.field.root / "pointer.json").write_bytes(theirs.encoded())
    at.fleet.export_group("line", at.field.mount)  # nobody wrote anything: nothing to warn of

    (at.field.root / "pointer.json").write_bytes(theirs.encoded())
    written = at.field.root / "receipts" / "cam-7" / "report.json"
    written.parent.mkdir(parents=True)
    written.write_bytes(b"{}")
    with pytest.warns(RuntimeWarning, match=f"another fleet, {theirs.fleet}, and holds what"):
        at.fleet.export_group("line", at.field.mount)
    assert written.read_bytes() == b"{}"

    (at.field.root / "pointer.json").write_bytes(theirs.encoded())
    monkeypatch.chdir(at.field.folder)
    act = ["bundle", "export", "--profile", "field", "--group", "line", "--to"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        done = CliRunner().invoke(cli, [*act, str(at.field.mount)])
    assert done.exit_code == 0
    assert "warning: the stick was written for another fleet" in done.stderr


def test_a_group_without_a_release_says_what_to_do(at: Opened) -> None:
    with pytest.raises(NotFoundError, match="nothing was deployed"):
        at.fleet.export_group("line", at.field.mount)


@pytest.mark.parametrize("place", ["edgefleet", "edgefleet/blobs", "edgefleet/blobs/sha256"])
def test_nothing_is_written_through_a_link_on_the_stick(at: Opened, place: str) -> None:
    at.fleet.deploy("m:1", to="line")
    elsewhere = at.field.folder / "elsewhere"
    elsewhere.mkdir()
    link = at.field.mount / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(elsewhere)
    with pytest.raises(InvalidInputError, match="is a link or a file, where a folder belongs"):
        at.fleet.export_group("line", at.field.mount)
    assert not list(elsewhere.iterdir())


def test_a_link_in_a_blob_s_or_the_pointer_s_place_is_replaced(at: Opened) -> None:
    at.fleet.deploy("m:1", to="line")
    victim = at.field.folder / "victim"
    victim.write_bytes(b"mine")
    at.fleet.export_group("line", at.field.mount)
    blobs = at.field.root / "blobs" / "sha256"
    weights = blobs / digest_of(FIRST["fp32"][0]).removeprefix("sha256:")
    weights.unlink()
    for path in (
        weights,
        weights.with_name(weights.name + ".partial"),
        at.field.root / ".pointer.json.partial",
    ):
        path.symlink_to(victim)
    (at.field.root / "pointer.json").unlink()
    (at.field.root / "pointer.json").symlink_to(victim)
    at.fleet.export_group("line", at.field.mount)
    assert victim.read_bytes() == b"mine"
    assert not weights.is_symlink()
    on_device(at.field)
