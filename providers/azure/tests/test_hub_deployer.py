"""The deployer over IoT Hub on its mock: layers, limits, faults, and what it says of devices."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import (
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
    UnsupportedError,
)
from edgefleet.interfaces.policy import RolloutPolicy
from edgefleet.interfaces.values import Action
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.pointer import read_pointer
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet_azure.cloud.calls import throttled
from edgefleet_azure.cloud.hub_values import Identity, MethodReply
from edgefleet_azure.manifests import MODULE, UPLOAD
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


def arrived(azure: Rig, device: str) -> int:
    """Number of the pointer that a device has."""
    found = azure.end(device).pointer()
    assert found is not None
    return read_pointer(found).number


# Layers


def test_ten_releases_leave_at_most_two_layers_and_the_newest_arrives(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    for number in range(1, 11):
        azure.deployer.publish("line-3", samples.pointer(number))
        assert len(azure.layers()) <= 2
        assert arrived(azure, "a") == number


def test_a_rollback_is_a_new_layer_with_a_higher_priority(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    first = samples.pointer(1)
    azure.deployer.publish("line-3", first)
    azure.deployer.publish("line-3", samples.pointer(2, current=digest_of(b"bad")))
    before = azure.hub.configurations[azure.layers()[-1]]
    azure.deployer.publish("line-3", samples.pointer(3, current=first.current))
    after = azure.hub.configurations[azure.layers()[-1]]
    assert after.id != before.id
    assert after.document["priority"] > before.document["priority"]
    assert arrived(azure, "a") == 3


def test_a_layer_that_devices_hold_stays_until_the_next_is_evaluated(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    azure.deployer.publish("line-3", samples.pointer(1))
    (held,) = azure.layers()
    with azure.hub.hold():
        for number in (2, 3, 4):
            azure.deployer.publish("line-3", samples.pointer(number))
            assert len(azure.layers()) == 2
            assert azure.layers()[0] == held
        assert arrived(azure, "a") == 1
        assert azure.deployer.pointer("line-3") == samples.pointer(4)
    assert arrived(azure, "a") == 4
    azure.deployer.publish("line-3", samples.pointer(5))
    assert held not in azure.layers()


def test_renewed_access_is_one_new_layer_beside_the_same_pointer(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    azure.deployer.publish("line-3", samples.pointer(1))
    azure.grants.expire("line-3")
    assert azure.end("a").access().state == "expired"
    azure.grants.renew()
    made = azure.seen("Configuration_CreateOrUpdate")
    assert azure.deployer.layers.renew("line-3")
    assert azure.seen("Configuration_CreateOrUpdate") == made + 1
    assert azure.end("a").access().state == "ok"
    assert azure.deployer.pointer("line-3") == samples.pointer(1)
    assert arrived(azure, "a") == 1
    assert len(azure.layers()) <= 2


def test_a_device_back_after_many_releases_sees_the_newest_only(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    seen: list[Any] = []
    for number in range(1, 6):
        azure.deployer.publish("line-3", samples.pointer(number))
    azure.hub.on_desired("a", MODULE, seen.append)
    assert arrived(azure, "a") == 5
    assert seen == []


def test_the_base_that_is_missing_is_made_with_the_first_pointer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rig(tmp_path, monkeypatch) as azure:
        azure.deployer.enroll("a", group="line-3")
        rendered = azure.deployer.render("line-3", samples.pointer(1))
        assert [one.action for one in rendered] == [Action.CREATE, Action.CREATE]
        azure.deployer.publish("line-3", samples.pointer(1))
        assert azure.base in azure.hub.configurations
        assert arrived(azure, "a") == 1


def test_two_operators_end_at_the_highest_pointer(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    other = azure.another()
    other.publish("line-3", samples.pointer(2))
    with pytest.raises(ConflictError):
        azure.deployer.publish("line-3", samples.pointer(1))
    assert azure.deployer.pointer("line-3") == samples.pointer(2)


def test_another_pointer_of_the_same_number_is_refused(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    azure.deployer.publish("line-3", samples.pointer(1))
    with pytest.raises(ConflictError, match="other content"):
        azure.deployer.publish("line-3", samples.pointer(1, current=digest_of(b"else")))


def test_a_device_without_the_groups_tag_gets_nothing(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    azure.hub.add(Identity("b", None, KEYS, edge=True))
    azure.hub.change_twin("b", None, tags={"line": 3}, desired=None, replace=False)
    azure.deployer.publish("line-3", samples.pointer(1))
    assert [one.module for one in azure.hub.modules("b")] == ["$edgeAgent", "$edgeHub"]


# Faults


def test_a_throttled_call_is_repeated_after_what_the_hub_says(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    azure.cloud.rules.add(Rule("hub.Configuration_CreateOrUpdate", times=2, fault=throttled(0)))
    azure.deployer.publish("line-3", samples.pointer(1))
    assert arrived(azure, "a") == 1


def test_a_call_that_stays_throttled_says_for_how_long(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    azure.cloud.rules.add(Rule("hub.Configuration_CreateOrUpdate", times=None, fault=throttled(0)))
    with pytest.raises(ThrottledError) as told:
        azure.deployer.publish("line-3", samples.pointer(1))
    assert told.value.retry_after_s == 0
    azure.cloud.rules.clear()
    azure.deployer.publish("line-3", samples.pointer(1))
    assert arrived(azure, "a") == 1


def test_who_is_told_to_wait_waits(azure: Rig) -> None:
    throttle = azure.at_units(1)
    for _ in range(20):
        throttle.take("configuration")
    hub = azure.deployer.hub(azure.settings.hubs[0])
    assert hub.configurations()  # its first try comes too early, its second doesn't
    assert azure.seen("Configuration_GetConfigurations /configurations 429") == 1


def test_a_twin_that_others_change_is_read_again(azure: Rig) -> None:
    stale = Refused(412, "PreconditionFailed", "the etag is another one now")
    azure.cloud.rules.add(Rule("hub.Devices_UpdateTwin", times=2, fault=stale))
    assert azure.deployer.enroll("a", group="line-3").group == "line-3"
    azure.cloud.rules.add(Rule("hub.Devices_UpdateTwin", times=None, fault=stale))
    with pytest.raises(ConflictError, match="changed 10 times"):
        azure.deployer.label("a", {"site": "x"})


def test_a_manifest_that_edge_agent_refuses_is_told_with_its_status(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    version = azure.hub.twin("a", "$edgeAgent")["desired"]["$version"]
    status = {"code": 400, "description": "Error parsing the image name"}
    said = {"lastDesiredVersion": version, "lastDesiredStatus": status}
    azure.hub.report("a", "$edgeAgent", said)
    device = azure.deployer.device("a")
    assert device.blocked is not None
    assert "status 400: Error parsing the image name" in device.blocked
    azure.hub.report("a", "$edgeAgent", {"lastDesiredStatus": {"code": 200, "description": ""}})
    assert azure.deployer.device("a").blocked is None


def test_a_module_that_keeps_restarting_is_told(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    version = azure.hub.twin("a", "$edgeAgent")["desired"]["$version"]
    module = {"runtimeStatus": "backoff", "restartCount": 7, "exitCode": 139}
    said = {
        "lastDesiredVersion": version,
        "lastDesiredStatus": {"code": 200, "description": ""},
        "modules": {MODULE: module},
    }
    azure.hub.report("a", "$edgeAgent", said)
    evidence = azure.deployer.device("a").evidence
    assert evidence["module"] == "backoff, restarted 7 times, last exit code 139"


def test_a_listing_says_that_it_may_be_minutes_old(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    (listed,) = azure.deployer.devices()
    assert "minutes old" in listed.evidence["status"]
    assert "status" not in azure.deployer.device("a").evidence
    assert azure.deployer.limits.freshness_s == 300


def test_a_rollout_is_counted_by_the_devices_own_words(azure: Rig) -> None:
    names = ("a", "b", "c", "d")
    for name in names:
        azure.deployer.enroll(name, group="line-3")
    assert azure.deployer.progress("line-3") is None
    pointer = samples.pointer(1)
    azure.deployer.publish("line-3", pointer)
    azure.end("a").send_report(samples.report(pointer).encoded())
    azure.end("b").send_report(samples.report(pointer, reason="self-test").encoded())
    azure.end("c").send_report(samples.report(samples.pointer(9)).encoded())
    progress = azure.deployer.progress("line-3")
    assert progress is not None
    assert progress.devices == {"succeeded": 1, "rejected": 1, "in progress": 2}
    assert progress.deserves_a_look


def test_a_policy_that_iot_hub_cannot_honour_is_refused(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    for policy in (RolloutPolicy(per_minute=10), RolloutPolicy(timeout_s=60)):
        with pytest.raises(UnsupportedError, match="can't be honoured here"):
            azure.deployer.publish("line-3", samples.pointer(1), policy=policy)
    assert azure.layers() == []


# Devices


def test_an_edge_device_that_is_there_is_adopted_as_it_is(azure: Rig) -> None:
    azure.hub.add(Identity("a", None, KEYS, edge=True))
    azure.hub.change_twin("a", None, tags={"rack": 4}, desired=None, replace=False)
    before = azure.hub.identity("a").generation
    azure.deployer.enroll("a", group="line-3")
    assert azure.hub.identity("a").generation == before
    assert azure.hub.identity("a").twin.tags["rack"] == 4


def test_a_device_without_iot_edge_is_refused(azure: Rig) -> None:
    azure.hub.add(Identity("a", None, KEYS))
    with pytest.raises(InvalidInputError, match="no IoT Edge"):
        azure.deployer.enroll("a", group="line-3")
    assert azure.hub.identity("a").twin.tags == {}


def test_a_device_of_another_fleet_is_refused(azure: Rig) -> None:
    azure.hub.add(Identity("a", None, KEYS, edge=True))
    tags = {"edgefleet": {"fleet": "other", "group": "line-3"}}
    azure.hub.change_twin("a", None, tags=tags, desired=None, replace=False)
    with pytest.raises(ConflictError, match="fleet 'other'"):
        azure.deployer.enroll("a", group="line-3")
    with pytest.raises(NotFoundError):
        azure.deployer.device("a")


def test_a_device_gets_its_own_place_to_write_to(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    azure.deployer.publish("line-3", samples.pointer(1))
    desired = azure.hub.twin("a", MODULE)["desired"]
    assert desired[UPLOAD] == azure.grants.upload("a")
    assert desired["edgefleet"]["access"] == azure.grants.current("line-3").content


def test_a_retired_devices_report_goes_with_it(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    azure.end("a").send_report(samples.report().encoded())
    azure.deployer.retire("a")
    assert azure.deployer.enroll("a", group="line-3").report is None


def test_a_request_is_carried_to_a_device_and_its_answer_back(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    asked: list[Any] = []

    def answer(name: str, payload: Any, _timeout_s: float) -> MethodReply:
        asked.append((name, payload))
        body = base64.b64encode(b"[0.25]").decode()
        return MethodReply(200, {"status": 200, "headers": {"x": "y"}, "body": body})

    azure.hub.on_method("a", MODULE, answer)
    reply = azure.deployer.invoke("a", "/v2/models/digits/infer", body=b"{}", headers={"h": "v"})
    assert (reply.status, reply.headers, reply.body) == (200, {"x": "y"}, b"[0.25]")
    sent = {"path": "/v2/models/digits/infer", "headers": {"h": "v"}, "body": "e30="}
    assert asked == [("invoke", sent)]


@pytest.mark.parametrize(
    "status, payload", [(503, {"error": "not yet"}), (200, {"error": "refused"}), (404, {})]
)
def test_a_device_that_cannot_answer_says_why(
    azure: Rig, status: int, payload: dict[str, Any]
) -> None:
    azure.deployer.enroll("a", group="line-3")
    azure.hub.on_method("a", MODULE, lambda *_: MethodReply(status, payload))
    with pytest.raises(UnavailableError, match=payload.get("error", str(status))):
        azure.deployer.invoke("a", "/v2/health/ready")


def test_a_request_beyond_a_direct_method_is_refused_before_it_is_sent(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    with pytest.raises(LimitExceededError, match="131072"):
        azure.deployer.invoke("a", "/v2/x", body=bytes(128 << 10))
    assert azure.seen("InvokeMethod") == 0


def test_documents_of_a_dry_run_are_json_that_people_can_read(azure: Rig) -> None:
    azure.deployer.enroll("a", group="line-3")
    base, rendered = azure.deployer.render("line-3", samples.pointer(1))
    assert base.path == f"{azure.base}.json"
    content = json.loads(rendered.content)
    wanted = content["content"]["modulesContent"]["edgefleet"]["properties.desired.edgefleet"]
    assert read_pointer(wanted["pointer"].encode()) == samples.pointer(1)
    assert content["priority"] > json.loads(base.content)["priority"]
    assert azure.layers() == []
