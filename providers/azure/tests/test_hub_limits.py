"""Limits of IoT Hub that the deployer keeps before anything is sent, and how groups are spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import ConfigurationError, LimitExceededError
from edgefleet.protocol.pointer import read_pointer
from edgefleet.testing.kit import samples
from edgefleet_azure.cloud.hub_configurations import MAX_DEPLOYMENTS, Configurations
from edgefleet_azure.cloud.hub_values import Identity
from edgefleet_azure.groups import GROUPS, ranked
from edgefleet_azure.manifests import UPLOAD, Grant, layer
from providers.azure.tests.hub_rig import Rig, rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS = {"type": "none"}


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with rig(tmp_path, monkeypatch, max_attempts=3) as made:
        made.install()
        yield made


@pytest.fixture
def two_hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with rig(tmp_path, monkeypatch, hubs=2) as made:
        made.install()
        yield made


def test_groups_are_counted_by_hub(azure: Rig) -> None:
    assert azure.deployer.limits.groups == 49


def test_a_full_hub_is_refused_when_it_is_planned_and_nothing_is_sent(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    hub = azure.deployer.hub(azure.settings.hubs[0])
    theirs = {"modulesContent": {"x": {"properties.desired.x": 1}}}
    for number in range(MAX_DEPLOYMENTS - len(azure.hub.configurations)):
        hub.create_configuration(
            {
                "id": f"theirs-{number}",
                "schemaVersion": "1.0",
                "labels": {},
                "content": theirs,
                "targetCondition": "",
                "priority": 1,
                "metrics": {"queries": {}},
            }
        )
    made = azure.seen("Configuration_CreateOrUpdate")
    for attempt in (azure.deployer.render, azure.deployer.publish):
        with pytest.raises(LimitExceededError, match=f"{MAX_DEPLOYMENTS} deployments of 100"):
            attempt("line-3", samples.pointer(1))
    assert azure.seen("Configuration_CreateOrUpdate") == made


def join(azure: Rig, device: str, group: str, number: int = 1, count: int = 1) -> None:
    """Put a device into a group as somebody else would, without a call."""
    state = azure.service(number).state
    state.add(Identity(device, None, KEYS, edge=True, count=count))
    tags = {"edgefleet": {"fleet": "plant", "group": group}}
    state.change_twin(device, None, tags=tags, desired=None, replace=False)


def test_49_groups_fit_a_hub_while_all_of_them_are_replaced(azure: Rig) -> None:
    for number in range(GROUPS):
        join(azure, f"d{number}", f"g{number}")
    made = Configurations(azure.hub, lambda _query: 0)
    for number in range(1, GROUPS):
        for pointer in (samples.pointer(1), samples.pointer(2)):
            document = layer("plant", f"g{number}", pointer, None)
            made.put(document["id"], document, None)
    azure.deployer.publish("g0", samples.pointer(1))
    with azure.hub.hold():
        azure.deployer.publish("g0", samples.pointer(2))
        assert len(azure.hub.configurations) == 1 + 2 * GROUPS
    arrived = azure.end("d0").pointer()
    assert arrived is not None
    assert read_pointer(arrived).number == 2
    with pytest.raises(LimitExceededError, match="at most 49 groups"):
        azure.deployer.enroll("more", group="one-more")


def test_groups_are_spread_over_hubs_in_the_same_way_by_everybody(two_hubs: Rig) -> None:
    assert two_hubs.deployer.limits.groups == 98
    names = [f"g{number:02}" for number in range(20)]  # hubs have other ports each time
    for name in names:
        two_hubs.deployer.enroll(f"d-{name}", group=name)
        two_hubs.another().publish(name, samples.pointer(1))
    found = {
        name: {
            number for number in (1, 2) if any(f"-{name}-" in x for x in two_hubs.layers(number))
        }
        for name in names
    }
    hosts = dict.fromkeys(two_hubs.settings.hubs, 0)
    for name, hubs in found.items():
        assert hubs == {1 + two_hubs.settings.hubs.index(ranked(hosts, name)[0])}
    assert set().union(*found.values()) == {1, 2}
    assert [group.name for group in two_hubs.deployer.groups()] == names
    assert len(list(two_hubs.deployer.devices())) == len(names)


def test_a_group_stays_in_its_hub_when_the_profile_names_more(two_hubs: Rig) -> None:
    hosts = dict.fromkeys(two_hubs.settings.hubs, 0)
    second = next(n for n in range(99) if ranked(hosts, f"g{n}")[0] == two_hubs.settings.hubs[1])
    join(two_hubs, "old", f"g{second}", 1)
    two_hubs.deployer.enroll("new", group=f"g{second}")
    two_hubs.deployer.publish(f"g{second}", samples.pointer(1))
    assert len(two_hubs.layers(1)) == 1
    assert two_hubs.layers(2) == []


def test_labels_that_no_twin_could_hold_are_refused_before_they_are_sent(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    sent = azure.seen("Devices_UpdateTwin")
    with pytest.raises(LimitExceededError, match="8192 are allowed"):
        azure.deployer.label("a", {f"k{number}": "x" * 250 for number in range(40)})
    assert azure.seen("Devices_UpdateTwin") == sent
    assert azure.deployer.device("a").labels == {}


def test_access_that_no_twin_could_hold_is_refused_before_it_is_sent(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    sent = azure.seen("Configuration_CreateOrUpdate")
    long = Grant({"read": "x" * 4097}, 1)
    azure.grants.current = lambda group: long  # type: ignore[method-assign]
    with pytest.raises(LimitExceededError, match="4097 bytes"):
        azure.deployer.publish("line-3", samples.pointer(1))
    with pytest.raises(LimitExceededError, match="a value has at most 4096"):
        azure.deployer.give(
            azure.deployer.hub(azure.settings.hubs[0]), "a", {UPLOAD: {"write": "x" * 4097}}
        )
    assert azure.seen("Configuration_CreateOrUpdate") == sent


def test_labels_keep_their_names_whatever_twins_take(azure: Rig) -> None:
    labels = {"site.zone $1": "A 1", "ok": "", "50 %": "x"}
    assert azure.deployer.enroll("a", group="line-3", labels=labels).labels == labels
    (listed,) = azure.deployer.devices("line-3")
    assert listed.labels == labels


def test_more_groups_than_a_hub_holds_are_refused_when_they_are_planned(azure: Rig) -> None:
    for number in range(GROUPS + 1):
        join(azure, f"d{number}", f"g{number}")
    with pytest.raises(LimitExceededError, match="at most 49 groups, the fleet has 50"):
        azure.deployer.render("g0", samples.pointer(1))
    assert azure.layers() == []


def test_a_group_in_two_hubs_is_refused(two_hubs: Rig) -> None:
    join(two_hubs, "a", "line-3", 1)
    join(two_hubs, "b", "line-3", 2)
    with pytest.raises(ConfigurationError, match="in several hubs"):
        two_hubs.deployer.publish("line-3", samples.pointer(1))


def test_calls_depend_on_groups_and_not_on_devices(azure: Rig) -> None:
    calls = []
    for number, devices in enumerate((1, 1_000_000)):
        group = f"g{number}"
        join(azure, f"crowd-{number}", group, count=devices)
        azure.deployer.publish(group, samples.pointer(1))
        before = sum(1 for _ in azure.cloud.seen())
        azure.deployer.render(group, samples.pointer(2))
        azure.deployer.publish(group, samples.pointer(2))
        progress = azure.deployer.progress(group)
        calls.append(sum(1 for _ in azure.cloud.seen()) - before)
        assert progress is not None
        assert progress.devices == {"in progress": devices}
    assert calls[0] == calls[1]
