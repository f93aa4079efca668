"""A whole turn: what it does to registry, trainer and group, and what it doesn't."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgefleet.errors import ConflictError, InvalidInputError, NotFoundError
from tests.loop.world import DEVICES, GROUP, onnx_model

if TYPE_CHECKING:
    from tests.loop.conftest import MakeWorld
    from tests.loop.world import World


def test_no_turn_begins_where_no_trigger_holds(make_world: MakeWorld) -> None:
    world = make_world()
    world.sources.gather(39, at=world.now)
    status = world.run()
    assert (status.state, status.turn) == ("idle", None)
    assert "39 of 40 new labelled samples" in str(status)


def test_a_person_begins_a_turn_whatever_the_triggers_say(make_world: MakeWorld) -> None:
    world = make_world(dataset={"least": 20})
    world.sources.gather(20, at=world.now)
    status = world.run(now=True)
    assert status.turn is not None
    assert status.turn.trigger == "a person asked for it"


def test_a_turn_waits_for_labels(make_world: MakeWorld) -> None:
    world = make_world()
    world.sources.gather(60, at=world.now, labelled=False)
    status = world.run(now=True)
    assert (status.state, status.turn and status.turn.step) == ("waiting", "dataset")
    assert "0 samples are labelled, 40 are needed" in status.why


def test_a_better_model_is_shadowed_then_promoted(world: World) -> None:
    assert world.drive(until="tried as a shadow").state == "waiting"
    assert world.serving == {"active": "1", "shadow": "2"}
    world.converge(compared=60)
    status = world.drive(until="attest")
    assert world.serving == {"active": "2"}
    world.converge()
    status = world.run()
    assert (status.state, status.turn and status.turn.version) == ("promoted", "signs:2")
    assert world.counts() == (1, 2, ["deploy", "deploy", "deploy"])


def test_the_version_tells_its_whole_origin(world: World) -> None:
    status = world.drive(until="tried as a shadow")
    turn = status.turn
    assert turn is not None
    assert turn.samples is not None
    version = world.fleet.registry.get("signs:2")
    origin = {
        "loop": "keep-signs",
        "turn": "1",
        "dataset": turn.samples.version,
        "dataset_version": "signs:1",
        "parent": "signs:1",
        "run": turn.run,
    }
    assert version.labels == origin
    assert origin.items() <= version.lineage.items()
    assert version.metrics["accuracy"] > 0.98
    assert version.metrics["accuracy_recent"] > 0.9


def test_what_a_turns_run_left_here_goes_with_the_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer elsewhere has its outputs brought here; a loop would keep those of every turn."""
    forgotten: list[str] = []

    def forget(_trainer: object, run: str) -> None:
        forgotten.append(run)
        raise OSError("the disk is read-only")  # what can't go doesn't hold up the loop

    monkeypatch.setattr(type(world.fleet.trainer), "_forget", forget)
    (world.folder / "train.py").write_text("print('done')")
    status = world.drive()
    assert status.turn is not None
    assert status.state == "failed"
    assert forgotten == [status.turn.run]


def test_scores_are_of_both_models_on_both_sets(world: World) -> None:
    turn = world.drive(until="tried as a shadow").turn
    assert turn is not None
    assert turn.frozen is not None
    assert turn.recent is not None
    assert (turn.frozen.active, turn.frozen.samples) == (1.0, 200)
    assert turn.recent.active < 0.8 < turn.recent.candidate
    assert turn.samples is not None
    assert turn.recent.samples == turn.samples.held_back


def test_a_candidate_that_loses_on_the_frozen_set_reaches_no_device(world: World) -> None:
    """The frozen set's second feature tells nothing, which is all that the candidate goes by."""
    held = dict(np.load(world.folder / "frozen.npz"))
    held["x"][:, 1] *= np.where(np.arange(200) % 3, 1, -1)
    np.savez(world.folder / "frozen.npz", **held)
    status = world.drive()
    assert (status.state, world.serving) == ("discarded", {"active": "1"})
    assert "loses more than 0.02 on the frozen test set" in status.why
    assert world.counts() == (1, 1, ["deploy"])


def test_a_candidate_that_does_not_win_on_recent_samples_is_discarded(
    make_world: MakeWorld,
) -> None:
    world = make_world(compare={"frozen": "frozen.npz", "min_gain": 0.9})
    world.sources.gather(60, at=world.now)
    status = world.drive()
    assert status.state == "discarded"
    assert "isn't better by 0.9 or more on recent samples" in status.why


def test_failed_training_ends_the_turn_with_its_reason(world: World) -> None:
    (world.folder / "train.py").write_text("raise SystemExit('no GPU left')")
    status = world.drive()
    assert status.state == "failed"
    assert status.turn is not None
    assert f"training run {status.turn.run} failed" in status.why
    assert world.serving == {"active": "1"}


def test_a_run_that_left_no_model_ends_the_turn(world: World) -> None:
    (world.folder / "train.py").write_text("print('done')")
    status = world.drive()
    assert status.state == "failed"
    assert "left 0 ONNX files" in status.why


def test_approval_is_waited_for(make_world: MakeWorld) -> None:
    world = make_world(approval="required")
    world.sources.gather(60, at=world.now)
    assert "signs:2 needs approval" in world.drive(until="approval").why
    assert "needs approval" in world.run().why
    assert world.serving == {"active": "1"}
    world.loop().approve(world.fleet, by="ana", reason="looked at it")
    turn = world.drive(until="tried as a shadow").turn
    assert turn is not None
    assert turn.approved_by == "ana"
    assert world.serving == {"active": "1", "shadow": "2"}


def test_a_rejected_version_ends_the_turn(make_world: MakeWorld) -> None:
    world = make_world(approval="required")
    world.sources.gather(60, at=world.now)
    world.drive(until="approval")
    world.fleet.registry.reject("signs:2", by="ana", reason="biased")
    status = world.run()
    assert (status.state, status.why) == ("discarded", "signs:2 was rejected by ana: biased")


def test_a_shadow_that_disagrees_is_taken_back(make_world: MakeWorld) -> None:
    world = make_world(shadow={"requests": 100, "min_agreement": 0.9})
    world.sources.gather(60, at=world.now)
    world.drive(until="tried as a shadow")
    world.converge(compared=60, agreement=0.6)
    status = world.run()
    assert status.state == "discarded"
    assert "agreement 0.600, 0.9 needed" in status.why
    assert world.serving == {"active": "1"}


def test_a_shadow_that_a_device_rejects_is_taken_back(world: World) -> None:
    world.drive(until="tried as a shadow")
    world.converge(rejects=["2"], devices=DEVICES[:1])
    status = world.run()
    assert (status.state, status.why) == ("discarded", "1 of 2 devices rejected it")
    assert world.serving == {"active": "1"}


def test_a_shadow_proves_itself_by_samples_labelled_meanwhile(make_world: MakeWorld) -> None:
    world = make_world(shadow={"requests": 100, "min_gain": 0.1, "min_labelled": 30})
    world.sources.gather(60, at=world.now)
    world.later(seconds=1)
    world.drive(until="tried as a shadow")
    world.converge(compared=60, agreement=0.6)
    world.later(hours=1)
    assert "0 of 30 samples labelled since it began" in world.run().why
    world.later(hours=1)
    world.sources.gather(30, at=world.now, seed=5)
    status = world.drive(until="attest")
    assert "labelled since it began" in (status.turn.why if status.turn else "")
    assert world.serving == {"active": "2"}
    assert world.sources.remembered == [True, False]  # nothing is trained on what a shadow meets


def test_a_shadow_that_never_proves_itself_is_given_up(make_world: MakeWorld) -> None:
    world = make_world(shadow={"requests": 100, "min_agreement": 0.3, "gives_up": "7d"})
    world.sources.gather(60, at=world.now)
    world.drive(until="tried as a shadow")
    world.later(days=8)
    status = world.run()
    assert status.state == "discarded"
    assert "hasn't proven itself in 7 d" in status.why


def test_another_s_shadow_is_not_replaced(world: World) -> None:
    other = onnx_model(world.folder / "other.onnx", np.array([[-1, 1], [-0.1, 0.1]]))
    version = world.fleet.push(other, "signs", progress=False)
    world.fleet.deploy(version, to=GROUP, role="shadow")
    world.converge()
    status = world.drive(until="not this loop's")
    assert status.state == "waiting"
    assert world.serving == {"active": "1", "shadow": "2"}


def test_another_s_cohort_is_left_alone(world: World) -> None:
    other = world.fleet.push(
        onnx_model(world.folder / "other.onnx", np.array([[-1, 1], [-0.1, 0.1]])),
        "others",
        progress=False,
    )
    world.fleet.deploy(other, to=GROUP, cohort_permille=500)
    world.converge()
    assert world.drive(until="not this loop's").state == "waiting"
    assert world.counts()[2] == ["deploy", "canary"]
    world.fleet.promote(GROUP)
    assert "tried as a shadow" in world.drive(until="tried as a shadow").why


def test_turns_keep_their_distance_whoever_asks(make_world: MakeWorld) -> None:
    world = make_world(limits={"every": "24h"})
    world.sources.gather(60, at=world.now)
    (world.folder / "train.py").write_text("raise SystemExit(1)")
    assert world.drive().state == "failed"
    world.later(hours=23)
    status = world.run(now=True)
    assert status.state == "idle"
    assert status.why == "turn 1 began less than 24 h ago: 60 m left"
    world.later(hours=1)
    again = world.run(now=True).turn
    assert again is not None
    assert again.number == 2


def test_a_run_takes_no_more_than_is_left_of_the_budget(make_world: MakeWorld) -> None:
    world = make_world(limits={"budget": {"training_hours": 0.001, "days": 30}})
    world.sources.gather(60, at=world.now)
    (world.folder / "train.py").write_text("import time; time.sleep(600)")
    status = world.drive()
    assert status.state == "failed"
    assert status.turn is not None
    assert status.turn.run_hours < 0.1
    assert world.run(now=True).why == "0.001 hours of training in 30 days are spent"


def test_a_turn_ends_where_another_version_became_active_meanwhile(world: World) -> None:
    world.drive(until="tried as a shadow")
    other = onnx_model(world.folder / "other.onnx", np.array([[-1, 1], [-0.1, 0.1]]))
    world.fleet.deploy(world.fleet.push(other, "signs", progress=False), to=GROUP)
    world.converge(compared=60)
    status = world.run()
    assert status.state == "discarded"
    assert status.why == "signs:3 is active now, and the candidate was compared with signs:1"
    assert world.serving == {"active": "3"}


def test_devices_that_reject_the_promoted_version_get_the_old_one_back(world: World) -> None:
    world.drive(until="tried as a shadow")
    world.converge(compared=60)
    world.drive(until="attest")
    world.converge(rejects=["2"])
    status = world.run()
    assert status.state == "failed"
    assert "2 of 2 devices of template/line-3 rejected signs:2" in status.why
    assert world.serving == {"active": "1"}


def test_a_cohort_tries_it_before_all_get_it(make_world: MakeWorld) -> None:
    world = make_world(shadow=None, promote={"cohort_permille": 1000})
    world.sources.gather(60, at=world.now)
    status = world.drive()
    assert status.state == "promoted"
    assert world.counts()[2] == ["deploy", "canary", "promote"]
    assert world.serving == {"active": "2"}


def test_a_cohort_that_rejects_it_gives_it_back(make_world: MakeWorld) -> None:
    world = make_world(shadow=None, promote={"cohort_permille": 1000})
    world.sources.gather(60, at=world.now)
    world.drive(until="attest")
    world.converge(rejects=["2"])
    assert world.run().state == "failed"
    assert world.counts()[2] == ["deploy", "canary", "cancel"]


def test_a_person_ends_a_turn(world: World) -> None:
    world.drive(until="tried as a shadow")
    world.loop().discard(world.fleet, reason="wrong season")
    status = world.run()
    assert (status.state, status.why) == ("discarded", "tester wants it: wrong season")
    assert world.serving == {"active": "1"}


def test_there_is_nothing_to_approve_or_discard_without_a_turn(world: World) -> None:
    with pytest.raises(NotFoundError, match="no turn of loop 'keep-signs' is on its way"):
        world.loop().discard(world.fleet)
    with pytest.raises(NotFoundError, match="edgefleet loop run --now"):
        world.loop().approve(world.fleet)


def test_the_next_turn_counts_samples_since_the_last(world: World) -> None:
    (world.folder / "train.py").write_text("raise SystemExit(1)")
    assert world.drive().state == "failed"
    world.later(seconds=1)
    assert world.run().state == "idle"
    world.sources.gather(45, at=world.now, seed=9)
    status = world.run()
    assert status.turn is not None
    assert (status.turn.number, status.turn.trigger) == (
        2,
        "labelled: 45 of 40 new labelled samples",
    )


def test_a_drift_that_outlasts_a_discarded_turn_begins_another(make_world: MakeWorld) -> None:
    world = make_world(
        trigger={"drift": {}},
        compare={"frozen": "frozen.npz", "min_gain": 0.9},
        limits={"every": "24h"},
    )
    world.sources.gather(60, at=world.now)
    world.sources.windows = [(world.now - timedelta(hours=1), "moved")]
    assert world.drive().state == "discarded"
    world.later(hours=1)
    assert "0 of 0 features moved" in str(world.run())  # that was what the turn began by
    world.sources.windows.append((world.now, "moved"))
    assert world.run().why == "turn 1 began less than 24 h ago: 23 h left"
    world.later(hours=23)
    turn = world.run().turn
    assert turn is not None
    assert (turn.number, turn.trigger) == (
        2,
        "drift: 1 of 1 features moved, on 2 of 2 devices: x[0]",
    )


def test_labels_that_a_turn_took_begin_no_other(world: World) -> None:
    """Also where it had waited for them: they were given long after it began."""
    world.sources.found.clear()
    assert world.run(now=True).state == "waiting"
    world.later(days=9)
    world.sources.gather(60, at=world.now)
    (world.folder / "train.py").write_text("raise SystemExit(1)")
    assert world.drive().state == "failed"
    status = world.run()
    assert (status.state, status.readings[0].says) == ("idle", "0 of 40 new labelled samples")


def test_a_schedule_counts_from_the_first_run_by_the_loop_s_own_clock(
    make_world: MakeWorld,
) -> None:
    world = make_world(trigger={"schedule": "0 3 * * *"})
    world.now += timedelta(days=700)
    assert "next at" in str(world.run())
    world.later(hours=14)
    assert world.run().state == "idle"
    world.later(hours=1)
    assert "schedule: was due at" in str(world.run())


def test_groups_that_run_several_versions_are_refused(make_world: MakeWorld) -> None:
    world = make_world(groups=[GROUP, "line-4"])
    world.sources.gather(60, at=world.now)
    world.fleet.enroll("cam-09", group="line-4")
    with pytest.raises(NotFoundError, match="line-4 has no active model 'signs'"):
        world.run()
    other = onnx_model(world.folder / "other.onnx", np.array([[-1, 1], [-0.1, 0.1]]))
    world.fleet.deploy(world.fleet.push(other, "signs", progress=False), to="line-4")
    with pytest.raises(ConflictError, match="several versions: line-3: signs:1, line-4: signs:2"):
        world.run()


def test_a_loop_s_state_is_of_one_model(world: World) -> None:
    world.run()
    world.write_spec(model="others")
    with pytest.raises(InvalidInputError, match="is of model 'signs', not of 'others'"):
        world.run()


def test_the_files_of_a_turn_go_with_it(world: World) -> None:
    world.drive(until="tried as a shadow")
    assert list((world.folder / "files").rglob("samples.npz"))
    world.loop().discard(world.fleet)
    world.run()
    assert not [path for path in (world.folder / "files").rglob("*") if path.is_file()]


def test_a_file_that_a_power_cut_left_half_written_is_fetched_again(world: World) -> None:
    status = world.run()
    assert status.turn is not None
    world.fleet.trainer.get(status.turn.run).wait(progress=False)
    for path in (world.folder / "files").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:100])
    turn = world.drive(until="tried as a shadow").turn
    assert turn is not None
    assert turn.recent is not None


def test_a_turn_goes_on_on_a_machine_that_has_none_of_its_files(world: World) -> None:
    import shutil

    status = world.run()
    assert status.turn is not None
    world.fleet.trainer.get(status.turn.run).wait(progress=False)
    shutil.rmtree(world.folder / "files")
    assert world.drive(until="tried as a shadow").state == "waiting"
