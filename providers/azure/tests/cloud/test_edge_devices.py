"""Devices of the mock: real runtimes behind an edgeHub and an edgeAgent, with faults."""

from __future__ import annotations

import base64
import json
import re
import socket
import urllib.request
from collections.abc import Sequence

import pytest

from edgefleet.errors import UnavailableError
from edgefleet.protocol.pointer import Pointer
from edgefleet.testing.waiting import TIMEOUT_S, eventually
from edgefleet_azure.cloud.edge_hub import PORT
from edgefleet_azure.cloud.hub_values import HubError, MethodReply
from edgefleet_azure.manifests import base
from edgefleet_azure.settings import AzureSettings
from providers.azure.tests.cloud.edge_bench import (
    IMAGE,
    MODULE,
    Bench,
    base_of,
    module_of,
)
from providers.azure.tests.cloud.edge_storage import READ

CAM = "cam-1"
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
ADDRESS = re.compile(r"serving on (http://\S+)")
RENEWED = READ.replace("read", "renewed")


# ---------------------------------------------------------------------------------- releases


def test_a_pointer_arrives_is_served_and_attested_in_the_module_twin(bench: Bench) -> None:
    bench.add(CAM)
    report = bench.serves(CAM, bench.publish())
    assert report.access.state == "ok"
    summary = bench.reported(CAM)["edgefleet"]["summary"]
    assert (summary["number"], summary["state"]) == (1, "active")


def test_ten_releases_leave_the_process_as_it_is(bench: Bench) -> None:
    bench.add(CAM)
    reports = [bench.serves(CAM, bench.publish(float(number))) for number in range(10)]
    assert {report.health.pid for report in reports} == {bench.site.pid(CAM, MODULE)}
    assert reports[-1].number == 10


def test_a_pointer_in_the_modules_environment_would_restart_it(bench: Bench) -> None:
    """Why pointers travel in desired properties: this is what the test before it would see."""
    bench.add(CAM)
    bench.site.settle(CAM)
    before = bench.site.pid(CAM, MODULE)
    env = {"POINTER": {"value": "2"}}
    bench.deploy("base", base_of(module_of(env=env)), priority=1)
    bench.site.settle(CAM)
    assert bench.site.pid(CAM, MODULE) != before


def test_the_fleets_own_base_deployment_runs_the_runtime(bench: Bench) -> None:
    settings = AzureSettings(
        storage_url="https://plant.blob.core.windows.net",
        subscription="00000000-1111-2222-3333-444444444444",
        resource_group="plant",
        runtime_image=IMAGE,
    )
    bench.deploy("base", base(settings)["content"]["modulesContent"], priority=1)
    bench.add(CAM)
    report = bench.serves(CAM, bench.publish())
    assert report.health.pid == bench.site.pid(CAM, MODULE)


# ----------------------------------------------------------------------------------- network


def test_a_device_that_was_offline_takes_the_newest_release_only(bench: Bench) -> None:
    bench.add(CAM)
    bench.serves(CAM, bench.publish())
    bench.site.cut_network(CAM)
    skipped = bench.publish(3.0)
    newest = bench.publish(4.0)
    bench.site.restore_network(CAM)
    bench.serves(CAM, newest)
    assert not any(skipped.current[7:] in path for _, path, _, _ in bench.storage.seen)


def test_what_a_device_spooled_offline_is_uploaded_when_the_network_is_back(bench: Bench) -> None:
    bench.add(CAM)
    bench.serves(CAM, bench.publish())
    bench.site.cut_network(CAM)
    (address,) = ADDRESS.findall(bench.log(CAM))
    assert answers(address)
    eventually(lambda: "cold: telemetry waits" in bench.log(CAM))
    assert bench.storage.uploads == {}
    bench.site.restore_network(CAM)
    eventually(lambda: bench.storage.uploads)
    assert all(path.startswith(f"/devices/{CAM}/") for path in bench.storage.uploads)


def test_a_device_offline_since_before_the_first_release_takes_the_newest_only(
    bench: Bench,
) -> None:
    """What it had to say meanwhile arrives, too."""
    bench.add(CAM)
    eventually(lambda: bench.report(CAM))
    bench.site.cut_network(CAM)
    bench.site.shut_down(CAM)
    told = len(bench.messages)
    bench.site.power_on(CAM)
    device = bench.site.device(CAM)
    eventually(lambda: device.hub is not None and device.hub.waiting)
    skipped = [bench.publish(float(number)) for number in range(3)]
    newest = bench.publish(9.0)
    assert len(bench.messages) == told
    bench.site.restore_network(CAM)
    bench.serves(CAM, newest)
    eventually(lambda: len(bench.messages) > told)
    assert asked_for(bench, [newest])
    assert not asked_for(bench, skipped)


def test_a_device_offline_for_many_releases_catches_up_and_uploads_what_it_spooled(
    bench: Bench,
) -> None:
    bench.add(CAM)
    bench.serves(CAM, bench.publish())
    bench.site.cut_network(CAM)
    (address,) = ADDRESS.findall(bench.log(CAM))
    assert answers(address)
    skipped = [bench.publish(float(number)) for number in range(3, 6)]
    newest = bench.publish(9.0)
    eventually(lambda: "cold: telemetry waits" in bench.log(CAM))
    assert bench.storage.uploads == {}
    bench.site.restore_network(CAM)
    bench.serves(CAM, newest)
    eventually(lambda: bench.storage.uploads)
    assert asked_for(bench, [newest])
    assert not asked_for(bench, skipped)


def asked_for(bench: Bench, releases: Sequence[Pointer]) -> list[str]:
    """What a device read of releases."""
    digests = [one.current.removeprefix("sha256:") for one in releases]
    return [path for _, path, _, _ in bench.storage.seen if any(one in path for one in digests)]


def answers(address: str) -> bool:
    """Have the model answer, as an application on the device asks it; False when it isn't there."""
    url = f"{address}/v2/models/scale/infer"
    try:
        with urllib.request.urlopen(url, json.dumps(BODY).encode(), timeout=60) as answer:
            return bool(json.load(answer)["outputs"][0]["data"] == [2, 4, 6, 8])
    except OSError:
        return False


def test_a_report_from_without_a_network_arrives_when_it_is_back(bench: Bench) -> None:
    bench.add(CAM)
    before = eventually(lambda: bench.report(CAM)).sequence
    bench.site.cut_network(CAM)
    bench.site.shut_down(CAM)
    bench.site.power_on(CAM)
    device = bench.site.device(CAM)
    eventually(lambda: device.hub is not None and device.hub.waiting)
    assert bench.report(CAM).sequence == before  # type: ignore[union-attr]
    bench.site.restore_network(CAM)
    eventually(lambda: bench.report(CAM).sequence > before)  # type: ignore[union-attr]


def test_a_message_that_waited_longer_than_its_route_allows_is_dropped(bench: Bench) -> None:
    bench.add(CAM, on=False)
    bench.site.power_on(CAM)
    eventually(lambda: bench.messages)
    bench.site.cut_network(CAM)
    bench.site.shut_down(CAM)
    bench.site.power_on(CAM)
    hub = bench.site.device(CAM).hub
    assert hub is not None
    eventually(lambda: hub.waiting)
    waiting, count = hub.waiting, len(bench.messages)
    bench.now += 61
    bench.site.restore_network(CAM)
    assert hub.expired == waiting
    assert len(bench.messages) == count


def test_a_device_is_named_by_its_connection(bench: Bench) -> None:
    bench.add(CAM)
    message = eventually(lambda: bench.messages)[0]
    assert (message.device, message.output) == (CAM, "hot")
    assert {event["source"] for event in json.loads(message.body)["events"]} == {
        "urn:edgefleet:device"
    }


@pytest.mark.parametrize("forget", [False, True], ids=["started anew", "made anew"])
def test_a_pointer_arrives_after_edgehub_hung_up(bench: Bench, *, forget: bool) -> None:
    bench.add(CAM)
    bench.serves(CAM, bench.publish())
    invoked(bench, {"path": "/v2/health/live"})
    bench.site.drop_connections(CAM, forget=forget)
    invoked(bench, {"path": "/v2/health/live"})  # it is back, and has read its twin
    bench.serves(CAM, bench.publish(3.0))


# ------------------------------------------------------------------------------------ access


def test_access_that_ends_in_the_middle_of_a_download_is_waited_for_and_resumed(
    bench: Bench,
) -> None:
    bench.add(CAM)
    bench.storage.cut_at, bench.storage.next_read = 300_000, RENEWED
    pointer = bench.publish(padding=1_000_000)
    eventually(lambda: (found := bench.report(CAM)) and found.access.state == "expired")
    report = bench.report(CAM)
    assert report is not None
    assert report.state == "waiting"
    bench.layer(pointer, read=RENEWED)
    bench.serves(CAM, pointer)
    ranges = [said for _, _, said, refused in bench.storage.seen if said and not refused]
    assert ranges
    assert all(int(said[6:-1]) > 0 for said in ranges)  # what had come by then is kept


def test_no_signature_stands_in_the_log(bench: Bench) -> None:
    bench.add(CAM)
    bench.storage.read = RENEWED
    bench.publish()
    eventually(lambda: (found := bench.report(CAM)) and found.access.state == "expired")
    assert "sig=" not in bench.log(CAM)
    assert "sig=" not in json.dumps(bench.reported(CAM))


# ----------------------------------------------------------------------------------- methods


def invoked(bench: Bench, payload: object) -> MethodReply:
    def answer() -> MethodReply | None:
        try:
            return bench.hub.invoke(CAM, MODULE, "invoke", payload, 60.0)
        except HubError:  # not there yet
            return None

    reply: MethodReply = eventually(answer)
    return reply


def test_a_direct_method_has_the_model_answer(bench: Bench) -> None:
    bench.add(CAM)
    bench.serves(CAM, bench.publish(5.0))
    encoded = base64.b64encode(json.dumps(BODY).encode()).decode()
    request = {"path": "/v2/models/scale/infer", "headers": {}, "body": encoded}
    answer = invoked(bench, request).payload
    assert answer["status"] == 200
    assert json.loads(base64.b64decode(answer["body"]))["outputs"][0]["data"] == [5, 10, 15, 20]


def test_a_direct_method_gives_the_newest_report(bench: Bench) -> None:
    bench.add(CAM)
    bench.serves(CAM, bench.publish())
    reply = bench.hub.invoke(CAM, MODULE, "status", None, 60.0)
    assert (reply.status, reply.payload["state"]) == (200, "active")


def test_a_direct_method_rolls_back_until_a_newer_pointer(bench: Bench) -> None:
    bench.add(CAM)
    first = bench.serves(CAM, bench.publish())
    second = bench.publish(3.0)
    pid = bench.serves(CAM, second).health.pid
    reply = bench.hub.invoke(CAM, MODULE, "rollback", {"by": "ada", "reason": "ghosts"}, 60.0)
    assert (reply.status, reply.payload["running"]) == (200, first.running)
    assert reply.payload["rolled_back"]["reason"] == "ghosts"
    report = eventually(
        lambda: found if (found := bench.report(CAM)) and found.rolled_back else None
    )
    assert (report.state, report.pair, report.health.pid) == ("rejected", second.pair, pid)
    again = bench.hub.invoke(CAM, MODULE, "rollback", None, 60.0)
    assert (again.status, again.payload["changed"]) == (200, False)
    assert bench.serves(CAM, bench.publish(4.0)).health.pid == pid


def test_a_direct_method_captures_the_next_request(bench: Bench) -> None:
    bench.add(CAM)
    bench.serves(CAM, bench.publish())
    asked = bench.hub.invoke(CAM, MODULE, "capture", {"model": "scale"}, 60.0).payload
    assert (asked["model"], asked["open"]) == ("scale", True)
    encoded = base64.b64encode(json.dumps(BODY).encode()).decode()
    invoked(bench, {"path": "/v2/models/scale/infer", "headers": {}, "body": encoded})

    def kept() -> object:
        order = {"model": "scale", "id": asked["id"]}
        return bench.hub.invoke(CAM, MODULE, "capture", order, 60.0).payload.get("captured")

    assert eventually(kept) == 1
    eventually(lambda: any("/samples/sha256/" in path for path in bench.storage.uploads))
    reply = bench.hub.invoke(CAM, MODULE, "capture", {"model": "faces"}, 60.0)
    assert (reply.status, "scale" in reply.payload["cure"]) == (404, True)


def test_a_device_without_a_network_answers_no_direct_method(bench: Bench) -> None:
    bench.add(CAM)
    invoked(bench, {"path": "/v2/health/live"})
    bench.site.cut_network(CAM)
    with pytest.raises(HubError, match="isn't connected"):
        bench.hub.invoke(CAM, MODULE, "status", None, 60.0)


# ------------------------------------------------------------------------------------- power


def test_a_device_whose_power_is_cut_serves_its_release_without_a_network(bench: Bench) -> None:
    bench.add(CAM)
    bench.serves(CAM, bench.publish())
    bench.site.cut_network(CAM)
    bench.site.power_off(CAM)
    assert bench.site.pid(CAM, MODULE) is None
    bench.site.power_on(CAM)
    addresses = eventually(lambda: (found := ADDRESS.findall(bench.log(CAM))) and found[1:])
    eventually(lambda: answers(addresses[0]))
    bench.site.restore_network(CAM)
    eventually(lambda: (found := bench.report(CAM)) and found.health.starts == 2 and found.running)


def test_the_runtime_ends_in_time_when_its_agent_stops(bench: Bench) -> None:
    bench.add(CAM)
    eventually(lambda: bench.report(CAM))
    device = bench.site.device(CAM)
    assert device.agent is not None
    module = device.agent.modules[MODULE]
    bench.site.shut_down(CAM)
    assert not module.killed


def test_the_runtime_ends_in_time_although_its_edgehub_is_gone(bench: Bench) -> None:
    bench.add(CAM)
    eventually(lambda: bench.report(CAM))
    device = bench.site.device(CAM)
    agent, hub = device.agent, device.hub
    assert agent is not None
    assert hub is not None
    module = agent.modules[MODULE]
    bench.site.call(hub.stop())
    bench.site.shut_down(CAM)
    assert not module.killed


def test_the_runtime_ends_in_time_although_its_edgehub_answers_nothing(bench: Bench) -> None:
    bench.add(CAM)
    eventually(lambda: bench.report(CAM))
    device = bench.site.device(CAM)
    agent, hub = device.agent, device.hub
    assert agent is not None
    assert hub is not None
    bench.site.call(hub.stop())
    with socket.create_server((device.address, PORT)) as server:
        server.settimeout(TIMEOUT_S)
        connection, _ = server.accept()  # the runtime waits for an answer to its first bytes
        with connection:
            module = agent.modules[MODULE]
            bench.site.shut_down(CAM)
    assert not module.killed


# ------------------------------------------------------------------------------------- agent


def status_of(bench: Bench) -> tuple[int, str]:
    status = bench.reported(CAM, "$edgeAgent")["lastDesiredStatus"]
    return status["code"], status["description"]


def test_a_manifest_that_is_refused_is_reported_and_changes_nothing(bench: Bench) -> None:
    bench.add(CAM)
    bench.site.settle(CAM)
    assert status_of(bench) == (200, "")
    before = bench.site.pid(CAM, MODULE)
    bench.deploy("base", base_of(module_of(), schemaVersion="7.0"), priority=1)
    bench.site.settle(CAM)
    code, said = status_of(bench)
    assert (code, "7.0" in said) == (412, True)
    assert bench.site.pid(CAM, MODULE) == before


def test_an_image_that_can_not_be_pulled_is_reported(bench: Bench) -> None:
    bench.deploy("base", base_of(module_of(image="registry.test/other:9")), priority=1)
    bench.add(CAM, upload=False)
    bench.site.settle(CAM)
    code, said = status_of(bench)
    assert (code, "registry.test/other:9" in said) == (500, True)


def test_a_module_that_keeps_restarting_is_reported_so(bench: Bench) -> None:
    broken = module_of(command=["run", "--no-such-option"])
    bench.deploy("base", base_of(broken), priority=1)
    bench.add(CAM, upload=False)

    def module() -> dict[str, object]:
        found: dict[str, object] = (
            bench.reported(CAM, "$edgeAgent").get("modules", {}).get(MODULE, {})
        )
        return found

    eventually(lambda: module().get("restartCount", 0) >= 2)  # type: ignore[operator]
    assert module()["runtimeStatus"] in {"backoff", "running"}
    assert module()["exitCode"] == 2


def test_a_stopped_module_has_no_process(bench: Bench) -> None:
    bench.deploy("base", base_of(module_of(status="stopped")), priority=1)
    bench.add(CAM, upload=False)
    bench.site.settle(CAM)
    assert bench.site.pid(CAM, MODULE) is None


def test_a_device_that_iot_hub_does_not_know_stays_off(bench: Bench) -> None:
    with pytest.raises(HubError, match="not registered"):
        bench.site.add("stranger", bench.hub, host=bench.hub.host)
    device = bench.site.device("stranger")
    assert (device.agent, device.hub) == (None, None)


def test_a_device_without_power_tells_modules_nothing(bench: Bench) -> None:
    bench.add(CAM, on=False, upload=False)
    with pytest.raises(UnavailableError):
        bench.site.device(CAM).environment(MODULE)
