"""A fleet's story, told once, which every provider passes unchanged: from training data to devices
that serve, say so, refuse what is broken, and go back.

It runs on every installed mock cloud. ``EDGEFLEET_STORY=local,gcp+kubernetes`` narrows it: a name
is a mock, or several that share the roles. Roles that none of them has fall to ``local``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

import edgefleet as ef
from edgefleet.actor import ACTOR_VARIABLE
from edgefleet.errors import ApprovalRequiredError, DeploymentFailedError
from edgefleet.fleet import Fleet
from edgefleet.plugins import discovery
from edgefleet.plugins.provider import Role
from edgefleet.protocol.layout import BundleWriter
from edgefleet.testing.mock import mock
from edgefleet.testing.waiting import eventually
from tests.end_to_end.load import under_load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.protocol.layout import BundleLayout
    from edgefleet.testing.mock import MockSession

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAINING = Path(__file__).parent / "training" / "train.py"
TIMEOUT_S = 120.0  # for anything that takes a second or two where nothing is wrong

LINE, YARD = "line-3", "yard"
DEVICES = {
    "cam-1": (LINE, "x86-cpu"),
    "cam-2": (LINE, "x86-cpu"),
    "cam-3": (LINE, "jetson-orin"),
    "gate-1": (YARD, "x86-cpu"),
    "gate-2": (YARD, "raspberry-pi-5"),
}
REQUESTS = 5  # to each device in the quiet part, 20 images each


def clouds() -> tuple[str, ...]:
    """The mocks to tell the story on."""
    named = os.environ.get("EDGEFLEET_STORY")
    return tuple(named.split(",")) if named else discovery.names(discovery.MOCKS)


def held(names: list[str]) -> AbstractContextManager[None]:
    """Has clients of a cloud whose models are known send and take nothing but what they allow."""
    if "aws" not in names:
        return nullcontext()
    from edgefleet_aws.cloud.strictness import all_held_to_model

    return all_held_to_model()


@pytest.fixture(params=clouds())
def session(request: pytest.FixtureRequest) -> Iterator[MockSession]:
    """A mock cloud with five devices in two groups."""
    names = request.param.split("+")
    served = {role for name in names for role in discovery.load(name, discovery.MOCKS).roles}
    if served < set(Role):
        names.append("local")
    with held(names), mock(*names) as session:
        for device, (group, target) in DEVICES.items():
            session.add_device(device, group=group, labels={"target": target})
        yield session


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The examples' data."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import digits_data

    return digits_data


def test_the_story_of_a_fleet(
    session: MockSession, digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ACTOR_VARIABLE, "ada")
    with session.connect() as connected, careful(connected) as fleet:
        trainable = training(tmp_path / "training", digits)
        first = train(fleet, trainable, digits, epochs=30)
        one = fleet.push(first, "digits", labels={"site": "north"})
        assert one.reference == "digits:1"
        assert one.metrics["accuracy"] > 0.9
        nothing_goes_out_unapproved(fleet, one)
        devices_run_what_was_planned(fleet, one)
        every_device_answers_and_says_so(fleet, digits)

        two = fleet.push(train(fleet, trainable, digits, epochs=60), "digits")
        a_better_model_replaces_it_under_load(fleet, two, digits)

        three = fleet.push(broken(fleet, two, tmp_path), "digits")
        a_broken_one_is_refused_by_the_devices(fleet, three, digits)

        fleet.rollback(LINE).wait(timeout_s=TIMEOUT_S, progress=False)
        the_status_tells_what_is_and_the_history_what_was(fleet)


# Chapters


def nothing_goes_out_unapproved(fleet: Fleet, model: ModelVersion) -> None:
    with pytest.raises(ApprovalRequiredError, match="edgefleet model approve digits:1"):
        fleet.deploy(model, to=LINE)
    assert {status.number for status in fleet.status().groups} == {0}
    fleet.registry.approve("digits:1", by="grace", reason="97 % on the held-out set")


def devices_run_what_was_planned(fleet: Fleet, model: ModelVersion) -> None:
    """The plan tells beforehand what the devices say afterwards."""
    planned: dict[str, str] = {}
    for group in (LINE, YARD):
        plan = fleet.plan(model, to=group)
        assert plan.problems == ()
        planned |= {device.device: device.variants["digits"] for device in plan.devices}
    assert planned.keys() == DEVICES.keys()
    assert planned["cam-3"] == "fp16"
    for group in (LINE, YARD):
        status = fleet.deploy(model, to=group).wait(timeout_s=TIMEOUT_S, progress=False)
        assert (status.models, status.failed) == (("digits:1",), 0)
    assert running(fleet) == {device: ("digits:1", planned[device]) for device in DEVICES}


def every_device_answers_and_says_so(fleet: Fleet, digits: Any) -> None:
    """Requests to each device, and what comes back of them: answers, events, reports."""
    images, truth = digits.held_out()
    for device in DEVICES:
        right = 0
        for part in range(REQUESTS):
            some = slice(20 * part, 20 * part + 20)
            answer = fleet.device(device).infer("digits", images[some])
            right += int((answer["label"] == truth[some]).sum())
        assert right > 0.85 * 20 * REQUESTS, device
    await_predictions(fleet, dict.fromkeys(DEVICES, REQUESTS))
    seen = fleet.events(kind="prediction", model="digits").to_pandas()
    assert set(seen["model_version"]) == {"1"}
    assert dict(seen.groupby("device")["variant"].first()) == {
        device: variant for device, (_, variant) in running(fleet).items()
    }
    counted = dict.fromkeys(DEVICES, REQUESTS)
    eventually(
        lambda: {d: inferences(fleet, d) for d in DEVICES} == counted, "their reports count them"
    )


def a_better_model_replaces_it_under_load(fleet: Fleet, model: ModelVersion, digits: Any) -> None:
    """No request is dropped, and none goes unrecorded."""
    fleet.registry.approve(model.reference, by="grace")
    with under_load(fleet, DEVICES, digits.held_out()[0][:20]) as load:
        for group in (LINE, YARD):
            fleet.deploy(model, to=group).wait(timeout_s=TIMEOUT_S, progress=False)
        load.serve_some_more()
    assert load.failures == []
    await_predictions(fleet, {device: REQUESTS + load.answered[device] for device in DEVICES})
    versions = {
        (e.device, e.plain()["data"]["model_version"]) for e in fleet.events(kind="prediction")
    }
    assert versions == {(device, version) for device in DEVICES for version in ("1", "2")}


def a_broken_one_is_refused_by_the_devices(fleet: Fleet, model: ModelVersion, digits: Any) -> None:
    """It gets as far as the devices' own self-test, and they go on serving what they had."""
    fleet.registry.approve(model.reference, by="grace", reason="in a hurry")
    with under_load(fleet, DEVICES, digits.held_out()[0][:20]) as load:
        with pytest.raises(DeploymentFailedError, match="self-test"):
            fleet.deploy(model, to=LINE).wait(timeout_s=TIMEOUT_S, progress=False)
        load.serve_some_more()
    assert load.failures == []
    eventually(lambda: fleet.group_status(LINE).failed == 3, "all three refuse it")
    page = fleet.why("cam-1")
    assert (page.outcome, page.wanted.split()[0]) == ("failed", "digits:3")
    assert page.actual.startswith("digits:2")
    assert "rollback" in page.cure


def the_status_tells_what_is_and_the_history_what_was(fleet: Fleet) -> None:
    assert {model for model, _ in running(fleet).values()} == {"digits:2"}
    groups = fleet.status().groups
    assert {g.group.rpartition("/")[2]: (g.models, g.attested) for g in groups} == {
        LINE: (("digits:2",), 3),
        YARD: (("digits:2",), 2),
    }
    assert all(g.published and not g.pending and not g.failed for g in groups)
    assert told(fleet, LINE) == [
        ("deploy", ("digits:1",), "ada"),
        ("deploy", ("digits:2",), "ada"),
        ("deploy", ("digits:3",), "ada"),
        ("rollback", ("digits:2",), "ada"),
    ]
    assert told(fleet, YARD) == [
        ("deploy", ("digits:1",), "ada"),
        ("deploy", ("digits:2",), "ada"),
    ]
    numbers = [entry.number for group in (LINE, YARD) for entry in fleet.history(group)]
    assert sorted(numbers) == list(range(1, 7))
    refused = {
        event.device
        for event in fleet.events(kind="health")
        if event.plain()["data"]["what"] == "release-rejected"
    }
    assert refused == {device for device, (group, _) in DEVICES.items() if group == LINE}


# What the chapters are made of


@contextmanager
def careful(fleet: Fleet) -> Iterator[Fleet]:
    """The same fleet under a profile that lets only approved versions through."""
    with Fleet(fleet.profile.model_copy(update={"require_approval": True})) as careful:
        yield careful


def training(folder: Path, digits: Any) -> Path:
    """A training script with its data beside it.

    The tests of the examples run their own script on every cloud; what that imports takes ten times
    as long as this one.
    """
    folder.mkdir()
    images, labels = digits.training_data()
    unseen, truth = digits.held_out()
    np.savez_compressed(
        folder / "digits.npz", images=images, labels=labels, unseen=unseen, truth=truth
    )
    return Path(shutil.copy(TRAINING, folder))


def train(fleet: Fleet, script: Path, digits: Any, *, epochs: int) -> BundleLayout:
    """A bundle of a freshly trained model for the fleet's kinds of devices."""
    run = fleet.train(script, params={"epochs": epochs})
    run.wait(timeout_s=TIMEOUT_S, progress=False)
    assert run.metrics["accuracy"] > 0.9
    assert len(run.metric_history("loss")) == epochs
    return ef.optimize(
        run.model,
        targets=["x86-cpu", "jetson-orin"],
        calibration=digits.calibration(),
        evaluate=digits.accuracy,
        max_accuracy_drop=0.01,
        progress=False,
        cache=False,
    )


def broken(fleet: Fleet, version: ModelVersion, folder: Path) -> BundleLayout:
    """A bundle like that version's, whose recorded answers are none that its model gives."""
    good = fleet.registry.pull(version.reference, folder / "good")
    entry = good.materialize("fp32", folder / "files")
    details = good.details("fp32")
    assert details.self_test, "nothing was recorded: devices could not tell"
    wrong = tuple(
        msgspec.structs.replace(
            vector,
            outputs=tuple(
                msgspec.structs.replace(output, data=bytes(reversed(output.data)))
                for output in vector.outputs
            ),
        )
        for vector in details.self_test
    )
    with BundleWriter(folder / "broken") as writer:
        writer.add_variant(
            msgspec.structs.replace(details, self_test=wrong),
            {details.entry: entry},
            model_name="digits",
            model_format="onnx",
            precision="fp32",
            opset=good.variant("fp32").opset,
        )
        return writer.finish()


def running(fleet: Fleet) -> dict[str, tuple[str, str]]:
    """Device -> (version, variant) that it says it serves."""
    found = {}
    for device in fleet.devices():
        assert device.report is not None
        (model,) = (m for m in device.report.models if m.state == "active")
        found[device.name] = (f"{model.name}:{model.version}", str(model.variant))
    return found


def inferences(fleet: Fleet, device: str) -> int:
    """How many requests a device says that it has answered."""
    report = fleet.device(device).info.report
    return 0 if report is None else sum(model.inferences for model in report.models)


def await_predictions(fleet: Fleet, wanted: dict[str, int]) -> None:
    """Wait until all predictions have come back, and hold that none is doubled or lost."""

    def count() -> Counter[str]:
        return Counter(event.device for event in fleet.events(kind="prediction"))

    eventually(lambda: sum(count().values()) >= sum(wanted.values()), f"{wanted} predictions")
    assert dict(count()) == wanted


def told(fleet: Fleet, group: str) -> list[tuple[str, tuple[str, ...], str]]:
    """What was done to a group, oldest first."""
    return [(e.action, e.models, e.actor) for e in reversed(fleet.history(group))]
