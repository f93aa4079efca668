"""What a device goes through: full disks, lost access, rollbacks, restarts, crashes."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from device_runtime.tests.reconciler.rig import Rig, serving
from device_runtime.tests.support import X, details
from edgefleet.errors import AccessDeniedError
from edgefleet.protocol.digest import digest_of, short
from edgefleet.protocol.release import RuntimeSettings
from edgefleet.protocol.report import AccessReport
from edgefleet_runtime.reconciler import memory as mem
from edgefleet_runtime.store.folder import FolderSource
from edgefleet_runtime.store.sources import BlobStream


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# --------------------------------------------------------------------------------------- the disk


def test_a_blob_damaged_in_the_store_is_fetched_again(rig: Rig) -> None:
    repository = rig.repository
    layout = repository.fake(3)
    blob = layout.manifest("fp32").layers[0].digest
    rig.channel.offer(repository.pointer(repository.release({"digits": layout})))
    rig.driver.poll()
    assert rig.driver.step()  # fetched, not yet verified
    path = rig.store.path_of(blob)
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    rig.settle()
    assert rig.factor() == 3
    assert "model.json of digits" in rig.driver.errors[0]


def test_damage_that_cannot_be_mended_is_reported_with_the_file(rig: Rig) -> None:
    serving(rig, 2)
    layout = rig.repository.fake(3)
    path = rig.repository.blob(layout.manifest("fp32").layers[0].digest)
    rig.channel.offer(rig.repository.pointer(rig.repository.release({"digits": layout})))
    rig.driver.poll()
    rig.driver.step()
    rig.store.path_of(layout.manifest("fp32").layers[0].digest).unlink()
    path.write_bytes(b"damaged")
    rig.settle()
    assert rig.condition == "rejected"
    assert "model.json of digits:1" in rig.driver.errors[0]
    assert rig.factor() == 2


def test_a_store_too_small_for_the_release_rejects_it_before_fetching(tmp_path: Path) -> None:
    rig = Rig(tmp_path, store_max_bytes=12_000)
    serving(rig, 2)
    fetched = rig.fetcher.bytes_fetched
    layout = rig.repository.bundle(
        {"model.json": b'{"factor": 3}', "weights.bin": bytes(50_000)},
        details(3, entry="model.json", variant="fp32"),
    )
    rig.deploy(rig.repository.release({"digits": layout}))
    assert rig.condition == "rejected"
    assert "do not fit into the store" in rig.driver.errors[0]
    assert rig.fetcher.bytes_fetched - fetched < 10_000
    assert rig.factor() == 2


@pytest.mark.parametrize("restarts", [False, True], ids=["loaded", "kept on the disk"])
def test_the_release_that_could_come_back_makes_room_when_there_is_none(
    tmp_path: Path, *, restarts: bool
) -> None:
    rig = Rig(tmp_path, store_max_bytes=55_000)

    def deploy(factor: int) -> None:
        layout = rig.repository.bundle(
            {"model.json": b'{"factor": %d}' % factor, "weights.bin": bytes([factor]) * 20_000},
            details(factor, entry="model.json", variant="fp32"),
        )
        rig.deploy(rig.repository.release({"digits": layout}))
        rig.clock.now += 100
        rig.driver.poll()

    for factor in (2, 3, 4, 5):
        deploy(factor)
        assert rig.factor() == factor
        if restarts:
            rig = rig.restarted(store_max_bytes=55_000)
    assert rig.store.used_bytes() <= 55_000


def test_a_full_disk_waits_and_goes_on_when_there_is_room(rig: Rig) -> None:
    serving(rig, 2)
    blocked = rig.root / ".state.json.partial"
    blocked.symlink_to("/dev/full")
    release = rig.repository.release({"digits": rig.repository.fake(3)})
    rig.deploy(release)
    assert "cannot take the pointer" in rig.driver.errors[0]
    assert rig.factor() == 2
    blocked.unlink(missing_ok=True)
    rig.clock.now += 1000
    rig.settle()
    assert rig.factor() == 3


# ----------------------------------------------------------------------------------------- waiting


def test_expired_access_waits_then_goes_on_while_the_old_release_serves(rig: Rig) -> None:
    serving(rig, 2)
    rig.channel.says = AccessReport(state="expired", detail="since yesterday")
    rig.deploy(rig.repository.release({"digits": rig.repository.fake(3)}))
    assert rig.condition == "waiting"
    assert rig.driver.outside.access.state == "expired"
    assert "since yesterday" in rig.driver.errors[0]
    assert rig.factor() == 2
    rig.channel.says = AccessReport(state="ok")
    rig.settle()
    assert rig.factor() == 3
    assert rig.condition == "active"


def test_expired_access_does_not_keep_a_release_on_the_disk_from_coming_back(rig: Rig) -> None:
    first = serving(rig, 2)
    serving(rig, 3)
    again = rig.restarted()
    again.channel.says = AccessReport(state="expired")
    again.deploy(first, number=50)
    assert again.factor() == 2


def test_a_source_that_refuses_is_reported_as_denied_access(rig: Rig) -> None:
    class Refusing(FolderSource):
        def open(self, digest: str, offset: int) -> BlobStream:
            raise AccessDeniedError("the role may not read")

    serving(rig, 2)
    rig.channel.source = Refusing  # type: ignore[method-assign]
    rig.deploy(rig.repository.release({"digits": rig.repository.fake(3)}))
    assert rig.condition == "waiting"
    refused = rig.driver.outside.access
    assert refused.state == "denied"
    assert "the role may not read" in (refused.detail or "")
    rig.channel.source = lambda address: None  # type: ignore[method-assign]
    rig.clock.now += rig.driver.due_in_s() or 0
    rig.settle()
    assert rig.factor() == 3
    assert rig.driver.outside.access.state == "ok"


def test_a_source_that_is_not_mounted_waits_and_is_tried_again(rig: Rig) -> None:
    release = rig.repository.release({"digits": rig.repository.fake(3)})
    away = rig.repository.source.rename(rig.repository.root / "away")
    rig.deploy(release)
    assert rig.condition == "waiting"
    away.rename(rig.repository.source)
    rig.settle()
    assert rig.condition == "waiting"
    due = rig.driver.due_in_s()
    assert due is not None
    rig.clock.now += due
    rig.settle()
    assert rig.factor() == 3


# --------------------------------------------------------------------------------------- rollbacks


def test_a_rollback_is_served_from_memory_without_a_fetch_or_a_load(rig: Rig) -> None:
    first = serving(rig, 2)
    serving(rig, 3)
    fetched, opened = rig.fetcher.bytes_fetched, len(rig.engine.opened)
    shutil.rmtree(rig.repository.source)
    rig.deploy(first)
    assert rig.factor() == 2
    assert (rig.fetcher.bytes_fetched, len(rig.engine.opened)) == (fetched, opened)


def test_without_keep_previous_the_previous_release_is_closed(rig: Rig) -> None:
    serving(rig, 2)
    layout = rig.repository.fake(3)
    settings = RuntimeSettings(keep_previous=False)
    rig.deploy(rig.repository.release({"digits": layout}, settings=settings))
    assert [model.closed for model in rig.engine.opened] == [True, False]


def test_only_one_previous_release_is_kept(rig: Rig) -> None:
    for factor in (2, 3, 4, 5):
        serving(rig, factor)
    assert [model.closed for model in rig.engine.opened] == [True, True, False, False]


def test_requests_under_way_finish_on_the_release_they_began_with(rig: Rig) -> None:
    serving(rig, 2)
    with rig.table.lease("digits") as served:
        serving(rig, 3)
        serving(rig, 4)
        assert served.infer({"x": X})[0]["y"][0, 0] == 2
    assert [model.closed for model in rig.engine.opened] == [True, False, False]


def test_releases_that_come_and_fail_lose_no_request(rig: Rig) -> None:
    repository = rig.repository
    good = [repository.release({"digits": repository.fake(n)}) for n in (2, 3)]
    bad = repository.release({"digits": repository.fake(9, recorded=8.0)})
    rig.deploy(good[0])
    stop, answers, failures = threading.Event(), set[float](), list[Exception]()

    def load() -> None:
        while not stop.is_set():
            try:
                answers.add(rig.factor())
            except Exception as error:  # noqa: BLE001 - whatever fails is counted
                failures.append(error)

    clients = [threading.Thread(target=load) for _ in range(3)]
    for client in clients:
        client.start()
    for turn in range(12):
        rig.deploy(bad if turn % 3 == 2 else good[turn % 2])
    stop.set()
    for client in clients:
        client.join()
    assert failures == []
    assert answers <= {2.0, 3.0}


# ---------------------------------------------------------------------------------------- restarts


def test_a_restart_serves_at_once_without_sources_and_without_the_channel(rig: Rig) -> None:
    release = serving(rig, 2)
    shutil.rmtree(rig.repository.source)
    again = rig.restarted()
    assert not again.driver.outside.live
    assert again.factor() == 2
    assert again.driver.state.running == release
    assert again.model().self_test is not None


def test_a_restart_with_the_running_release_damaged_serves_the_last_good_one(rig: Rig) -> None:
    serving(rig, 2)
    rig.clock.now += 100
    rig.driver.poll()  # the first one is good now
    release = serving(rig, 3)
    layer = rig.rack.running
    assert layer is not None
    path = rig.store.path_of(layer.acquired.parts[0].manifest.layers[0].digest)
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    again = rig.restarted()
    assert again.factor() == 2
    assert f"cannot start with release {short(release)}" in again.driver.errors[0]
    assert "model.json of digits" in again.driver.errors[0]
    again.settle()
    assert again.factor() == 3


def test_a_release_that_could_not_start_is_not_preferred_at_the_next_start(rig: Rig) -> None:
    first = serving(rig, 2)
    rig.clock.now += 100
    rig.driver.poll()
    serving(rig, 3)
    assert rig.rack.running is not None
    rig.store.path_of(rig.rack.running.acquired.parts[0].model.bundle).unlink()
    again = rig.restarted()
    again.deploy(first, number=50)
    assert again.condition == "active"
    assert again.restarted().driver.errors == ()


def test_a_release_is_good_after_it_served_for_a_while(rig: Rig) -> None:
    release = serving(rig, 2)
    before = rig.driver.memory
    assert before.trial == mem.Trial(release=release)
    rig.clock.now += rig.driver.due_in_s() or 0
    rig.driver.poll()
    after = rig.driver.memory
    assert after.good == release
    assert after.trial is None


def test_a_release_that_crashes_again_and_again_gives_way_to_the_last_good_one(rig: Rig) -> None:
    serving(rig, 2)
    rig.clock.now += 100
    rig.driver.poll()
    release = serving(rig, 3)
    for _ in range(mem.MAX_CRASHES - 1):
        rig = rig.restarted()
        assert rig.factor() == 3
    rig = rig.restarted()
    assert rig.factor() == 2
    rig.settle()
    assert rig.factor() == 2
    assert rig.condition == "rejected"
    assert "ended 3 times" in rig.driver.errors[0]
    rig = rig.restarted()
    rig.settle()
    assert rig.factor() == 2
    rig.deploy(release, number=99)
    assert rig.factor() == 3


def test_orderly_stops_count_against_no_release(rig: Rig) -> None:
    serving(rig, 2)
    for _ in range(5):
        rig.driver.close()
        rig = rig.restarted()
        assert rig.factor() == 2
    assert rig.driver.memory.starts == 6


def test_an_unreadable_memory_is_no_end(rig: Rig) -> None:
    serving(rig, 2)
    (rig.root / mem.FILE).write_bytes(b"\0")
    again = rig.restarted()
    assert list(again.table) == []
    again.settle()
    assert again.factor() == 2


def test_the_release_that_runs_is_pinned_and_others_may_go(rig: Rig) -> None:
    releases = [serving(rig, factor) for factor in (2, 3, 4)]
    rig.store.max_bytes = 1
    with pytest.raises(OSError, match="do not fit"):
        rig.store.make_room(1)
    rig.store.max_bytes = rig.store.used_bytes() - 1
    rig.store.make_room(0)
    assert releases[0] not in rig.store
    assert releases[1] in rig.store
    assert releases[2] in rig.store


def test_a_release_document_that_is_no_release_is_rejected(rig: Rig) -> None:
    rig.deploy(rig.repository.put(b'{"version": 1, "requires": ["quantum"]}'))
    assert rig.condition == "rejected"
    assert "quantum" in rig.driver.errors[0]
    assert digest_of(b"") not in rig.store
