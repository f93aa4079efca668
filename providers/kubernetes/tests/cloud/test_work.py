"""Jobs, TrainJobs and claims in a cluster whose nodes run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.node_claims import PROVISIONER, fitting
from edgefleet_kubernetes.cloud.train_definitions import RUNTIME, install_trainer
from providers.kubernetes.tests.cloud.node_bench import (
    IMAGE,
    NAMESPACE,
    SLEEP,
    Bench,
    Object,
    condition,
    job,
    pod,
    python,
)


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """A cluster with two nodes."""
    for name in ("n-1", "n-2"):
        bench.cluster.add_node(name)
    return bench


def holds(bench: Bench, kind: str, name: str, which: str) -> bool:
    """Whether a condition of an object is true."""
    return condition(bench.find(kind, name), which).get("status") == "True"


def pods_of(bench: Bench, name: str = "train") -> list[Object]:
    """Pods of a Job."""
    return bench.store.list("Pod", NAMESPACE, labels=f"job-name={name}")


# ----------------------------------------------------------------------------------------- Jobs


def test_a_job_runs_to_its_end_and_says_so(bench: Bench) -> None:
    bench.create(job())
    eventually(lambda: holds(bench, "Job", "train", "Complete"))
    assert bench.status("Job", "train")["succeeded"] == 1
    assert bench.status("Job", "train")["completionTime"]
    assert bench.log(pods_of(bench)[0]["metadata"]["name"]) == "done\n"
    eventually(lambda: bench.events("train").get("Completed") == "Job completed")


def test_a_job_that_fails_too_often_has_failed(bench: Bench) -> None:
    bench.create(job(source="raise SystemExit(1)", backoffLimit=1))
    eventually(lambda: holds(bench, "Job", "train", "Failed"))
    found = bench.find("Job", "train")
    assert condition(found, "Failed")["reason"] == "BackoffLimitExceeded"
    assert found["status"]["failed"] == 2
    eventually(lambda: "BackoffLimitExceeded" in bench.events("train"))


def test_a_job_at_its_deadline_takes_its_pods_along(bench: Bench) -> None:
    bench.create(job(source=SLEEP, activeDeadlineSeconds=1))
    eventually(lambda: holds(bench, "Job", "train", "Failed"))
    assert condition(bench.find("Job", "train"), "Failed")["reason"] == "DeadlineExceeded"
    eventually(lambda: bench.cluster.pids("n-1") == bench.cluster.pids("n-2") == {})


def test_a_job_pauses_and_goes_on(bench: Bench) -> None:
    bench.create(job(source=SLEEP, suspend=True))
    eventually(lambda: holds(bench, "Job", "train", "Suspended"))
    assert pods_of(bench) == []
    bench.store.patch("Job", "train", {"spec": {"suspend": False}}, NAMESPACE)
    eventually(lambda: bench.status("Job", "train").get("ready") == 1)
    bench.store.patch("Job", "train", {"spec": {"suspend": True}}, NAMESPACE)
    eventually(lambda: pods_of(bench) == [])
    assert bench.status("Job", "train")["failed"] == 0


def test_each_index_runs_once_with_its_number(bench: Bench) -> None:
    source = "import os; print(os.environ['JOB_COMPLETION_INDEX'])"
    bench.create(job(source=source, completionMode="Indexed", completions=3, parallelism=2))
    eventually(lambda: holds(bench, "Job", "train", "Complete"))
    assert bench.status("Job", "train")["completedIndexes"] == "0-2"
    told = {bench.log(one["metadata"]["name"]) for one in pods_of(bench)}
    assert told == {"0\n", "1\n", "2\n"}


def test_a_job_goes_when_its_time_is_over(bench: Bench) -> None:
    bench.create(job(ttlSecondsAfterFinished=0))
    eventually(lambda: bench.store.find("Job", "train", NAMESPACE) is None)
    eventually(lambda: pods_of(bench) == [])


def test_a_job_that_is_deleted_takes_its_pods_along(bench: Bench) -> None:
    bench.create(job(source=SLEEP))
    eventually(lambda: bench.status("Job", "train").get("ready") == 1)
    bench.store.delete("Job", "train", NAMESPACE)
    eventually(lambda: pods_of(bench) == [])


def test_a_pod_that_is_lost_with_its_node_is_made_again(bench: Bench) -> None:
    bench.create(job(source=SLEEP))
    eventually(lambda: bench.status("Job", "train").get("ready") == 1)
    lost = pods_of(bench)[0]
    bench.cluster.power_off(lost["spec"]["nodeName"])
    other = {"n-1": "n-2", "n-2": "n-1"}[lost["spec"]["nodeName"]]
    eventually(
        lambda: any(
            one["spec"].get("nodeName") == other and one["status"]["phase"] == "Running"
            for one in pods_of(bench)
        )
    )


# ------------------------------------------------------------------------------------ TrainJobs


TELL = "import json, os; print(json.dumps(dict(os.environ)))"


def train_job(source: str = TELL, **spec: Any) -> Object:
    """A TrainJob on PyTorch's runtime."""
    trainer = {"numNodes": 2, "command": ["python", "-c", source], **spec.pop("trainer", {})}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "fit", "namespace": NAMESPACE},
        "spec": {"runtimeRef": {"name": RUNTIME}, "trainer": trainer, **spec},
    }


def check_contract(contracts: Path, document: Object) -> None:
    """Hold an object to the definition that its project publishes."""
    folder = contracts / "k8s"
    names = {"TrainJob": "trainer.kubeflow.org_trainjobs", "JobSet": "jobset.x-k8s.io_jobsets"}
    text = (folder / f"{names[document['kind']]}.yaml").read_text()
    version = yaml.safe_load(text)["spec"]["versions"][0]
    assert document["apiVersion"].endswith(f"/{version['name']}")
    jsonschema.Draft202012Validator(version["schema"]["openAPIV3Schema"]).validate(document)


def test_a_cluster_without_the_trainer_knows_no_train_jobs(bench: Bench) -> None:
    with pytest.raises(Refused, match='no kind "TrainJob" is registered'):
        bench.create(train_job())


def test_each_node_of_a_train_job_is_told_its_place(bench: Bench, contracts: Path) -> None:
    install_trainer(bench.store, IMAGE)
    wanted = train_job(
        trainer={
            "env": [{"name": "EPOCHS", "value": "3"}],
            "resourcesPerNode": {"requests": {"cpu": "1"}},
        }
    )
    bench.create(wanted)
    eventually(lambda: holds(bench, "TrainJob", "fit", "Complete"))
    told = [json.loads(bench.log(one["metadata"]["name"])) for one in pods_of(bench, "fit-node-0")]
    assert {one["PET_NODE_RANK"] for one in told} == {"0", "1"}
    assert {
        (one["PET_NNODES"], one["PET_NPROC_PER_NODE"], one["PET_MASTER_PORT"], one["EPOCHS"])
        for one in told
    } == {("2", "1", "29500", "3")}
    first = next(
        one for one in pods_of(bench, "fit-node-0") if one["spec"]["hostname"] == "fit-node-0-0"
    )
    assert {one["PET_MASTER_ADDR"] for one in told} == {first["status"]["podIP"]}
    check_contract(contracts, bench.find("TrainJob", "fit"))
    check_contract(contracts, bench.find("JobSet", "fit"))


def test_a_node_of_a_train_job_that_fails_is_tried_again(bench: Bench) -> None:
    install_trainer(bench.store, IMAGE)
    bench.create(train_job("import os; raise SystemExit(int(os.environ['PET_NODE_RANK']))"))
    # In place, up to the limit of its Job: JobSet has pods restart OnFailure.
    eventually(lambda: any(_restarts(one) for one in pods_of(bench, "fit-node-0")))
    bench.store.delete("TrainJob", "fit", NAMESPACE)
    eventually(lambda: pods_of(bench, "fit-node-0") == [])


def test_a_train_job_fails_with_its_job(bench: Bench) -> None:
    install_trainer(bench.store, IMAGE)
    runtime = bench.store.get("ClusterTrainingRuntime", RUNTIME)
    job_spec = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    job_spec["backoffLimit"] = 0
    bench.store.update(runtime)
    bench.create(train_job("raise SystemExit(1)"))
    eventually(lambda: holds(bench, "TrainJob", "fit", "Failed"))
    found = condition(bench.find("TrainJob", "fit"), "Failed")
    assert found["message"] == (
        "jobset failed due to one or more job failures (first failed job: fit-node-0)"
    )


def test_a_train_job_patches_the_pods_of_its_runtime(bench: Bench) -> None:
    install_trainer(bench.store, IMAGE)
    patch = {
        "containers": [{"name": "node", "env": [{"name": "MORE", "value": "1"}]}],
        "nodeSelector": {"kubernetes.io/hostname": "n-2"},
    }
    job_patch = {"name": "node", "template": {"spec": {"template": {"spec": patch}}}}
    spec = {"template": {"spec": {"replicatedJobs": [job_patch]}}}
    bench.create(
        train_job(SLEEP, runtimePatches=[{"manager": "test", "trainingRuntimeSpec": spec}])
    )
    eventually(lambda: bench.status("Job", "fit-node-0").get("ready") == 2)
    for one in pods_of(bench, "fit-node-0"):
        assert one["spec"]["nodeName"] == "n-2"
        assert {"name": "MORE", "value": "1"} in one["spec"]["containers"][0]["env"]


def _restarts(found: Object) -> int:
    statuses: Any = found["status"].get("containerStatuses") or ({},)
    return int(statuses[0].get("restartCount", 0))


def test_a_train_job_without_its_runtime_is_refused(bench: Bench) -> None:
    install_trainer(bench.store, IMAGE)
    bench.create(train_job(runtimeRef={"name": "none"}))
    eventually(lambda: holds(bench, "TrainJob", "fit", "Failed"))
    found = condition(bench.find("TrainJob", "fit"), "Failed")
    assert found["reason"] == "TrainingRuntimeNotSupported"


def test_a_train_job_pauses(bench: Bench) -> None:
    install_trainer(bench.store, IMAGE)
    bench.create(train_job(SLEEP, suspend=True))
    eventually(lambda: holds(bench, "TrainJob", "fit", "Suspended"))
    assert pods_of(bench, "fit-node-0") == []
    bench.store.patch("TrainJob", "fit", {"spec": {"suspend": False}}, NAMESPACE)
    eventually(lambda: bench.status("Job", "fit-node-0").get("ready") == 2)


# --------------------------------------------------------------------------------------- claims


def claim(storage: str = "1Gi", **spec: Any) -> Object:
    """A claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": NAMESPACE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": storage}},
            **spec,
        },
    }


def volume(name: str, storage: str, **spec: Any) -> Object:
    """A volume."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": storage},
            "hostPath": {"path": f"/mnt/{name}"},
            **spec,
        },
    }


def test_a_claim_takes_the_smallest_volume_that_fits() -> None:
    volumes = [volume("large", "9Gi"), volume("fits", "2Gi"), volume("small", "1Mi")]
    found = fitting(claim(), volumes)
    assert found is not None
    assert found["metadata"]["name"] == "fits"


@pytest.mark.parametrize(
    "spec",
    [
        {"claimRef": {"name": "other"}},
        {"storageClassName": "fast"},
        {"accessModes": ["ReadOnlyMany"]},
        {"capacity": {"storage": "1Ki"}},
    ],
)
def test_a_claim_takes_no_volume_that_does_not_fit(spec: dict[str, Any]) -> None:
    assert fitting(claim(), [volume("it", "2Gi", **spec)]) is None


def test_what_is_written_to_a_claim_outlives_the_pod(bench: Bench) -> None:
    bench.create(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "local-path"},
            "provisioner": PROVISIONER,
        }
    )
    bench.create(claim(storageClassName="local-path"))
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    write = python("import sys; open(sys.argv[1], 'w').write('kept')", "/data/it", **mount)
    bench.create(pod("first", write, volumes=volumes, restartPolicy="Never"))
    eventually(lambda: bench.phase("first") == "Succeeded")
    where = (bench.pod("first") or {})["spec"]["nodeName"]
    bench.store.delete("Pod", "first", NAMESPACE)
    read = python("import sys; print(open(sys.argv[1]).read())", "/data/it", **mount)
    bench.create(pod("second", read, volumes=volumes, restartPolicy="Never"))
    eventually(lambda: bench.phase("second") == "Succeeded")
    assert bench.log("second") == "kept\n"
    assert (bench.pod("second") or {})["spec"]["nodeName"] == where


def test_a_pod_follows_its_claim_to_the_node_of_the_volume(bench: Bench) -> None:
    where = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n-2"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [where]}]}
    bench.create(volume("disk", "2Gi", nodeAffinity={"required": required}))
    bench.create(claim(storageClassName="", volumeName="disk"))
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    names = ("first", "second", "third")
    for name in names:
        bench.create(pod(name, python(""), volumes=volumes, restartPolicy="Never"))
    eventually(lambda: [bench.phase(name) for name in names] == ["Succeeded"] * 3)
    assert {one["spec"]["nodeName"] for one in bench.store.list("Pod", NAMESPACE)} == {"n-2"}
