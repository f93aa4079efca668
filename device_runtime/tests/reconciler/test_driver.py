from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from device_runtime.tests.reconciler.rig import Rig, serving
from device_runtime.tests.support import OTHER_FLEET, MemoryChannel, details
from edgefleet.protocol.pointer import Cohort, in_cohort
from edgefleet.protocol.release import EMPTY, RuntimeSettings


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# ------------------------------------------------------------------------------------- delivering


def test_a_release_is_fetched_tested_and_served(rig: Rig) -> None:
    release = serving(rig)
    assert rig.condition == "active"
    assert rig.driver.state.running == release
    model = rig.model()
    assert model.state == "active"
    assert model.variant == "fp32"
    assert model.providers == ("FakeExecutionProvider",)
    assert model.self_test is not None
    assert (model.self_test.passed, model.self_test.cases) == (True, 1)
    assert [event.what for event in rig.told] == ["started", "release-active"]


def test_a_release_of_two_models_is_swapped_as_a_whole(rig: Rig) -> None:
    repository = rig.repository
    rig.deploy(repository.release({"a": repository.fake(2), "b": repository.fake(3)}))
    assert (rig.factor("a"), rig.factor("b")) == (2, 3)
    release = repository.release(
        {"a": repository.fake(4), "b": repository.fake(5, broken=True)}, version="2"
    )
    rig.deploy(release)
    assert (rig.factor("a"), rig.factor("b")) == (2, 3)
    assert rig.model("2", "b").reason == "the file is broken"
    assert rig.model("2", "a").state == "loaded"


def test_only_the_chosen_variant_is_fetched(rig: Rig) -> None:
    layout = rig.repository.bundle_of(
        [
            (
                {"model.json": b'{"factor": 2}'},
                details(2, entry="model.json", variant=name),
                name,
                (),
            )
            for name in ("fp32", "int8")
        ]
    )
    rig.deploy(rig.repository.release({"digits": layout}))
    fetched = {blob.digest for blob in layout.blobs("fp32")}
    assert {blob.digest for blob in layout.blobs("int8")} - fetched
    assert rig.store.have() >= fetched
    assert not rig.store.have() & ({blob.digest for blob in layout.blobs("int8")} - fetched)
    assert "fp32 preferred" in (rig.model().why or "")


def test_the_devices_target_decides_the_variant(tmp_path: Path) -> None:
    rig = Rig(tmp_path, labels={"target": "x86-cpu"})
    layout = rig.repository.bundle_of(
        [
            (
                {"model.json": b'{"factor": 2}'},
                details(2, entry="model.json", variant=name),
                name,
                (),
            )
            for name in ("fp32", "int8")
        ]
    )
    rig.deploy(rig.repository.release({"digits": layout}))
    assert rig.model().variant == "int8"


def test_a_target_whose_providers_are_missing_runs_on_what_there_is_and_says_so(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, labels={"target": "jetson-orin"})
    serving(rig)
    assert rig.model().providers == ("FakeExecutionProvider",)


def test_strict_refuses_a_slower_provider(tmp_path: Path) -> None:
    rig = Rig(tmp_path, labels={"target": "jetson-orin"})
    layout = rig.repository.fake()
    rig.deploy(rig.repository.release({"digits": layout}, settings=RuntimeSettings(strict=True)))
    assert rig.condition == "rejected"
    assert "TensorrtExecutionProvider is not in use" in (rig.model().reason or "")


def test_a_model_that_stays_is_neither_loaded_again_nor_closed(rig: Rig) -> None:
    repository = rig.repository
    same = repository.fake(2)
    rig.deploy(repository.release({"a": same, "b": repository.fake(3)}))
    rig.infer("a")
    for factor in (4, 5, 6):
        rig.deploy(repository.release({"a": same, "b": repository.fake(factor)}))
        assert rig.factor("a") == 2
    assert sum(model.content["factor"] == 2 for model in rig.engine.opened) == 1
    assert rig.model(name="a").inferences == 4


def test_a_release_without_models_serves_none(rig: Rig) -> None:
    serving(rig)
    rig.deploy(rig.repository.put(EMPTY.encoded()))
    assert list(rig.table) == []
    assert rig.condition == "active"


# --------------------------------------------------------------------------------------- pointers


@pytest.mark.parametrize("share", [0, 1000])
def test_the_next_release_is_for_its_cohort(rig: Rig, share: int) -> None:
    repository = rig.repository
    current = repository.release({"digits": repository.fake(2)})
    following = repository.release({"digits": repository.fake(3)})
    rig.deploy(current, ahead=(following, share))
    assert rig.factor() == (3 if share else 2)
    assert in_cohort(Cohort(salt="wave", permille=share), "cam-07") is bool(share)


def test_pointers_of_another_fleet_and_older_ones_are_refused_and_reported(rig: Rig) -> None:
    serving(rig, 2)
    repository = rig.repository
    other = repository.release({"digits": repository.fake(3)})
    rig.deploy(other, fleet=OTHER_FLEET, number=99)
    assert "another fleet" in rig.driver.errors[0]
    rig.deploy(other, number=1)
    assert "two different pointers" in rig.driver.errors[0]
    rig.channel.offer(b'{"half": ')
    rig.settle()
    assert "malformed pointer" in rig.driver.errors[0]
    assert rig.factor() == 2
    assert rig.condition == "active"
    rig.deploy(other, number=2)
    assert rig.factor() == 3
    assert rig.driver.errors == ()


def test_an_older_pointer_is_refused_after_a_restart_too(rig: Rig) -> None:
    release = serving(rig, 2)
    serving(rig, 3)
    again = rig.restarted()
    again.deploy(release, number=1)
    assert "older" in again.driver.errors[0]
    assert again.factor() == 3


def test_a_start_that_is_stopped_is_neither_an_error_nor_news(rig: Rig) -> None:
    release = serving(rig)
    rig.channel.wake()  # as one does who ends the process
    again = rig.restarted()
    assert (again.driver.errors, again.told) == ((), [])
    again.driver.close()
    rig.channel.changed = False
    assert rig.restarted().driver.state.running == release


def test_a_pointer_that_comes_while_another_release_is_fetched_wins(rig: Rig) -> None:
    repository = rig.repository
    slow = repository.release({"digits": repository.fake(2)})
    quick = repository.release({"digits": repository.fake(3)})
    rig.channel.offer(repository.pointer(slow))
    rig.driver.poll()
    rig.channel.offer(repository.pointer(quick))
    rig.channel.wake()
    assert rig.driver.step()  # broken off
    assert rig.driver.state.wanted == slow
    rig.settle()
    assert rig.driver.state.running == quick
    assert [model.content["factor"] for model in rig.engine.opened] == [3]


def test_it_says_that_it_is_busy_while_a_release_is_on_its_way(tmp_path: Path) -> None:
    """If this fails, an agent that asks before it restarts the runtime gets a wrong answer."""
    seen: list[bool] = []

    class Watching(MemoryChannel):
        def source(self, address: str) -> None:
            seen.append(device.driver.busy)

    device = Rig(tmp_path, channel=Watching())
    serving(device)
    assert set(seen) == {True}
    assert not device.driver.busy


def test_a_release_comes_from_sources_that_are_made_once(tmp_path: Path) -> None:
    made: list[str] = []

    class Noting(MemoryChannel):
        def source(self, address: str) -> None:
            made.append(address)

    device = Rig(tmp_path, channel=Noting())
    serving(device)
    assert len(made) == len(set(made)) > 0


# ------------------------------------------------------------------------------------- rejections


@pytest.mark.parametrize(
    "faults,reason",
    [
        ({"broken": True}, "the file is broken"),
        ({"raises": True}, "RuntimeError: the engine's own trouble"),
        ({"fails": True}, "self-test case 1 failed: the model fails"),
        ({"recorded": 9.0}, "out of tolerance"),
    ],
)
def test_a_release_that_fails_is_rejected_and_the_old_one_serves(
    rig: Rig, faults: dict[str, Any], reason: str
) -> None:
    serving(rig, 2)
    release = rig.repository.release({"digits": rig.repository.fake(3, **faults)}, version="2")
    rig.deploy(release)
    assert rig.condition == "rejected"
    assert rig.factor() == 2
    assert rig.model("1").state == "active"
    assert rig.model("2").state == "rejected"
    assert reason in (rig.model("2").reason or "")
    assert reason in rig.driver.errors[0]
    assert rig.told[-1].what == "release-rejected"
    opened = len(rig.engine.opened)
    rig.settle()
    assert len(rig.engine.opened) == opened
    assert all(model.closed for model in rig.engine.opened[1:])


def test_a_rejected_release_is_tried_again_with_a_newer_pointer(rig: Rig) -> None:
    release = rig.repository.release({"digits": rig.repository.fake(3, broken=True)})
    rig.deploy(release)
    assert rig.condition == "rejected"
    rig.deploy(release)
    assert [event.what for event in rig.told].count("release-rejected") == 2


def test_a_blob_that_is_nowhere_rejects_the_release_and_names_the_file(rig: Rig) -> None:
    layout = rig.repository.fake()
    rig.repository.blob(layout.manifest("fp32").layers[0].digest).unlink()
    rig.deploy(rig.repository.release({"digits": layout}))
    assert rig.condition == "rejected"
    assert "model.json of digits:1, variant fp32" in rig.driver.errors[0]


def test_a_blob_damaged_at_the_source_rejects_the_release_and_names_the_file(rig: Rig) -> None:
    layout = rig.repository.fake()
    rig.repository.blob(layout.manifest("fp32").layers[0].digest).write_bytes(b"damaged")
    rig.deploy(rig.repository.release({"digits": layout}))
    assert rig.condition == "rejected"
    assert "model.json of digits:1" in rig.driver.errors[0]


def test_a_bundle_that_no_engine_opens_is_rejected_with_every_variants_reason(rig: Rig) -> None:
    layout = rig.repository.bundle(
        {"model.json": b"{}"}, details(1, entry="model.json", variant="edge"), model_format="tflite"
    )
    rig.deploy(rig.repository.release({"digits": layout}))
    assert rig.condition == "rejected"
    assert "edge: format tflite" in rig.driver.errors[0]
