"""Whole devices: nodes of the mock, whose kubelets run the real runtime by our manifests."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import AccessDeniedError, UnavailableError
from edgefleet.interfaces.state import StateStore
from edgefleet.interfaces.values import Action, DeviceInfo
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.node_images import RUNTIME_IMAGE
from providers.kubernetes.tests.deployer_rig import Rig

TIMEOUT_S = 90.0


@pytest.fixture
def rig(tmp_path: Path, state: Callable[[], StateStore]) -> Iterator[Rig]:
    made = Rig(tmp_path / "cloud", state, nodes=(), alive=True)
    made.settings = made.settings.model_copy(update={"runtime_image": RUNTIME_IMAGE})
    made.deployer = made.another()
    made.deployer.install()
    yield made
    made.close()


def cam(rig: Rig) -> DeviceInfo:
    """What the deployer knows of the device."""
    return rig.deployer.device("cam-1")


def start(rig: Rig, name: str = "cam-1", *, folder: bool = True, **changes: Any) -> None:
    """Have a node of the group line-3."""
    rig.cloud.stage.nodes.add_node(name)
    if folder:
        rig.cloud.stage.nodes.make_folder(name, rig.settings.host_path)
    rig.another(**changes).enroll(name, group="line-3")


def reported(rig: Rig, name: str = "cam-1") -> Any:
    return eventually(lambda: rig.deployer.device(name).report, "a report")


@pytest.mark.parametrize("store", ["hostPath", "claim"])
def test_a_nodes_runtime_reports_answers_and_keeps_a_log(rig: Rig, store: str) -> None:
    rig.settings = rig.settings.model_copy(update={"store": store, "namespace": "plant"})
    rig.deployer = rig.another()
    rig.deployer.install()
    start(rig)
    report = reported(rig)
    device = rig.deployer.device("cam-1")
    assert device.connected is True
    assert device.blocked is None
    assert report.state == "idle"
    answer = rig.deployer.invoke("cam-1", "/v2")
    assert (answer.status, b"edgefleet" in answer.body) == (200, True)
    refused = rig.deployer.invoke("cam-1", "/v2/models/none/infer", body=b"{}")
    assert refused.status == 404
    assert eventually(lambda: rig.deployer.device_log("cam-1", last=5), "a line of log")
    actions = {one.action for one in rig.deployer.install_documents()}
    assert actions == {Action.UNCHANGED}, "what controllers wrote counts as a change"


def fetched(url: str, token: str | None = None) -> tuple[int, bytes]:
    """Status and body of an answer of the runtime."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_a_scraper_finds_figures_where_the_pods_annotations_say(rig: Rig) -> None:
    start(rig)
    reported(rig)
    (pod,) = rig.store().list("Pod", "edgefleet")
    told = {key.partition("/")[2]: value for key, value in pod["metadata"]["annotations"].items()}
    assert told["scrape"] == "true"
    address = f"http://{pod['status']['podIP']}:{told['port']}{told['path']}"
    status, text = fetched(address)
    assert (status, b"edgefleet_release_info" in text) == (200, True)


def test_an_app_asks_the_runtime_of_its_own_node_by_its_service_with_the_token(rig: Rig) -> None:
    start(rig)
    reported(rig)
    rig.cloud.stage.nodes.add_node("no-device")
    (pod,) = rig.store().list("Pod", "edgefleet")
    assert pod["spec"]["nodeName"] == "cam-1"
    secret = rig.store().get("Secret", "edgefleet-serving", "edgefleet")
    token = base64.b64decode(secret["data"]["token"]).decode()

    def url(node: str) -> str:
        host = rig.cloud.stage.nodes.kubelet(node).resolve("edgefleet")
        return f"http://{host('edgefleet-runtime-line-3.edgefleet')}:8080/v2/models/stats"

    def answered() -> bool:
        try:
            return fetched(url("cam-1"), token)[0] == 200
        except OSError:  # a Service has no pod behind it until that one is ready
            return False

    eventually(answered, "an answer of the own node's")
    assert fetched(url("cam-1"))[0] == 401
    with pytest.raises(OSError):
        fetched(url("no-device"), token)


def test_what_a_device_refuses_is_its_own_answer(rig: Rig) -> None:
    start(rig)
    reported(rig)
    answer = rig.deployer.invoke("cam-1", "/v2/health/ready")
    assert (answer.status, json.loads(answer.body)) == (503, {"error": "not ready"})


def test_what_the_api_server_refuses_is_not_taken_for_the_devices_answer(rig: Rig) -> None:
    start(rig)
    reported(rig)
    may_not = Refused(403, "Forbidden", 'User "eve" cannot get resource "pods/proxy"')
    rig.cloud.rules.add(Rule("pods/proxy.get", fault=may_not))
    with pytest.raises(AccessDeniedError, match="cannot get resource"):
        rig.deployer.invoke("cam-1", "/v2")
    rig.cloud.stage.nodes.cut_network("cam-1")
    with pytest.raises(UnavailableError, match=r"'cam-1' doesn't answer: .*no route to host"):
        rig.deployer.invoke("cam-1", "/v2")


def test_pods_stay_over_ten_releases(rig: Rig) -> None:
    start(rig)
    reported(rig)
    nodes = rig.cloud.stage.nodes
    before = nodes.pids("cam-1")
    assert before
    for number in range(1, 11):
        rig.deployer.publish("line-3", samples.pointer(number))
    eventually(lambda: (told := reported(rig)) and told.number == 10, "the tenth pointer")
    assert nodes.pids("cam-1") == before
    assert reported(rig).health.pointer_lag_s is not None


def test_an_image_that_is_not_there_is_told_and_undone_by_installing_the_one_before(
    rig: Rig,
) -> None:
    start(rig)
    reported(rig)
    missing = "registry.mock/edgefleet-runtime:missing"
    rig.another(runtime_image=missing).install(group="line-3")

    def stalled() -> Any:
        (found,) = rig.deployer.devices("line-3")
        return missing in str(found.blocked) and found

    device = eventually(stalled, "a device without its image")
    assert "pull_secret" in str(device.cure)
    assert device.connected is False
    assert "Pull" in str(device.blocked)
    rig.another().install(group="line-3")
    eventually(lambda: rig.deployer.device("cam-1").connected, "the runtime again")


def test_a_broken_image_stalls_at_the_limit_in_a_group_without_a_release(rig: Rig) -> None:
    for name in ("cam-1", "cam-2"):
        start(rig, name, max_unavailable="1")
    nodes, store = rig.cloud.stage.nodes, rig.store()

    def ready() -> int:
        found = store.get("DaemonSet", "edgefleet-runtime-line-3", "edgefleet")
        return int(found["status"].get("numberReady", 0))

    eventually(lambda: ready() == 2, "both are ready, which serve nothing")
    before = {name: set(nodes.pids(name).values()) for name in ("cam-1", "cam-2")}
    missing = "registry.mock/edgefleet-runtime:missing"
    rig.another(runtime_image=missing, max_unavailable="1").install(group="line-3")
    blocked = eventually(
        lambda: [one for one in rig.deployer.devices("line-3") if missing in str(one.blocked)],
        what="a device without its image",
    )
    (other,) = {"cam-1", "cam-2"} - {one.name for one in blocked}
    assert set(nodes.pids(other).values()) == before[other]
    rig.another(max_unavailable="1").install(group="line-3")
    eventually(lambda: ready() == 2, "both again")
    assert set(nodes.pids(other).values()) == before[other]


def test_a_folder_that_is_missing_is_told_with_the_command_that_makes_it(rig: Rig) -> None:
    start(rig, folder=False)
    device = eventually(
        lambda: (found := rig.deployer.device("cam-1")).blocked and found, what="a reason"
    )
    device = eventually(
        lambda: found if "install -d" in str((found := cam(rig)).cure) else None, "the command"
    )
    assert rig.settings.host_path in str(device.blocked)
    rig.cloud.stage.nodes.make_folder("cam-1", rig.settings.host_path)
    reported(rig)


def test_a_quota_is_told_and_pods_come_when_it_is_raised(rig: Rig) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "tight", "namespace": "edgefleet"},
        "spec": {"hard": {"pods": "0"}},
    }
    rig.put(quota)
    start(rig)
    device = eventually(
        lambda: found if "exceeded quota" in str((found := cam(rig)).blocked) else None, "the quota"
    )
    assert "ResourceQuota" in str(device.cure)
    rig.store().delete("ResourceQuota", "tight", "edgefleet")
    reported(rig)


def test_an_eviction_is_told_and_the_runtime_comes_back(rig: Rig) -> None:
    start(rig)
    reported(rig)
    nodes = rig.cloud.stage.nodes
    nodes.fill_disk("cam-1")
    eventually(lambda: not rig.deployer.device("cam-1").connected, "an eviction")
    device = eventually(lambda: found if (found := cam(rig)).blocked else None, "why")
    assert device.blocked
    nodes.free_disk("cam-1")
    eventually(lambda: rig.deployer.device("cam-1").connected, "the runtime again")


def test_a_node_without_power_is_told_and_its_last_report_stays(rig: Rig) -> None:
    start(rig)
    report = reported(rig)
    rig.cloud.stage.nodes.power_off("cam-1")
    device = eventually(lambda: found if (found := cam(rig)).blocked else None, "NotReady")
    assert "NotReady since" in str(device.blocked)
    assert device.connected is False
    assert device.report is not None
    assert device.report.health.started == report.health.started
