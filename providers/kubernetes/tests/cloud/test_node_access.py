"""A cluster's nodes as they are seen through its API server, by clients and by pods."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet.testing.cloud.rules import Rules
from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.cloud.api_status import throttled
from edgefleet_kubernetes.cloud.kubelet_environment import Image
from edgefleet_kubernetes.cloud.stage import Stage
from edgefleet_kubernetes.mock import KubernetesMock
from providers.kubernetes.tests.cloud.kubectl import Kubectl
from providers.kubernetes.tests.cloud.node_bench import (
    BROKEN,
    FAST,
    IMAGE,
    NAMESPACE,
    Object,
    daemon_set,
    is_ready,
    pod,
    python,
    serving,
)

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
PROBE = {"tcpSocket": {"port": "http"}}
HOME = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A cluster with a node."""
    stage = Stage(Rules(throttled), tmp_path, timing=FAST)
    stage.open()
    stage.nodes.images[IMAGE] = Image((sys.executable,))
    stage.store.create(HOME)
    stage.nodes.add_node("n-1", labels={"group": "line"})
    yield stage
    stage.close()


def call(stage: Stage, path: str, body: Object | bytes | None = None) -> tuple[int, bytes]:
    """What the API server answers the operator."""
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    headers = {"Authorization": f"Bearer {stage.token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{stage.url}{path}", data=data, headers=headers)
    trust = ssl.create_default_context(cafile=str(stage.authority.certificate))
    try:
        with urllib.request.urlopen(request, timeout=60, context=trust) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def run(stage: Stage, document: Object) -> None:
    """Run a pod until it is ready."""
    stage.store.create(document)
    name = document["metadata"]["name"]
    eventually(lambda: is_ready(stage.store.get("Pod", name, NAMESPACE)))


def finish(stage: Stage, document: Object) -> None:
    """Run a pod to its end."""
    stage.store.create(document)
    name = document["metadata"]["name"]

    def ended() -> bool:
        status: Any = stage.store.get("Pod", name, NAMESPACE)["status"]
        return status["phase"] in ("Succeeded", "Failed")

    eventually(ended)


LINES = "for number in range(5): print('line', number)"


# ----------------------------------------------------------------------------------------- logs


@pytest.mark.parametrize(
    "query, expected",
    [
        ("", "line 0\nline 1\nline 2\nline 3\nline 4\n"),
        ("?tailLines=2", "line 3\nline 4\n"),
        ("?limitBytes=6", "line 0"),
        ("?container=app&follow=true&tailLines=99", "line 0\nline 1\nline 2\nline 3\nline 4\n"),
    ],
)
def test_a_log_can_be_cut(stage: Stage, query: str, expected: str) -> None:
    finish(stage, pod("one", python(LINES), restartPolicy="Never"))
    assert call(stage, f"{PODS}/one/log{query}") == (200, expected.encode())


def test_a_log_that_is_followed_by_time_is_refused(stage: Stage) -> None:
    finish(stage, pod("one", python(LINES), restartPolicy="Never"))
    assert call(stage, f"{PODS}/one/log?follow=true&sinceSeconds=5")[0] == 400


def test_a_log_is_followed_until_its_container_ends(stage: Stage) -> None:
    source = "import time\nfor n in range(3): print(n, flush=True); time.sleep(0.1)"
    stage.store.create(pod("one", python(source), restartPolicy="Never"))
    eventually(lambda: call(stage, f"{PODS}/one/log")[0] == 200)
    assert call(stage, f"{PODS}/one/log?follow=true") == (200, b"0\n1\n2\n")


# ------------------------------------------------------------------------------------- requests


def test_a_request_is_passed_on_to_a_pod(stage: Stage) -> None:
    run(stage, pod("one", serving(readinessProbe=PROBE)))
    assert call(stage, f"{PODS}/one:8080/proxy/any/path") == (200, b"n-1")
    assert call(stage, f"{PODS}/one/proxy/ready")[0] == 200
    assert call(stage, f"{PODS}/one:8080/proxy/", b"{}")[0] == 501  # it knows no POST


def test_a_pod_whose_node_is_cut_off_is_not_reached(stage: Stage) -> None:
    run(stage, pod("one", serving(readinessProbe=PROBE)))
    stage.nodes.cut_network("n-1")
    status, body = call(stage, f"{PODS}/one:8080/proxy/")
    assert status == 503
    assert "error trying to reach service" in json.loads(body)["message"]


def test_an_eviction_that_a_budget_forbids_is_refused(stage: Stage) -> None:
    run(stage, pod("one"))
    selector = {"matchLabels": {"app": "one"}}
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "keep", "namespace": NAMESPACE},
        "spec": {"minAvailable": 1, "selector": selector},
    }
    stage.store.create(budget)
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "one", "namespace": NAMESPACE},
    }
    assert call(stage, f"{PODS}/one/eviction", eviction)[0] == 429
    stage.store.delete("PodDisruptionBudget", "keep", NAMESPACE)
    assert call(stage, f"{PODS}/one/eviction", eviction)[0] == 201
    eventually(lambda: stage.store.find("Pod", "one", NAMESPACE) is None)


# ------------------------------------------------------------------------- from within the node


ASK = """
import os, ssl, sys, time, urllib.request
folder = sys.argv[1]
where = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
trust = ssl.create_default_context(cafile=f"{folder}/ca.crt")
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
while True:
    token = open(f"{folder}/token").read()
    request = urllib.request.Request(f"{where}/apis/authentication.k8s.io/v1/selfsubjectreviews",
        data=b'{"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}',
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    try:
        with opener.open(request, timeout=60) as answer:
            print(answer.read().decode(), flush=True)
    except OSError as error:
        print("failed", error, flush=True)
    time.sleep(0.05)
"""


def asking() -> Object:
    """A pod that asks the API server who it is."""
    folder = "/var/run/secrets/edgefleet"
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt"}},
    ]
    volume = {"name": "token", "projected": {"sources": sources}}
    mount = {"volumeMounts": [{"name": "token", "mountPath": folder}]}
    return pod("one", python(ASK, folder, **mount), volumes=[volume])


def last_line(stage: Stage) -> str:
    """What the pod has said last."""
    lines = call(stage, f"{PODS}/one/log")[1].decode().splitlines()
    return lines[-1] if lines else ""


def test_a_pod_reaches_the_api_server_as_its_account_on_its_node(stage: Stage) -> None:
    run(stage, asking())
    found = json.loads(eventually(lambda: last_line(stage)))["status"]["userInfo"]
    assert found["username"] == f"system:serviceaccount:{NAMESPACE}:default"
    assert found["extra"]["authentication.kubernetes.io/node-name"] == ["n-1"]


def test_a_pod_of_a_node_that_is_cut_off_does_not_reach_it(stage: Stage) -> None:
    run(stage, asking())
    eventually(lambda: last_line(stage).startswith("{"))
    worker = next(iter(stage.nodes.kubelet("n-1").workers.values()))
    log = worker.log("app", 0)
    stage.nodes.cut_network("n-1")
    eventually(lambda: log.read_text().splitlines()[-1].startswith("failed"))
    stage.nodes.restore_network("n-1")
    eventually(lambda: log.read_text().splitlines()[-1].startswith("{"))


# -------------------------------------------------------------------------------------- the mock


def test_kubectl_rolls_out_and_undoes(stage: Stage, tmp_path: Path) -> None:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl isn't installed")
    for name in ("n-2", "n-3"):
        stage.nodes.add_node(name, labels={"group": "line"})
    config = stage.kubeconfig(tmp_path / "kubeconfig", namespace=NAMESPACE)
    kubectl = Kubectl(program, {**os.environ, "KUBECONFIG": str(config), "HOME": str(tmp_path)})
    wanted = daemon_set()
    assert kubectl("apply", "-f", "-", stdin=json.dumps(wanted)).returncode == 0
    assert "successfully rolled out" in kubectl("rollout", "status", "ds/agent").stdout
    wanted["spec"]["template"]["spec"]["containers"][0]["image"] = BROKEN
    assert kubectl("apply", "-f", "-", stdin=json.dumps(wanted)).returncode == 0

    def stalled() -> bool:
        status = stage.store.get("DaemonSet", "agent", NAMESPACE)["status"]
        return bool(status["observedGeneration"] > 1 and status.get("numberUnavailable") == 1)

    eventually(stalled)
    assert "rolled back" in kubectl("rollout", "undo", "ds/agent").stdout
    assert "successfully rolled out" in kubectl("rollout", "status", "ds/agent").stdout
    eventually(lambda: "up" in kubectl("logs", "ds/agent").stdout)


def test_a_mock_that_starts_again_has_its_nodes_and_runs_their_pods(tmp_path: Path) -> None:
    first = KubernetesMock(tmp_path)
    first.start()
    first.stage.nodes.images[IMAGE] = Image((sys.executable,))
    first.stage.store.create(HOME)
    first.stage.nodes.add_node("n-1", labels={"group": "line"})
    first.stage.store.create(daemon_set())
    first.stage.nodes.settle("n-1")
    eventually(lambda: first.stage.nodes.pid("n-1", "app"))
    first.kill_device("n-1")
    assert first.stage.nodes.pids("n-1") == {}
    first.start_device("n-1")
    eventually(lambda: first.stage.nodes.pid("n-1", "app"))
    first.stop()
    again = KubernetesMock(tmp_path)
    again.start()
    try:
        again.stage.nodes.images[IMAGE] = Image((sys.executable,))
        eventually(lambda: again.stage.nodes.pid("n-1", "app"))
    finally:
        again.stop()
