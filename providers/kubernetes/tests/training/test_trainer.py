"""Runs on the mock cluster: what they wait for, what ends them, what survives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import (
    CancelledError,
    InvalidInputError,
    TrainingFailedError,
    UnsupportedError,
)
from edgefleet.interfaces.training import Resources, RunState, TrainingJob
from edgefleet.interfaces.training_run import TrainingRun
from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.node_images import TRAINING_IMAGE
from edgefleet_kubernetes.cloud.train_definitions import install_trainer
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_kubernetes.trainer import KubernetesTrainer

TIMEOUT_S = 120.0
NAMESPACE = "edgefleet-training"
ENDLESS = "import time; print('up', flush=True); time.sleep(3600)"
Trainers = Callable[..., KubernetesTrainer]
until = partial(eventually, timeout_s=TIMEOUT_S)


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., TrainingRun]:
    def go(trainer: KubernetesTrainer, text: str = "print('done')", **more: Any) -> TrainingRun:
        folder = tmp_path / "source"
        folder.mkdir(exist_ok=True)
        (folder / "train.py").write_text(text)
        return trainer.submit(TrainingJob(script=folder / "train.py", **more))

    return go


@pytest.fixture
def taken(cluster: KubernetesMock) -> None:
    """Somebody else's pod has both GPUs."""
    limits = {"nvidia.com/gpu": "2"}
    container = {
        "name": "other",
        "image": TRAINING_IMAGE,
        "command": ["python3", "-c", ENDLESS],
        "resources": {"limits": limits, "requests": limits},
    }
    metadata = {"name": "other", "namespace": NAMESPACE}
    cluster.stage.store.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"containers": [container]},
        }
    )
    until(lambda: cluster.stage.nodes.pid("node-1", "other"))


@pytest.mark.usefixtures("taken")
def test_a_run_waits_for_a_gpu_and_says_so(
    cluster: KubernetesMock, on_cluster: KubernetesTrainer, submit: Callable[..., TrainingRun]
) -> None:
    run = submit(on_cluster, resources=Resources(gpus=1))
    reason = until(lambda: run.status.reason)
    assert reason.startswith("no node has nvidia.com/gpu to spare (0/2 nodes are available")
    assert run.status.state is RunState.PENDING
    cluster.stage.store.delete("Pod", "other", NAMESPACE)
    assert run.wait(timeout_s=TIMEOUT_S).status.evidence["nodes"] == "node-1"


def test_an_image_that_nobody_has_is_the_reason_for_waiting(
    trainers: Trainers, submit: Callable[..., TrainingRun]
) -> None:
    run = submit(trainers(training_image="registry.test/none:1"))
    reason = until(lambda: run.status.reason)
    assert "registry.test/none:1" in reason
    run.cancel()


def test_a_quota_is_the_reason_for_waiting(
    cluster: KubernetesMock, on_cluster: KubernetesTrainer, submit: Callable[..., TrainingRun]
) -> None:
    cluster.stage.store.create(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "small", "namespace": NAMESPACE},
            "spec": {"hard": {"pods": "0"}},
        }
    )
    run = submit(on_cluster)
    assert "exceeded quota" in until(lambda: run.status.reason)
    run.cancel()


def test_a_cancelled_run_ends_and_stays_to_be_seen(
    cluster: KubernetesMock, on_cluster: KubernetesTrainer, submit: Callable[..., TrainingRun]
) -> None:
    run = submit(on_cluster, ENDLESS)
    until(lambda: b"up" in on_cluster.read_log(run.id, 0))
    run.cancel()
    with pytest.raises(CancelledError):
        run.wait(timeout_s=TIMEOUT_S)
    nodes = cluster.stage.nodes
    until(lambda: not any(nodes.pid(node, "train") for node in nodes.nodes))
    assert [status.id for status in on_cluster.list()] == [run.id]
    run.cancel()


def test_a_run_over_its_time_has_failed(
    on_cluster: KubernetesTrainer, submit: Callable[..., TrainingRun]
) -> None:
    run = submit(on_cluster, ENDLESS, resources=Resources(max_runtime_s=1))
    with pytest.raises(TrainingFailedError, match="over its time, 1 s"):
        run.wait(timeout_s=TIMEOUT_S)


def test_a_run_over_its_time_says_what_kept_it_from_beginning(
    trainers: Trainers, submit: Callable[..., TrainingRun]
) -> None:
    trainer = trainers(training_image="registry.test/none:1")
    run = submit(trainer, resources=Resources(max_runtime_s=2))
    with pytest.raises(TrainingFailedError, match=r"over its time, 2 s; .*registry.test/none:1"):
        run.wait(timeout_s=TIMEOUT_S)


def test_a_run_that_waits_for_its_volume_says_so(
    on_cluster: KubernetesTrainer, submit: Callable[..., TrainingRun]
) -> None:
    run = submit(on_cluster, data="pvc://nothing")
    assert "nothing" in until(lambda: run.status.reason)
    run.cancel()


def test_a_run_whose_node_is_drained_starts_anew_elsewhere(
    cluster: KubernetesMock, on_cluster: KubernetesTrainer, submit: Callable[..., TrainingRun]
) -> None:
    run = submit(on_cluster, "import pathlib, time\n" + ENDLESS)
    stage = cluster.stage
    first = until(lambda: [pod for pod in stage.store.list("Pod", NAMESPACE) if _runs(pod)])[0]
    drain(cluster, first)
    second = until(
        lambda: [
            pod
            for pod in stage.store.list("Pod", NAMESPACE)
            if _runs(pod) and pod["metadata"]["uid"] != first["metadata"]["uid"]
        ]
    )[0]
    assert second["metadata"]["labels"]["edgefleet.dev/run"] == run.id
    assert run.status.state is RunState.RUNNING
    run.cancel()


def drain(cluster: KubernetesMock, pod: dict[str, Any]) -> None:
    """Evict a pod as a drain of its node does."""
    with closing(Clients(KubernetesSettings(prefix="plant", kubeconfig=cluster.kubeconfig))) as by:
        name = pod["metadata"]["name"]
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": NAMESPACE},
        }
        by.call("POST", f"api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction", document=eviction)


def _runs(pod: dict[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running"


def test_several_machines_are_refused_where_nothing_runs_them(
    trainers: Trainers, submit: Callable[..., TrainingRun]
) -> None:
    with pytest.raises(UnsupportedError, match="no Kubeflow Trainer"):
        submit(trainers(training_runtime="torch-distributed"), resources=Resources(count=2))


def test_data_in_no_volume_of_the_address_are_refused(
    on_cluster: KubernetesTrainer, submit: Callable[..., TrainingRun]
) -> None:
    with pytest.raises(InvalidInputError, match="names no volume"):
        submit(on_cluster, data="pvc://")
    assert on_cluster.list() == ()


def test_a_node_of_no_such_kind_is_waited_for_where_nodes_come_by_themselves(
    cluster: KubernetesMock, trainers: Trainers, submit: Callable[..., TrainingRun]
) -> None:
    run = submit(trainers(training_autoscaled=True), resources=Resources(gpus=4))
    until(lambda: run.status.reason)
    cluster.stage.nodes.add_node("node-3", resources={"nvidia.com/gpu": "4"})
    assert run.wait(timeout_s=TIMEOUT_S).status.evidence["nodes"] == "node-3"


RANKS = """
import os, pathlib
from edgefleet import training
print("rank", os.environ["PET_NODE_RANK"], "of", os.environ["PET_NNODES"], flush=True)
(training.output_dir() / f"rank-{os.environ['PET_NODE_RANK']}").touch()
"""


def test_several_machines_are_a_train_job_whose_first_keeps_what_it_leaves(
    cluster: KubernetesMock, trainers: Trainers, submit: Callable[..., TrainingRun]
) -> None:
    install_trainer(cluster.stage.store, TRAINING_IMAGE)
    trainer = trainers(training_runtime="torch-distributed")
    assert trainer.max_machines == 8
    run = submit(trainer, RANKS, resources=Resources(count=2)).wait(timeout_s=TIMEOUT_S)
    assert run.status.evidence["kind"] == "TrainJob"
    assert list(run.logs()) == ["rank 0 of 2"]
    assert [path.name for path in run.outputs.iterdir()] == ["rank-0"]


def test_a_train_job_that_is_cancelled_ends_its_pods(
    cluster: KubernetesMock, trainers: Trainers, submit: Callable[..., TrainingRun]
) -> None:
    install_trainer(cluster.stage.store, TRAINING_IMAGE)
    trainer = trainers(training_runtime="torch-distributed")
    run = submit(trainer, ENDLESS, resources=Resources(count=2))
    until(lambda: b"up" in trainer.read_log(run.id, 0))
    run.cancel()
    assert run.status.state is RunState.CANCELLED
    until(lambda: not any(_runs(pod) for pod in cluster.stage.store.list("Pod", NAMESPACE)))


def test_a_namespace_that_is_restricted_takes_runs(
    cluster: KubernetesMock, on_cluster: KubernetesTrainer, submit: Callable[..., TrainingRun]
) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.stage.store.patch("Namespace", NAMESPACE, {"metadata": {"labels": labels}})
    submit(on_cluster).wait(timeout_s=TIMEOUT_S)


def volume_on(cluster: KubernetesMock, node: str, name: str) -> Path:
    """A claim of the fleet's namespace, bound to a folder of a node."""
    path = f"/volumes/{name}"
    terms = [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]
    amount = {"storage": "1Gi"}
    shared = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    store = cluster.stage.store
    store.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name},
            "spec": {
                **shared,
                "capacity": amount,
                "local": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": terms}]}},
            },
        }
    )
    store.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {**shared, "resources": {"requests": amount}, "volumeName": name},
        }
    )
    return cluster.stage.nodes.make_folder(node, path)


def test_data_in_a_volume_are_read_where_they_lie(
    cluster: KubernetesMock, trainers: Trainers, submit: Callable[..., TrainingRun]
) -> None:
    folder = volume_on(cluster, "node-2", "sensors")
    there = trainers(training_node_selector={"kubernetes.io/hostname": "node-2"})
    (folder / "2026").mkdir()
    (folder / "2026" / "in.txt").write_text("from the volume")
    text = "from edgefleet import training; print((training.data_dir() / 'in.txt').read_text())"
    run = submit(there, text, data="pvc://sensors/2026").wait(timeout_s=TIMEOUT_S)
    assert list(run.logs()) == ["from the volume"]
    assert run.status.evidence["nodes"] == "node-2"


KEEPING = """
import time
from edgefleet import training
kept = training.checkpoint_dir() / "step"
if kept.exists():
    print("again from", kept.read_text())
else:
    kept.write_text("7")
    print("up", flush=True)
    time.sleep(3600)
"""


def test_a_run_that_starts_anew_finds_what_it_kept(
    cluster: KubernetesMock, trainers: Trainers, submit: Callable[..., TrainingRun]
) -> None:
    volume_on(cluster, "node-1", "checkpoints")
    selector = {"kubernetes.io/hostname": "node-1"}
    trainer = trainers(training_checkpoints="checkpoints", training_node_selector=selector)
    run = submit(trainer, KEEPING)
    until(lambda: b"up" in trainer.read_log(run.id, 0))
    drain(cluster, cluster.stage.store.list("Pod", NAMESPACE)[0])
    run.wait(timeout_s=TIMEOUT_S)
    assert list(run.logs())[-1] == "again from 7"
