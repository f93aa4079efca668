"""What controllers and kubelets ask of the API server, and what they spare it."""

from __future__ import annotations

from edgefleet_kubernetes.cloud.api_store import Store
from edgefleet_kubernetes.cloud.api_writes import Asked
from edgefleet_kubernetes.cloud.daemon_set_controller import DaemonSetController
from edgefleet_kubernetes.cloud.node_client import Client
from edgefleet_kubernetes.cloud.node_disruption import Disruption
from providers.kubernetes.tests.cloud.node_bench import NAMESPACE, Object, daemon_set, pod


def budget() -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "agent", "namespace": NAMESPACE},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "agent"}}},
    }


def store_of(*objects: Object) -> tuple[Store, list[Asked]]:
    """A store with objects in a namespace, and what it is asked to write from then on."""
    store, asked = Store(), list[Asked]()
    store.create(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    )
    for one in objects:
        store.create(one)
    store.admission.append(asked.append)
    return store, asked


def test_controllers_write_nothing_where_all_is_as_it_should_be() -> None:
    store, asked = store_of(daemon_set(), budget())
    client = Client(store, "controllers")
    controllers = (DaemonSetController(client, backoff_s=1.0), Disruption(client))
    for one in controllers:
        one.reconcile()
    assert {write.kind.kind for write in asked} >= {"DaemonSet", "PodDisruptionBudget"}
    asked.clear()
    for one in controllers:
        one.reconcile()
    assert asked == []


def test_a_change_that_changes_nothing_gives_the_object_as_it_is() -> None:
    store, asked = store_of(pod())
    client = Client(store, "controllers")
    (one,) = client.list("Pod")
    running = client.set_status(one, phase="Running")
    assert running is not None
    (written,) = asked
    assert written.operation == "UPDATE"
    assert client.set_status(one, phase="Running") == running == store.get("Pod", "one", NAMESPACE)
    assert asked == [written]
