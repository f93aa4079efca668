"""The API server over HTTPS: verbs, pages, watches, parameters, faults."""

from __future__ import annotations

import httpx2
import pytest
from lightkube import ApiError

from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud import api_reading
from edgefleet_kubernetes.cloud.api_status import Refused, throttled
from edgefleet_kubernetes.cloud.stage import Stage
from edgefleet_kubernetes.mock import KubernetesMock
from providers.kubernetes.tests.cloud.api_calls import MERGE, Api, events, refused
from providers.kubernetes.tests.cloud.api_samples import config_map, pod


@pytest.fixture
def api(clients: Clients, namespace: str) -> Api:
    return Api(clients, namespace)


def test_a_list_that_is_half_read_can_expire(api: Api, cluster: Stage) -> None:
    for number in range(3):
        api.maps("POST", document=config_map(f"a{number}"))
    page = api.maps("GET", query={"limit": "1"})
    cluster.server.reading.forget()
    query = {"limit": "1", "continue": page["metadata"]["continue"]}
    assert refused(lambda: api.maps("GET", query=query)).code == 410


def test_a_body_in_protobuf_is_refused_plainly(api: Api, clients: Clients) -> None:
    headers = {"Content-Type": "application/vnd.kubernetes.protobuf"}
    response = clients.http().post(f"{api.core}/configmaps", content=b"k8s\0", headers=headers)
    assert response.status_code == 415


# ------------------------------------------------------------------------------------- watches


def test_a_version_too_old_is_told_in_the_watch(api: Api, clients: Clients, cluster: Stage) -> None:
    since = api.maps("GET")["metadata"]["resourceVersion"]
    api.maps("POST", document=config_map())
    cluster.server.reading.forget()
    (event,) = events(clients, f"{api.core}/configmaps", 1, resourceVersion=since)
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


def test_bookmarks_tell_the_version_in_between(
    api: Api, clients: Clients, cluster: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_reading, "BOOKMARK_S", 0.01)
    listed = api.maps("GET")
    since = listed["metadata"]["resourceVersion"]
    cluster.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bm"}})
    path = f"{api.core}/configmaps"
    (event,) = events(clients, path, 1, resourceVersion=since, allowWatchBookmarks="true")
    assert event["type"] == "BOOKMARK"
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(since)


def test_a_client_that_hangs_up_leaves_no_watch_behind(
    api: Api, clients: Clients, cluster: Stage
) -> None:
    reading = cluster.server.reading
    eventually(lambda: reading.watching == 0, "other tests' watches end")
    since = api.maps("GET")["metadata"]["resourceVersion"]
    query = {"watch": "true", "resourceVersion": since}
    with clients.stream(f"{api.core}/configmaps", query=query):
        eventually(lambda: reading.watching == 1)
    eventually(lambda: reading.watching == 0)


# ----------------------------------------------------------------------------- other requests


def test_health_and_version_are_told(clients: Clients, cluster: Stage) -> None:
    assert clients.http().get("readyz").text == "ok"
    version = clients.call("GET", "version")
    assert f"{version['major']}.{version['minor']}" == cluster.store.schemas.version


def test_every_kind_is_discovered(clients: Clients, cluster: Stage) -> None:
    groups = {one["name"] for one in clients.call("GET", "apis")["groups"]}
    found = {one["name"] for one in clients.call("GET", "api/v1")["resources"]}
    for group in groups:
        resources = clients.call("GET", f"apis/{group}/v1")["resources"]
        found |= {one["name"] for one in resources}
    assert {kind.plural for kind in cluster.store.kinds} <= found
    assert {"pods/eviction", "pods/log", "pods/status", "serviceaccounts/token"} <= found


def test_a_budget_refuses_an_eviction(api: Api, cluster: Stage, namespace: str) -> None:
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    for name in ("p", "q"):
        api("POST", f"{api.core}/pods", pod(name, labels={"app": "x"}, schedulerName="none"))
        api("PATCH", f"{api.core}/pods/{name}/status", {"status": ready}, media=MERGE)
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}},
    }
    api("POST", f"apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets", budget)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    unready = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    api("PATCH", f"{api.core}/pods/q/status", unready, media=MERGE)
    status = refused(lambda: api("POST", f"{api.core}/pods/p/eviction", eviction))
    assert (status.code, status.details.causes[0].reason) == (429, "DisruptionBudget")
    api("PATCH", f"{api.core}/pods/q/status", {"status": ready}, media=MERGE)
    api("POST", f"{api.core}/pods/p/eviction", eviction)
    assert cluster.store.find("Pod", "p", namespace) is None


# -------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "fault", [throttled(7), Refused(500, "InternalError", "oops"), Refused(503, "Timeout", "no")]
)
def test_faults_come_where_a_rule_says(mock: KubernetesMock, api: Api, fault: Refused) -> None:
    mock.rules.add(Rule("configmaps.list", fault=fault))
    assert refused(lambda: api.maps("GET")).code == fault.code
    assert api.maps("GET")["kind"] == "ConfigMapList"


def test_a_throttled_call_is_told_when_to_come_again(
    mock: KubernetesMock, api: Api, clients: Clients
) -> None:
    mock.rules.add(Rule("configmaps.list", fault=throttled(7)))
    response = clients.http().get(f"{api.core}/configmaps")
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")


def test_an_answer_can_be_cut_after_the_deed(
    mock: KubernetesMock, api: Api, cluster: Stage, namespace: str
) -> None:
    mock.rules.add(Rule("configmaps.create", cut_answer_at=0))
    with pytest.raises(httpx2.TransportError):
        api.maps("POST", document=config_map())
    assert cluster.store.find("ConfigMap", "a", namespace) is not None


def test_a_server_that_is_away_comes_back_where_it_was(api: Api, cluster: Stage) -> None:
    before = cluster.url
    api.maps("POST", document=config_map())
    with cluster.away(), pytest.raises(httpx2.TransportError):
        api.maps("GET", "a")
    assert cluster.url == before
    assert api.maps("GET", "a")["metadata"]["name"] == "a"


def test_every_call_is_in_the_journal(mock: KubernetesMock, api: Api) -> None:
    api.maps("POST", document=config_map())
    with pytest.raises(ApiError):
        api.maps("POST", document=config_map())
    path = f"/{api.core}/configmaps"
    lines = [line.split(" ", 1)[1] for line in mock.seen() if f" {path} " in line]
    assert lines == [f"configmaps.create {path} 201", f"configmaps.create {path} 409"]
