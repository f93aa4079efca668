"""IoT Hub's service API: held to the vendor's contract, and to its limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet_azure.cloud.hub_rest import Answer, HubRest, Request
from edgefleet_azure.cloud.hub_state import HubState
from edgefleet_azure.cloud.hub_throttle import Throttle
from edgefleet_azure.cloud.hub_values import MethodReply
from providers.azure.tests.cloud.hub_contract import HeldRest, HubContract

if TYPE_CHECKING:
    from pathlib import Path

VERSION = {"api-version": "2021-04-12"}
AGENT: dict[str, Any] = {
    "schemaVersion": "1.1",
    "modules": {"edgefleet": {"type": "docker", "settings": {"image": "x"}}},
}
BASE = {
    "modulesContent": {
        "$edgeAgent": {"properties.desired": AGENT},
        "$edgeHub": {"properties.desired": {"schemaVersion": "1.2", "routes": {}}},
    }
}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Caller:
    """Calls a hub as a client does."""

    def __init__(self, contracts: Path, units: int = 200) -> None:
        self.state = HubState()
        self.clock = Clock()
        self.throttle = Throttle(units, self.clock)
        self.rest = HeldRest(HubRest(self.state, self.throttle), HubContract(contracts))

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        etag: str | None = None,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> Answer:
        told = dict(headers or {}) | ({} if etag is None else {"if-match": f'"{etag}"'})
        data = b"" if body is None else json.dumps(body).encode()
        return self.rest.answer(Request(method, path, VERSION | query, told, data))

    def ask(self, query: str, **headers: str) -> Answer:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self("POST", "/devices/query", {"query": query}, headers=named)

    def device(self, name: str, group: str = "line-3") -> None:
        made = {"deviceId": name, "capabilities": {"iotEdge": True}}
        assert self("PUT", f"/devices/{name}", made).status == 200
        tags = {"tags": {"edgefleet": {"group": group}}}
        assert self("PATCH", f"/twins/{name}", tags).status == 200

    def deploy(
        self, name: str, content: Any, priority: int = 1, condition: str = "*", **more: Any
    ) -> Answer:
        document = {
            "id": name,
            "content": content,
            "priority": priority,
            "targetCondition": condition,
            **more,
        }
        return self("PUT", f"/configurations/{name}", document)


def layer(pointer: str) -> dict[str, Any]:
    return {"modulesContent": {"edgefleet": {"properties.desired.edgefleet": {"pointer": pointer}}}}


@pytest.fixture
def hub(contracts: Path) -> Caller:
    return Caller(contracts)


def refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.headers["iothub-errorcode"]) == (status, code), answer.document


def test_a_device_is_made_once_and_changed_with_its_etag(hub: Caller) -> None:
    made = hub("PUT", "/devices/cam", {"deviceId": "cam"})
    refused(hub("PUT", "/devices/cam", {"deviceId": "cam"}), 409, "DeviceAlreadyExists")
    changed = hub("PUT", "/devices/cam", {"status": "disabled"}, etag=made.document["etag"])
    assert (changed.status, changed.document["status"]) == (200, "disabled")
    stale = hub("PUT", "/devices/cam", {"status": "enabled"}, etag=made.document["etag"])
    refused(stale, 412, "PreconditionFailed")
    assert hub("GET", "/devices/cam").document["status"] == "disabled"
    refused(hub("GET", "/devices/no"), 404, "DeviceNotFound")
    refused(hub("PUT", "/devices/a%20b", {}), 400, "ArgumentInvalid")


def test_modules_are_made_listed_and_deleted(hub: Caller) -> None:
    hub.device("cam")
    assert hub("PUT", "/devices/cam/modules/m", {"moduleId": "m", "deviceId": "cam"}).status == 200
    listed = hub("GET", "/devices/cam/modules").document
    assert [one["moduleId"] for one in listed] == ["$edgeAgent", "$edgeHub", "m"]
    assert hub("DELETE", "/devices/cam/modules/m", etag="*").status == 204
    refused(hub("GET", "/devices/cam/modules/m"), 404, "ModuleNotFound")
    for number in range(48):
        assert hub("PUT", f"/devices/cam/modules/m{number}", {}).status == 200
    refused(hub("PUT", "/devices/cam/modules/more", {}), 413, "TooManyModulesOnDevice")


def test_devices_are_listed_and_counted(hub: Caller) -> None:
    for name in ("b", "a"):
        hub.device(name)
    assert [one["deviceId"] for one in hub("GET", "/devices").document] == ["a", "b"]
    assert [one["deviceId"] for one in hub("GET", "/devices", top="1").document] == ["a"]
    assert hub("GET", "/statistics/devices").document["totalDeviceCount"] == 2
    assert hub("GET", "/statistics/service").document == {"connectedDeviceCount": 0}


def test_many_devices_are_made_at_once(hub: Caller) -> None:
    many = [{"id": name, "importMode": "create"} for name in ("a", "b", "a")]
    answer = hub("POST", "/devices", many)
    assert answer.status == 400
    assert [one["errorCode"] for one in answer.document["errors"]] == ["DeviceAlreadyExists"]
    assert len(hub("GET", "/devices").document) == 2


def test_a_twin_with_a_stale_etag_stays(hub: Caller) -> None:
    hub.device("cam")
    before = hub("GET", "/twins/cam").document
    ours = {"properties": {"desired": {"a": 1}}}
    changed = hub("PATCH", "/twins/cam", ours, etag=before["etag"])
    assert changed.document["properties"]["desired"]["a"] == 1
    refused(hub("PATCH", "/twins/cam", ours, etag=before["etag"]), 412, "PreconditionFailed")
    assert hub("GET", "/twins/cam").document["etag"] == changed.document["etag"]


def test_replacing_a_twin_takes_what_is_not_named_away(hub: Caller) -> None:
    hub.device("cam")
    hub("PATCH", "/twins/cam", {"properties": {"desired": {"a": 1, "b": {"c": 1}}}})
    there = hub("GET", "/twins/cam").document
    there["properties"]["desired"].pop("a")
    after = hub("PUT", "/twins/cam", {"properties": there["properties"]}).document
    assert after["properties"]["desired"]["b"] == {"c": 1}
    assert "a" not in after["properties"]["desired"]
    assert after["tags"] == {}


def test_metadata_says_when_what_changed(hub: Caller) -> None:
    hub.device("cam")
    hub("PATCH", "/twins/cam", {"properties": {"desired": {"a": {"b": 1}}}})
    desired = hub("GET", "/twins/cam").document["properties"]["desired"]
    assert desired["$version"] == 2
    assert desired["$metadata"]["a"]["b"]["$lastUpdatedVersion"] == 2


def test_an_edge_deployment_reaches_its_devices_and_is_counted(hub: Caller) -> None:
    for name, group in (("a", "line-3"), ("b", "line-3"), ("c", "line-4")):
        hub.device(name, group)
    hub.deploy("base", BASE)
    ours = "moduleId = 'edgefleet' AND properties.desired.edgefleet.pointer = 'one'"
    mine = f"SELECT deviceId FROM devices.modules WHERE {ours}"
    hub.deploy("l1", layer("one"), 2, "tags.edgefleet.group = 'line-3'",
               metrics={"queries": {"told": mine}})  # fmt: skip
    found = hub("GET", "/configurations/l1").document
    assert found["metrics"]["results"] == {"told": 2}
    assert found["systemMetrics"]["results"]["targetedCount"] == 2
    assert found["systemMetrics"]["results"]["appliedCount"] == 0
    base = hub("GET", "/configurations/base").document
    assert base["systemMetrics"]["results"]["appliedCount"] == 3
    listed = hub("GET", "/configurations").document
    assert [one["id"] for one in listed] == ["l1", "base"]
    assert listed[0]["metrics"]["results"] == {"told": 2}, "as it was counted last"


def test_edge_agents_word_counts_as_success_or_failure(hub: Caller) -> None:
    for name in ("a", "b"):
        hub.device(name)
    hub.deploy("base", BASE)
    for name, code in (("a", 200), ("b", 400)):
        version = hub.state.twin(name, "$edgeAgent")["desired"]["$version"]
        said = {"lastDesiredVersion": version, "lastDesiredStatus": {"code": code}}
        hub.state.report(name, "$edgeAgent", said)
    results = hub("GET", "/configurations/base").document["systemMetrics"]["results"]
    assert (results["reportedSuccessfulCount"], results["reportedFailedCount"]) == (1, 1)


def test_an_unknown_tag_in_a_condition_is_no_error_and_targets_nothing(hub: Caller) -> None:
    hub.device("cam")
    hub.deploy("base", BASE)
    assert hub.deploy("l1", layer("one"), 2, "tags.nothing.like = 'it'").status == 200
    found = hub("GET", "/configurations/l1").document
    assert found["systemMetrics"]["results"]["targetedCount"] == 0
    assert "edgefleet" not in hub.state.twin("cam", "edgefleet")["desired"]


@pytest.mark.parametrize(
    "change, code",
    [
        ({"targetCondition": "tags.a ="}, "InvalidConfigurationTargetCondition"),
        ({"metrics": {"queries": {"a": "SELECT"}}}, "InvalidConfigurationCustomMetricsQuery"),
        (
            {"metrics": {"queries": {str(n): "SELECT * FROM devices" for n in range(6)}}},
            "InvalidConfigurationCustomMetricsQuery",
        ),
        ({"content": {}}, "InvalidConfigurationContent"),
        ({"content": {"modulesContent": {"m": {"desired": {}}}}}, "InvalidConfigurationContent"),
        ({"content": layer("x" * 4097)}, "InvalidConfigurationContent"),
        (
            {"content": {"modulesContent": {"$edgeAgent": {"properties.desired": AGENT}}}},
            "InvalidConfigurationContent",
        ),
        ({"priority": -1}, "ArgumentInvalid"),
        ({"labels": {str(n): "x" for n in range(21)}}, "ArgumentInvalid"),
    ],
)
def test_a_configuration_that_iot_hub_cannot_read_is_refused(
    hub: Caller, change: dict[str, Any], code: str
) -> None:
    document = {"content": BASE, "priority": 1, "targetCondition": "*", **change}
    refused(hub("PUT", "/configurations/c", document), 400, code)
    assert hub("GET", "/configurations").document == []


def test_content_stays_and_a_condition_changes_with_the_etag(hub: Caller) -> None:
    made = hub.deploy("base", BASE).document
    refused(hub.deploy("base", BASE), 409, "ConfigurationAlreadyExists")
    given = {"content": BASE, "priority": 2, "targetCondition": "tags.a = 1"}
    changed = hub("PUT", "/configurations/base", given, etag=made["etag"]).document
    assert changed["priority"] == 2
    refused(hub("PUT", "/configurations/base", given, etag=made["etag"]), 412, "PreconditionFailed")
    other = {**given, "content": layer("x")}
    refused(
        hub("PUT", "/configurations/base", other, etag="*"),
        400,
        "CannotModifyImmutableConfigurationContent",
    )


def test_a_hub_holds_100_deployments(hub: Caller) -> None:
    for number in range(100):
        assert hub.deploy(f"l{number}", layer("x")).status == 200
    refused(hub.deploy("more", layer("x")), 413, "ConfigurationCountLimitExceeded")
    assert hub("DELETE", "/configurations/l0").status == 204
    assert hub.deploy("more", layer("x")).status == 200


def test_deployments_of_one_device_and_automatic_ones_do_not_mix(hub: Caller) -> None:
    hub.device("cam")
    assert hub("POST", "/devices/cam/applyConfigurationContent", BASE).status == 204
    assert hub.state.twin("cam", "$edgeAgent")["desired"]["schemaVersion"] == "1.1"
    hub.deploy("base", BASE)
    refused(hub("POST", "/devices/cam/applyConfigurationContent", BASE), 400, "InvalidOperation")


def test_queries_are_tried_out(hub: Caller) -> None:
    answer = hub(
        "POST",
        "/configurations/testQueries",
        {"targetCondition": "tags.a ~ 1", "customMetricQueries": {"a": "SELECT * FROM devices"}},
    )
    assert "end of text" in answer.document["targetConditionError"]
    assert answer.document["customMetricQueryErrors"] == {}


def test_a_query_goes_on_where_its_page_ended(hub: Caller) -> None:
    for number in range(5):
        hub.device(f"d{number}")
    query = "SELECT deviceId FROM devices WHERE tags.edgefleet.group = 'line-3'"
    seen, token = [], ""
    for _ in range(3):
        headers = {"x_ms_max_item_count": "2"} | ({"x_ms_continuation": token} if token else {})
        page = hub.ask(query, **headers)
        seen += [row["deviceId"] for row in page.document]
        token = page.headers.get("x-ms-continuation", "")
    assert seen == [f"d{number}" for number in range(5)]
    assert not token
    first = hub.ask(query, x_ms_max_item_count="2").headers["x-ms-continuation"]
    refused(hub.ask("SELECT * FROM devices", x_ms_continuation=first), 400, "ArgumentInvalid")


def test_whole_twins_show_the_deployments_that_target_them(hub: Caller) -> None:
    hub.device("cam")
    hub.deploy("base", BASE)
    (agent,) = hub.ask("SELECT * FROM devices.modules WHERE moduleId = '$edgeAgent'").document
    assert agent["configurations"] == {"base": {"status": "Applied"}}


def test_a_query_that_iot_hub_cannot_read_is_refused(hub: Caller) -> None:
    refused(hub.ask("SELECT * FROM devices ORDER BY deviceId"), 400, "ArgumentInvalid")


def test_a_direct_method_is_answered_or_said_to_be_impossible(hub: Caller) -> None:
    hub.device("cam")
    hub.deploy("base", BASE)
    path, asked = "/twins/cam/modules/edgefleet/methods", {"methodName": "status", "payload": {}}
    refused(hub("POST", path, asked), 404, "DeviceNotOnline")
    hub.state.on_method("cam", "edgefleet", lambda *_: MethodReply(200, {"ok": True}))
    assert hub("POST", path, asked).document == {"status": 200, "payload": {"ok": True}}
    refused(
        hub("POST", path, {**asked, "payload": "x" * (128 << 10)}), 413, "RequestEntityTooLarge"
    )
    refused(hub("POST", path, {**asked, "responseTimeoutInSeconds": 301}), 400, "ArgumentInvalid")


@pytest.mark.parametrize(
    "kind, call",
    [
        ("configuration", ("GET", "/configurations")),
        ("query", ("POST", "/devices/query", {"query": "SELECT * FROM devices"})),
    ],
)
def test_the_21st_operation_of_a_minute_is_throttled_and_said_until_when(
    contracts: Path, kind: str, call: tuple[Any, ...]
) -> None:
    hub = Caller(contracts, units=1)
    for _ in range(20):
        assert hub(*call).status == 200
    answer = hub(*call)
    refused(answer, 429, "ThrottlingException")
    hub.clock.now += int(answer.headers["Retry-After"])
    assert hub(*call).status == 200
    assert hub.throttle.refused == 1, kind


def test_what_the_mock_has_not_it_says(hub: Caller) -> None:
    answer = HubRest(hub.state, hub.throttle).answer(
        Request("GET", "/jobs/v2/query", VERSION, {}, b"")
    )
    assert answer.status == 501
