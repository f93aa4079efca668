"""What holds for the releases of a fleet: edits, permission, groups, what is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.actor import ACTOR_VARIABLE
from edgefleet.capabilities import abilities_of
from edgefleet.errors import (
    ApprovalRequiredError,
    ConflictError,
    DeploymentFailedError,
    NotFoundError,
    PolicyError,
    WaitTimeoutError,
)
from edgefleet.fleet import Fleet
from edgefleet.interfaces.values import Action
from edgefleet.protocol.release import EMPTY
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import DeviceEnd
from edgefleet.testing.kit.fleet_fixtures import (
    FleetFixtures,
    first_deployer,
    pointer_on,
    release_of,
    write_ahead,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.values import ModelVersion


class EditRules(FleetFixtures):
    """How a group's release is edited, who may, and what is told of it afterwards."""

    def test_deploying_adds_or_replaces_one_model_and_keeps_the_rest(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, one team's deployment removes another's model."""
        group = groups[0]
        for name in ("digits", "letters", "digits"):
            fleet.deploy(push(name), to=group)
        assert [f"{m.name}:{m.version}" for m in release_of(fleet, group).models] == [
            "digits:2", "letters:1",
        ]  # fmt: skip
        assert fleet.group_status(group).models == ("digits:2", "letters:1")
        assert fleet.deployers is not None
        assert release_of(fleet, groups[1]) == EMPTY

    def test_a_whole_release_replaces(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, `deploy` of a release merges it."""
        fleet.deploy(push("digits"), to=groups[0])
        fleet.deploy(push("letters"), to=groups[1])
        letters = release_of(fleet, groups[1])
        fleet.deploy(letters, to=groups[0])
        assert pointer_on(fleet, groups[0]).current == letters.digest

    def test_deploying_the_same_again_makes_no_pointer(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, a script that runs every night wakes every device every night."""
        model = push("digits")
        first = fleet.deploy(model, to=groups[0])
        again = fleet.deploy(model, to=groups[0])
        assert (again.epoch, again.number) == (first.epoch, first.number)
        assert len(fleet.history(groups[0])) == 1

    def test_a_model_is_removed_and_the_rest_stays(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, removing takes too much, or a model that isn't there is no error."""
        for name in ("digits", "letters"):
            fleet.deploy(push(name), to=groups[0])
        fleet.remove("digits", to=groups[0])
        assert [model.name for model in release_of(fleet, groups[0]).models] == ["letters"]
        with pytest.raises(NotFoundError, match="letters"):
            fleet.remove("digits", to=groups[0])

    def test_rolling_out_gives_each_group_its_own_pointer(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, a launch over many groups mixes up their releases, or their numbers."""
        fleet.deploy(push("letters"), to=groups[0])
        model = push("digits")
        plan = fleet.plan_rollout(model, to="line-*", progress=False)
        assert [one.unchanged for one in plan.groups] == [False, False]
        assert len(fleet.history(groups[0])) == 1, "planning sent something"
        launch = fleet.roll_out(model, to="line-*", progress=False)
        assert [one.changed for one in launch.groups] == [True, True]
        assert [m.name for m in release_of(fleet, groups[0]).models] == ["digits", "letters"]
        assert [m.name for m in release_of(fleet, groups[1]).models] == ["digits"]
        pointers = [pointer_on(fleet, group) for group in groups]
        assert [pointer.number for pointer in pointers] == [one.number for one in launch.groups]
        assert len({pointer.pair for pointer in pointers}) == 2
        again = fleet.roll_out(model, to=groups, progress=False)
        assert [one.changed for one in again.groups] == [False, False]

    def test_a_plan_sends_nothing_and_tells_what_a_deployment_does(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, a dry run changes the channel, or lists other documents."""
        model = push("digits")
        plan = fleet.plan(model, to=groups[0])
        assert fleet.group_status(groups[0]).number == 0
        assert {document.action for document in plan.documents} == {Action.CREATE}
        assert [(change.model, change.what) for change in plan.changes] == [("digits", "add")]
        assert [device.device for device in plan.devices] == ["cam-0", "cam-2"]
        fleet.deploy(model, to=groups[0])
        again = fleet.plan(model, to=groups[0])
        assert again.after == plan.after == pointer_on(fleet, groups[0]).current
        assert {document.action for document in again.documents} == {Action.UNCHANGED}
        assert [d.path for d in again.documents] == [d.path for d in plan.documents]

    def test_an_operator_killed_before_publishing_is_made_up_for(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, a record that is ahead of its channel stays so for ever."""
        model = push("digits")
        fleet.deploy(model, to=groups[0])
        written = write_ahead(fleet, groups[0])
        assert not fleet.group_status(groups[0]).published
        fleet.deploy(EMPTY, to=groups[0])
        assert fleet.group_status(groups[0]).published
        assert pointer_on(fleet, groups[0]).pair == written.pair

    def test_only_approved_versions_deploy_where_the_profile_says_so(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, an approval isn't read back from the registry, or isn't asked for."""
        model = push("digits")
        careful = fleet.profile.model_copy(update={"require_approval": True})
        with Fleet(careful) as strict:
            assert any(
                "approved" in problem for problem in strict.plan(model, to=groups[0]).problems
            )
            with pytest.raises(ApprovalRequiredError, match="edgefleet model approve digits:1"):
                strict.deploy(model, to=groups[0])
            assert strict.group_status(groups[0]).number == 0
            strict.registry.approve("digits:1", by="ada")
            strict.deploy(model, to=groups[0])
        assert fleet.group_status(groups[0]).models == ("digits:1",)

    def test_a_rejected_version_never_deploys(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, a rejection is a label and no rule."""
        model = push("digits")
        fleet.registry.reject("digits:1", by="grace", reason="blurred")
        with pytest.raises(PolicyError, match="blurred"):
            fleet.deploy(model, to=groups[0])
        assert fleet.group_status(groups[0]).number == 0

    def test_what_does_not_exist_is_named_with_what_does(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, a typing error in a group's or model's name has no cure."""
        model = push("digits")
        with pytest.raises(NotFoundError, match="line-3"):
            fleet.deploy(model, to="line-5")
        with pytest.raises(NotFoundError, match="digits"):
            fleet.deploy("letters", to=groups[0])
        with pytest.raises(NotFoundError, match="deployers there are"):
            fleet.deploy(model, to="nowhere/line-3")
        with pytest.raises(NotFoundError):
            fleet.device("nobody")

    def test_a_group_is_found_by_its_full_name(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, ``deployer/group`` isn't what `groups` lists."""
        references = [group.reference for group in fleet.groups()]
        assert [reference.partition("/")[2] for reference in references] == list(groups)
        deployment = fleet.deploy(push("digits"), to=references[0])
        assert deployment.group == references[0]
        assert fleet.group_status(groups[0]).number == deployment.number

    def test_a_device_belongs_to_one_group(self, fleet: Fleet, groups: tuple[str, str]) -> None:
        """If this fails, a device is in two groups, and its releases overlap."""
        if "CanEnroll" not in abilities_of(first_deployer(fleet)):
            pytest.skip("devices of this deployer are enrolled elsewhere")
        with pytest.raises(ConflictError, match="cam-0"):
            fleet.enroll("cam-0", group=groups[1])
        assert fleet.device("cam-0").info.group == groups[0]

    def test_a_group_whose_devices_have_gone_takes_a_deployment(
        self, fleet: Fleet, groups: tuple[str, str], push: Callable[[str], ModelVersion]
    ) -> None:
        """If this fails, an empty group hangs whoever waits for it."""
        if "CanEnroll" not in abilities_of(first_deployer(fleet)):
            pytest.skip("devices of this deployer are enrolled elsewhere")
        for device in list(fleet.devices(groups[0])):
            fleet.retire(device.name)
        if groups[0] not in {group.name for group in fleet.groups()}:
            return  # a backend may drop a group with its last device
        model = push("digits")
        assert any("no devices" in warning for warning in fleet.plan(model, to=groups[0]).warnings)
        status = fleet.deploy(model, to=groups[0]).wait(timeout_s=0, progress=False)
        assert (status.devices, status.models) == ((), ("digits:1",))

    def test_a_deployment_is_what_its_devices_attest(
        self,
        fleet: Fleet,
        groups: tuple[str, str],
        push: Callable[[str], ModelVersion],
        device_end: Callable[[str], DeviceEnd],
    ) -> None:
        """If this fails, "deployed" means that the cloud took it, or reports don't come back."""
        deployment = fleet.deploy(push("digits"), to=groups[0])
        pointer, release = pointer_on(fleet, groups[0]), release_of(fleet, groups[0])
        with pytest.raises(WaitTimeoutError, match="cam-0"):
            deployment.wait(timeout_s=0, progress=False)
        device_end("cam-0").send_report(samples.report(pointer, release).encoded())
        status = deployment.wait(min_attested=0.5, timeout_s=0, progress=False)
        assert (status.attested, status.pending, status.failed) == (1, 1, 0)
        refusal = samples.report(pointer, release, reason="self-test: 3 of 8 differ")
        device_end("cam-2").send_report(refusal.encoded())
        with pytest.raises(DeploymentFailedError, match="3 of 8 differ"):
            deployment.wait(timeout_s=0, progress=False)
        page = fleet.why("cam-2")
        assert (page.outcome, page.group) == ("failed", deployment.group)
        assert "3 of 8 differ" in str(page)
        assert "rollback" in page.cure

    def test_an_older_attestation_proves_nothing(
        self,
        fleet: Fleet,
        groups: tuple[str, str],
        push: Callable[[str], ModelVersion],
        device_end: Callable[[str], DeviceEnd],
    ) -> None:
        """If this fails, a device that is switched off counts as having followed."""
        fleet.deploy(push("digits"), to=groups[0])
        old = samples.report(pointer_on(fleet, groups[0]), release_of(fleet, groups[0]))
        for device in ("cam-0", "cam-2"):
            device_end(device).send_report(old.encoded())
        assert fleet.group_status(groups[0]).attested == 2
        fleet.deploy(push("digits"), to=groups[0])
        assert fleet.group_status(groups[0]).attested == 0

    def test_history_tells_who_did_what_newest_first(
        self,
        fleet: Fleet,
        groups: tuple[str, str],
        push: Callable[[str], ModelVersion],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """If this fails, the record in the state store is cut or reordered."""
        monkeypatch.setenv(ACTOR_VARIABLE, "ada")
        for _ in range(2):
            fleet.deploy(push("digits"), to=groups[0])
        monkeypatch.setenv(ACTOR_VARIABLE, "grace")
        fleet.rollback(groups[0])
        told = [(entry.action, entry.actor, entry.models) for entry in fleet.history(groups[0])]
        assert told == [
            ("rollback", "grace", ("digits:1",)),
            ("deploy", "ada", ("digits:2",)),
            ("deploy", "ada", ("digits:1",)),
        ]
        assert fleet.history(groups[1]) == ()
