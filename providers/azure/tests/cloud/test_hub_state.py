"""One IoT Hub's state: twins, deployments and what devices see of them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from edgefleet_azure.cloud.hub_state import HubState
from edgefleet_azure.cloud.hub_values import Configuration, HubError, Identity, Message, MethodReply

KEYS = {"type": "sas", "symmetricKey": {"primaryKey": "cHJpbWFyeQ==", "secondaryKey": "Mm5k"}}
SYSTEM: dict[str, Any] = {
    "schemaVersion": "1.1",
    "modules": {"edgefleet": {"type": "docker", "settings": {"image": "x"}}},
}


@pytest.fixture
def hub() -> HubState:
    hub = HubState()
    hub.add(Identity("cam", None, KEYS, edge=True))
    return hub


def deploy(hub: HubState, name: str, priority: int, condition: str, modules: Any) -> None:
    document = {
        "priority": priority,
        "targetCondition": condition,
        "content": {"modulesContent": modules},
    }
    now = hub.now()
    with hub.changing():
        hub.configurations[name] = Configuration(name, document, hub.number(), now, now)
        hub.evaluate_all()


def deploy_base(hub: HubState, condition: str = "*") -> None:
    deploy(hub, "base", 1, condition, {"$edgeAgent": {"properties.desired": SYSTEM}})


def deploy_layer(hub: HubState, name: str, priority: int, pointer: str) -> None:
    content = {"properties.desired.edgefleet": {"pointer": pointer}}
    deploy(hub, name, priority, "tags.edgefleet.group = 'line-3'", {"edgefleet": content})


def join(hub: HubState, group: str = "line-3") -> None:
    hub.change_twin("cam", None, tags={"edgefleet": {"group": group}}, desired=None, replace=False)


def test_an_edge_device_has_the_modules_of_iot_edge(hub: HubState) -> None:
    assert [one.module for one in hub.modules("cam")] == ["$edgeAgent", "$edgeHub"]


def test_a_base_makes_its_modules_and_shows_as_applied(hub: HubState) -> None:
    deploy_base(hub)
    assert hub.twin("cam", "$edgeAgent")["desired"]["modules"].keys() == {"edgefleet"}
    assert hub.identity("cam", "edgefleet").managed_by == "IotEdge"
    assert hub.identity("cam", "$edgeAgent").statuses == {"base": "Applied"}


def test_a_layer_reaches_devices_whose_tag_says_so(hub: HubState) -> None:
    deploy_base(hub)
    deploy_layer(hub, "l1", 2, "one")
    assert "edgefleet" not in hub.twin("cam", "edgefleet")["desired"]
    join(hub)
    assert hub.twin("cam", "edgefleet")["desired"]["edgefleet"] == {"pointer": "one"}
    assert hub.identity("cam", "$edgeAgent").statuses == {"base": "Applied", "l1": "Targeted"}


def test_patches_come_in_the_order_of_the_changes_with_their_versions(hub: HubState) -> None:
    deploy_base(hub)
    join(hub)
    seen: list[Any] = []
    hub.on_desired("cam", "edgefleet", seen.append)
    deploy_layer(hub, "l1", 2, "one")
    deploy_layer(hub, "l2", 3, "two")
    assert seen == [
        {"edgefleet": {"pointer": "one"}, "$version": 2},
        {"edgefleet": {"pointer": "two"}, "$version": 3},
    ]


def test_a_callback_may_wait_for_another_caller(hub: HubState) -> None:
    deploy_base(hub)
    other = threading.Event()

    def report() -> None:
        hub.report("cam", "edgefleet", {"a": 1})
        other.set()

    def wait(_patch: Any) -> None:
        thread = threading.Thread(target=report)
        thread.start()
        assert other.wait(60)
        thread.join()

    hub.on_desired("cam", "edgefleet", wait)
    hub.change_twin("cam", "edgefleet", tags=None, desired={"x": 1}, replace=False)
    assert other.is_set()


def test_an_edit_under_a_deployments_path_is_reverted_and_one_beside_it_stays(
    hub: HubState,
) -> None:
    deploy_base(hub)
    join(hub)
    deploy_layer(hub, "l1", 2, "one")
    edit = {"edgefleet": {"pointer": "mine"}, "edgefleetUpload": {"write": "sas"}}
    hub.change_twin("cam", "edgefleet", tags=None, desired=edit, replace=False)
    desired = hub.twin("cam", "edgefleet")["desired"]
    assert desired["edgefleet"] == {"pointer": "one"}
    assert desired["edgefleetUpload"] == {"write": "sas"}


def test_a_hub_that_is_held_evaluates_nothing_until_it_goes_on(hub: HubState) -> None:
    deploy_base(hub)
    join(hub)
    with hub.hold():
        deploy_layer(hub, "l1", 2, "one")
        assert "edgefleet" not in hub.twin("cam", "edgefleet")["desired"]
        assert not hub.configurations["l1"].evaluated
    assert hub.twin("cam", "edgefleet")["desired"]["edgefleet"] == {"pointer": "one"}
    assert hub.configurations["l1"].evaluated


@pytest.mark.parametrize(
    "patch, why",
    [
        ({"a": "x" * 4097}, "4096"),
        ({"a": {str(n): "x" * 4000 for n in range(9)}}, "32768 are allowed"),
        ({"a.b": 1}, "no name"),
        ({"$a": 1}, "no name"),
        ({"a b": 1}, "no name"),
        ({"a": 2**53}, "no integer"),
        ({"a": [None]}, "null in an array"),
        ({"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}}}}, "deeper"),
    ],
)
def test_a_report_that_no_twin_takes_is_refused_and_changes_nothing(
    hub: HubState, patch: dict[str, Any], why: str
) -> None:
    before = hub.twin("cam", None)
    with pytest.raises(HubError, match=why):
        hub.report("cam", None, patch)
    assert hub.twin("cam", None) == before


def test_tags_have_at_most_8_kb(hub: HubState) -> None:
    tags = {str(n): "x" * 4000 for n in range(3)}
    with pytest.raises(HubError, match="8192 are allowed"):
        hub.change_twin("cam", None, tags=tags, desired=None, replace=False)
    assert hub.identity("cam").twin.tags == {}


def test_null_takes_a_property_away(hub: HubState) -> None:
    hub.report("cam", None, {"a": {"b": 1, "c": 2}})
    assert hub.report("cam", None, {"a": {"b": None}}) == 3
    assert hub.twin("cam", None)["reported"] == {"a": {"c": 2}, "$version": 3}


def test_a_message_is_stamped_and_given_on(hub: HubState) -> None:
    deploy_base(hub)
    seen: list[Message] = []
    hub.on_message(seen.append)
    hub.send(Message("cam", "edgefleet", b"{}", output="hot"))
    assert [(one.device, one.output, bool(one.enqueued)) for one in seen] == [("cam", "hot", True)]
    with pytest.raises(HubError, match="256 KB"):
        hub.send(Message("cam", "edgefleet", bytes(256 << 10) + b"x"))


def test_a_method_is_answered_by_who_is_connected(hub: HubState) -> None:
    deploy_base(hub)
    with pytest.raises(HubError) as refused:
        hub.invoke("cam", "edgefleet", "status", {}, 5)
    assert (refused.value.status, refused.value.code) == (404, "DeviceNotOnline")
    cancel = hub.on_method(
        "cam", "edgefleet", lambda name, payload, _s: MethodReply(200, {name: payload})
    )
    assert hub.invoke("cam", "edgefleet", "status", 1, 5) == MethodReply(200, {"status": 1})
    cancel()
    with pytest.raises(HubError):
        hub.invoke("cam", "edgefleet", "status", {}, 5)


def test_a_device_goes_with_its_modules(hub: HubState) -> None:
    hub.remove("cam")
    assert hub.identities == {}
    with pytest.raises(HubError, match="not registered"):
        hub.twin("cam", "$edgeAgent")
