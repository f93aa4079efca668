"""What Kubeflow Trainer and JobSet add to a cluster, as far as the mock needs it: their kinds.

The definitions are the mock's own, with names, versions and members of kubeflow/trainer's and
kubernetes-sigs/jobset's; pod templates in them are not looked into before pods are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store

TRAINER, JOBSET = "trainer.kubeflow.org", "jobset.x-k8s.io"
RUNTIME = "torch-distributed"
Schema = dict[str, Any]
_ANY: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "format": "int32"}
_SWITCH: Schema = {"type": "boolean"}


def _object(*required: str, **members: Schema) -> Schema:
    found: Schema = {"type": "object", "properties": members}
    if required:
        found["required"] = list(required)
    return found


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_CONDITIONS = _list(
    _object(
        "type",
        "status",
        "reason",
        "message",
        "lastTransitionTime",
        type=_TEXT,
        status=_TEXT,
        reason=_TEXT,
        message=_TEXT,
        lastTransitionTime=_TEXT,
        observedGeneration=_COUNT,
    )
)
_COUNTS = dict.fromkeys(("active", "failed", "ready", "succeeded", "suspended"), _COUNT)
_SOURCE = _object(env=_list(_ANY), secretRef=_object("name", name=_TEXT), storageUri=_TEXT)
_TRAIN_JOB = _object(
    "runtimeRef",
    activeDeadlineSeconds={**_COUNT, "minimum": 1},
    initializer=_object(dataset=_SOURCE, model=_SOURCE),
    managedBy=_TEXT,
    runtimePatches=_list(_object("manager", manager=_TEXT, time=_TEXT, trainingRuntimeSpec=_ANY)),
    runtimeRef=_object("name", apiGroup=_TEXT, kind=_TEXT, name=_TEXT),
    suspend=_SWITCH,
    trainer=_object(
        args=_list(_TEXT),
        command=_list(_TEXT),
        env=_list(_ANY),
        image=_TEXT,
        numNodes=_COUNT,
        numProcPerNode=_COUNT,
        resourcesPerNode=_ANY,
    ),
)
_TRAIN_STATUS = _object(
    conditions=_CONDITIONS,
    jobsStatus=_list(_object("name", name=_TEXT, **_COUNTS)),
    trainerStatus=_ANY,
)
_REPLICATED = _object(
    "name",
    "template",
    dependsOn=_list(_ANY),
    groupName=_TEXT,
    name=_TEXT,
    replicas=_COUNT,
    template=_ANY,
)
_JOB_SET = _object(
    failurePolicy=_ANY,
    managedBy=_TEXT,
    network=_object(enableDNSHostnames=_SWITCH, publishNotReadyAddresses=_SWITCH, subdomain=_TEXT),
    replicatedJobs=_list(_REPLICATED),
    startupPolicy=_ANY,
    successPolicy=_ANY,
    suspend=_SWITCH,
    ttlSecondsAfterFinished=_COUNT,
)
_JOB_SET_STATUS = _object(
    conditions=_CONDITIONS,
    replicatedJobsStatus=_list(_object("name", name=_TEXT, **_COUNTS)),
    restarts=_COUNT,
    terminalState=_TEXT,
)
_RUNTIME = _object(
    "template",
    mlPolicy=_ANY,
    podGroupPolicy=_ANY,
    template=_object(metadata=_ANY, spec=_JOB_SET),
)


def _definition(
    group: str,
    version: str,
    kind: str,
    spec: Schema,
    status: Schema | None = None,
    *,
    cluster: bool = False,
) -> Object:
    plural = f"{kind.lower()}s"
    members = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": {"type": "object"}, "spec": spec}
    if status is not None:
        members["status"] = status
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Cluster" if cluster else "Namespaced",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": members}},
                    **({"subresources": {"status": {}}} if status is not None else {}),
                }
            ],
        },
    }


def definitions() -> list[Object]:
    """The custom resource definitions."""
    return [
        _definition(TRAINER, "v1alpha1", "TrainJob", _TRAIN_JOB, _TRAIN_STATUS),
        _definition(TRAINER, "v1alpha1", "ClusterTrainingRuntime", _RUNTIME, cluster=True),
        _definition(TRAINER, "v1alpha1", "TrainingRuntime", _RUNTIME),
        _definition(JOBSET, "v1alpha2", "JobSet", _JOB_SET, _JOB_SET_STATUS),
    ]


def torch_runtime(image: str) -> Object:
    """The runtime for PyTorch that Kubeflow Trainer comes with, with another image."""
    container = {"name": "node", "image": image}
    step = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    job = {
        "name": "node",
        "template": {
            "metadata": {"labels": step},
            "spec": {"template": {"spec": {"containers": [container]}}},
        },
    }
    return {
        "apiVersion": f"{TRAINER}/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": RUNTIME, "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"replicatedJobs": [job]}},
        },
    }


def install_trainer(store: Store, image: str) -> None:
    """Have Kubeflow Trainer in a cluster; no error when it is there.

    Args:
        store: of the API server.
        image: of the runtime for PyTorch.
    """
    for one in (*definitions(), torch_runtime(image)):
        if store.find(one["kind"], one["metadata"]["name"]) is None:
            store.create(one)
